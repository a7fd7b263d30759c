"""How a node waits for its inputs: MediaPipe's input stream handlers.

Each input has a queue of packets and a bound, below which no packet will come any more. Of these a
handler makes out whether the node can run, at which timestamp, and on which packets: those that
are settled, since nothing that is still to come could be earlier.

Source of the rules: MediaPipe's framework/stream_handler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfs import pyovms
from kfs._proto import calculator_graph_pb2 as pb
from kfs.servables.graph.calculator import DONE, MIN_TIMESTAMP
from kfs.servables.graph.spec import GraphError, NodeSpec, TagIndex, parse_tag_index

#: A packet in a queue: its timestamp and its value.
Packet = tuple[int, Any]

#: What a node can do now: process this timestamp with these inputs, or close.
Ready = tuple[int, tuple[int, ...]]

CLOSE: Ready = (DONE, ())
_FIRST_INPUT = (0,)


# What a graph file says of it.


@dataclass(frozen=True)
class FixedSize:
    """Packets beyond `target` are dropped, the oldest first, once there are `trigger`."""

    trigger: int
    target: int
    in_all: bool


@dataclass(frozen=True)
class HandlerPlan:
    """The handler of one node, with its options.

    Attributes:
        sync_sets: inputs that wait for each other; one set of all unless it is said.
        fixed_size: what the handler of that name was told; None for others.
        base: the input by which another handler aligns the others.
    """

    name: str
    n_inputs: int
    sync_sets: tuple[tuple[int, ...], ...]
    fixed_size: FixedSize | None = None
    base: int = 0

    @property
    def is_default(self) -> bool:
        return self.name == _DEFAULT


def plan_handler(node: NodeSpec) -> HandlerPlan:
    """
    Raises:
        GraphError: there is no such handler, or its options do not fit the node.
    """
    name, n_inputs = node.handler.name, len(node.inputs)
    if name not in _HANDLERS:
        raise GraphError(
            f"node {node.name}: expected an input_stream_handler of {', '.join(_HANDLERS)}; "
            f"found {name}"
        )
    if not n_inputs:
        return HandlerPlan(_DEFAULT, 0, ())
    if name == _MUX and n_inputs < 2:
        raise GraphError(
            f"node {node.name}, {name}: expected at least two inputs, of which the last one "
            f"selects another; found {n_inputs}"
        )
    everything = (tuple(range(n_inputs)),)
    return HandlerPlan(
        name,
        n_inputs,
        _sync_sets(node) if name == _SYNC_SET else everything,
        _fixed_size(node) if name == _FIXED_SIZE else None,
        _base(node) if name == _ALIGN else 0,
    )


def _sync_sets(node: NodeSpec) -> tuple[tuple[int, ...], ...]:
    """The sets that are listed, and one of all other inputs."""
    options = node.handler.options.get(pb.SyncSetInputStreamHandlerOptions.DESCRIPTOR.full_name)
    sets: list[tuple[int, ...]] = []
    left = list(range(len(node.inputs)))
    listed = [] if options is None else options.sync_set  # type: ignore[attr-defined]
    for sync_set in listed:
        members = [_input_position(node, "sync_set", text) for text in sync_set.tag_index]
        for member in members:
            if member not in left:
                raise GraphError(f"node {node.name}, sync_set: {node.inputs[member]} is in two")
            left.remove(member)
        sets.append(tuple(members))
    return (*sets, tuple(left)) if left else tuple(sets)


def _input_position(node: NodeSpec, option: str, text: str) -> int:
    wanted = parse_tag_index(text)
    for position, port in enumerate(node.inputs):
        if wanted == TagIndex(port.tag, port.index):
            return position
    raise GraphError(f'node {node.name}, {option}: the node has no input "{text}"')


def _fixed_size(node: NodeSpec) -> FixedSize:
    kind = pb.FixedSizeInputStreamHandlerOptions
    options = node.handler.options.get(kind.DESCRIPTOR.full_name) or kind()
    trigger, target = options.trigger_queue_size, options.target_queue_size  # type: ignore[attr-defined]
    if not 1 <= target <= trigger:
        raise GraphError(
            f"node {node.name}: expected 1 <= target_queue_size <= trigger_queue_size; found "
            f"{target} and {trigger}"
        )
    return FixedSize(trigger, target, options.fixed_min_size)  # type: ignore[attr-defined]


def _base(node: NodeSpec) -> int:
    kind = pb.TimestampAlignInputStreamHandlerOptions
    options = node.handler.options.get(kind.DESCRIPTOR.full_name) or kind()
    text = options.timestamp_base_tag_index  # type: ignore[attr-defined]
    return _input_position(node, "timestamp_base_tag_index", text)


# What one node of an instance does with it.


class Inputs:
    """By default: each set of inputs that wait for each other, at its earliest settled timestamp.

    Attributes:
        queues: by input.
        bounds: by input.
        complaint: why the node cannot process what was taken; empty when it can.
    """

    __slots__ = ("bounds", "complaint", "plan", "queues")

    def __init__(self, plan: HandlerPlan) -> None:
        self.plan = plan
        self.queues: list[deque[Packet]] = [deque() for _ in range(plan.n_inputs)]
        self.bounds = [MIN_TIMESTAMP] * plan.n_inputs
        self.complaint = ""

    def ready(self) -> Ready | None:
        """What the node can do now; None when it has to wait."""
        first: Ready | None = None
        is_done = True
        for inputs in self.plan.sync_sets:
            packet, bound = self._settled(inputs)
            if packet < bound:
                if first is None or packet < first[0]:
                    first = packet, inputs
            elif bound != DONE:
                is_done = False
        if first is not None:
            return first
        return CLOSE if is_done else None

    def take(self, ready: Ready) -> list[Any]:
        """The values at that timestamp by input, out of the queues; None for inputs without."""
        timestamp, inputs = ready
        values: list[Any] = [None] * len(self.queues)
        for at in inputs:
            queue = self.queues[at]
            if queue and queue[0][0] == timestamp:
                values[at] = queue.popleft()[1]
        return values

    def has_more(self, timestamp: int) -> bool:
        """Whether there may be something to do after the node has processed that timestamp."""
        return True

    def bound(self) -> int:
        """No packet before this will be processed any more."""
        return min(self._settled(range(len(self.queues))))

    def clear(self) -> None:
        for queue in self.queues:
            queue.clear()

    def _settled(self, inputs: Sequence[int]) -> tuple[int, int]:
        """The earliest packet, and how early one could still come where there is none."""
        packet = bound = DONE
        for at in inputs:
            queue = self.queues[at]
            if queue:
                packet = min(packet, queue[0][0])
            else:
                bound = min(bound, self.bounds[at])
        return packet, bound

    def _all(self) -> tuple[int, ...]:
        return tuple(range(len(self.queues)))

    def _is_any_done(self) -> bool:
        return any(
            not queue and bound == DONE
            for queue, bound in zip(self.queues, self.bounds, strict=True)
        )


class _OneInput(Inputs):
    """The same with a single input, where there is nothing to wait for."""

    __slots__ = ()

    def ready(self) -> Ready | None:
        queue = self.queues[0]
        if queue:
            return queue[0][0], _FIRST_INPUT
        return CLOSE if self.bounds[0] == DONE else None

    def take(self, ready: Ready) -> list[Any]:
        return [self.queues[0].popleft()[1]]

    def has_more(self, timestamp: int) -> bool:
        return bool(self.queues[0]) or self.bounds[0] > timestamp + 1


class _ImmediateInputs(Inputs):
    """Each packet as soon as it is there, with others of its timestamp that are there too."""

    __slots__ = ("_done",)

    def __init__(self, plan: HandlerPlan) -> None:
        super().__init__(plan)
        #: Inputs of which the node has been told that they are done.
        self._done: set[int] = set()

    def ready(self) -> Ready | None:
        everything = self._all()
        packet, bound = self._settled(everything)
        if packet < DONE:
            return packet, everything
        if bound == DONE:
            return CLOSE
        # The node is told of inputs that have ended, with no input at all.
        return None if self._done_inputs() == self._done else (bound, ())

    def take(self, ready: Ready) -> list[Any]:
        if not ready[1]:
            self._done = self._done_inputs()
        return super().take(ready)

    def _done_inputs(self) -> set[int]:
        return {at for at, bound in enumerate(self.bounds) if bound == DONE}


class _FixedSizeInputs(Inputs):
    """As by default, after the oldest packets were dropped where there are too many."""

    __slots__ = ()

    def ready(self) -> Ready | None:
        assert self.plan.fixed_size is not None
        self._drop_surplus(self.plan.fixed_size)
        return super().ready()

    def _drop_surplus(self, size: FixedSize) -> None:
        lengths = [len(queue) for queue in self.queues]
        if size.in_all:
            if min(lengths) < size.trigger:
                return
            kept = min(queue[-size.target][0] for queue in self.queues)
        else:
            full = [queue for queue in self.queues if len(queue) >= size.trigger]
            if not full:
                return
            kept = max(queue[-size.target][0] for queue in full)
        for queue in self.queues:
            while queue and queue[0][0] < kept:
                queue.popleft()


class _EarlyCloseInputs(Inputs):
    """As by default, but one input that is done is enough to close."""

    __slots__ = ()

    def ready(self) -> Ready | None:
        return CLOSE if self._is_any_done() else super().ready()


class _BarrierInputs(Inputs):
    """Once every input has a packet: the first of each, whatever their timestamps are."""

    __slots__ = ()

    def ready(self) -> Ready | None:
        if self._is_any_done():
            return CLOSE
        if not all(self.queues):
            return None
        return min(queue[0][0] for queue in self.queues), self._all()

    def take(self, ready: Ready) -> list[Any]:
        return [queue.popleft()[1] for queue in self.queues]


class _MuxInputs(Inputs):
    """The packet of the last input selects the input whose packet of that timestamp is taken.

    A selection is a whole number, or a tensor of one.
    """

    __slots__ = ()

    def ready(self) -> Ready | None:
        control = self.queues[-1]
        if not control:
            self._drop_before(self.bounds[-1])
            return CLOSE if self.bounds[-1] == DONE else None
        timestamp, selection = control[0]
        self._drop_before(timestamp)
        chosen = self._chosen(selection)
        if chosen is None:
            return timestamp, (len(self.queues) - 1,)
        if not self.queues[chosen] and self.bounds[chosen] <= timestamp:
            return None
        return timestamp, (chosen, len(self.queues) - 1)

    def take(self, ready: Ready) -> list[Any]:
        values = super().take(ready)
        if self._chosen(values[-1]) is None:
            number = _whole_number(values[-1])
            found = type(values[-1]).__name__ if number is None else number
            self.complaint = (
                f"expected a whole number from 0 to {len(self.queues) - 2} at the last input; "
                f"found {found}"
            )
        self._drop_before(ready[0] + 1)
        return values

    def bound(self) -> int:
        control = self.queues[-1]
        return control[0][0] if control else self.bounds[-1]

    def _chosen(self, selection: Any) -> int | None:
        number = _whole_number(selection)
        return number if number in range(len(self.queues) - 1) else None

    def _drop_before(self, timestamp: int) -> None:
        """Of what no selection can come for any more, nothing is kept."""
        for queue in self.queues[:-1]:
            while queue and queue[0][0] < timestamp:
                queue.popleft()


def _whole_number(value: Any) -> int | None:
    if not isinstance(value, (int, np.generic, np.ndarray, pyovms.Tensor)):
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # memory of a format that numpy has none for
        return None
    return int(array.item()) if array.size == 1 and array.dtype.kind in "iu" else None


class _AlignedInputs(Inputs):
    """As by default, but the first packets of all inputs count as of one time: that of the base.

    Until every input has a packet, those of the base are processed as they come.
    """

    __slots__ = ("_offsets",)

    def __init__(self, plan: HandlerPlan) -> None:
        super().__init__(plan)
        #: What is added to the timestamps of each input; None before it is known.
        self._offsets: list[int] | None = None

    def ready(self) -> Ready | None:
        base = self.queues[self.plan.base]
        if self._offsets is None:
            return (base[0][0], self._all()) if base else None
        packet, bound = self._settled(self._all())
        if packet < bound:
            return packet, self._all()
        return CLOSE if bound == DONE else None

    def take(self, ready: Ready) -> list[Any]:
        timestamp, inputs = ready
        if self._offsets is None:
            if not all(self.queues):
                return super().take((timestamp, (self.plan.base,)))
            self._offsets = [timestamp - queue[0][0] for queue in self.queues]
        values: list[Any] = [None] * len(self.queues)
        for at in inputs:
            queue = self.queues[at]
            if queue and queue[0][0] + self._offsets[at] == timestamp:
                values[at] = queue.popleft()[1]
        return values

    def bound(self) -> int:
        base = self.queues[self.plan.base]
        if self._offsets is None:
            return base[0][0] if base else self.bounds[self.plan.base]
        return super().bound()

    def _settled(self, inputs: Sequence[int]) -> tuple[int, int]:
        assert self._offsets is not None
        packet = bound = DONE
        for at in inputs:
            queue, offset = self.queues[at], self._offsets[at]
            if queue:
                packet = min(packet, queue[0][0] + offset)
            elif self.bounds[at] != DONE:
                bound = min(bound, self.bounds[at] + offset)
        return packet, bound


_DEFAULT = "DefaultInputStreamHandler"
_SYNC_SET = "SyncSetInputStreamHandler"
_FIXED_SIZE = "FixedSizeInputStreamHandler"
_MUX = "MuxInputStreamHandler"
_ALIGN = "TimestampAlignInputStreamHandler"
_HANDLERS: dict[str, type[Inputs]] = {
    _DEFAULT: Inputs,
    "ImmediateInputStreamHandler": _ImmediateInputs,
    _SYNC_SET: Inputs,
    _FIXED_SIZE: _FixedSizeInputs,
    "EarlyCloseInputStreamHandler": _EarlyCloseInputs,
    "BarrierInputStreamHandler": _BarrierInputs,
    _MUX: _MuxInputs,
    _ALIGN: _AlignedInputs,
}


def make_inputs(plan: HandlerPlan) -> Inputs:
    kind = _HANDLERS[plan.name]
    return (_OneInput if kind is Inputs and plan.n_inputs == 1 else kind)(plan)
