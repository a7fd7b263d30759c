"""OpenVINOModelServerSessionCalculator: which servable the inference nodes of a graph use."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from kfs import errors
from kfs._proto import calculator_graph_pb2 as pb
from kfs.errors import Code, ServingError
from kfs.servables.base import CallContext, ServableLease, ServableSource
from kfs.servables.graph.calculator import (
    Calculator,
    CalculatorError,
    Contract,
    NodeContext,
    PacketType,
    options_of,
)
from kfs.servables.graph.spec import GraphError, NodeSpec

SESSION: PacketType = "session"

_OPTIONS = pb.OpenVINOModelServerSessionCalculatorOptions
_UINT32 = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True)
class Session:
    """A servable by its name, looked up anew for every inference.

    Attributes:
        version_text: empty for the default version.
    """

    source: ServableSource
    name: str
    version_text: str

    def lease(self, call: CallContext) -> ServableLease:
        """
        Raises:
            CalculatorError: FAILED_PRECONDITION, it is not available.
            ServingError: the call ended.
        """
        try:
            return self.source.lease(self.name, self.version_text, call)
        except ServingError as error:
            if error.status in (errors.CANCELLED, errors.DEADLINE_EXCEEDED):
                raise
            raise CalculatorError(
                f"OpenVINOModelServerSessionCalculator failed to load the model: {error}",
                Code.FAILED_PRECONDITION,
            ) from None


def servable_of(node: NodeSpec) -> tuple[str, str]:
    """The servable that a session node names, and its version, empty for the default one."""
    options = options_of(node, _OPTIONS)
    version = options.servable_version
    return options.servable_name, version if _UINT32.fullmatch(version) and int(version) else ""


class OpenVINOModelServerSessionCalculator(Calculator):
    """No streams; one output side packet with the tag SESSION."""

    is_straight = True

    @classmethod
    def contract(cls, contract: Contract) -> None:
        node = contract.node
        if node.inputs or node.outputs or node.side_inputs:
            raise GraphError("expected no streams and no input_side_packet")
        if [port.tag for port in node.side_outputs] != ["SESSION"]:
            raise GraphError('expected one output_side_packet with the tag SESSION: "SESSION:name"')
        if not options_of(node, _OPTIONS).servable_name:
            raise GraphError("expected servable_name in the options; there is none")
        contract.side_outputs[node.side_outputs[0]] = SESSION

    def open(self, context: NodeContext) -> None:
        session = Session(context.setting.source, *servable_of(context.node))
        context.set_side_packet(session, "SESSION")
        # What is not there is told before anything is computed, and without waiting for it.
        try:
            session.lease(CallContext(deadline=time.monotonic())).release()
        except ServingError:
            raise CalculatorError(
                "OpenVINOModelServerSessionCalculator failed to load the model: "
                f"{session.name} is being loaded",
                Code.FAILED_PRECONDITION,
            ) from None

    def process(self, context: NodeContext) -> None:
        """It has no inputs."""
