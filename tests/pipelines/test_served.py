"""Pipelines over gRPC."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import grpc
import numpy as np
import pytest
from conftest import loopback
from pipelines.pipes import X, entry, load, model, model_catalog
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli.app import Server
from kfs.repository.catalog import PIPELINE

CONFIGS = [
    entry(["b"], [model("n", "dummy", b="request.b")], name="one", a="n.a"),
    entry(["b"], [model("n", "dummy", b="request.b")], split=-1, name="shards", a="n.a"),
    entry(["s"], [model("n", "strings", {"s": "input"}, input="request.s")], name="text", s="n.s"),
    entry(["i"], [model("n", "image", {"o": "input"}, input="request.i")], name="picture", o="n.o"),
    entry(["i"], [model("n", "image", {"o": "input"}, input="request.i")], split=2, name="album",
          o="n.o"),
]  # fmt: skip


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    with Server(loopback()) as server:
        made = model_catalog(tmp_path_factory.mktemp("served"))
        server.catalog.snapshot = made.snapshot
        for config in CONFIGS:
            pipeline = load(server.catalog, config)
            loading = server.catalog.begin(pipeline.name, 1, PIPELINE)
            server.catalog.publish(pipeline.name, loading, pipeline)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Stub(channel)


def test_inference(stub: Stub) -> None:
    for contents in ({"raw": X.tobytes()}, {"fp32_contents": X.ravel().tolist()}):
        response = stub.ModelInfer(infer_request("one", id="7", **contents), timeout=30)
        assert (response.model_name, response.model_version, response.id) == ("one", "1", "7")
        assert response.raw_output_contents[0] == (X + 1).tobytes()
        assert list(response.outputs[0].shape) == [1, 10]


def test_metadata(stub: Stub) -> None:
    found = stub.ModelMetadata(pb.ModelMetadataRequest(name="shards"), timeout=30)
    assert list(found.versions) == ["1"]
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [
        ("b", "FP32", [-1, 1, 10])
    ]
    assert stub.ModelReady(pb.ModelReadyRequest(name="one"), timeout=30).ready


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "x"}, "Missing input with specific name - Required input: b"),
        ({"shape": (1, -10)}, "Invalid input shape"),
        ({"datatype": "INT32"}, "Invalid input precision - Expected: FP32; Actual: INT32"),
        ({"shape": (1, 10, 3)}, "Expected: (1,10); Actual: (1,10,3)"),
        ({"shape": (2, 10)}, "Invalid input batch size"),
        ({"shape": (1, 11)}, "Invalid input shape"),
        ({"raw": b"1234"}, "Expected: 40 bytes; Actual: 4 bytes"),
    ],
)
def test_a_request_that_does_not_fit(stub: Stub, change: dict[str, object], text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(infer_request("one", **{"raw": X.tobytes(), **change}), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in caught.value.details()


def test_shards_and_none(stub: Stub) -> None:
    shards = np.arange(50, dtype=np.float32).reshape(5, 1, 10)
    request = infer_request("shards", shape=(5, 1, 10), raw=shards.tobytes())
    response = stub.ModelInfer(request, timeout=30)
    assert list(response.outputs[0].shape) == [5, 1, 10]
    assert response.raw_output_contents[0] == (shards + 1).tobytes()
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(infer_request("shards", shape=(0, 1, 10), raw=b""), timeout=30)
    assert caught.value.code() is grpc.StatusCode.ABORTED


def test_strings(stub: Stub) -> None:
    words = [b"ala", b"", b"ma", b"kota\0"]
    request = infer_request("text", "s", "BYTES", [4], bytes_contents=words)
    response = stub.ModelInfer(request, timeout=30)
    framed = b"".join(len(word).to_bytes(4, "little") + word for word in words)
    assert response.raw_output_contents[0] == framed


@pytest.mark.parametrize("size", [(8, 6), (16, 12)])
def test_images(stub: Stub, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), (36, 27, 237), np.uint8)
    data = cv2.imencode(".png", image)[1].tobytes()
    wanted = np.full((8, 6, 3), (36, 27, 237), np.float32)
    request = infer_request("picture", "i", "BYTES", [1], bytes_contents=[data])
    response = stub.ModelInfer(request, timeout=30)
    assert list(response.outputs[0].shape) == [1, 8, 6, 3]
    assert response.raw_output_contents[0] == wanted.tobytes()
    request = infer_request("album", "i", "BYTES", [2], bytes_contents=[data, data])
    response = stub.ModelInfer(request, timeout=30)
    assert list(response.outputs[0].shape) == [2, 1, 8, 6, 3]
    assert response.raw_output_contents[0] == wanted.tobytes() * 2


def test_a_stream(stub: Stub) -> None:
    requests = [infer_request("one", raw=(X + i).tobytes()) for i in range(3)]
    for i, answer in enumerate(stub.stream(requests)):
        assert answer.infer_response.raw_output_contents[0] == (X + i + 1).tobytes()
