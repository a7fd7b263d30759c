"""Large outputs of a fixed shape, which OpenVINO writes into the response itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import models
import numpy as np
import psutil
import pytest
from conftest import catalog_of
from openvino import opset13 as op
from wire import Sink, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.errors import ServingError
from kfs.servables.answers import _MIN_STRAIGHT_NBYTES
from kfs.servables.base import CallContext
from kfs.server.infer import InferHandler
from kfs.settings import ModelSettings

SHAPE = (1, 500_000)


# Layers that a plugin could be tempted to compute where the input lies.
IN_PLACE = {
    "relu": op.relu,
    "reshape": lambda x: op.reshape(x, op.constant(np.int64([500, 1000])), False),
    "convert": lambda x: op.convert(x, "f32"),
    "relu_reshape": lambda x: op.relu(op.reshape(x, op.constant(np.int64([500, 1000])), False)),
}


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> InferHandler:
    root = tmp_path_factory.mktemp("large")
    x = models.parameter("x", SHAPE, "f32")
    small = op.reduce_sum(x, op.constant(np.int64([1])), keep_dims=True)
    models.save(
        root / "sums" / "1", [x], {"plus": op.add(x, op.constant(np.float32(1))), "sum": small}
    )
    models.identity(root / "same" / "1", "FP32", SHAPE)
    for name, body in IN_PLACE.items():
        x = models.parameter("x", SHAPE, "f32")
        models.save(root / name / "1", [x], {"y": body(x)})
    models.identity(root / "text" / "1", "UINT8", (2, 600_000), output="a_string")
    names = ("sums", "same", "text", *IN_PLACE)
    settings = [ModelSettings(name, root / name, nireq=1) for name in names]
    return InferHandler(catalog_of(*settings))


def values(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).random(SHAPE, np.float32)


def ask(handler: InferHandler, model: str, seed: int, *outputs: str) -> bytes:
    request = infer_request(model, "x" if model == "sums" else "input", shape=SHAPE,
                            raw=values(seed).tobytes(), id="7")  # fmt: skip
    for name in outputs:
        request.outputs.add(name=name)
    return handler.infer(request.SerializeToString(), CallContext())


def read(answer: bytes) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    message = pb.ModelInferResponse.FromString(answer)
    assert (message.id, message.model_version) == ("7", "1")
    return {
        tensor.name: np.frombuffer(raw, np.float32).reshape(tuple(tensor.shape))
        for tensor, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    }


def test_the_response_holds_what_the_model_computed(handler: InferHandler) -> None:
    found = read(ask(handler, "sums", 1))
    assert list(found) == ["plus", "sum"]
    assert np.array_equal(found["plus"], values(1) + 1)
    assert found["sum"] == pytest.approx(values(1).sum(), rel=1e-4)


@pytest.mark.parametrize("model", ["sums", *IN_PLACE])
def test_openvino_writes_every_output_to_its_place(
    handler: InferHandler, model: str, placed: list[list[int]]
) -> None:
    request = infer_request(model, "x", shape=SHAPE, raw=values(1).tobytes())
    handler.infer(request.SerializeToString(), CallContext())
    assert placed == [[0, 1] if model == "sums" else [0]]


def test_an_output_that_is_asked_for_twice_is_there_twice(handler: InferHandler) -> None:
    request = infer_request("sums", "x", shape=SHAPE, raw=values(1).tobytes())
    request.outputs.extend([pb.ModelInferRequest.InferRequestedOutputTensor(name="plus")] * 2)
    answer = handler.infer(request.SerializeToString(), CallContext())
    expected = (values(1) + 1).tobytes()
    assert pb.ModelInferResponse.FromString(answer).raw_output_contents == [expected, expected]


def test_an_input_that_is_the_output_is_copied(handler: InferHandler) -> None:
    assert np.array_equal(read(ask(handler, "same", 2))["input"], values(2))


@pytest.mark.parametrize("model", IN_PLACE)
def test_layers_that_might_work_in_place(handler: InferHandler, model: str) -> None:
    for seed in (1, 2):
        request = infer_request(model, "x", shape=SHAPE, raw=values(seed).tobytes())
        data = request.SerializeToString()
        answer = pb.ModelInferResponse.FromString(handler.infer(data, CallContext()))
        assert answer.raw_output_contents[0] == values(seed).tobytes()
        assert data == request.SerializeToString(), "the request is as it was"


@pytest.mark.parametrize("wanted", [["sum"], ["sum", "plus"], ["plus"]])
def test_outputs_that_are_asked_for(handler: InferHandler, wanted: list[str]) -> None:
    found = read(ask(handler, "sums", 3, *wanted))
    assert list(found) == wanted
    if "plus" in found:
        assert np.array_equal(found["plus"], values(3) + 1)


def test_an_answer_stays_what_it_is_when_the_slot_infers_again(handler: InferHandler) -> None:
    first = ask(handler, "sums", 4)
    copy = bytes(bytearray(first))
    ask(handler, "sums", 5, "plus")
    ask(handler, "sums", 6)
    assert first == copy


def test_calls_on_one_slot_get_their_own_values(handler: InferHandler) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda seed: ask(handler, "sums", seed), range(24)))
    for seed, answer in enumerate(answers):
        assert np.array_equal(read(answer)["plus"], values(seed) + 1)


def test_in_a_stream_too(handler: InferHandler) -> None:
    sink = Sink()
    request = infer_request("same", "input", shape=SHAPE, raw=values(8).tobytes())
    handler.stream([request.SerializeToString()] * 2, CallContext, sink)
    for message in sink.sent:
        answer = pb.ModelStreamInferResponse.FromString(message).infer_response
        assert answer.raw_output_contents[0] == values(8).tobytes()


def test_rows_of_characters_are_strings_whatever_their_size(handler: InferHandler) -> None:
    rows = np.zeros((2, 600_000), np.uint8)
    rows[:, :3] = np.frombuffer(b"abc", np.uint8)
    request = infer_request("text", "input", "UINT8", rows.shape, raw=rows.tobytes())
    answer = pb.ModelInferResponse.FromString(
        handler.infer(request.SerializeToString(), CallContext())
    )
    assert answer.outputs[0].datatype == "BYTES"
    assert answer.raw_output_contents[0] == b"\3\0\0\0abc" * 2


def test_a_call_that_is_over_leaves_the_slot_as_it_was(handler: InferHandler) -> None:
    request = infer_request("sums", "x", shape=SHAPE, raw=values(1).tobytes())
    with pytest.raises(ServingError):
        handler.infer(request.SerializeToString(), CallContext(deadline=0.0))
    assert np.array_equal(read(ask(handler, "sums", 1))["plus"], values(1) + 1)


def test_answers_that_nobody_holds_are_freed(handler: InferHandler) -> None:
    def rss() -> int:
        return psutil.Process().memory_info().rss

    for seed in range(20):
        ask(handler, "sums", seed)
    before = rss()
    for seed in range(100):
        ask(handler, "sums", seed)
    assert rss() - before < 20 * _MIN_STRAIGHT_NBYTES
