"""The interface of calculators: what a node of a graph runs, and how to write one.

A calculator is a class. `contract` says once, when a graph is loaded, what its ports carry;
`prepare` may make something that all instances of the graph share. For every unary call and every
stream a new object is made: `open` before the first packet, `process` for every timestamp at which
the inputs are ready, `close` at the end. An object is never used by two threads at a time.

Packages add calculators with entry points of the group `kfs.calculators`, named as graph files
name the calculator.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

from kfs._proto.pool import POOL
from kfs.errors import Code
from kfs.servables.base import CallContext, ServableSource
from kfs.servables.graph.spec import GraphError, NodeSpec, Port

_log = logging.getLogger("kfs.graph")

#: What code of others raises when it fails. That it wants to exit does not end the server, and
#: what is cancelled in it, such as a task of asyncio, is no end of the thread that runs it.
FAILURES = BaseException

#: What a port carries. Two ports can be connected when they say the same, or one says `ANY`.
PacketType = str

ANY: PacketType = "any"
#: `numpy.ndarray`, or `StringTensor` for strings.
OV_TENSOR: PacketType = "ov::Tensor"
#: A list of those.
OV_TENSORS: PacketType = "std::vector<ov::Tensor>"
#: `numpy.ndarray`
MP_TENSOR: PacketType = "mediapipe::Tensor"
MP_TENSORS: PacketType = "std::vector<mediapipe::Tensor>"
#: `numpy.ndarray`
TF_TENSOR: PacketType = "tensorflow::Tensor"
TF_TENSORS: PacketType = "std::vector<tensorflow::Tensor>"
#: `packets.ImageFrame`
IMAGE: PacketType = "mediapipe::ImageFrame"
#: `pyovms.Tensor`
PY_TENSOR: PacketType = "pyovms.Tensor"
#: A ModelInferRequest and a ModelInferResponse as protobuf messages.
REQUEST: PacketType = "KFS request"
RESPONSE: PacketType = "KFS response"
#: What parameters of requests become as side packets: `bool`, `int` and `str`.
BOOL: PacketType = "bool"
INT64: PacketType = "int64"
STRING: PacketType = "std::string"

#: The range of timestamps, in microseconds where they come from a clock.
MIN_TIMESTAMP = -(1 << 63) + 3
MAX_TIMESTAMP = (1 << 63) - 4
#: A bound that no packet can reach any more.
DONE = (1 << 63) - 1


class CalculatorError(Exception):
    """A node that cannot go on; `code` and text become part of the status of the call."""

    def __init__(self, text: str, code: Code = Code.INTERNAL) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Contract:
    """What the ports of one node carry, filled by `Calculator.contract`.

    Attributes:
        node: the node, with its ports and options.
        inputs: by port; ports that are not named carry anything.
        outputs: likewise.
        passed: by output, the input whose packets it carries, whatever those are.
        side_inputs: likewise.
        side_outputs: likewise.
        passed_sides: likewise.
        own_side_inputs: side packets that the server gives, whatever the request says.
        is_offset_zero: when nothing is sent at a timestamp, nothing will be: those who wait for
            it need not.
    """

    node: NodeSpec
    inputs: dict[Port, PacketType] = field(default_factory=dict)
    outputs: dict[Port, PacketType] = field(default_factory=dict)
    passed: dict[Port, Port] = field(default_factory=dict)
    side_inputs: dict[Port, PacketType] = field(default_factory=dict)
    side_outputs: dict[Port, PacketType] = field(default_factory=dict)
    passed_sides: dict[Port, Port] = field(default_factory=dict)
    own_side_inputs: set[Port] = field(default_factory=set)
    is_offset_zero: bool = False


class Sent(NamedTuple):
    """A packet on its way out of a node: the position of the output, its time, its value."""

    output: int
    timestamp: int
    value: Any


class Setting(NamedTuple):
    """What every node of a graph may use.

    Attributes:
        folder: where relative paths in the graph file begin.
        source: the servables of the server.
    """

    folder: Path
    source: ServableSource


@dataclass
class NodeContext:
    """What one node of one instance sees; the same object for all its calls.

    Attributes:
        node: ports and options.
        setting: folder and servables.
        resource: what `prepare` made.
        call: the call that the instance works for.
        side_packets: input side packets by the names of their streams.
        timestamp: of the inputs that are being processed.
        inputs: their values in the order of `node.inputs`; None where there is none.
        is_last: nothing runs in this call after it, so outputs of a model may stay where the
            model wrote them until the call is closed.
    """

    node: NodeSpec
    setting: Setting
    resource: Any
    call: CallContext
    side_packets: Mapping[str, Any]
    timestamp: int = MIN_TIMESTAMP
    inputs: Sequence[Any] = ()
    is_last: bool = False
    sent: list[Sent] = field(default_factory=list)
    side_sent: dict[str, Any] = field(default_factory=dict)

    def input(self, tag: str = "", index: int = 0) -> Any:
        """The value at an input now; None when it has none, or the node has no such input."""
        position = _position(self.node.inputs, tag, index)
        return None if position is None else self.inputs[position]

    def side_packet(self, tag: str = "", index: int = 0) -> Any:
        """The value of an input side packet; None when the node has no such port."""
        position = _position(self.node.side_inputs, tag, index)
        if position is None:
            return None
        return self.side_packets[self.node.side_inputs[position].name]

    def send(self, value: Any, tag: str = "", index: int = 0, timestamp: int | None = None) -> None:
        """Send a packet, at the time of the inputs unless another is given.

        Raises:
            CalculatorError: the node has no such output.
        """
        position = _position(self.node.outputs, tag, index)
        if position is None:
            raise CalculatorError(f'node has no output "{tag}:{index}"')
        self.sent.append(Sent(position, self.timestamp if timestamp is None else timestamp, value))

    def set_side_packet(self, value: Any, tag: str = "", index: int = 0) -> None:
        """Give an output side packet; only in `open`."""
        position = _position(self.node.side_outputs, tag, index)
        if position is None:
            raise CalculatorError(f'node has no output side packet "{tag}:{index}"')
        self.side_sent[self.node.side_outputs[position].name] = value


def _position(ports: Sequence[Port], tag: str, index: int) -> int | None:
    for position, port in enumerate(ports):
        if port.tag == tag and port.index == index:
            return position
    return None


class Calculator:
    """What a node runs; see the module."""

    #: The file with the messages of its options, when they are not known to the server.
    options_file: ClassVar[FileDescriptor | None] = None

    #: Whether it answers each set of inputs at once and at their time, and keeps nothing.
    is_straight: ClassVar[bool] = False

    @classmethod
    def contract(cls, contract: Contract) -> None:
        """Say what the ports carry.

        Raises:
            GraphError: the node's ports or options are not those of this calculator.
        """

    @classmethod
    def prepare(cls, node: NodeSpec, setting: Setting) -> Any:
        """Make what all instances share, when the graph is loaded.

        Raises:
            GraphError: the graph cannot be served.
        """
        return None

    @classmethod
    def release(cls, resource: Any) -> None:
        """Give back what `prepare` made, when the last instance has ended."""

    def open(self, context: NodeContext) -> None:
        """Get ready; side packets are there, inputs are not.

        Raises:
            CalculatorError: the call cannot be served.
        """

    def process(self, context: NodeContext) -> None:
        """Work on the inputs of one timestamp.

        Raises:
            CalculatorError: ends the call with its text; any other exception ends it as INTERNAL.
        """
        raise NotImplementedError

    def close(self, context: NodeContext) -> None:
        """No more inputs will come; packets may still be sent. Also after errors, once opened."""


_GROUP = "kfs.calculators"


class Registry:
    """Calculators by the names that graph files use."""

    def __init__(self, builtin: Mapping[str, type[Calculator]]) -> None:
        self._known: dict[str, type[Calculator]] = dict(builtin)
        #: What is wrong with calculators that packages offer, by name.
        self._broken: dict[str, str] = {}
        self._is_complete = False

    def add(self, name: str, calculator: type[Calculator]) -> None:
        """Make a calculator known to this process, with the messages of its options."""
        if calculator.options_file is not None:
            POOL.AddSerializedFile(calculator.options_file.serialized_pb)
        self._known[name] = calculator

    def load_plug_ins(self) -> None:
        """Import what installed packages offer; once.

        What cannot be used is logged, and told again to the graphs that name it: others do not
        suffer from it.
        """
        if self._is_complete:
            return
        self._is_complete = True
        for point in entry_points(group=_GROUP):
            try:
                self.add(point.name, _load(point))
            except FAILURES as error:
                reason = f"calculator {point.name} ({point.value}) cannot be used: {error!r}"
                _log.error("%s", reason, exc_info=error)
                self._broken[point.name] = reason

    def find(self, node: NodeSpec) -> type[Calculator]:
        """
        Raises:
            GraphError: nothing of that name is known, or it cannot be used.
        """
        found = self._known.get(node.calculator)
        if found is None and node.calculator in self._broken:
            raise GraphError(f"node {node.name}: {self._broken[node.calculator]}")
        if found is None:
            known = ", ".join(sorted(self._known))
            raise GraphError(
                f"node {node.name}: there is no calculator {node.calculator}; known are {known}"
            )
        return found


def _load(point: EntryPoint) -> type[Calculator]:
    found = point.load()
    if not (isinstance(found, type) and issubclass(found, Calculator)):
        raise TypeError(f"expected a subclass of Calculator; found {found!r}")
    return found


def options_of(node: NodeSpec, kind: type[Message]) -> Any:
    """The node's options of that type, or a message with its defaults."""
    return node.options.get(kind.DESCRIPTOR.full_name) or kind()
