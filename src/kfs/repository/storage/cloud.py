"""Versions in a cloud: listed like folders, and copied whole or not at all."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from kfs.errors import ModelLoadError
from kfs.repository.folders import number_versions
from kfs.repository.storage.base import ModelFolder

_SUFFIXES = {".bin", ".onnx", ".xml", ".pdiparams", ".pdmodel", ".pb", ".tflite"}

#: Seconds to wait for a connection, and for each answer on it: other models wait meanwhile.
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 15


class RemoteFile(NamedTuple):
    """One file as a listing tells it.

    Attributes:
        path: from the root of the bucket.
        tag: what changes whenever the content does.
    """

    path: str
    nbytes: int
    tag: str


class Bucket(Protocol):
    """The few calls that clouds have in common.

    A folder is a path from the root of the bucket that ends with a slash; the root is empty. Calls
    raise whatever the cloud's library raises.
    """

    def folders(self, folder: str) -> Iterable[str]:
        """Names of the folders directly in a folder."""

    def files(self, folder: str) -> Iterable[RemoteFile]:
        """Every file in a folder and below it."""

    def download(self, path: str, target: Path) -> None:
        """Copy one file."""

    def close(self) -> None:
        """Let go of connections."""


class CloudStorage:
    """A folder of a bucket.

    Args:
        base_path: its address, for messages and locations.
        folder: the same from the root of the bucket.
    """

    is_remote = True

    def __init__(self, base_path: str, bucket: Bucket, folder: str) -> None:
        self._base = base_path.rstrip("/")
        self._bucket = bucket
        self._folder = _with_slash(folder.rstrip("/"))

    def find_versions(self) -> dict[int, str]:
        """Locations by version number. Raises ModelLoadError."""
        try:
            names = sorted(set(self._bucket.folders(self._folder)))
        except Exception as error:  # the libraries' errors have no common base
            raise self._failed("list", self._base, error) from error
        return number_versions(self._base, names)

    def fetch(self, location: str) -> ModelFolder:
        """A private copy, complete or not there at all. Raises ModelLoadError."""
        source = self._folder + _with_slash(location.removeprefix(f"{self._base}/"))
        folder = ModelFolder(Path(tempfile.mkdtemp(prefix="kfs-model-")), temporary=True)
        try:
            self._copy(source, folder.path)
        except BaseException as error:
            folder.remove()
            if isinstance(error, Exception):
                raise self._failed("download", location, error) from error
            raise
        return folder

    def close(self) -> None:
        self._bucket.close()

    def _copy(self, source: str, folder: Path) -> None:
        files = self._model_files(source)
        if not files:  # it vanished after it was listed, or nothing is uploaded yet
            raise FileNotFoundError("there are no model files")
        for file in files:
            target = folder / _inside(file.path.removeprefix(source))
            target.parent.mkdir(parents=True, exist_ok=True)
            self._bucket.download(file.path, target)
        if self._model_files(source) != files:
            raise BlockingIOError("its files changed while they were copied; is it being uploaded?")

    def _model_files(self, source: str) -> list[RemoteFile]:
        return sorted(
            file
            for file in self._bucket.files(source)
            if not file.path.endswith("/")  # some clouds have files that stand for folders
            and _is_wanted(PurePosixPath(file.path.removeprefix(source)))
        )

    def _failed(self, action: str, place: str, error: Exception) -> ModelLoadError:
        return ModelLoadError(f"cannot {action} {place}: {one_line(error)}")


def missing_extra(scheme: str, library: str, extra: str) -> ModelLoadError:
    """What to say when a cloud's library is not installed."""
    return ModelLoadError(f"{scheme}:// paths need {library}: pip install 'kfs-fast[{extra}]'")


def one_line(error: Exception) -> str:
    """An error in one line, which stays the same as long as the error does.

    Request ids and dates follow in later lines; addresses of objects differ each time.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r" at 0x[0-9a-f]+", "", line)


def _with_slash(folder: str) -> str:
    return f"{folder}/" if folder else ""


def _inside(name: str) -> PurePosixPath:
    """A name that leads nowhere but below the folder it is put in."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"refused the file name {name}")
    return path


def _is_wanted(name: PurePosixPath) -> bool:
    # A SavedModel's weights have names such as variables.data-00000-of-00001.
    return (
        name.suffix.lower() in _SUFFIXES
        or name.name == "mapping_config.json"
        or "variables" in name.parts[:-1]
    )
