"""What both ways through a graph share: what was prepared, what a request has to bring, and how
failures of nodes are told."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfs import errors
from kfs.errors import Code, ServingError
from kfs.servables.graph.calculator import ANY, BOOL, INT64, STRING, CalculatorError, Setting
from kfs.servables.graph.packets import VALUES, told_type
from kfs.servables.graph.plan import NodePlan, Plan

_log = logging.getLogger("kfs.graph")


@dataclass
class Prepared:
    """A plan with what all its instances share.

    Attributes:
        setting: what nodes may use.
        resources: what each node's calculator prepared, in the order of the nodes.
        costs_s: how long one run of each node takes; learned from run to run.
    """

    plan: Plan
    setting: Setting
    resources: list[Any] = field(default_factory=list)
    costs_s: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.costs_s = [math.inf] * len(self.plan.nodes)

    def learn(self, node: int, elapsed_s: float) -> None:
        """Down at once, up slowly: nodes that wait for the interpreter seem long."""
        known = self.costs_s[node]
        if known > elapsed_s:
            self.costs_s[node] = elapsed_s
        else:
            self.costs_s[node] = 0.9 * known + 0.1 * elapsed_s


_SIDE_TYPES: dict[str, type] = {BOOL: bool, INT64: int, STRING: str}


def check_side_packets(plan: Plan, given: Mapping[str, Any]) -> None:
    """
    Raises:
        ServingError: FAILED_PRECONDITION, one is missing, or of another type.
    """
    for name, kind in plan.side_inputs:
        if name not in given:
            raise ServingError(
                errors.GRAPH_START_ERROR,
                "INVALID_ARGUMENT: ValidateRequiredSidePackets failed to validate: \n"
                f'Side packet "{name}" is required but was not provided.',
            )
        if kind != ANY and type(given[name]) is not _SIDE_TYPES.get(kind):
            raise ServingError(
                errors.GRAPH_START_ERROR,
                "INVALID_ARGUMENT: ValidateRequiredSidePackets failed to validate: \n"
                f'Side packet "{name}": expected {kind}; found {type(given[name]).__name__}',
            )


def failure_at(
    node: NodePlan, method: str, error: BaseException, inputs: Sequence[Any]
) -> ServingError:
    """What a call ends with when a node raised `error`, while it had these inputs."""
    name = node.spec.name
    if isinstance(error, ServingError):
        return error
    if isinstance(error, CalculatorError):
        code, text = error.code, str(error)
    else:
        _log.error("Unexpected error in node %s", name, exc_info=error)
        code, text = Code.INTERNAL, _why_unexpected(node, inputs)
    status = errors.GRAPH_EXECUTION_ERROR
    if code is Code.FAILED_PRECONDITION:
        status = errors.GRAPH_PRECONDITION_FAILED
    return ServingError(
        status,
        f"{code.name}: CalculatorGraph::Run() failed: \n"
        f'Calculator::{method}() for node "{name}" failed: {text}',
    )


def _why_unexpected(node: NodePlan, inputs: Sequence[Any]) -> str:
    """What of its inputs is to blame: calculators need not say what they send."""
    for port, kind, value in zip(node.spec.inputs, node.taken, inputs, strict=False):
        if value is not None and not isinstance(value, VALUES.get(kind, object)):
            return f"Unexpected error; {port}: expected {kind}; found {told_type(value)}"
    return "Unexpected error"
