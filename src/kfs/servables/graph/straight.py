"""The short way through a graph whose nodes each run once, at the time of the request.

No queues and no threads: what a node sends is what the next one takes. A model's outputs stay
where the model wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfs.servables.base import CallContext
from kfs.servables.graph.calculator import FAILURES, NodeContext
from kfs.servables.graph.prepared import Prepared, check_side_packets, failure_at


def run_straight(
    prepared: Prepared,
    call: CallContext,
    side_packets: Mapping[str, Any],
    timestamp: int,
    values: dict[int, Any],
) -> dict[int, Any]:
    """The values of the outputs that were sent, by position.

    Args:
        values: of the input streams, by the position of the stream; used up.

    Raises:
        ServingError: a node failed.
    """
    plan = prepared.plan
    sides = dict(side_packets)
    check_side_packets(plan, sides)
    last = len(plan.nodes) - 1
    for at, node in enumerate(plan.nodes):
        inputs = [values.get(stream) for stream in node.inputs]
        context = NodeContext(
            node.spec, prepared.setting, prepared.resources[at], call, sides,
            timestamp, inputs, is_last=at == last,
        )  # fmt: skip
        method = "Open"
        try:
            calculator = node.calculator()
            calculator.open(context)
            sides.update(context.side_sent)
            if any(value is not None for value in inputs):
                method = "Process"
                calculator.process(context)
        except FAILURES as error:
            raise failure_at(node, method, error, inputs) from error
        for output, _, value in context.sent:
            values[node.outputs[output]] = value
    return {
        position: values[port.stream]
        for position, port in enumerate(plan.outputs)
        if port.stream in values
    }
