"""Every mistake is found when a pipeline is loaded, with the node's name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pipelines.pipes import entry, load, model

from kfs.datatypes import DATATYPES, UNSUPPORTED
from kfs.repository.catalog import Catalog
from kfs.servables.pipeline import PipelineError
from kfs.servables.pipeline.shapes import demultiplexed, intersect, shard_of
from kfs.signature import Dim, TensorSpec, fixed

D1 = model("n", "dummy", b="request.b")
SPLIT = model("split", "rows", b="request.b", split=4)
EACH = model("each", "dummy", b="split.a")

CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown model": (
        entry(["b"], [model("n", "none", b="request.b")], a="n.a"),
        "PIPELINE_NODE_REFERING_TO_MISSING_MODEL", "node n: model none is not available"),
    "unknown version": (
        entry(["b"], [model("n", "dummy", b="request.b", version=3)], a="n.a"),
        "PIPELINE_NODE_REFERING_TO_MISSING_MODEL", "node n: model dummy version 3"),
    "unknown node": (
        entry(["b"], [model("n", "dummy", b="m.a")], a="n.a"),
        "PIPELINE_NODE_REFERING_TO_MISSING_NODE", "node n: input b comes from node m"),
    "unknown alias": (
        entry(["b"], [D1, model("m", "dummy", b="n.z")], a="m.a"),
        "PIPELINE_NODE_REFERING_TO_MISSING_DATA_SOURCE", "node m: input b takes z of n"),
    "undeclared input": (
        entry(["c"], [D1], a="n.a"),
        "PIPELINE_NODE_REFERING_TO_MISSING_DATA_SOURCE", "node n"),
    "unknown model output": (
        entry(["b"], [model("n", "dummy", {"x": "z"}, b="request.b")], a="n.x"),
        "PIPELINE_NODE_REFERING_TO_MISSING_MODEL_OUTPUT", "its outputs are a"),
    "unknown model input": (
        entry(["b"], [model("n", "dummy", z="request.b")], a="n.a"),
        "PIPELINE_CONNECTION_TO_MISSING_MODEL_INPUT", "its inputs are b"),
    "unfed": (
        entry(["b"], [model("n", "sum", {"a": "sum"}, input1="request.b")], a="n.a"),
        "PIPELINE_NOT_ALL_INPUTS_CONNECTED", "needs input2"),
    "fed twice": (
        entry(["b"], [{**D1, "inputs": D1["inputs"] * 2}], a="n.a"),
        "PIPELINE_MODEL_INPUT_CONNECTED_TO_MULTIPLE_DATA_SOURCES", "input b is fed twice"),
    "response as a source": (
        entry(["b"], [model("n", "dummy", b="response.a")], a="n.a"),
        "PIPELINE_EXIT_USED_AS_NODE_DEPENDENCY", "node n"),
    "shapes": (
        entry(["b"], [D1, model("m", "wide", b="n.a")], a="m.a"),
        "INVALID_SHAPE", "node m: input b accepts (1,20), but n.a is (1,10)"),
    "precisions": (
        entry(["b"], [D1, model("m", "fp64", {"a": "input"}, input="n.a")], a="m.a"),
        "INVALID_PRECISION", "accepts FP64, but n.a is FP32"),
    "names twice": (
        entry(["b"], [D1, D1], a="n.a"),
        "PIPELINE_NODE_NAME_DUPLICATE", "node n"),
    "a node called request": (
        entry(["b"], [model("request", "dummy", b="request.b")], a="request.a"),
        "PIPELINE_NODE_NAME_DUPLICATE", "node request"),
    "an output twice": (
        {**entry(["b"], [D1], a="n.a"), "outputs": entry([], [], a="n.a")["outputs"] * 2},
        "PIPELINE_TRIED_TO_SET_THE_SAME_INPUT_TWICE", "output a is there twice"),
    "itself": (
        entry(["b"], [model("n", "sum", {"a": "sum"}, input1="request.b", input2="n.a")], a="n.a"),
        "PIPELINE_CYCLE_FOUND", "n -> n"),
    "two in a circle": (
        entry(["b"], [model("n", "sum", {"a": "sum"}, input1="request.b", input2="m.a"),
                      model("m", "sum", {"a": "sum"}, input1="request.b", input2="n.a")], a="n.a"),
        "PIPELINE_CYCLE_FOUND", "->"),
    "unused": (
        entry(["b"], [D1, model("m", "dummy", b="request.b")], a="n.a"),
        "PIPELINE_CONTAINS_UNCONNECTED_NODES", "node m"),
    "no outputs": (
        entry(["b"], [D1]),
        "PIPELINE_CONTAINS_UNCONNECTED_NODES", "node request"),
    "gather from nothing": (
        entry(["b"], [model("n", "rows", b="request.b", gather="x")], a="n.a"),
        "PIPELINE_NODE_GATHER_FROM_NOT_EXISTING_NODE", "demultiplexers here: none"),
    "gather from no demultiplexer": (
        entry(["b"], [D1, model("m", "dummy", b="n.a", gather="n")], a="m.a"),
        "PIPELINE_NODE_GATHER_FROM_NOT_DEMULTIPLEXER", "node m"),
    "too few dimensions": (
        entry(["b"], [model("n", "dummy", b="request.b", split=1)], a="n.a"),
        "PIPELINE_NOT_ENOUGH_SHAPE_DIMENSIONS_TO_DEMULTIPLY", "node n: output a is (1,10)"),
    "another count": (
        entry(["b"], [model("n", "rows", b="request.b", split=3)], a="n.a"),
        "PIPELINE_DEMULTIPLY_COUNT_DOES_NOT_MATCH_TENSOR_SHARD_COUNT", "demultiply_count is 3"),
    "dynamic and another": (
        entry(["b"], [SPLIT, EACH], split=-1, a="each.a"),
        "NOT_IMPLEMENTED", "request, split"),
    "never gathered on one way": (
        entry(["b"], [SPLIT, EACH, model("join", "rows", b="each.a", gather="split")],
              a="join.a", b="each.a"),
        "PIPELINE_WRONG_DEMULTIPLEXER_GATHER_NODES_ORDER", "each"),
    "wrong order": (
        entry(["b"], [model("o", "nested", b="request.b", split=3),
                      model("i", "rows", b="o.a", split=4),
                      model("g", "cubes", b="i.a", gather="o")], a="g.a"),
        "PIPELINE_WRONG_DEMULTIPLEXER_GATHER_NODES_ORDER", "to gather first is i"),
    "levels mixed": (
        entry(["b", "c"], [SPLIT, model("s", "sum", {"a": "sum"}, input1="split.a",
                                        input2="request.c")], a="s.a"),
        "PIPELINE_WRONG_DEMULTIPLEXER_GATHER_NODES_ORDER", "node s"),
    "ambiguous": (
        entry(["b"], [D1, model("m", "wide", b="request.b")], a="n.a", c="m.a"),
        "PIPELINE_INPUTS_AMBIGUOUS_METADATA", "nothing fits both"),
    "strings chained": (
        entry(["s"], [model("n", "strings", {"s": "input"}, input="request.s"),
                      model("m", "strings2", {"s": "input"}, input="n.s")], s="m.s"),
        "NOT_IMPLEMENTED", "node m: input input takes the strings of n.s"),
    "a precision for which there is no memory": (
        entry(["b"], [model("n", "to_nibbles", b="request.b")], a="n.a"),
        "NOT_IMPLEMENTED", "input a takes n.a, whose precision no pipeline can carry"),
    "strings demultiplexed": (
        entry(["s"], [model("n", "strings", {"s": "input"}, input="request.s")], split=2, s="n.s"),
        "PIPELINE_STRING_DEMUILTIPLICATION_UNSUPPORTED", "node n"),
    "a demultiplexer that takes strings": (
        entry(["s"], [model("n", "strings", {"s": "input"}, input="request.s", split=2)], s="n.s"),
        "PIPELINE_STRING_DEMUILTIPLICATION_UNSUPPORTED", "node n"),
    "through a demultiplexed request": (
        entry(["b"], [D1], split=2, a="n.a", b="request.b"),
        "PIPELINE_NODE_REFERING_TO_MISSING_DATA_SOURCE", "output b is the request's b"),
    "no library": (
        entry(["b"], [{**{k: v for k, v in D1.items() if k != "model_name"}, "type": "custom",
                       "library_name": "l"}], a="n.a"),
        "PIPELINE_DEFINITION_INVALID_NODE_LIBRARY", "node n: library l"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told(models_catalog: Catalog, case: str) -> None:
    config, status, text = CASES[case]
    with pytest.raises(PipelineError) as caught:
        load(models_catalog, config)
    assert str(caught.value).startswith("pipeline p: node ")
    assert caught.value.status == status, caught.value
    assert text in str(caught.value)


def spec(layout: str, *shape: int | tuple[int, int]) -> TensorSpec:
    dims = tuple(Dim(*n) if isinstance(n, tuple) else fixed(n)[0] for n in shape)
    return TensorSpec("x", DATATYPES["FP32"], dims, layout)


def test_what_two_consumers_accept() -> None:
    both = intersect(spec("N...", (1, 20), (3, 17)), spec("NC", (15, 30), (1, 4)))
    assert both == spec("NC", (15, 20), (3, 4))
    assert demultiplexed(both, 2).layout == "N?C"
    assert intersect(spec("N...", 17, 3), spec("N...", -1, -1)) == spec("N...", 17, 3)
    assert intersect(spec("NC", 1, 3), spec("CN", 1, 3)) is None
    assert intersect(spec("N?", 1, 3), spec("?N", 1, 3)) is None


def test_only_the_precision_of_a_consumer_that_says_none_yields() -> None:
    says_none = replace(spec("...", 1, -1, 10), datatype=UNSUPPORTED)
    says_fp32 = spec("...", -1, 3, 10)
    assert (
        intersect(says_none, says_fp32) == intersect(says_fp32, says_none) == spec("...", 1, 3, 10)
    )
    assert intersect(says_none, spec("...", 1, 3, 20)) is None
    assert intersect(says_none, spec("...", 1, 10)) is None


def test_what_also_goes_through_is_what_its_node_takes(models_catalog: Catalog) -> None:
    p = load(models_catalog, entry(["b"], [D1], b="request.b", a="n.a"))
    (b,) = p.signature.inputs
    assert (b.datatype, b.shape) == (DATATYPES["FP32"], fixed(1, 10))


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("NHWC", "N?HWC"), ("NC", "N?C"), ("N...", "N?..."), ("...", "...")],
)
def test_layouts_behind_a_demultiplexer(layout: str, expected: str) -> None:
    assert demultiplexed(TensorSpec("x", DATATYPES["FP32"], fixed(1), layout), 2).layout == expected


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("NHWC", "HWC"), ("N?HWC", "?HWC"), ("N...", "..."), ("N...C", "...C"), ("...", "...")],
)
def test_layouts_before_shards_are_gathered(layout: str, expected: str) -> None:
    gathers = TensorSpec("x", DATATYPES["FP32"], fixed(4, 1, 2, 3, 3), layout)
    assert shard_of(gathers) == TensorSpec("x", DATATYPES["FP32"], fixed(1, 2, 3, 3), expected)


def test_nodes_in_any_order_and_unused_inputs(models_catalog: Catalog) -> None:
    config = entry(["b", "unused"], [model("m", "dummy", b="n.a"), D1], a="m.a")
    p = load(models_catalog, config)
    assert [s.name for s in p.signature.inputs] == ["b"]
    assert list(p.plan.steps) == ["request", "n", "m", "response"]
