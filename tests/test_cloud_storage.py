"""Versions of models in S3, against a real S3 server process on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import pytest
from conftest import loopback

from kfs.cli.app import Server
from kfs.errors import ModelLoadError
from kfs.repository import storage
from kfs.settings import ModelSettings


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


def test_a_model_in_s3_is_served_and_new_versions_are_picked_up(s3: Any, tmp_path: Path) -> None:
    def upload(version: int) -> None:
        folder = models.dummy(tmp_path / "local" / str(version))
        for file in folder.iterdir():
            s3.upload_file(str(file), "models", f"served/{version}/{file.name}")

    def copies() -> list[Path]:
        return sorted(tmp_path.glob("kfs-model-*"))

    upload(1)
    with Server(loopback(ModelSettings("served", "s3://models/served"))) as server:
        assert server.catalog.find("served", "").version == 1
        (first,) = copies()
        upload(2)
        server.repository.poll()
        assert server.catalog.find("served", "").version == 2
        (second,) = copies()
        assert second != first, "the copy of the retired version is gone"


def test_a_cloud_out_of_reach_retires_nothing(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in models.dummy(tmp_path / "local").iterdir():
        s3.upload_file(str(file), "models", f"kept/1/{file.name}")
    with Server(loopback(ModelSettings("kept", "s3://models/kept"))) as server:
        monkeypatch.setenv("S3_ENDPOINT", "127.0.0.1:1")
        server.repository.poll()
        assert server.catalog.find("kept", "").is_available
        assert "cannot list s3://models/kept" in str(server.catalog.entry("kept").error)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ModelLoadError, match=r"pip install 'kfs-fast\[s3\]'"):
        storage.open_storage("s3://bucket/model").find_versions()
