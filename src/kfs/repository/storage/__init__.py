"""Where versions of a model come from: a local folder, or copies of one in a cloud."""

from __future__ import annotations

from collections.abc import Callable

from kfs.errors import ModelLoadError
from kfs.repository.storage.azure import BlobContainer, FileShare
from kfs.repository.storage.base import ModelFolder, NoAnswerError, Storage
from kfs.repository.storage.cloud import Bucket, CloudStorage, one_line
from kfs.repository.storage.gs import GsBucket
from kfs.repository.storage.local import LocalStorage
from kfs.repository.storage.patient import PatientStorage, look_at
from kfs.repository.storage.s3 import S3Bucket

__all__ = ["ModelFolder", "NoAnswerError", "PatientStorage", "Storage", "look_at", "open_storage"]

_BUCKETS: dict[str, Callable[[str], Bucket]] = {
    "s3": S3Bucket,
    "gs": GsBucket,
    "az": BlobContainer,
    "azfs": FileShare,
}


def open_storage(base_path: str) -> Storage:
    """The storage that a base path names; a cloud is not spoken to yet.

    Raises:
        ModelLoadError: the path is none, or its cloud needs what is not installed or not set.
    """
    if ".." in base_path.split("/"):
        raise ModelLoadError(f"the path {base_path} contains '..'")
    scheme, separator, rest = base_path.partition("://")
    if not separator or scheme not in _BUCKETS:
        return LocalStorage(base_path)
    bucket, _, folder = rest.partition("/")
    if not bucket:
        raise ModelLoadError(f"expected a path such as {scheme}://bucket/model; found {base_path}")
    try:
        return CloudStorage(base_path, _BUCKETS[scheme](bucket), folder)
    except ModelLoadError:
        raise
    except Exception as error:  # the libraries' errors have no common base
        raise ModelLoadError(f"cannot open {base_path}: {one_line(error)}") from error
