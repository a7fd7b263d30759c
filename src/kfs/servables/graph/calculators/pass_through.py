"""PassThroughCalculator: packets as they come, to outputs of the same tags and indexes."""

from __future__ import annotations

from kfs.servables.graph.calculator import Calculator, Contract, NodeContext
from kfs.servables.graph.spec import GraphError, Ports, TagIndex


def _places(ports: Ports) -> list[TagIndex]:
    return [TagIndex(port.tag, port.index) for port in ports]


class PassThroughCalculator(Calculator):
    """Takes anything; sends what is present."""

    is_straight = True

    @classmethod
    def contract(cls, contract: Contract) -> None:
        node = contract.node
        if _places(node.inputs) != _places(node.outputs):
            raise GraphError("expected the same tags and indexes for inputs and outputs")
        if node.side_outputs and _places(node.side_inputs) != _places(node.side_outputs):
            raise GraphError("expected the same tags and indexes for input and output side packets")
        contract.passed.update(zip(node.outputs, node.inputs, strict=True))
        contract.passed_sides.update(zip(node.side_outputs, node.side_inputs, strict=False))
        contract.is_offset_zero = True

    def open(self, context: NodeContext) -> None:
        for port in context.node.side_outputs:
            value = context.side_packet(port.tag, port.index)
            context.set_side_packet(value, port.tag, port.index)

    def process(self, context: NodeContext) -> None:
        for port, value in zip(context.node.outputs, context.inputs, strict=True):
            if value is not None:
                context.send(value, port.tag, port.index)
