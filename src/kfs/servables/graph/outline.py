"""A plan for people to read: the nodes in the order of their work, and the streams between."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import text_format

from kfs.servables.graph.plan import NodePlan, Plan
from kfs.servables.graph.spec import NodeSpec, Port, Ports, TagIndex
from kfs.servables.outline import Outline


def outline_plan(name: str, plan: Plan) -> Outline:
    """Inputs, nodes with their streams, outputs; each begins with what it is."""
    return Outline(f"graph {name}", (*_inputs(plan), *_nodes(plan), *_outputs(plan)))


def _inputs(plan: Plan) -> Iterator[Outline]:
    for port in plan.inputs:
        readers = [plan.nodes[at].spec.name for at, _ in plan.streams[port.stream].consumers]
        warning = f"no packet can enter: {port.mismatch}"
        yield Outline(
            f"input {port.name}: {port.type}, to {', '.join(readers) or 'nobody'}",
            (Outline(warning),) if port.mismatch else (),
        )
    for side in plan.side_inputs:
        yield Outline(f"parameter {side.name}: {side.type}")


def _nodes(plan: Plan) -> Iterator[Outline]:
    for node in plan.nodes:
        spec = node.spec
        calculator = f" ({spec.calculator})" if spec.is_named else ""
        yield Outline(f"node {spec.name}{calculator}", tuple(map(Outline, _details(node))))


def _details(node: NodePlan) -> Iterator[str]:
    spec = node.spec
    if spec.inputs or spec.outputs:
        yield f"{_read(spec)} -> {_listed(spec.outputs)}"
    for does, ports in (("takes", spec.side_inputs), ("gives", spec.side_outputs)):
        if ports:
            yield f"{does} side packet {_listed(ports)}"
    yield from _settings(node)


def _read(spec: NodeSpec) -> str:
    return ", ".join(
        f"{_port(port)} (back)"
        if TagIndex(port.tag, port.index) in spec.back_edges
        else _port(port)
        for port in spec.inputs
    )


def _settings(node: NodePlan) -> Iterator[str]:
    for options in node.spec.options.values():
        text = text_format.MessageToString(options, as_one_line=True)
        if text:
            yield text
    handler = node.handler
    if not handler.is_default:
        sets = " | ".join(
            ", ".join(_port(node.spec.inputs[at]) for at in inputs) for inputs in handler.sync_sets
        )
        of = f": {sets}" if len(handler.sync_sets) > 1 else ""
        yield f"{handler.name}{of}"


def _outputs(plan: Plan) -> Iterator[Outline]:
    producers = {port.name: node.spec.name for node in plan.nodes for port in node.spec.outputs}
    entering = {port.name for port in plan.inputs}
    for port in plan.outputs:
        there = "the client" if port.name in entering else "nobody"
        producer = producers.get(port.name, there)
        yield Outline(f"output {port.name}: {port.type}, from {producer}")


def _listed(ports: Ports) -> str:
    return ", ".join(map(_port, ports))


def _port(port: Port) -> str:
    """As one would write it: without an index that need not be said."""
    if port.tag and not port.index:
        return f"{port.tag}:{port.name}"
    return str(port)
