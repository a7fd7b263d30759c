"""Blob containers and file shares of Azure Storage. The only importer of its libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfs.errors import ModelLoadError
from kfs.repository.storage.cloud import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    RemoteFile,
    missing_extra,
)


class BlobContainer:
    """A container of blobs."""

    def __init__(self, name: str) -> None:
        try:
            from azure.storage.blob import BlobPrefix, ContainerClient
        except ImportError:
            raise missing_extra("az", "azure-storage-blob", "az") from None
        self._prefix_type = BlobPrefix
        self._client = ContainerClient.from_connection_string(
            _connection_string("az"), name, **_options()
        )

    def folders(self, folder: str) -> Iterator[str]:
        for item in self._client.walk_blobs(name_starts_with=folder, delimiter="/"):
            if isinstance(item, self._prefix_type):
                yield item.name.removeprefix(folder).rstrip("/")

    def files(self, folder: str) -> Iterator[RemoteFile]:
        for blob in self._client.list_blobs(name_starts_with=folder):
            yield RemoteFile(blob.name, blob.size, blob.etag)

    def download(self, path: str, target: Path) -> None:
        with target.open("wb") as file:
            self._client.download_blob(path).readinto(file)

    def close(self) -> None:
        self._client.close()


class FileShare:
    """A share of files, which has real folders."""

    def __init__(self, name: str) -> None:
        try:
            from azure.storage.fileshare import ShareClient
        except ImportError:
            raise missing_extra("azfs", "azure-storage-file-share", "az") from None
        self._client = ShareClient.from_connection_string(
            _connection_string("azfs"), name, **_options()
        )

    def folders(self, folder: str) -> Iterator[str]:
        return (item.name for item in self._items(folder) if item.is_directory)

    def files(self, folder: str) -> Iterator[RemoteFile]:
        folders = [folder]
        while folders:
            here = folders.pop()
            for item in self._items(here):
                if item.is_directory:
                    folders.append(f"{here}{item.name}/")
                else:
                    yield RemoteFile(f"{here}{item.name}", item.size, item.etag)

    def download(self, path: str, target: Path) -> None:
        with target.open("wb") as file:
            self._client.get_file_client(path).download_file().readinto(file)

    def close(self) -> None:
        self._client.close()

    def _items(self, folder: str) -> Any:
        return self._client.get_directory_client(folder.rstrip("/")).list_directories_and_files(
            include=["Etag"]
        )


def _connection_string(scheme: str) -> str:
    found = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    if not found:
        raise ModelLoadError(f"{scheme}:// paths need AZURE_STORAGE_CONNECTION_STRING to be set")
    return found


def _options() -> dict[str, Any]:
    return {
        "connection_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retry_total": 1,  # after a second, more or less
        "initial_backoff": 0,
        "increment_base": 1,
        "random_jitter_range": 1,
        # The proxies of the environment are left aside unless this is set, as in OVMS.
        "use_env_settings": "AZURE_STORAGE_USE_HTTP_PROXY" in os.environ,
    }
