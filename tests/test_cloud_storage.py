"""Versions of models in S3, against a real S3 server process on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfs.errors import ModelLoadError
from kfs.repository import storage

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the S3 server did not start")


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name, value in {
        "S3_ENDPOINT": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client = storage._s3_client()
    client.create_bucket(Bucket="models")
    for key in ("1/m.xml", "1/m.bin", "1/notes.txt", "1/variables/variables.index", "x/m.xml"):
        client.put_object(Bucket="models", Key=f"a/{key}", Body=key.encode())
    return client


def test_lists_and_sees_new_versions(s3: Any) -> None:
    model = storage.open_storage("s3://models/a/")
    assert model.find_versions() == {1: "s3://models/a/1"}
    s3.put_object(Bucket="models", Key="a/2/m.onnx", Body=b"2")
    assert sorted(model.find_versions()) == [1, 2]
    s3.delete_object(Bucket="models", Key="a/2/m.onnx")


def test_downloads_a_private_copy(s3: Any) -> None:
    folder = storage.open_storage("s3://models/a").fetch("s3://models/a/1")
    files = {p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*") if p.is_file()}
    assert files == {"m.xml", "m.bin", "variables/variables.index"}
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert not folder.path.exists()


def test_an_object_that_vanishes_leaves_nothing(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        storage.S3Storage, "_keys", lambda *_: iter(["a/1/m.xml", "a/1/vanished.bin"])
    )
    with pytest.raises(ModelLoadError, match="cannot download s3://models/a/1"):
        storage.open_storage("s3://models/a").fetch("s3://models/a/1")
    assert not list(tmp_path.glob("kfs-model-*"))


def test_a_version_that_vanished_is_an_error(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there are no model files"):
        storage.open_storage("s3://models/a").fetch("s3://models/a/9")
    assert not list(tmp_path.glob("kfs-model-*"))


def test_missing_bucket(s3: Any) -> None:
    with pytest.raises(ModelLoadError, match="cannot list s3://nowhere/a"):
        storage.open_storage("s3://nowhere/a").find_versions()


def test_wrong_endpoint(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "127.0.0.1:1")
    with pytest.raises(ModelLoadError, match="cannot list"):
        storage.open_storage("s3://models/a").find_versions()


@pytest.mark.parametrize("path", ["s3://models/../a", "../a", "gs://a", "az://a", "azfs://a"])
def test_refused_paths(path: str) -> None:
    with pytest.raises(ModelLoadError):
        storage.open_storage(path)
