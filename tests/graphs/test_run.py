"""A graph at work for one call, with no server around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs.graph_site import ends, node
from graphs.plug_ins import Stuck

from kfs import errors
from kfs.errors import ServingError
from kfs.repository.catalog import Catalog
from kfs.servables.base import CallContext
from kfs.servables.graph import Graph
from kfs.servables.graph.run import Instance

ONE = np.ones(1, np.float32)


@pytest.fixture(autouse=True)
def counted() -> None:
    """`WaitForever` waits for nothing, and counts how often it runs."""
    Stuck.hold()
    Stuck.released.set()


def n_runs() -> int:
    count = 0
    while Stuck.reached.acquire(blocking=False):
        count += 1
    return count


def instance_of(folder: Path, *inputs: str, call: CallContext | None = None) -> Instance:
    """One node that waits for all inputs of the graph."""
    path = folder / "graph.pbtxt"
    path.write_text(ends([*inputs], ["out"]) + node("WaitForever", [*inputs], ["out"]))
    graph = Graph.load("g", path, Catalog())
    instance = Instance(
        graph._prepared, call or CallContext(), {}, lambda position, timestamp, value: None
    )
    instance.start()
    return instance


def test_a_node_that_waits_for_an_input_does_not_run_after_the_end(tmp_path: Path) -> None:
    instance = instance_of(tmp_path, "a", "b")
    instance.push(0, 1, ONE)
    instance.work()
    instance.fail(ServingError(errors.CANCELLED))
    instance.close_inputs()
    instance.work()  # as a thread does that was busy with another node
    instance.finish()
    assert n_runs() == 0


def test_what_is_queued_is_not_run_for_a_client_that_has_gone(tmp_path: Path) -> None:
    is_there = iter([True, False])
    instance = instance_of(tmp_path, "in", call=CallContext(lambda: next(is_there)))
    for timestamp in range(3):
        instance.push(0, timestamp, ONE)
    instance.work()
    assert instance.failure is not None
    assert instance.failure.status is errors.CANCELLED
    instance.close_inputs()
    instance.finish()
    assert n_runs() == 1


def test_what_is_queued_is_not_run_after_the_deadline(tmp_path: Path) -> None:
    instance = instance_of(tmp_path, "in", call=CallContext(deadline=0))
    instance.push(0, 1, ONE)
    instance.work()
    assert instance.failure is not None
    assert instance.failure.status is errors.DEADLINE_EXCEEDED
    instance.finish()
    assert n_runs() == 0
