"""Spec -> plan: everything about a graph that can be checked before a request, checked once.

A plan is immutable and shared by all instances of a graph.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from kfs.servables.graph.calculator import (
    ANY,
    FAILURES,
    IMAGE,
    MP_TENSOR,
    OV_TENSOR,
    PY_TENSOR,
    REQUEST,
    RESPONSE,
    TF_TENSOR,
    Calculator,
    Contract,
    PacketType,
    Registry,
)
from kfs.servables.graph.input_handlers import HandlerPlan, plan_handler
from kfs.servables.graph.spec import GraphError, GraphSpec, NodeSpec, Port, TagIndex

_log = logging.getLogger("kfs.graph")

#: What the streams of a graph carry, by what their tags begin with; OV_TENSOR otherwise.
_INPUT_PREFIXES = (
    ("OVMS_PY_TENSOR", PY_TENSOR), ("OVTENSOR", OV_TENSOR), ("TFTENSOR", TF_TENSOR),
    ("TENSOR", MP_TENSOR), ("IMAGE", IMAGE), ("REQUEST", REQUEST),
)  # fmt: skip
_OUTPUT_PREFIXES = (*_INPUT_PREFIXES[:-1], ("RESPONSE", RESPONSE))


class Consumer(NamedTuple):
    """An input of a node that a stream feeds."""

    node: int
    input: int


@dataclass(frozen=True)
class StreamPlan:
    """One stream: who reads it.

    Attributes:
        output: its position among the outputs of the graph; None when it is none of them.
    """

    name: str
    consumers: tuple[Consumer, ...]
    output: int | None


@dataclass(frozen=True)
class NodePlan:
    """One node.

    Attributes:
        outputs: positions of the streams it feeds, in the order of its ports.
        inputs: positions of the streams that feed it.
        taken: what its inputs carry, as far as is known; in their order.
        handler: how it waits for its inputs.
    """

    spec: NodeSpec
    calculator: type[Calculator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    taken: tuple[PacketType, ...]
    handler: HandlerPlan
    is_offset_zero: bool


@dataclass(frozen=True)
class GraphPort:
    """An input or output of the graph.

    Attributes:
        stream: the position of its stream; -1 for an output that nothing produces.
        mismatch: why packets of the type cannot enter; empty when they can.
    """

    name: str
    type: PacketType
    stream: int
    mismatch: str = ""


class SideInput(NamedTuple):
    """A side packet that a request has to bring, and what it has to be."""

    name: str
    type: PacketType


@dataclass(frozen=True)
class Plan:
    """What runs.

    Attributes:
        nodes: producers of streams and side packets before those who take them.
        side_inputs: what a request has to bring as parameters.
        is_straight: one pass over the nodes, each run once, answers a request.
    """

    spec: GraphSpec
    nodes: tuple[NodePlan, ...]
    streams: tuple[StreamPlan, ...]
    inputs: tuple[GraphPort, ...]
    outputs: tuple[GraphPort, ...]
    side_inputs: tuple[SideInput, ...]
    n_threads: int
    max_queue_size: int
    has_back_edges: bool
    is_straight: bool


def make_plan(spec: GraphSpec, registry: Registry) -> Plan:
    """
    Raises:
        GraphError: the graph cannot run; the node or stream, and what is wrong with it.
    """
    _check_ends(spec)
    _check_handlers(spec)
    calculators = [registry.find(node) for node in spec.nodes]
    contracts = [_contract(*pair) for pair in zip(spec.nodes, calculators, strict=True)]
    wiring = _Wiring(spec, contracts)
    order = wiring.order()
    ids = {name: position for position, name in enumerate(wiring.streams)}
    nodes = tuple(_node_plan(spec.nodes[at], calculators[at], contracts[at], ids) for at in order)
    outputs = {port.name: position for position, port in enumerate(spec.outputs)}
    has_back_edges = any(node.back_edges for node in spec.nodes)
    return Plan(
        spec=spec,
        nodes=nodes,
        streams=tuple(
            StreamPlan(name, _consumers(nodes, stream), outputs.get(name))
            for stream, name in enumerate(wiring.streams)
        ),
        inputs=tuple(
            GraphPort(port.name, kind, ids[port.name], wiring.mismatch(port, kind))
            for port in spec.inputs
            for kind in [graph_type(port, _INPUT_PREFIXES)]
        ),
        outputs=tuple(
            GraphPort(port.name, graph_type(port, _OUTPUT_PREFIXES), ids.get(port.name, -1))
            for port in spec.outputs
        ),
        side_inputs=wiring.side_inputs(),
        n_threads=spec.n_threads or max(1, min(os.cpu_count() or 1, len(nodes))),
        max_queue_size=spec.max_queue_size,
        has_back_edges=has_back_edges,
        is_straight=not has_back_edges
        and all(node.calculator.is_straight and node.handler.is_default for node in nodes),
    )


def graph_type(port: Port, prefixes: Sequence[tuple[str, PacketType]]) -> PacketType:
    """What a stream of the graph carries, by its tag."""
    for prefix, kind in prefixes:
        if port.tag.startswith(prefix):
            return kind
    return OV_TENSOR


def _check_ends(spec: GraphSpec) -> None:
    for what, ports in (("input", spec.inputs), ("output", spec.outputs)):
        if not ports:
            raise GraphError(f"expected at least one {what}_stream of the graph; there is none")
        for name, count in Counter(port.name for port in ports).items():
            if count > 1:
                raise GraphError(f'{what}_stream "{name}" of the graph is there {count} times')
        for port in ports:
            if port.tag.startswith("TFLITE_TENSOR"):
                raise GraphError(f"{what}_stream {port}: TFLITE_TENSOR is not served")
    requests = [port for port in spec.inputs if port.tag.startswith("REQUEST")]
    responses = [port for port in spec.outputs if port.tag.startswith("RESPONSE")]
    if bool(requests) != bool(responses):
        raise GraphError("an input_stream REQUEST and an output_stream RESPONSE need each other")
    if requests and (len(spec.inputs), len(spec.outputs)) != (1, 1):
        raise GraphError("a graph from REQUEST to RESPONSE has exactly one input and one output")


def _check_handlers(spec: GraphSpec) -> None:
    nodes = [node for node in spec.nodes if node.calculator == "PythonExecutorCalculator"]
    for name, count in Counter(node.name for node in nodes).items():
        if count > 1:
            raise GraphError(f"node {name}: {count} nodes with handlers have this name")
    for node in nodes:
        # Instances that are used again and again would begin with what a loop has left.
        if spec.is_queued and any(port.tag.startswith("LOOPBACK") for port in node.inputs):
            raise GraphError(
                f"node {node.name}: a handler with LOOPBACK and OVMS_GRAPH_QUEUE_MAX_SIZE do not "
                "go together"
            )


@contextmanager
def failures_told(node: NodeSpec, method: str) -> Iterator[None]:
    """Turns what a calculator should not have raised into the reason why its graph is not served.

    Raises:
        GraphError: it raised something; the traceback is in the log.
    """
    try:
        yield
    except GraphError:
        raise
    except FAILURES as error:
        _log.error("%s of node %s failed", method, node.name, exc_info=error)
        raise GraphError(
            f"node {node.name}: {method} raised {type(error).__name__}: {error}"
        ) from error


def _contract(node: NodeSpec, calculator: type[Calculator]) -> Contract:
    contract = Contract(node)
    with failures_told(node, "contract"):
        try:
            calculator.contract(contract)
        except GraphError as error:
            raise GraphError(f"node {node.name} ({node.calculator}): {error}") from None
    if node.outputs and not node.inputs:
        raise GraphError(
            f"node {node.name}: expected an input_stream, since it has an output_stream; nodes "
            "that produce packets out of nothing are not served"
        )
    return contract


class _Kinds:
    """What streams carry, or side packets, by their names."""

    def __init__(self) -> None:
        self._types: dict[str, PacketType] = {}
        self._origins: dict[str, str] = {}

    def add(self, port: Port, kind: PacketType, origin: Port | None) -> None:
        """What a node sends: of a kind, or the packets of one of its inputs."""
        self._types[port.name] = kind
        if origin is not None:
            self._origins[port.name] = origin.name

    def origin(self, name: str) -> str:
        """Where the packets of a stream come from, before all that only passes them on."""
        seen = set[str]()  # they may go round
        while name in self._origins and name not in seen:
            seen.add(name)
            name = self._origins[name]
        return name

    def of(self, name: str) -> PacketType:
        return self._types.get(self.origin(name), ANY)


class _Wiring:
    """Who feeds whom."""

    def __init__(self, spec: GraphSpec, contracts: Sequence[Contract]) -> None:
        self._spec = spec
        self._contracts = contracts
        #: Name to the node that produces it; -1 for the graph's inputs.
        self.streams = {port.name: -1 for port in spec.inputs}
        self._stream_kinds = _Kinds()
        self._sides: dict[str, int] = {}
        self._side_kinds = _Kinds()
        for at, (node, contract) in enumerate(zip(spec.nodes, contracts, strict=True)):
            for port in node.outputs:
                if port.name in self.streams:
                    raise GraphError(f'Output Stream "{port.name}" defined twice.')
                self.streams[port.name] = at
                self._stream_kinds.add(
                    port, contract.outputs.get(port, ANY), contract.passed.get(port)
                )
            for port in node.side_outputs:
                if port.name in self._sides:
                    raise GraphError(f'Output Side Packet "{port.name}" defined twice.')
                self._sides[port.name] = at
                self._side_kinds.add(
                    port, contract.side_outputs.get(port, ANY), contract.passed_sides.get(port)
                )
        for at in range(len(spec.nodes)):
            self._check_inputs(at)

    def _check_inputs(self, at: int) -> None:
        node, contract = self._spec.nodes[at], self._contracts[at]
        for port in node.inputs:
            if port.name not in self.streams:
                raise GraphError(
                    f'Input Stream "{port.name}" for node {node.name} does not have a '
                    "corresponding output stream."
                )
            taken = contract.inputs.get(port, ANY)
            _check_types(node, port, taken, self._stream_kinds.of(port.name))
        for port in node.side_inputs:
            taken = contract.side_inputs.get(port, ANY)
            _check_types(node, port, taken, self._side_kinds.of(port.name))

    def mismatch(self, port: Port, kind: PacketType) -> str:
        """Why a packet of the client cannot go to those who read the stream."""
        for node, contract in zip(self._spec.nodes, self._contracts, strict=True):
            for taken in node.inputs:
                if self._stream_kinds.origin(taken.name) != port.name:
                    continue
                wanted = contract.inputs.get(taken, ANY)
                if ANY not in (wanted, kind) and wanted != kind:
                    return (
                        f'stream "{port.name}" carries {kind}, but node {node.name} takes {wanted}'
                    )
        return ""

    def side_inputs(self) -> tuple[SideInput, ...]:
        wanted = {
            SideInput(port.name, contract.side_inputs.get(port, ANY)): None
            for node, contract in zip(self._spec.nodes, self._contracts, strict=True)
            for port in node.side_inputs
            if port.name not in self._sides and port not in contract.own_side_inputs
        }
        return tuple(wanted)

    def order(self) -> list[int]:
        """Producers before consumers; back edges do not count.

        Raises:
            GraphError: there is a cycle without a back edge.
        """
        sorter = TopologicalSorter(
            {at: self._producers(node) for at, node in enumerate(self._spec.nodes)}
        )
        try:
            sorter.prepare()
        except CycleError as error:
            names = ", ".join(self._spec.nodes[at].name for at in error.args[1][1:])
            raise GraphError(
                f"nodes {names} wait for each other: a stream that leads back needs "
                "input_stream_info with back_edge: true"
            ) from None
        order: list[int] = []
        while sorter.is_active():
            ready = sorted(sorter.get_ready())  # in the order of the file, where both may run
            order += ready
            sorter.done(*ready)
        return order

    def _producers(self, node: NodeSpec) -> Iterator[int]:
        for port in node.inputs:
            producer = self.streams[port.name]
            if producer >= 0 and TagIndex(port.tag, port.index) not in node.back_edges:
                yield producer
        for port in node.side_inputs:
            if port.name in self._sides:
                yield self._sides[port.name]


def _check_types(node: NodeSpec, port: Port, taken: PacketType, sent: PacketType) -> None:
    if ANY not in (taken, sent) and taken != sent:
        raise GraphError(f"node {node.name}, {port}: expected {taken}, but the stream has {sent}")


def _consumers(nodes: Sequence[NodePlan], stream: int) -> tuple[Consumer, ...]:
    return tuple(
        Consumer(at, position)
        for at, node in enumerate(nodes)
        for position, taken in enumerate(node.inputs)
        if taken == stream
    )


def _node_plan(
    node: NodeSpec, calculator: type[Calculator], contract: Contract, ids: dict[str, int]
) -> NodePlan:
    return NodePlan(
        spec=node,
        calculator=calculator,
        inputs=tuple(ids[port.name] for port in node.inputs),
        outputs=tuple(ids[port.name] for port in node.outputs),
        taken=tuple(contract.inputs.get(port, ANY) for port in node.inputs),
        handler=plan_handler(node),
        is_offset_zero=contract.is_offset_zero,
    )
