"""Buckets of Amazon S3 and of servers that speak as it does. The only importer of boto3."""

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


class S3Bucket:
    """A bucket, with the credentials of the environment; without any, read as a public one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client = _client()

    def folders(self, folder: str) -> Iterator[str]:
        for page in self._pages(Prefix=folder, Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].removeprefix(folder).rstrip("/")

    def files(self, folder: str) -> Iterator[RemoteFile]:
        for page in self._pages(Prefix=folder):
            for item in page.get("Contents", ()):
                yield RemoteFile(item["Key"], item["Size"], item["ETag"])

    def download(self, path: str, target: Path) -> None:
        self._client.download_file(self._name, path, str(target))

    def close(self) -> None:
        self._client.close()

    def _pages(self, **arguments: str) -> Any:
        return self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._name, **arguments
        )


def _client() -> Any:
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError:
        raise missing_extra("s3", "boto3", "s3") from None
    session = boto3.session.Session(region_name=os.environ.get("AWS_REGION"))
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"total_max_attempts": 2, "mode": "standard"},
    }
    if session.get_credentials() is None:
        options["signature_version"] = UNSIGNED
    endpoint = os.environ.get("S3_ENDPOINT")
    if endpoint and "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return session.client("s3", endpoint_url=endpoint or None, config=Config(**options))
