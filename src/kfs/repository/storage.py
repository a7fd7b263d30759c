"""Where versions of a model come from: a local folder, or a copy of one in S3."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from kfs.errors import ModelLoadError
from kfs.repository.folders import MAX_VERSION, find_versions

_VERSION = re.compile(r"[1-9][0-9]*")
_SUFFIXES = {".bin", ".onnx", ".xml", ".pdiparams", ".pdmodel", ".pb", ".tflite"}


@dataclass(frozen=True)
class ModelFolder:
    """The files of one version on this machine."""

    path: Path
    temporary: bool = False

    def remove(self) -> None:
        """Remove a downloaded copy; a local folder stays."""
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)


class Storage(Protocol):
    """A place with the versions of one model.

    Attributes:
        is_remote: whether it may be out of reach for a while.
    """

    is_remote: bool

    def find_versions(self) -> dict[int, str]:
        """Locations by version number. Raises ModelLoadError."""

    def fetch(self, location: str) -> ModelFolder:
        """The version's files as a local folder. Raises ModelLoadError."""


class LocalStorage:
    """A folder of this machine."""

    is_remote = False

    def __init__(self, base_path: str) -> None:
        self._base = Path(base_path)

    def find_versions(self) -> dict[int, str]:
        """Locations by version number."""
        return {number: str(path) for number, path in find_versions(self._base).items()}

    def fetch(self, location: str) -> ModelFolder:
        """The folder itself."""
        return ModelFolder(Path(location))


class S3Storage:
    """A prefix of an S3 bucket."""

    is_remote = True

    def __init__(self, base_path: str) -> None:
        self._base = base_path.rstrip("/")
        self._bucket, _, key = self._base.removeprefix("s3://").partition("/")
        self._prefix = f"{key}/" if key else ""

    def find_versions(self) -> dict[int, str]:
        """Locations by version number."""
        try:
            names = {key[len(self._prefix) :].partition("/") for key in self._keys(self._prefix)}
        except Exception as error:  # botocore's errors have no common base
            raise self._failed("list", self._base, error) from error
        return {
            int(name): f"{self._base}/{name}"
            for name, slash, _ in names
            if slash and _VERSION.fullmatch(name) and int(name) <= MAX_VERSION
        }

    def fetch(self, location: str) -> ModelFolder:
        """A private copy, complete or not there at all."""
        prefix = location.removeprefix(f"s3://{self._bucket}/").rstrip("/") + "/"
        folder = ModelFolder(Path(tempfile.mkdtemp(prefix="kfs-model-")), temporary=True)
        try:
            self._download(prefix, folder.path)
        except BaseException as error:
            folder.remove()
            if isinstance(error, Exception):
                raise self._failed("download", location, error) from error
            raise
        return folder

    def _download(self, prefix: str, folder: Path) -> None:
        client = _s3_client()
        for key in self._keys(prefix):
            name = PurePosixPath(key[len(prefix) :])
            if key.endswith("/") or not _is_wanted(name):
                continue
            if name.is_absolute() or ".." in name.parts:
                raise ValueError(f"refused the object name {key}")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(self._bucket, key, str(target))
        if not any(folder.iterdir()):  # it vanished after it was listed
            raise FileNotFoundError("there are no model files")

    def _keys(self, prefix: str) -> Iterator[str]:
        pages = _s3_client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
            yield from (item["Key"] for item in page.get("Contents", ()))

    def _failed(self, action: str, place: str, error: Exception) -> ModelLoadError:
        if isinstance(error, ModelLoadError):
            return error
        return ModelLoadError(f"cannot {action} {place}: {error}")


def open_storage(base_path: str) -> Storage:
    """The storage a base path names. Raises ModelLoadError."""
    if ".." in base_path.split("/"):
        raise ModelLoadError(f"the path {base_path} contains '..'")
    if base_path.startswith("s3://"):
        return S3Storage(base_path)
    if base_path.startswith(("gs://", "az://", "azfs://")):
        raise ModelLoadError(f"cannot read {base_path}: this kind of storage is not served yet")
    return LocalStorage(base_path)


def _is_wanted(name: PurePosixPath) -> bool:
    # A SavedModel's weights have names such as variables.data-00000-of-00001.
    return (
        name.suffix.lower() in _SUFFIXES
        or name.name == "mapping_config.json"
        or "variables" in name.parts[:-1]
    )


def _s3_client() -> Any:
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError:
        raise ModelLoadError("s3:// paths need boto3: pip install 'kfs-fast[s3]'") from None
    session = boto3.session.Session(region_name=os.environ.get("AWS_REGION"))
    options: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 15}
    options["retries"] = {"total_max_attempts": 2, "mode": "standard"}
    if session.get_credentials() is None:  # a public bucket
        options["signature_version"] = UNSIGNED
    endpoint = os.environ.get("S3_ENDPOINT")
    if endpoint and "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return session.client("s3", endpoint_url=endpoint or None, config=Config(**options))
