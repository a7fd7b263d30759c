"""The short way through a graph whose nodes each run once, at the time of the request.

No queues and no threads: what a node sends is what the next one takes. A model's outputs stay
where the model wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfs import errors
from kfs.errors import ServingError
from kfs.servables.base import CallContext
from kfs.servables.graph.calculator import NodeContext
from kfs.servables.graph.run import Prepared, failure_at


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
    for name in plan.side_inputs:
        if name not in sides:
            raise ServingError(errors.GRAPH_START_ERROR, f'Side packet "{name}" is required')
    last = len(plan.nodes) - 1
    for at, node in enumerate(plan.nodes):
        inputs = [values.get(stream) for stream in node.inputs]
        context = NodeContext(
            node.spec, prepared.setting, prepared.resources.get(node.spec.name), call, sides,
            timestamp, inputs, is_last=at == last,
        )  # fmt: skip
        calculator = node.calculator()
        method = "Open"
        try:
            calculator.open(context)
            sides.update(context.side_sent)
            if any(value is not None for value in inputs):
                method = "Process"
                calculator.process(context)
        except Exception as error:
            raise failure_at(node.spec.name, method, error) from error
        for output, _, value in context.sent:
            values[node.outputs[output]] = value
    return {
        position: values[port.stream]
        for position, port in enumerate(plan.outputs)
        if port.stream in values
    }
