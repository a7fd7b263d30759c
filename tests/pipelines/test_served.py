"""Pipelines over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import grpc
import numpy as np
import pytest
from conftest import loopback
from pipelines.pipes import X, entry, load, model, model_catalog
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli.app import Server
from kfs.repository.versions import PIPELINE

CONFIGS = [
    entry(["b"], [model("n", "dummy", b="request.b")], name="one", a="n.a"),
    entry(["b"], [model("n", "dummy", b="request.b")], split=-1, name="shards", a="n.a"),
    entry(["s"], [model("n", "strings", {"s": "input"}, input="request.s")], name="text", s="n.s"),
    entry(["i"], [model("n", "image", {"o": "input"}, input="request.i")], name="picture", o="n.o"),
    entry(["i"], [model("n", "image", {"o": "input"}, input="request.i")], split=2, name="album",
          o="n.o"),
    entry(["i"], [model("n", "image", {"o": "input"}, input="request.i")], split=-1, name="roll",
          o="n.o"),
    entry(["i"], [model("n", "image", {"o": "input"}, input="request.i"),
                  model("join", "film", {"o": "input"}, gather="request", input="n.o"),
                  model("all", "film", {"o": "input"}, gather="request", input="request.i")],
          split=2, name="reel", all="all.o", each="join.o"),
    entry(["b", "unused"], [model("n", "dummy", b="request.b")], name="lazy", a="n.a"),
    entry(["t"], [model("n", "bytes", {"o": "input"}, input="request.t")], name="words",
          answer_string="n.o"),
    entry(["b"], [model("h", "to_bf16", b="request.b"), model("n", "from_bf16", b="h.a")],
          name="half", h="h.a", a="n.a"),
    entry(["b"], [model("n", "dummy", b="request.b")], name="through", a="n.a", b="request.b"),
]  # fmt: skip


@contextmanager
def refusal(code: str, text: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code().name == code, caught.value.details()
    assert text in caught.value.details()


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


@pytest.mark.parametrize("version", ["", "0", "1", "55", "-3"])
def test_versions_are_not_looked_at(stub: Stub, version: str) -> None:
    request = infer_request("one", raw=X.tobytes())
    request.model_version = version
    assert stub.ModelInfer(request, timeout=30).model_version == "1"


@pytest.mark.parametrize("version", ["abc", "1.0", "01", "+1"])
def test_but_they_have_to_be_versions(stub: Stub, version: str) -> None:
    request = infer_request("one", raw=X.tobytes())
    request.model_version = version
    with refusal("INVALID_ARGUMENT", "invalid model version format in request"):
        stub.ModelInfer(request, timeout=30)
    assert stub.ModelReady(pb.ModelReadyRequest(name="one", version=version), timeout=30).ready
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="one", version=version), timeout=30)
    assert list(metadata.versions) == ["1"]


def test_an_input_that_nothing_uses_is_not_to_be_sent(stub: Stub) -> None:
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="lazy"), timeout=30)
    assert [found.name for found in metadata.inputs] == ["b"]
    request = infer_request("lazy", raw=X.tobytes())
    assert stub.ModelInfer(request, timeout=30).raw_output_contents[0] == (X + 1).tobytes()
    request.inputs.add(name="unused", datatype="FP32", shape=[1, 10])
    request.raw_input_contents.append(X.tobytes())
    with refusal("INVALID_ARGUMENT", "Invalid number of inputs - Expected: 1; Actual: 2"):
        stub.ModelInfer(request, timeout=30)


def test_what_goes_straight_through_is_no_output(stub: Stub) -> None:
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="through"), timeout=30)
    assert [(found.name, found.datatype, list(found.shape)) for found in metadata.outputs] == [
        ("a", "FP32", [1, 10]), ("b", "INVALID", []),
    ]  # fmt: skip
    request = infer_request("through", raw=X.tobytes())
    with refusal("INVALID_ARGUMENT", "Output b"):
        stub.ModelInfer(request, timeout=30)
    request.outputs.add(name="a")
    assert stub.ModelInfer(request, timeout=30).raw_output_contents[0] == (X + 1).tobytes()


def test_bfloat16_is_told_but_not_sent(stub: Stub) -> None:
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="half"), timeout=30)
    assert [(found.name, found.datatype) for found in metadata.outputs] == [
        ("a", "FP32"), ("h", "BF16"),
    ]  # fmt: skip
    request = infer_request("half", raw=X.tobytes())
    with refusal("INVALID_ARGUMENT", "Output h has the precision BF16, which cannot be sent"):
        stub.ModelInfer(request, timeout=30)
    request.outputs.add(name="a")
    assert stub.ModelInfer(request, timeout=30).raw_output_contents == [X.tobytes()]


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


def encoded(*size: int) -> bytes:
    return bytes(cv2.imencode(".png", np.full((*size, 3), (36, 27, 237), np.uint8))[1].tobytes())


def test_as_many_images_as_the_client_likes(stub: Stub) -> None:
    images = [encoded(8, 6), encoded(8, 6), encoded(16, 12)]
    request = infer_request("roll", "i", "BYTES", [3], bytes_contents=images)
    response = stub.ModelInfer(request, timeout=30)
    assert list(response.outputs[0].shape) == [3, 1, 8, 6, 3]
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="roll"), timeout=30)
    assert list(metadata.inputs[0].shape) == [-1, 1, 8, 6, 3]


@pytest.mark.parametrize(
    ("name", "shape", "images", "text"),
    [
        ("album", [1, 2], 2, "Invalid number of shape dimensions"),
        ("album", [3], 3, "Invalid input batch size"),
        ("album", [2], 1, "Invalid input batch size"),
        ("roll", [2], 1, "Invalid input batch size"),
        ("shards", [1], 1, "Input does not accept BYTES"),
    ],
)
def test_images_that_do_not_fit(
    stub: Stub, name: str, shape: list[int], images: int, text: str
) -> None:
    data = [encoded(8, 6)] * images
    tensor = "b" if name == "shards" else "i"
    with refusal("INVALID_ARGUMENT", text):
        stub.ModelInfer(infer_request(name, tensor, "BYTES", shape, bytes_contents=data))


def test_images_that_are_gathered_at_once_and_one_by_one(stub: Stub) -> None:
    request = infer_request(
        "reel", "i", "BYTES", [2], bytes_contents=[encoded(8, 6), encoded(16, 12)]
    )
    response = stub.ModelInfer(request, timeout=30)
    assert [list(output.shape) for output in response.outputs] == [[2, 1, 8, 6, 3]] * 2
    at_once, one_by_one = response.raw_output_contents
    assert at_once == one_by_one


def test_strings_in_rows(stub: Stub) -> None:
    words = [b"ala", b"", b"kota"]
    request = infer_request("words", "t", "BYTES", [3], bytes_contents=words)
    response = stub.ModelInfer(request, timeout=30)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [3])
    framed = b"".join(len(word).to_bytes(4, "little") + word for word in words)
    assert response.raw_output_contents[0] == framed


def test_a_stream(stub: Stub) -> None:
    requests = [infer_request("one", raw=(X + i).tobytes()) for i in range(3)]
    for i, answer in enumerate(stub.stream(requests)):
        assert answer.infer_response.raw_output_contents[0] == (X + i + 1).tobytes()
