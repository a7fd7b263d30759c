"""Buckets of Google Cloud Storage. The only importer of its libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfs.repository.storage.cloud import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    RemoteFile,
    missing_extra,
)

_TIMEOUTS_S = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)


class GsBucket:
    """A bucket, with Google's default credentials; without any, read as a public one."""

    def __init__(self, name: str) -> None:
        self._client = _client()
        self._bucket = self._client.bucket(name)
        self._options = {"timeout": _TIMEOUTS_S, "retry": _retry()}

    def folders(self, folder: str) -> Iterator[str]:
        found = self._client.list_blobs(self._bucket, prefix=folder, delimiter="/", **self._options)
        for page in found.pages:
            for prefix in page.prefixes:
                yield prefix.removeprefix(folder).rstrip("/")

    def files(self, folder: str) -> Iterator[RemoteFile]:
        for blob in self._client.list_blobs(self._bucket, prefix=folder, **self._options):
            yield RemoteFile(blob.name, blob.size, str(blob.generation))

    def download(self, path: str, target: Path) -> None:
        self._bucket.blob(path).download_to_filename(str(target), **self._options)

    def close(self) -> None:
        self._client.close()


def _client() -> Any:
    try:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud.storage import Client
    except ImportError:
        raise missing_extra("gs", "google-cloud-storage", "gs") from None
    try:
        return Client(project=None)  # reading takes none
    except DefaultCredentialsError:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise
        return Client.create_anonymous_client()


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(READ_TIMEOUT_S)
