"""What a pipeline costs beside the inferences it is made of: `pytest bench/pipelines`.

Chains of 1, 10 and 100 trivial models, against the same model called in-process in a loop; 1, 10
and 100 side by side; and 10, 100 and 1,000 shards demultiplexed and gathered. `us per node` in the
extra info is the median divided by how many sessions the pipeline has. At last whole answers, from
the bytes of the request to those of the response.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op
from pytest_benchmark.fixture import BenchmarkFixture

from kfs._fast.wire import read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.repository.catalog import Catalog
from kfs.repository.config import Wanted
from kfs.repository.repository import Repository
from kfs.servables.base import CallContext
from kfs.servables.pipeline import Pipeline, parse
from kfs.settings import ModelSettings

X = np.zeros((1, 10), np.float32)
COUNTS = pytest.mark.parametrize("count", [1, 10, 100])


#: The floats of each row of the other models, by name.
WIDTHS = {"of_600_kb": 150_000, "of_4_mb": 1_000_000}


def save_model(folder: Path, width: int) -> ModelSettings:
    """A trivial model, with the slots of a server on two cores."""
    b = op.parameter([1, width], np.float32, name="b")
    b.output(0).set_names({"b"})
    result = op.add(b, np.float32(1))
    result.output(0).set_names({"a"})
    (folder / "1").mkdir(parents=True)
    ov.save_model(ov.Model([op.result(result)], [b]), folder / "1" / "model.xml")
    return ModelSettings(
        folder.name, folder, nireq=2, plugin_config={"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    )


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("bench")
    catalog = Catalog()
    widths = {"model": 10, **WIDTHS}
    wanted = Wanted({name: save_model(folder / name, width) for name, width in widths.items()})
    Repository(catalog, lambda: wanted, None, lambda name, serving: None).load()
    return catalog


def node(name: str, source: str, item: str, model: str = "model") -> dict[str, Any]:
    return {
        "name": name, "type": "DL model", "model_name": model,
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


@pytest.mark.parametrize(
    ("model", "count"),
    [("model", 1000), ("of_600_kb", 8), ("of_4_mb", 4), ("of_4_mb", None)],
    ids=["1000x40B", "8x600KB", "4x4MB", "4MB"],
)
def test_an_answer(
    benchmark: BenchmarkFixture, catalog: Catalog, model: str, count: int | None
) -> None:
    """Of shards that are gathered, or of a model behind another."""
    if count is None:
        nodes = [node("first", "request", "x", model), node("n", "first", "a", model)]
        pipeline, shape = make(catalog, nodes), (1, WIDTHS[model])
    else:
        pipeline = make(catalog, [node("n", "request", "x", model)], demultiply_count=count)
        shape = (count, 1, WIDTHS.get(model, 10))
    message = pb.ModelInferRequest(
        inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=shape)],
        raw_input_contents=[np.zeros(shape, np.float32).tobytes()],
    )
    data = message.SerializeToString()

    def ask() -> None:
        with CallContext() as call:
            pipeline.respond(read_request(data), call)

    benchmark(ask)
