"""What a graph costs, without a transport: bytes of requests in, bytes of responses out.

    pytest bench/graphs --benchmark-json graphs.json

`test_packets` sends 200 packets through one stream on chains of pass-through nodes: the time of
200, so 200 / median is packets per second. `test_unary` compares a model asked by its name with
the same model in a graph, and behind further nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfs._fast.wire import Request, read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.digits import MODEL_PATH
from kfs.repository.catalog import Catalog
from kfs.repository.config import Wanted
from kfs.repository.repository import Repository
from kfs.servables.base import CallContext
from kfs.servables.graph import Graph
from kfs.settings import ModelSettings

N_PACKETS = 200

SESSION = """
node {
  calculator: "OpenVINOModelServerSessionCalculator"
  output_side_packet: "SESSION:digits"
  node_options: {
    [type.googleapis.com/mediapipe.OpenVINOModelServerSessionCalculatorOptions]: {
      servable_name: "digits"
    }
  }
}
"""


def chain(n_nodes: int, first: str = "in", last: str = "out") -> str:
    """Pass-through nodes, one after the other."""
    names = [first, *(f"{first}_{n}" for n in range(1, n_nodes)), last]
    return "".join(
        f'node {{ calculator: "PassThroughCalculator" input_stream: "{taken}" '
        f'output_stream: "{given}" }}\n'
        for taken, given in pairwise(names)
    )


def ends(threads: int | None = None) -> str:
    said = "" if threads is None else f"num_threads: {threads}\n"
    return said + 'input_stream: "in"\noutput_stream: "out"\n'


def model(n_nodes_before: int = 0) -> str:
    """A graph of the bundled model, behind nodes that pass its input on."""
    options = (
        "node_options: { [type.googleapis.com/mediapipe.OpenVINOInferenceCalculatorOptions]: { "
        'tag_to_input_tensor_names { key: "OVTENSOR" value: "image" } '
        'tag_to_output_tensor_names { key: "OVTENSOR" value: "probabilities" } } }'
    )
    taken = "passed" if n_nodes_before else "in"
    inference = (
        'node { calculator: "OpenVINOInferenceCalculator" input_side_packet: "SESSION:digits" '
        f'input_stream: "OVTENSOR:{taken}" output_stream: "OVTENSOR:out" {options} }}'
    )
    before = chain(n_nodes_before, last="passed") if n_nodes_before else ""
    return ends() + SESSION + before + inference


def message(name: str, tensor: str, array: Any) -> bytes:
    request = pb.ModelInferRequest(model_name=name)
    request.inputs.add(name=tensor, datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


class Count:
    """A sink that counts."""

    def __init__(self) -> None:
        self.n_messages = 0

    def send(self, message: bytes) -> None:
        self.n_messages += 1

    def fail(self, error: Exception) -> None:
        raise error


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    catalog = Catalog()
    wanted = Wanted({"digits": ModelSettings("digits", MODEL_PATH)})
    Repository(catalog, lambda: wanted, None, lambda name, serving: None).load()
    return catalog


@pytest.fixture
def load(catalog: Catalog, tmp_path: Path) -> Iterator[Callable[[str], Graph]]:
    graphs = []

    def make(text: str) -> Graph:
        path = tmp_path / "graph.pbtxt"
        path.write_text(text)
        graphs.append(Graph.load("g", path, catalog))
        return graphs[-1]

    yield make
    for graph in graphs:
        graph.unload()


@pytest.mark.parametrize("threads", [1, None], ids=["1-thread", "threads"])
@pytest.mark.parametrize("n_nodes", [1, 2, 5, 10, 20])
def test_packets(
    benchmark: Any, load: Callable[[str], Graph], n_nodes: int, threads: int | None
) -> None:
    graph = load(ends(threads) + chain(n_nodes))
    data = message("g", "in", np.ones(16, np.float32))

    def requests() -> Iterator[Request]:
        for _ in range(N_PACKETS):
            yield read_request(data)

    def stream() -> None:
        sink = Count()
        graph.stream(requests(), CallContext, sink)
        assert sink.n_messages == N_PACKETS

    benchmark(stream)


@pytest.mark.parametrize("case", ["model", "graph", "graph-and-10-nodes", "graph-with-queues"])
def test_unary(benchmark: Any, catalog: Catalog, load: Callable[[str], Graph], case: str) -> None:
    image = np.zeros((1, 8, 8, 1), np.float32)
    if case == "model":
        servable: Any = catalog.lease("digits", "", CallContext()).servable
        data = message("digits", "image", image)
    else:
        text = model(10 if case == "graph-and-10-nodes" else 0)
        if case == "graph-with-queues":  # its handler keeps it from the short way
            text += 'input_stream_handler { input_stream_handler: "ImmediateInputStreamHandler" }'
        servable = load(text)
        data = message("g", "in", image)

    def call() -> None:
        with CallContext() as context:
            servable.respond(read_request(data), context)

    benchmark(call)
