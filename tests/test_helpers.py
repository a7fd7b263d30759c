"""Threads that help: what they help with is done without them, too."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import no_more_threads
from graphs.graph_site import ends, node

from kfs.datatypes import DATATYPES
from kfs.helpers import Helpers
from kfs.repository.catalog import Catalog
from kfs.servables.base import CallContext
from kfs.servables.graph import Graph
from kfs.servables.graph.run import Instance
from kfs.signature import TensorSpec, fixed
from kfs.tensors import images


def test_a_helper_calls_what_it_is_given() -> None:
    helpers = Helpers(1)
    called = threading.Event()
    assert helpers.call(called.set) is not None
    assert called.wait(30)


def test_what_it_raises_is_told() -> None:
    helper = Helpers(1).call(lambda: [][0])
    assert helper is not None
    assert isinstance(helper.exception(timeout=30), IndexError)


def test_work_that_was_refused_is_not_done_later() -> None:
    helpers = Helpers(1)
    calls: list[str] = []
    with no_more_threads():
        assert helpers.call(lambda: calls.append("refused")) is None
    helper = helpers.call(lambda: calls.append("taken"))
    assert helper is not None
    helper.result(timeout=30)
    assert calls == ["taken"]


def test_a_pool_that_is_shut_down_helps_nobody() -> None:
    helpers = Helpers(1)
    helpers.shutdown()
    assert helpers.call(lambda: None) is None


def test_a_graph_runs_its_nodes_without_helpers(tmp_path: Path) -> None:
    path = tmp_path / "graph.pbtxt"
    path.write_text(ends(["in"], ["out"]) + node("PassThroughCalculator", ["in"], ["out"]))
    prepared = Graph.load("g", path, Catalog())._prepared
    left: list[int] = []
    instance = Instance(
        prepared, CallContext(), {}, lambda _, timestamp, value: left.append(timestamp), Helpers(4)
    )
    with no_more_threads():
        instance.start()
        for timestamp in range(3):
            instance.push(0, timestamp, np.ones(1, np.float32))
            instance.advance()  # would leave a node of which nothing is known to a helper
            assert left == list(range(timestamp + 1))
        instance.close_inputs()
        instance.finish()
    assert instance.failure is None


def test_images_are_decoded_without_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = np.random.default_rng(1).integers(0, 256, (4, 200, 200, 3), np.uint8)
    items = [cv2.imencode(".png", image)[1].tobytes() for image in batch]
    assert images._n_helpers(items)
    monkeypatch.setattr(images, "_pool", lambda: Helpers(4))
    spec = TensorSpec("image", DATATYPES["UINT8"], fixed(4, 200, 200, 3), "NHWC")
    with no_more_threads():
        assert np.array_equal(images.decode_images(items, spec), batch)
