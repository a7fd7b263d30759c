"""Fixtures: a server on a free loopback port, and clients to talk to it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import models
import numpy as np
import pytest
import tritonclient.grpc as triton
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli.app import Server
from kfs.repository.catalog import Catalog
from kfs.repository.config import Wanted
from kfs.repository.repository import Repository
from kfs.servables.model.slots import Slot
from kfs.settings import ModelSettings, ServerSettings
from kfs.tensors.arrays import Array, Tensor

ServeModels = Callable[..., Server]


@contextmanager
def no_more_threads() -> Iterator[None]:
    """As on a system that has none left."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """For who runs what ends by signals in this process: processes inherit what is ignored."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository: a folder per model, each with version 1."""
    root = tmp_path_factory.mktemp("repository")
    models.dummy(root / "dummy" / "1")
    models.dummy(root / "dynamic" / "1", (ov_range(1, 5), -1))
    models.add_two(root / "add_two" / "1")
    for datatype in models.NUMERIC:
        models.identity(root / f"identity_{datatype}" / "1", datatype, [-1, -1])
    models.identity(root / "scalar" / "1", "FP32", [])
    models.identity(root / "strings" / "1", "BYTES", [-1])
    models.identity(root / "strings_2d" / "1", "BYTES", [-1, -1])
    models.identity(root / "u8_1d" / "1", "UINT8", [-1])
    models.identity(root / "u8_string" / "1", "UINT8", [-1, -1], output="text_STRING")
    models.identity(root / "u8_narrow" / "1", "UINT8", [2, 4])
    models.identity(root / "image" / "1", "FP32", [1, 8, 6, 3], "NHWC")
    models.identity(root / "images" / "1", "FP32", [-1, 8, 6, 3], "NHWC")
    models.identity(root / "image_nchw" / "1", "FP32", [1, 3, 8, 6], "NCHW")
    models.identity(root / "image_u8" / "1", "UINT8", [-1, -1, -1, 3], "NHWC")
    return root


def ov_range(low: int, high: int) -> object:
    import openvino as ov

    return ov.Dimension(low, high)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose inference takes long enough to see what happens meanwhile."""
    return models.slow(tmp_path_factory.mktemp("slow") / "1").parent


def slow_request(id: str = "") -> pb.ModelInferRequest:
    ones = np.ones((600, 600), np.float32)
    return infer_request("slow", shape=ones.shape, raw=ones.tobytes(), id=id)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        threading.Event().wait(0.001)


def catalog_of(*served: ModelSettings) -> Catalog:
    """Models that are loaded as a server would, without one."""
    catalog = Catalog()
    wanted = Wanted({model.name: model for model in served})
    Repository(catalog, lambda: wanted, None, lambda name, serving: None).load()
    assert all(entry.error is None for entry in catalog.snapshot.values())
    return catalog


def loopback(*served: ModelSettings) -> ServerSettings:
    return ServerSettings(models=served, port=0, grpc_bind_address=("127.0.0.1",))


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """For each inference, the outputs that OpenVINO writes to where they are wanted, by index."""
    found: list[list[int]] = []
    infer = Slot.infer

    def look(slot: Slot, inputs: Sequence[Tensor], places: Mapping[int, Array]) -> Sequence[Tensor]:
        found.append(sorted(places))
        return infer(slot, inputs, places)

    monkeypatch.setattr(Slot, "infer", look)
    return found


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """Every model of the repository, with two slots each."""
    served = [
        ModelSettings(name=folder.name, base_path=folder, nireq=2)
        for folder in sorted(repository.iterdir())
    ]
    with Server(loopback(*served)) as running:
        yield running


@pytest.fixture
def serve() -> Iterator[ServeModels]:
    """Start a server of the test's own; stopped when the test is over."""
    running: list[Server] = []

    def start(*served: ModelSettings) -> Server:
        server = Server(loopback(*served))
        server.__enter__()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop(0)


@pytest.fixture(scope="session")
def channel(server: Server) -> Iterator[grpc.Channel]:
    limit = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=limit) as channel:
        yield channel


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> Stub:
    """Calls on messages or raw bytes, as no client library would let us."""
    return Stub(channel)


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client
