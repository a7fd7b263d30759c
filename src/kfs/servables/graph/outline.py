"""A plan as lines for people: the nodes in the order of their work, and the streams between."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import text_format

from kfs.servables.graph.plan import NodePlan, Plan
from kfs.servables.graph.spec import NodeSpec, Port, Ports, TagIndex


def outline(plan: Plan) -> list[str]:
    """Inputs, nodes with their streams, outputs; each begins with what it is."""
    return [*_inputs(plan), *_nodes(plan), *_outputs(plan)]


def _inputs(plan: Plan) -> Iterator[str]:
    for port in plan.inputs:
        readers = [plan.nodes[at].spec.name for at, _ in plan.streams[port.stream].consumers]
        yield f"input {port.name}: {port.type}, to {', '.join(readers) or 'nobody'}"
        if port.mismatch:
            yield f"  no packet can enter: {port.mismatch}"
    for name in plan.side_inputs:
        yield f"parameter {name}"


def _nodes(plan: Plan) -> Iterator[str]:
    for node in plan.nodes:
        spec = node.spec
        calculator = f" ({spec.calculator})" if spec.is_named else ""
        yield f"node {spec.name}{calculator}"
        if spec.inputs or spec.outputs:
            yield f"  {_read(spec)} -> {_listed(spec.outputs)}"
        for does, ports in (("takes", spec.side_inputs), ("gives", spec.side_outputs)):
            if ports:
                yield f"  {does} side packet {_listed(ports)}"
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
            yield f"  {text}"
    if len(node.sync_sets) > 1 or node.is_immediate or node.fixed_size is not None:
        sets = " | ".join(
            ", ".join(_port(node.spec.inputs[at]) for at in inputs) for inputs in node.sync_sets
        )
        of = f": {sets}" if len(node.sync_sets) > 1 else ""
        yield f"  {node.spec.handler.name}{of}"


def _outputs(plan: Plan) -> Iterator[str]:
    producers = {port.name: node.spec.name for node in plan.nodes for port in node.spec.outputs}
    entering = {port.name for port in plan.inputs}
    for port in plan.outputs:
        there = "the client" if port.name in entering else "nobody"
        yield f"output {port.name}: {port.type}, from {producers.get(port.name, there)}"


def _listed(ports: Ports) -> str:
    return ", ".join(map(_port, ports))


def _port(port: Port) -> str:
    """As one would write it: without an index that need not be said."""
    if port.tag and not port.index:
        return f"{port.tag}:{port.name}"
    return str(port)
