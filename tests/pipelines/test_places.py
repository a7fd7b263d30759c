"""Outputs whose place in the response is known before the inference, and are written there."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import models
import numpy as np
import psutil
import pytest
from conftest import catalog_of
from openvino import opset13 as op
from pipelines.pipes import custom, entry, load, model, refused
from wire import Sink, infer_request

from kfs import errors
from kfs._fast.wire import read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.datatypes import DATATYPES
from kfs.errors import ServingError
from kfs.repository.catalog import Catalog
from kfs.servables.base import CallContext
from kfs.servables.pipeline import Pipeline
from kfs.settings import ModelSettings
from kfs.signature import Signature, TensorSpec, fixed
from kfs.tensors.arrays import Tensor, TensorMap

WIDTH = 150_000  # of which a shard has 600 KB
N = 8


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("places")
    for name, shape in {
        "row": (1, WIDTH),
        "large": (1, 4 * WIDTH),
        "nested": (2, 4, 1, WIDTH),
        "rows": (4, 1, WIDTH),
    }.items():
        models.dummy(root / name / "1", shape)
    folders = sorted(root.iterdir())
    return catalog_of(*(ModelSettings(folder.name, folder, nireq=2) for folder in folders))


def shards(count: int = N, width: int = WIDTH) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).random((count, 1, width), np.float32)


def respond(pipeline: Pipeline, x: np.ndarray[Any, Any], *outputs: str) -> bytes:
    request = infer_request(pipeline.name, "x", shape=x.shape, raw=x.tobytes(), id="7")
    for name in outputs:
        request.outputs.add(name=name)
    with CallContext() as call:
        return pipeline.respond(read_request(request.SerializeToString()), call)


def read(answer: bytes) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    message = pb.ModelInferResponse.FromString(answer)
    assert (message.id, message.model_version) == ("7", "1")
    return {
        tensor.name: np.frombuffer(raw, np.float32).reshape(tuple(tensor.shape))
        for tensor, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    }


@pytest.fixture
def gathering(catalog: Catalog) -> Pipeline:
    nodes = [model("one", "row", b="request.x"), model("two", "row", b="one.a")]
    return load(catalog, entry(["x"], nodes, split=N, once="one.a", twice="two.a"))


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak_nbytes(pipeline: Pipeline, x: np.ndarray[Any, Any], *outputs: str) -> int:
    """The most memory that a request takes, beside that of its own message."""
    message = infer_request(pipeline.name, "x", shape=x.shape, raw=x.tobytes())
    for name in outputs:
        message.outputs.add(name=name)
    request = read_request(message.SerializeToString())
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    with CallContext() as call:
        pipeline.respond(request, call)
    return tracemalloc.get_traced_memory()[1] - before


def test_shards_are_gathered_in_the_answer_itself(gathering: Pipeline, traced: None) -> None:
    x = shards()
    respond(gathering, x)  # whatever is made once
    assert peak_nbytes(gathering, x) < 2.1 * x.nbytes, "two outputs, and no copy of either"
    # The output that was not asked for is needed by another node, and gathered beside the answer.
    assert peak_nbytes(gathering, x, "twice") < 2.1 * x.nbytes


def test_an_answer_of_shards(gathering: Pipeline) -> None:
    x = shards()
    found = read(respond(gathering, x))
    assert list(found) == ["once", "twice"]
    assert np.array_equal(found["once"], x + 1)
    assert np.array_equal(found["twice"], x + 1 + 1)


@pytest.mark.parametrize("wanted", [["twice"], ["twice", "once"], ["once", "once"]])
def test_outputs_that_are_asked_for(gathering: Pipeline, wanted: list[str]) -> None:
    x = shards()
    answer = pb.ModelInferResponse.FromString(respond(gathering, x, *wanted))
    assert [tensor.name for tensor in answer.outputs] == wanted
    values = {"once": (x + 1).tobytes(), "twice": (x + 1 + 1).tobytes()}
    assert list(answer.raw_output_contents) == [values[name] for name in wanted]


def test_one_result_under_two_names(catalog: Catalog) -> None:
    config = entry(["x"], [model("n", "row", b="request.x")], split=N, a="n.a", b="n.a")
    x = shards()
    found = read(respond(load(catalog, config), x))
    assert np.array_equal(found["a"], x + 1)
    assert np.array_equal(found["b"], x + 1)


@pytest.mark.parametrize("count", [1, 2])
def test_few_shards(catalog: Catalog, count: int) -> None:
    config = entry(["x"], [model("n", "row", b="request.x")], split=count, a="n.a")
    x = shards(count)
    assert np.array_equal(read(respond(load(catalog, config), x))["a"], x + 1)


def test_shards_of_shards(catalog: Catalog, traced: None) -> None:
    nodes = [
        model("outer", "nested", b="request.x", split=2),
        model("inner", "rows", b="outer.a", split=4),
        model("each", "row", b="inner.a"),
    ]
    p = load(catalog, entry(["x"], nodes, y="each.a", z="inner.a"))
    x = shards().reshape(2, 4, 1, WIDTH)
    found = read(respond(p, x))
    assert np.array_equal(found["y"], x + 1 + 1 + 1)
    assert np.array_equal(found["z"], x + 1 + 1)


def test_openvino_writes_large_shards_there(catalog: Catalog, placed: list[list[int]]) -> None:
    config = entry(["x"], [model("n", "large", b="request.x")], split=3, a="n.a")
    x = shards(3, 4 * WIDTH)
    assert np.array_equal(read(respond(load(catalog, config), x))["a"], x + 1)
    assert placed == [[0]] * 3


def test_openvino_writes_the_output_of_the_last_model_there(
    catalog: Catalog, traced: None, placed: list[list[int]]
) -> None:
    nodes = [model("n", "large", b="request.x"), model("m", "large", b="n.a")]
    x = shards(1, 4 * WIDTH)[0]
    both = load(catalog, entry(["x"], nodes, a="n.a", b="m.a"))
    found = read(respond(both, x))
    assert np.array_equal(found["a"], x + 1)
    assert np.array_equal(found["b"], x + 1 + 1)
    assert placed == [[0], [0]]
    assert peak_nbytes(both, x) < 2.1 * x.nbytes


def test_an_answer_stays_what_it_is(gathering: Pipeline) -> None:
    first = respond(gathering, shards())
    copy = bytes(bytearray(first))
    respond(gathering, shards() + 1)
    assert first == copy


def test_in_a_stream_too(gathering: Pipeline) -> None:
    x = shards()
    request = infer_request("p", "x", shape=x.shape, raw=x.tobytes())
    wrong = infer_request("p", "x", shape=(1, 2), raw=bytes(8))
    sink = Sink()
    gathering.stream(
        (read_request(message.SerializeToString()) for message in (request, wrong, request)),
        CallContext,
        sink,
    )
    answers = [pb.ModelStreamInferResponse.FromString(message) for message in sink.sent]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    for answer in (answers[0], answers[2]):
        assert answer.infer_response.raw_output_contents[0] == (x + 1).tobytes()


class Made:
    """A library whose nodes say that they give FP32 [1,width], and give what they were told to."""

    def __init__(self, make: Callable[[Any], Any], width: int = 10) -> None:
        self._make = make
        self._width = width

    def initialize(self, params: Mapping[str, str]) -> Made:
        return self

    def describe(self) -> Signature:
        given, made = (
            TensorSpec("x", DATATYPES["FP32"], fixed(1, n), "...") for n in (-1, self._width)
        )
        return Signature((given,), (made,))

    def execute(self, inputs: Mapping[str, Tensor]) -> TensorMap:
        return {"x": self._make(inputs["x"])}

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("make", "code", "text"),
    [
        (lambda x: x[:, :7].copy(), "INTERNAL",
         "Node: response output: y Expected: (4,1,10); Actual: (4,1,7)"),
        (lambda x: x.astype(np.int32), "INTERNAL",
         "Node: response output: y Expected: precision FP32; Actual: I32"),
        (lambda x: x[:, : 10 - int(x[0, 0])].copy(), "INVALID_ARGUMENT",
         "Gathered tensors have inconsistent dimensions or precision - Node: n Expected: "),
        (lambda x: x if x[0, 0] == 0 else {}["none"], "INTERNAL", "Node: n"),
    ],
    ids=["all amiss", "all of another type", "one amiss", "one raises"],
)  # fmt: skip
def test_shards_that_do_not_fit(make: Callable[[Any], Any], code: str, text: str) -> None:
    node = custom("n", "made", {"y": "x"}, x="request.x")
    p = load(Catalog(), entry(["x"], [node], split=4, y="n.y"), {"made": Made(make)})
    x = np.zeros((4, 1, 10), np.float32)
    assert code == "INTERNAL" or np.array_equal(read(respond(p, x))["y"], x)
    x[2] = 2
    for _ in range(2):
        with refused(code, text):
            respond(p, x)


@pytest.mark.parametrize("width", [1 << 40, 1 << 62])
def test_a_promise_that_no_message_holds(width: int) -> None:
    node = custom("n", "made", {"y": "x"}, x="request.x")
    p = load(Catalog(), entry(["x"], [node], split=4, y="n.y"), {"made": Made(np.copy, width)})
    with refused("INTERNAL", f"Node: response output: y Expected: (4,1,{width}); Actual: (4,1,10)"):
        respond(p, np.zeros((4, 1, 10), np.float32))


def test_nothing_is_left_of_answers_that_failed() -> None:
    def make(x: Any) -> Any:
        if x[0, 0] == N - 1:
            raise ServingError(errors.CUSTOM_NODE_FAILED)
        return x

    node = custom("n", "made", {"y": "x"}, x="request.x")
    config = entry(["x"], [node], split=N, y="n.y")
    p = load(Catalog(), config, {"made": Made(make, WIDTH)})
    x = np.zeros((N, 1, WIDTH), np.float32)
    x[:, 0, 0] = np.arange(N)

    def fail() -> None:
        with suppress(ServingError):
            respond(p, x)
            raise AssertionError("it should have failed")

    for _ in range(5):
        fail()
    process = psutil.Process()
    before = process.memory_info().rss
    for _ in range(40):
        fail()
    assert process.memory_info().rss - before < 50 << 20, "of 190 MB"


def test_a_model_that_has_another_shape_by_now(tmp_path: Path) -> None:
    """Its names are as they were, so it is only found out by what it gives."""
    for name, width in (("wide", 400_000), ("narrow", 300_000)):
        x = models.parameter("b", [1, 400_000], "f32")
        zero, end, one = (op.constant(np.int64([v])) for v in (0, width, 1))
        kept = op.slice(op.add(x, op.constant(np.float32(1))), zero, end, one,
                        op.constant(np.int64([1])))  # fmt: skip
        models.save(tmp_path / name / "1", [x], {"a": kept})
    wide, narrow = (catalog_of(ModelSettings("m", tmp_path / name)) for name in ("wide", "narrow"))
    p = load(wide, entry(["x"], [model("n", "m", b="request.x")], y="n.a"))
    x = shards(1, 400_000)[0]
    assert np.array_equal(read(respond(p, x))["y"], x + 1)
    wide.snapshot = narrow.snapshot
    with refused("INTERNAL", "output: y Expected: (1,400000); Actual: (1,300000)"):
        respond(p, x)
