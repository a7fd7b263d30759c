"""What a pipeline costs beside the inferences it is made of: `pytest bench/pipelines`.

Chains of 1, 10 and 100 trivial models, against the same model called in-process in a loop; 1, 10
and 100 side by side; and 10, 100 and 1,000 shards demultiplexed and gathered. `us per node` in the
extra info is the median divided by how many sessions the pipeline has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op
from pytest_benchmark.fixture import BenchmarkFixture

from kfs.repository.catalog import Catalog
from kfs.repository.config import Wanted
from kfs.repository.repository import Repository
from kfs.servables.base import CallContext
from kfs.servables.pipeline import Pipeline, parse
from kfs.settings import ModelSettings

X = np.zeros((1, 10), np.float32)
COUNTS = pytest.mark.parametrize("count", [1, 10, 100])


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """One trivial model, with the slots of a server on two cores."""
    folder = tmp_path_factory.mktemp("bench")
    b = op.parameter([1, 10], np.float32, name="b")
    b.output(0).set_names({"b"})
    result = op.add(b, np.float32(1))
    result.output(0).set_names({"a"})
    (folder / "1").mkdir()
    ov.save_model(ov.Model([op.result(result)], [b]), folder / "1" / "model.xml")
    settings = ModelSettings(
        "model", folder, nireq=2, plugin_config={"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    )
    catalog = Catalog()
    wanted = Wanted({"model": settings})
    Repository(catalog, lambda: wanted, None, lambda name, serving: None).load()
    return catalog


def node(name: str, source: str, item: str) -> dict[str, Any]:
    return {
        "name": name, "type": "DL model", "model_name": "model",
        "inputs": [{"b": {"node_name": source, "data_item": item}}],
        "outputs": [{"data_item": "a", "alias": "a"}],
    }  # fmt: skip


def make(catalog: Catalog, nodes: list[dict[str, Any]], **options: Any) -> Pipeline:
    """A pipeline from x to the outputs of the nodes that no other uses."""
    used = {source["node_name"] for item in nodes for source in item["inputs"][0].values()}
    outputs = [
        {f"y_{item['name']}": {"node_name": item["name"], "data_item": "a"}}
        for item in nodes
        if item["name"] not in used
    ]
    config = {"name": "p", "inputs": ["x"], "nodes": nodes, "outputs": outputs, **options}
    return Pipeline.load(parse(config), catalog, {})


def measure(benchmark: BenchmarkFixture, count: int, ask: Callable[[], None]) -> None:
    benchmark(ask)
    benchmark.extra_info["us per node"] = benchmark.stats.stats.median / count * 1e6


def asking(pipeline: Pipeline, x: np.ndarray) -> Callable[[], None]:
    def ask() -> None:
        with CallContext() as call:
            pipeline.infer({"x": x}, call)

    return ask


@COUNTS
def test_models_in_a_loop(benchmark: BenchmarkFixture, catalog: Catalog, count: int) -> None:
    def ask() -> None:
        tensor = X
        for _ in range(count):
            with CallContext() as call, catalog.lease("model", "", call) as servable:
                tensor = servable.infer({"b": tensor}, call)["a"].copy()

    measure(benchmark, count, ask)


@COUNTS
def test_a_chain(benchmark: BenchmarkFixture, catalog: Catalog, count: int) -> None:
    nodes = [node("n0", "request", "x")]
    nodes += [node(f"n{i}", f"n{i - 1}", "a") for i in range(1, count)]
    measure(benchmark, count, asking(make(catalog, nodes), X))


@COUNTS
def test_side_by_side(benchmark: BenchmarkFixture, catalog: Catalog, count: int) -> None:
    nodes = [node(f"n{i}", "request", "x") for i in range(count)]
    measure(benchmark, count, asking(make(catalog, nodes), X))


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_shards(benchmark: BenchmarkFixture, catalog: Catalog, count: int) -> None:
    pipeline = make(catalog, [node("n", "request", "x")], demultiply_count=-1)
    measure(benchmark, count, asking(pipeline, np.stack([X] * count)))
