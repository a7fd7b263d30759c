"""Versions of models in clouds: S3 against a real S3 server process, the others against servers
in this process, all on loopback and through the clouds' own libraries."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import clouds
import models
import pytest
from conftest import loopback, wait_until

from kfs.cli.app import Server
from kfs.errors import ModelLoadError
from kfs.repository.storage import open_storage
from kfs.repository.storage.cloud import CloudStorage
from kfs.settings import ModelSettings


class Cloud(Protocol):
    """A cloud with a bucket named `models`."""

    scheme: str

    def url(self, path: str) -> str: ...

    def put(self, path: str, data: bytes) -> None: ...

    def delete(self, path: str) -> None: ...


class S3:
    """The bucket of the S3 server."""

    scheme = "s3"

    def __init__(self, client: Any) -> None:
        self._client = client

    def url(self, path: str) -> str:
        return f"s3://models/{path}"

    def put(self, path: str, data: bytes) -> None:
        self._client.put_object(Bucket="models", Key=path, Body=data)

    def delete(self, path: str) -> None:
        self._client.delete_object(Bucket="models", Key=path)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None, "the S3 server did not start"
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    import boto3

    for name, value in {
        "S3_ENDPOINT": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    with closing(boto3.client("s3", endpoint_url=f"http://{s3_endpoint}")) as client:
        client.create_bucket(Bucket="models")
        yield S3(client)
        for item in client.list_objects_v2(Bucket="models").get("Contents", ()):
            client.delete_object(Bucket="models", Key=item["Key"])
        client.delete_bucket(Bucket="models")


@pytest.fixture(params=["s3", "gs", "az", "azfs"])
def cloud(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Cloud]:
    """Each cloud in turn, holding a small model `a` of one version."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        fill(s3)
        yield s3
        return
    monkeypatch.setattr("kfs.repository.storage.gs.READ_TIMEOUT_S", 0.5)  # retries end sooner
    fake, environment = getattr(clouds, request.param)()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    fill(fake)
    yield fake
    fake.stop()


def fill(cloud: Cloud) -> None:
    for name in ("1/m.xml", "1/m.bin", "1/notes.txt", "1/variables/variables.index", "x/m.xml"):
        cloud.put(f"a/{name}", name.encode())
    cloud.put("a/readme.xml", b"beside the versions")
    cloud.put("ab/7/m.onnx", b"another model, whose name begins the same")


@pytest.fixture
def open_model(cloud: Cloud) -> Iterator[Callable[[str], CloudStorage]]:
    """Open the storage of a path in the cloud; closed when the test is over."""
    opened: list[CloudStorage] = []

    def open_path(path: str) -> CloudStorage:
        storage = open_storage(cloud.url(path))
        assert isinstance(storage, CloudStorage)
        opened.append(storage)
        return storage

    yield open_path
    for storage in opened:
        storage.close()


OpenModel = Callable[[str], CloudStorage]


def copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("kfs-model-*"))


@pytest.mark.parametrize("path", ["a", "a/"])
def test_version_folders_are_listed_at_every_look(
    cloud: Cloud, open_model: OpenModel, path: str
) -> None:
    model = open_model(path)
    assert model.find_versions() == {1: cloud.url("a/1")}
    cloud.put("a/2/m.onnx", b"2")
    assert model.find_versions() == {1: cloud.url("a/1"), 2: cloud.url("a/2")}
    cloud.delete("a/2/m.onnx")
    assert model.find_versions() == {1: cloud.url("a/1")}


def test_versions_may_lie_at_the_root_of_a_bucket(cloud: Cloud, open_model: OpenModel) -> None:
    cloud.put("3/m.onnx", b"3")
    assert open_model("").find_versions() == {3: cloud.url("3")}
    folder = open_model("").fetch(cloud.url("3"))
    assert (folder.path / "m.onnx").read_bytes() == b"3"


def test_a_version_is_copied_to_a_private_folder(cloud: Cloud, open_model: OpenModel) -> None:
    folder = open_model("a").fetch(cloud.url("a/1"))
    files = {p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*") if p.is_file()}
    assert files == {"m.xml", "m.bin", "variables/variables.index"}
    assert (folder.path / "m.xml").read_bytes() == b"1/m.xml"
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert not folder.path.exists()


def test_large_and_empty_files_are_copied_whole(cloud: Cloud, open_model: OpenModel) -> None:
    data = bytes(range(256)) * (33 << 12)  # 33 MiB, more than one range of Azure's libraries
    cloud.put("large/1/m.xml", b"")
    cloud.put("large/1/m.bin", data)
    folder = open_model("large").fetch(cloud.url("large/1"))
    assert (folder.path / "m.bin").read_bytes() == data
    assert (folder.path / "m.xml").read_bytes() == b""


def after_each_download(
    monkeypatch: pytest.MonkeyPatch, model: CloudStorage, act: Callable[[], None]
) -> None:
    download = model._bucket.download

    def download_and_act(path: str, target: Path) -> None:
        download(path, target)
        act()

    monkeypatch.setattr(model._bucket, "download", download_and_act)


@pytest.mark.parametrize("changed", ["1/m.bin", "1/new.bin"])
def test_a_version_that_is_being_uploaded_is_not_served_by_half(
    cloud: Cloud,
    open_model: OpenModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: str,
) -> None:
    model = open_model("a")
    with monkeypatch.context() as during:
        after_each_download(during, model, lambda: cloud.put(f"a/{changed}", b"further"))
        with pytest.raises(ModelLoadError, match="its files changed while they were copied"):
            model.fetch(cloud.url("a/1"))
    assert not copies(tmp_path)
    assert (model.fetch(cloud.url("a/1")).path / Path(changed).name).read_bytes() == b"further"


def test_a_file_that_vanishes_leaves_nothing(
    cloud: Cloud, open_model: OpenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model("a")
    after_each_download(monkeypatch, model, lambda: cloud.delete("a/1/m.xml"))
    with pytest.raises(ModelLoadError, match=f"cannot download {cloud.url('a/1')}: "):
        model.fetch(cloud.url("a/1"))
    assert not copies(tmp_path)


@pytest.mark.parametrize("cloud", ["gs", "az", "azfs"], indirect=True)
def test_a_download_that_breaks_off_leaves_nothing(
    cloud: clouds.Cloud, open_model: OpenModel, tmp_path: Path
) -> None:
    cloud.cut = {"a/1/m.bin"}
    with pytest.raises(ModelLoadError, match=f"cannot download {cloud.url('a/1')}: "):
        open_model("a").fetch(cloud.url("a/1"))
    assert not copies(tmp_path)


@pytest.mark.parametrize("cloud", ["gs", "az"], indirect=True)
def test_a_file_name_that_leads_elsewhere_is_refused(
    cloud: Cloud, open_model: OpenModel, tmp_path: Path
) -> None:
    cloud.put("a/1/../../../m.bin", b"")
    with pytest.raises(ModelLoadError, match="refused the file name"):
        open_model("a").fetch(cloud.url("a/1"))
    assert not copies(tmp_path)


def test_a_version_that_vanished_is_an_error(
    cloud: Cloud, open_model: OpenModel, tmp_path: Path
) -> None:
    cloud.put("a/9/notes.txt", b"no model")
    with pytest.raises(ModelLoadError, match="there are no model files"):
        open_model("a").fetch(cloud.url("a/9"))
    assert not copies(tmp_path)


def test_a_bucket_that_is_not_there_is_told_in_one_line(cloud: Cloud) -> None:
    with closing(open_storage(f"{cloud.scheme}://nowhere/a")) as model:
        texts = set()
        for _ in range(2):
            with pytest.raises(ModelLoadError) as caught:
                model.find_versions()
            texts.add(str(caught.value))
    (text,) = texts
    assert text.startswith(f"cannot list {cloud.scheme}://nowhere/a: ")
    assert "\n" not in text


def test_new_versions_are_picked_up_and_copies_of_old_ones_removed(
    cloud: Cloud, tmp_path: Path
) -> None:
    def upload(version: int) -> None:
        for file in models.dummy(tmp_path / "local" / str(version)).iterdir():
            cloud.put(f"served/{version}/{file.name}", file.read_bytes())

    upload(1)
    with Server(loopback(ModelSettings("served", cloud.url("served")))) as server:
        assert server.catalog.find("served", "").version == 1
        (first,) = copies(tmp_path)
        upload(2)
        server.repository.poll()
        assert server.catalog.find("served", "").version == 2
        wait_until(lambda: first not in copies(tmp_path))
        assert len(copies(tmp_path)) == 1
    assert not copies(tmp_path), "and the other one when the server stops"


def test_a_version_that_lacks_files_waits_until_they_are_there(
    cloud: Cloud, tmp_path: Path
) -> None:
    xml, weights = (models.dummy(tmp_path / "local") / f"model.{kind}" for kind in ("xml", "bin"))
    for version, files in ((1, (xml, weights)), (2, (xml,))):
        for file in files:
            cloud.put(f"m/{version}/{file.name}", file.read_bytes())
    with Server(loopback(ModelSettings("m", cloud.url("m")))) as server:
        assert server.catalog.find("m", "").version == 1
        cloud.put("m/2/model.bin", weights.read_bytes())
        server.repository.poll()
        assert server.catalog.find("m", "").version == 2


@pytest.mark.parametrize("cloud", ["gs", "az", "azfs"], indirect=True)
def test_a_cloud_out_of_reach_retires_nothing(cloud: clouds.Cloud, tmp_path: Path) -> None:
    for file in models.dummy(tmp_path / "local").iterdir():
        cloud.put(f"kept/1/{file.name}", file.read_bytes())
    with Server(loopback(ModelSettings("kept", cloud.url("kept")))) as server:
        cloud.stop()
        server.repository.poll()
        assert server.catalog.find("kept", "").is_available
        assert f"cannot list {cloud.url('kept')}" in str(server.catalog.entry("kept").error)


def test_s3_out_of_reach_is_told(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "127.0.0.1:1")
    with (
        closing(open_storage("s3://models/a")) as model,
        pytest.raises(ModelLoadError, match="cannot list s3://models/a: Could not connect"),
    ):
        model.find_versions()


@pytest.mark.parametrize("path", ["s3://models/../a", "../a", "gs://", "az:///a"])
def test_refused_paths(path: str) -> None:
    with pytest.raises(ModelLoadError):
        open_storage(path)


@pytest.mark.parametrize("scheme", ["az", "azfs"])
@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "need AZURE_STORAGE_CONNECTION_STRING to be set"), ("nonsense", "cannot open ")],
)
def test_azure_without_a_usable_connection_string(
    monkeypatch: pytest.MonkeyPatch, scheme: str, value: str | None, text: str
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    if value:
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", value)
    with pytest.raises(ModelLoadError, match=text):
        open_storage(f"{scheme}://models/a")


@pytest.mark.parametrize("cloud", ["az", "azfs"], indirect=True)
def test_azure_is_reached_through_a_proxy_when_told(
    cloud: clouds.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server in the part of a proxy: the address it is asked for leads nowhere."""
    text = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    nowhere = text.replace(cloud.address, "http://azure.invalid")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", nowhere)
    monkeypatch.setenv("http_proxy", cloud.address)
    monkeypatch.setenv("AZURE_STORAGE_USE_HTTP_PROXY", "1")
    with closing(open_storage(cloud.url("a"))) as model:
        assert sorted(model.find_versions()) == [1]
    monkeypatch.delenv("AZURE_STORAGE_USE_HTTP_PROXY")
    with (
        closing(open_storage(cloud.url("a"))) as model,
        pytest.raises(ModelLoadError, match=r"azure\.invalid"),
    ):
        model.find_versions()


def test_google_credentials_that_are_not_there_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", missing)
    with pytest.raises(ModelLoadError, match=f"cannot open gs://models/a: File {missing} was not"):
        open_storage("gs://models/a")


@pytest.mark.parametrize(
    ("scheme", "module", "extra"),
    [
        ("s3", "boto3", "s3"),
        ("gs", "google.cloud.storage", "gs"),
        ("az", "azure.storage.blob", "az"),
        ("azfs", "azure.storage.fileshare", "az"),
    ],
)
def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, scheme: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModelLoadError, match=rf"pip install 'kfs-fast\[{extra}\]'"):
        open_storage(f"{scheme}://bucket/model")
