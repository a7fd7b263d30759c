"""Pipelines of models: chains, fan-out, demultiplexing and gathering."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import no_more_threads
from pipelines.pipes import X, custom, entry, infer, load, model, model_catalog, refused

from kfs.datatypes import DATATYPES
from kfs.helpers import Helpers
from kfs.repository.catalog import Catalog
from kfs.servables.base import CallContext
from kfs.servables.model.slots import Slot
from kfs.servables.pipeline import run
from kfs.signature import Signature, TensorSpec, fixed
from kfs.tensors.arrays import StringTensor, Tensor, TensorMap


def test_one_node(models_catalog: Catalog) -> None:
    p = load(models_catalog, entry(["b"], [model("n", "dummy", b="request.b")], a="n.a"))
    assert p.version == 1
    assert [(s.name, s.datatype.name, s.static_shape) for s in p.signature.inputs] == [
        ("b", "FP32", (1, 10))
    ]
    assert np.array_equal(infer(p, b=X)["a"], X + 1)


def test_a_chain_of_a_hundred_stays_on_the_calling_thread(models_catalog: Catalog) -> None:
    nodes = [model(f"n{i}", "dummy", b=f"n{i - 1}.a" if i else "request.b") for i in range(100)]
    p = load(models_catalog, entry(["b"], nodes, a="n99.a"))
    before = threading.active_count()
    assert np.array_equal(infer(p, b=X)["a"], X + 100)
    assert threading.active_count() == before


def test_two_hundred_side_by_side(models_catalog: Catalog) -> None:
    names = [f"i{i}" for i in range(200)]
    nodes = [model(f"n{name}", "dummy", b=f"request.{name}") for name in names]
    p = load(models_catalog, entry(names, nodes, **{f"o{n}": f"n{n}.a" for n in names}))
    outputs = infer(p, **{name: X + i for i, name in enumerate(names)})
    for i, name in enumerate(names):
        assert np.array_equal(outputs[f"o{name}"], X + i + 1)


def test_renamed_and_shared(models_catalog: Catalog) -> None:
    nodes = [
        model("one", "dummy", {"y": "a"}, b="request.x"),
        model("two", "dummy", {"z": "a", "again": "a"}, b="request.x"),
        model("sum", "sum", {"s": "sum", "d": "difference"}, input1="one.y", input2="two.again"),
    ]
    p = load(models_catalog, entry(["x"], nodes, s="sum.s", d="sum.d", y="one.y", z="two.z"))
    outputs = infer(p, x=X)
    assert np.array_equal(outputs["s"], 2 * X + 2)
    assert np.array_equal(outputs["d"], 0 * X)
    assert np.array_equal(outputs["y"], X + 1)
    assert np.array_equal(outputs["z"], X + 1)


@pytest.mark.parametrize("count", [3, -1, 0])
def test_the_request_demultiplexed(models_catalog: Catalog, count: int) -> None:
    config = entry(["b"], [model("n", "dummy", b="request.b")], split=count, a="n.a")
    p = load(models_catalog, config)
    assert p.signature.inputs[0].metadata_shape == [count if count > 0 else -1, 1, 10]
    assert p.signature.outputs[0].metadata_shape == [count if count > 0 else -1, 1, 10]
    shards = np.arange(30, dtype=np.float32).reshape(3, 1, 10)
    assert np.array_equal(infer(p, b=shards)["a"], shards + 1)


def test_a_thousand_shards(models_catalog: Catalog) -> None:
    nodes = [model("n", "dummy", b="request.b"), model("m", "dummy", b="n.a")]
    p = load(models_catalog, entry(["b"], nodes, split=-1, a="m.a", n="n.a"))
    shards = np.arange(10_000, dtype=np.float32).reshape(1000, 1, 10)
    outputs = infer(p, b=shards)
    assert np.array_equal(outputs["a"], shards + 2)
    assert np.array_equal(outputs["n"], shards + 1)


def test_too_many_shards(models_catalog: Catalog) -> None:
    config = entry(["b"], [model("n", "dummy", b="request.b")], split=-1, a="n.a")
    p = load(models_catalog, config)
    assert infer(p, b=np.zeros((10_000, 1, 10), np.float32))["a"].shape == (10_000, 1, 10)
    with refused("INVALID_ARGUMENT", "Node: request output: b Expected: at most 10000"):
        infer(p, b=np.zeros((10_001, 1, 10), np.float32))
    with refused("ABORTED", "aborted due to no content from custom node"):
        infer(p, b=np.zeros((0, 1, 10), np.float32))


def test_inputs_with_different_numbers_of_shards(models_catalog: Catalog) -> None:
    node = model("n", "sum", {"s": "sum"}, input1="request.x", input2="request.y")
    p = load(models_catalog, entry(["x", "y"], [node], split=-1, s="n.s"))
    with refused("INVALID_ARGUMENT", "Wrong dimension size to demultiply"):
        infer(p, x=np.zeros((2, 1, 10), np.float32), y=np.zeros((3, 1, 10), np.float32))


def test_a_model_demultiplexes_and_another_gathers(models_catalog: Catalog) -> None:
    nodes = [
        model("split", "rows", b="request.b", split=4),
        model("each", "dummy", b="split.a"),
        model("join", "rows", b="each.a", gather="split"),
    ]
    p = load(models_catalog, entry(["b"], nodes, a="join.a"))
    values = np.arange(40, dtype=np.float32).reshape(4, 1, 10)
    assert p.signature.outputs[0].metadata_shape == [4, 1, 10]
    assert np.array_equal(infer(p, b=values)["a"], values + 3)


def test_nested(models_catalog: Catalog) -> None:
    outer = model("outer", "nested", b="request.b", split=3)
    inner = model("inner", "rows", b="outer.a", split=4)
    each = model("each", "dummy", b="inner.a")
    values = np.arange(120, dtype=np.float32).reshape(3, 4, 1, 10)
    p = load(models_catalog, entry(["b"], [each, inner, outer], a="each.a"))
    assert p.signature.outputs[0].metadata_shape == [3, 4, 1, 10]
    assert np.array_equal(infer(p, b=values)["a"], values + 3)
    join = model("join", "rows", b="each.a", gather="inner")
    p = load(models_catalog, entry(["b"], [outer, inner, each, join], a="join.a"))
    assert p.signature.outputs[0].metadata_shape == [3, 4, 1, 10]
    assert np.array_equal(infer(p, b=values)["a"], values + 4)
    p = load(models_catalog, entry(["b"], [outer, inner], a="inner.a"))
    assert np.array_equal(infer(p, b=values)["a"], values + 2)


@pytest.mark.parametrize("width", [0, 10, 20_000])
def test_models_hand_bfloat16_on(models_catalog: Catalog, width: int) -> None:
    nodes = [model("half", "to_bf16", b="request.b"), model("whole", "from_bf16", b="half.a")]
    p = load(models_catalog, entry(["b"], nodes, split=-1, half="half.a", whole="whole.a"))
    b = np.arange(3 * width, dtype=np.float32).reshape(3, 1, width) % 256
    outputs = infer(p, b=b)
    assert np.array_equal(outputs["whole"], b)
    assert outputs["half"].nbytes == b.nbytes // 2


def test_what_is_demultiplexed_gathered_at_once_is_itself(models_catalog: Catalog) -> None:
    nodes = [
        model("split", "rows", b="request.b", split=4),
        model("join", "rows", b="split.a", gather="split"),
    ]
    values = np.arange(40, dtype=np.float32).reshape(4, 1, 10)
    p = load(models_catalog, entry(["b"], nodes, a="join.a"))
    assert np.array_equal(infer(p, b=values)["a"], values + 2)
    p = load(models_catalog, entry(["b"], nodes[:1], a="split.a"))
    assert np.array_equal(infer(p, b=values)["a"], values + 1)


def test_one_node_gathers_and_demultiplexes(models_catalog: Catalog) -> None:
    nodes = [
        model("again", "rows", b="request.b", split=4, gather="request"),
        model("each", "dummy", b="again.a"),
    ]
    p = load(models_catalog, entry(["b"], nodes, split=4, a="each.a"))
    values = np.arange(40, dtype=np.float32).reshape(4, 1, 10)
    assert np.array_equal(infer(p, b=values)["a"], values + 2)


def test_batches(models_catalog: Catalog) -> None:
    nodes = [model("n", "dynamic", b="request.b"), model("m", "batches", b="n.a")]
    p = load(models_catalog, entry(["b"], nodes, a="m.a"))
    assert np.array_equal(infer(p, b=np.ones((5, 10), np.float32))["a"], np.full((5, 10), 3))
    with refused(
        "INVALID_ARGUMENT",
        "Invalid input batch size - Node: m input: b Invalid batch size - Expected: [1~5]; "
        "Actual: 6",
    ):
        infer(p, b=np.ones((6, 10), np.float32))
    with refused(
        "INVALID_ARGUMENT",
        "Invalid input shape - Node: m input: b Invalid shape - Expected: ([1~5],10); "
        "Actual: (6,11)",
    ):
        infer(p, b=np.ones((6, 11), np.float32))
    chain = [model(f"n{i}", "dynamic", b=f"n{i - 1}.a" if i else "request.b") for i in range(3)]
    p = load(models_catalog, entry(["b"], chain, a="n2.a"))
    assert infer(p, b=np.ones((0, 10), np.float32))["a"].shape == (0, 10)


def test_a_model_that_goes_away(tmp_path: Path) -> None:
    catalog = model_catalog(tmp_path, nireq=1)
    p = load(catalog, entry(["b"], [model("n", "dummy", b="request.b")], a="n.a"))
    catalog.find("dummy", "").retire()
    with refused("NOT_FOUND", "Node: n"):
        infer(p, b=X)


def test_one_slot_and_dozens_of_requests(tmp_path: Path) -> None:
    catalog = model_catalog(tmp_path, nireq=1)
    nodes = [
        model("n", "dummy", b="request.b"),
        model("m", "dummy", b="n.a"),
        model("s", "sum", {"a": "sum"}, input1="n.a", input2="m.a"),
    ]
    p = load(catalog, entry(["b"], nodes, split=-1, a="s.a", n="n.a"))

    def ask(number: int) -> bool:
        shards = np.full((16, 1, 10), number, np.float32)
        outputs = infer(p, b=shards)
        return bool((outputs["a"] == 2 * number + 3).all() and (outputs["n"] == number + 1).all())

    with ThreadPoolExecutor(48) as pool:
        assert all(pool.map(ask, range(144)))
    assert not catalog.find("dummy", "").leases


def test_one_slot_shared_by_pipelines_demultiplexers_and_bare_calls(tmp_path: Path) -> None:
    """Nested shards, a fan-out and calls of the model itself, all on one slot at a time."""
    catalog = model_catalog(tmp_path, nireq=1)
    nested = [
        model("outer", "nested", b="request.b", split=3),
        model("inner", "rows", b="outer.a", split=4),
        model("each", "dummy", b="inner.a"),
        model("again", "dummy", b="each.a"),
        model("join", "rows", b="again.a", gather="inner"),
    ]
    wide = [model(f"n{i}", "dummy", b="request.b") for i in range(12)]
    outputs = {f"o{i}": f"n{i}.a" for i in range(12)}
    deep = load(catalog, entry(["b"], nested, name="deep", a="join.a"))
    broad = load(catalog, entry(["b"], wide, name="broad", **outputs))
    cube = np.arange(120, dtype=np.float32).reshape(3, 4, 1, 10)

    def ask_deep(number: int) -> bool:
        return np.array_equal(infer(deep, b=cube + number)["a"], cube + number + 5)

    def ask_broad(number: int) -> bool:
        found = infer(broad, b=X + number)
        return len(found) == 12 and all((a == X + number + 1).all() for a in found.values())

    def ask_model(number: int) -> bool:
        with CallContext() as call, catalog.lease("dummy", "", call) as servable:
            return bool((servable.infer({"b": X + number}, call)["a"] == X + number + 1).all())

    asks = [ask_deep, ask_broad, ask_model]
    with ThreadPoolExecutor(48) as pool:
        answers = [pool.submit(asks[number % 3], number) for number in range(240)]
        assert all(answer.result(timeout=120) for answer in answers)
    for name in ("dummy", "rows", "nested"):
        assert not catalog.find(name, "").leases


def test_sessions_run_side_by_side_when_nothing_is_known_of_them() -> None:
    """Nodes that wait for each other: none could go on alone."""
    together = threading.Barrier(3)

    class Meeting:
        def initialize(self, params: Mapping[str, str]) -> Meeting:
            return self

        def describe(self) -> Signature:
            spec = TensorSpec("x", DATATYPES["FP32"], fixed(1, 10), "...")
            return Signature((spec,), (spec,))

        def execute(self, inputs: Mapping[str, Tensor]) -> TensorMap:
            together.wait(timeout=30)
            return {"x": inputs["x"]}

        def close(self) -> None: ...

    names = ["n0", "n1", "n2"]
    nodes = [custom(name, "meeting", {"y": "x"}, x="request.x") for name in names]
    config = entry(["x"], nodes, **{f"{name}_y": f"{name}.y" for name in names})
    p = load(Catalog(), config, {"meeting": Meeting()})
    assert len(infer(p, x=X)) == 3


def test_sessions_run_one_after_the_other_where_the_system_has_no_more_threads(
    models_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_pool", lambda: Helpers(4))
    shards = load(
        models_catalog, entry(["b"], [model("n", "dummy", b="request.b")], split=3, a="n.a")
    )
    with no_more_threads():
        assert np.array_equal(infer(shards, b=np.stack([X, 2 * X, X]))["a"][1], 2 * X + 1)


def test_siblings_infer_in_as_many_slots_as_their_model_has(
    models_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)
    alone = Slot.infer

    def infer_together(slot: Slot, *arguments: Any) -> Any:
        together.wait(timeout=30)
        return alone(slot, *arguments)

    monkeypatch.setattr(Slot, "infer", infer_together)
    shards = load(
        models_catalog, entry(["b"], [model("n", "dummy", b="request.b")], split=2, a="n.a")
    )
    assert np.array_equal(infer(shards, b=np.stack([X, 2 * X]))["a"], np.stack([X, 2 * X]) + 1)
    nodes = [model(name, "dummy", b="request.b") for name in ("n", "m")]
    wide = load(models_catalog, entry(["b"], nodes, a="n.a", b="m.a"))
    assert np.array_equal(infer(wide, b=X)["b"], X + 1)


def test_the_first_error_ends_a_call_and_the_rest_is_drained(tmp_path: Path) -> None:
    catalog = model_catalog(tmp_path, nireq=1)
    nodes = [
        model("n", "dynamic", b="request.b"),
        model("m", "batches", b="n.a"),
        model("o", "dynamic", b="request.b"),
    ]
    p = load(catalog, entry(["b"], nodes, a="m.a", o="o.a"))
    for _ in range(20):
        with refused("INVALID_ARGUMENT", "Node: m"):
            infer(p, b=np.ones((6, 10), np.float32))
        assert (infer(p, b=np.ones((5, 10), np.float32))["a"] == 3).all()
    for name in ("dynamic", "batches"):
        assert not catalog.find(name, "").leases


@pytest.mark.parametrize("shape", [(2, 1, 0), (3, 0, 4), (1, 0, 0)])
def test_shards_without_elements(models_catalog: Catalog, shape: tuple[int, ...]) -> None:
    nodes = [model("n", "dynamic", b="request.b"), model("m", "dynamic", b="n.a")]
    p = load(models_catalog, entry(["b"], nodes, split=-1, a="m.a", n="n.a"))
    outputs = infer(p, b=np.zeros(shape, np.float32))
    assert outputs["a"].shape == outputs["n"].shape == shape


class Sliced:
    """Gives as many numbers of each shard as its first one says; with -1 as integers."""

    def initialize(self, params: Mapping[str, str]) -> Sliced:
        return self

    def describe(self) -> Signature:
        given = TensorSpec("x", DATATYPES["FP32"], fixed(1, 10), "...")
        made = TensorSpec("x", DATATYPES["FP32"], fixed(1, -1), "...")
        return Signature((given,), (made,))

    def execute(self, inputs: Mapping[str, Tensor]) -> TensorMap:
        x = inputs["x"]
        assert not isinstance(x, StringTensor)
        n = int(x[0, 0])
        return {"x": x.astype(np.int32) if n < 0 else x[:, :n].copy()}

    def close(self) -> None: ...


@pytest.mark.parametrize("gathers", ["the response", "a node"])
def test_shards_that_cannot_be_gathered(models_catalog: Catalog, gathers: str) -> None:
    nodes = [custom("each", "sliced", {"y": "x"}, x="request.x")]
    last = "each.y"
    if gathers == "a node":
        nodes.append(model("join", "rows", b="each.y", gather="request"))
        last = "join.a"
    p = load(models_catalog, entry(["x"], nodes, split=4, y=last), {"sliced": Sliced()})
    x = np.full((4, 1, 10), 10, np.float32)
    assert infer(p, x=x)["y"].shape == (4, 1, 10)
    text = "Gathered tensors have inconsistent dimensions or precision - Node: each Expected: "
    for first in (7, -1):
        x[2, 0, 0] = first
        with refused("INVALID_ARGUMENT", text):
            infer(p, x=x)


def test_each_session_is_logged_for_those_who_debug(
    models_catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [
        model("outer", "nested", b="request.b", split=3),
        model("inner", "rows", b="outer.a", split=4),
        model("each", "dummy", b="inner.a"),
    ]
    p = load(models_catalog, entry(["b"], nodes, a="each.a"))
    with caplog.at_level("DEBUG", "kfs.pipeline"):
        infer(p, b=np.zeros((3, 4, 1, 10), np.float32))
    messages = [record.message for record in caplog.records if record.levelname == "DEBUG"]
    told = {message.rsplit(";", 1)[0] for message in messages}
    assert "Node: outer; session: " in told
    assert {f"Node: inner; session: outer_{i}" for i in range(3)} <= told
    keys = {f"Node: each; session: inner_{j}_outer_{i}" for i in range(3) for j in range(4)}
    assert keys <= told
    assert all(message.endswith(" us") for message in messages)


def test_nothing_starts_for_a_call_that_is_over(models_catalog: Catalog) -> None:
    p = load(models_catalog, entry(["b"], [model("n", "dummy", b="request.b")], a="n.a"))
    with refused("DEADLINE_EXCEEDED"):
        infer(p, CallContext(deadline=time.monotonic()), b=X)
    with refused("CANCELLED"):
        infer(p, CallContext(lambda: False), b=X)
