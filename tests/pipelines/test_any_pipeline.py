"""Pipelines of any form give what the same sums give in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.pipes import entry, infer, load, model, model_catalog

from kfs.repository.catalog import Catalog

#: For each node, where its inputs come from: -1 is the request, others are nodes before it.
Wiring = list[tuple[int, ...]]


@pytest.fixture(scope="module", params=[1, 2])
def catalog(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Catalog:
    return model_catalog(tmp_path_factory.mktemp("any"), nireq=request.param)


@st.composite
def wirings(draw: st.DrawFn) -> Wiring:
    n_nodes = draw(st.integers(1, 12))
    return [
        tuple(draw(st.integers(-1, at - 1)) for _ in range(draw(st.integers(1, 2))))
        for at in range(n_nodes)
    ]


def name(at: int) -> str:
    return "request.x" if at < 0 else f"n{at}.y"


def nodes_of(wiring: Wiring, first: str = "request.x") -> list[dict[str, Any]]:
    nodes = []
    for at, sources in enumerate(wiring):
        given = [first if source < 0 else name(source) for source in sources]
        if len(given) == 1:
            nodes.append(model(f"n{at}", "dummy", {"y": "a"}, b=given[0]))
        else:
            inputs = {"input1": given[0], "input2": given[1]}
            nodes.append(model(f"n{at}", "sum", {"y": "sum"}, **inputs))
    return nodes


def ends_of(wiring: Wiring) -> list[int]:
    """Nodes that no other uses."""
    return sorted(set(range(len(wiring))) - {source for sources in wiring for source in sources})


def compute(wiring: Wiring, x: np.ndarray) -> dict[str, np.ndarray]:
    values: dict[int, np.ndarray] = {-1: x}
    for at, sources in enumerate(wiring):
        values[at] = sum(values[source] for source in sources) + (len(sources) == 1)
    return {f"y{at}": values[at] for at in ends_of(wiring)}


def check(catalog: Catalog, config: dict[str, Any], x: np.ndarray, wanted: Any) -> None:
    found = infer(load(catalog, config), x=x)
    assert found.keys() == wanted.keys()
    for label, value in wanted.items():
        assert np.array_equal(found[label], value), label


@settings(max_examples=25, deadline=None)
@given(wiring=wirings(), split=st.sampled_from([None, -1, 3]), data=st.integers(0, 99))
def test_a_graph_of_nodes(catalog: Catalog, wiring: Wiring, split: int | None, data: int) -> None:
    shape = (1, 10) if split is None else (3, 1, 10)
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + data
    outputs = {f"y{at}": name(at) for at in ends_of(wiring)}
    nodes = list(reversed(nodes_of(wiring)))
    check(catalog, entry(["x"], nodes, split=split, **outputs), x, compute(wiring, x))


@settings(max_examples=25, deadline=None)
@given(wiring=wirings(), joins=st.booleans())
def test_a_graph_of_nodes_within_two_demultiplexers(
    catalog: Catalog, wiring: Wiring, joins: bool
) -> None:
    nodes = [
        model("outer", "nested", b="request.x", split=3),
        model("inner", "rows", b="outer.a", split=4),
        *nodes_of(wiring, "inner.a"),
    ]
    x = np.arange(120, dtype=np.float32).reshape(3, 4, 1, 10)
    outputs = {f"y{at}": name(at) for at in ends_of(wiring)}
    wanted = compute(wiring, x + 2)
    if joins:
        for at in ends_of(wiring):
            nodes.append(model(f"join{at}", "rows", b=name(at), gather="inner"))
            outputs[f"y{at}"] = f"join{at}.a"
            wanted[f"y{at}"] = wanted[f"y{at}"] + 1
    check(catalog, entry(["x"], nodes, **outputs), x, wanted)
