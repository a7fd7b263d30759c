"""Running a plan: one instance for each unary call and each stream.

Packets have timestamps. Each input of a node has a queue and a bound, below which no packet will
come any more. A node runs when its input stream handler finds a timestamp that is settled: no
packet that is still to come could be earlier. A node runs one timestamp at a time; several nodes
may run at once, on threads that the caller lends or a pool has.

Source of the rules: MediaPipe's framework; its input stream handlers, timestamp bounds and errors.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from kfs import errors
from kfs.errors import Code, ServingError
from kfs.servables.base import CallContext
from kfs.servables.graph.calculator import (
    DONE,
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    CalculatorError,
    NodeContext,
    Setting,
)
from kfs.servables.graph.plan import FixedSize, NodePlan, Plan

_log = logging.getLogger("kfs.graph")

#: Takes packets that leave the graph: position of the output, timestamp, value. It may block.
OnOutput = Callable[[int, int, Any], None]

_CLOSE = DONE


class _Packet(NamedTuple):
    timestamp: int
    value: Any


class _Ready(NamedTuple):
    """What a node can do now: process a timestamp with these inputs, or close."""

    timestamp: int
    inputs: tuple[int, ...]


class _Task(NamedTuple):
    node: _Node
    timestamp: int
    values: list[Any]


class _Node:
    """The state of a node in one instance."""

    __slots__ = (
        "bounds", "calculator", "context", "done", "is_closed", "is_running", "out_bounds", "plan",
        "queues",
    )  # fmt: skip

    def __init__(self, plan: NodePlan, context: NodeContext) -> None:
        self.plan = plan
        self.calculator = plan.calculator()
        self.context = context
        self.queues: list[deque[_Packet]] = [deque() for _ in plan.inputs]
        self.bounds = [MIN_TIMESTAMP] * len(plan.inputs)
        self.out_bounds = [MIN_TIMESTAMP] * len(plan.outputs)
        #: Inputs that an immediate node has been told are done.
        self.done: set[int] = set()
        self.is_running = False
        self.is_closed = False

    def ready(self) -> _Ready | None:
        """What the input stream handler says."""
        if self.is_running or self.is_closed or not self.plan.inputs:
            return None
        if self.plan.is_immediate:
            return self._ready_immediately()
        if self.plan.fixed_size is not None:
            self._drop_surplus(self.plan.fixed_size)
        first: _Ready | None = None
        is_done = True
        for inputs in self.plan.sync_sets:
            packet, bound = self._settled(inputs)
            if packet < bound:
                if first is None or packet < first.timestamp:
                    first = _Ready(packet, inputs)
            elif bound != DONE:
                is_done = False
        if first is not None:
            return first
        return _Ready(_CLOSE, ()) if is_done else None

    def _settled(self, inputs: Sequence[int]) -> tuple[int, int]:
        """The earliest packet, and how early one could still come where there is none."""
        packet = bound = DONE
        for at in inputs:
            queue = self.queues[at]
            if queue:
                packet = min(packet, queue[0].timestamp)
            else:
                bound = min(bound, self.bounds[at])
        return packet, bound

    def _ready_immediately(self) -> _Ready | None:
        everything = tuple(range(len(self.queues)))
        packet, bound = self._settled(everything)
        if packet < DONE:
            return _Ready(packet, everything)
        if bound == DONE:
            return _Ready(_CLOSE, ())
        done = {at for at in everything if self.bounds[at] == DONE}
        if done != self.done:  # the node is told, with no input at all
            self.done = done
            return _Ready(bound, ())
        return None

    def _drop_surplus(self, size: FixedSize) -> None:
        lengths = [len(queue) for queue in self.queues]
        if size.in_all:
            if min(lengths) < size.trigger:
                return
            kept = min(queue[-size.target].timestamp for queue in self.queues)
        else:
            full = [queue for queue in self.queues if len(queue) >= size.trigger]
            if not full:
                return
            kept = max(queue[-size.target].timestamp for queue in full)
        for queue in self.queues:
            while queue and queue[0].timestamp < kept:
                queue.popleft()

    def take(self, ready: _Ready) -> list[Any]:
        """The values at that timestamp; None for inputs without."""
        values: list[Any] = [None] * len(self.queues)
        for at in ready.inputs:
            queue = self.queues[at]
            if queue and queue[0].timestamp == ready.timestamp:
                values[at] = queue.popleft().value
        return values

    def input_bound(self) -> int:
        """No packet before this will be processed any more."""
        return min(self._settled(range(len(self.queues))))


class Instance:
    """A graph at work for one call.

    Args:
        plan: what runs.
        setting: what nodes may use.
        resources: what each node's calculator prepared, by the node's name.
        call: whom it works for.
        side_packets: from the request, by name.
        on_output: takes what leaves the graph.
        pool: lends threads, as many at a time as the plan says; None leaves it to `work`.
        on_failure: told of the first failure of a node, on the node's thread.
    """

    def __init__(
        self,
        plan: Plan,
        setting: Setting,
        resources: Mapping[str, Any],
        call: CallContext,
        side_packets: Mapping[str, Any],
        on_output: OnOutput,
        pool: Executor | None = None,
        on_failure: Callable[[ServingError], None] | None = None,
    ) -> None:
        self._plan = plan
        self._on_failure = on_failure
        self._on_output = on_output
        self._pool = pool
        self._side_packets = dict(side_packets)
        self._nodes = [
            _Node(
                node,
                NodeContext(
                    node.spec, setting, resources.get(node.spec.name), call, self._side_packets
                ),
            )
            for node in plan.nodes
        ]
        self._input_bounds = {port.stream: MIN_TIMESTAMP for port in plan.inputs}
        self._changed = threading.Condition(threading.Lock())
        #: Nodes that may have become ready; the last one is looked at first.
        self._touched: list[_Node] = []
        self._n_workers = 0
        self._n_running = 0
        self._is_stopped = False
        self.failure: ServingError | None = None

    # What the caller does, in this order.

    def start(self) -> None:
        """Open every node.

        Raises:
            ServingError: a side packet is missing, or a node cannot be opened.
        """
        for name in self._plan.side_inputs:
            if name not in self._side_packets:
                raise ServingError(
                    errors.GRAPH_START_ERROR,
                    "INVALID_ARGUMENT: ValidateRequiredSidePackets failed to validate: \n"
                    f'Side packet "{name}" is required but was not provided.',
                )
        for node in self._nodes:
            self._open(node)
            if self.failure is not None:
                raise self.failure

    def push(self, stream: int, timestamp: int, value: Any) -> None:
        """Add a packet to an input of the graph; waits while the queues are full.

        A timestamp that is not later than those before is a failure of the graph.
        """
        with self._changed:
            while self._is_full() and (self._touched or self._n_running) and not self._has_ended():
                self._changed.wait()
            if self._has_ended():
                return
            bound = self._input_bounds[stream]
            if timestamp < bound:
                self._fail(_mismatch(self._plan.streams[stream].name, bound, timestamp))
                return
            self._input_bounds[stream] = timestamp + 1
            self._deliver(stream, timestamp, value)
            self._call_worker()

    def close_inputs(self) -> None:
        """No more packets will be pushed."""
        with self._changed:
            for stream in self._input_bounds:
                self._raise_bound(stream, DONE)

    def work(self) -> None:
        """Run what is ready, on this thread too, until nothing is and nothing runs."""
        with self._changed:
            self._n_workers += 1
        self._work(leads=True)

    def finish(self) -> None:
        """After `close_inputs`: run to the end and close every node, whatever has failed."""
        while not self._has_ended():
            self.work()
            left = [node for node in self._nodes if not node.is_closed]
            if not left:
                return
            self._close(left[0])  # back edges, or bounds that never moved, kept it open
        with self._changed:
            while self._n_running:
                self._changed.wait()
        for node in self._nodes:
            self._close(node)

    def stop(self) -> None:
        """Let nothing new begin: the answer is complete, or nobody waits for it."""
        with self._changed:
            self._is_stopped = True
            self._touched.clear()
            self._changed.notify_all()

    def fail(self, error: ServingError) -> None:
        """End with this error, unless there is one before."""
        with self._changed:
            self._fail(error)

    # Scheduling; all of it with the lock held.

    def _has_ended(self) -> bool:
        return self._is_stopped or self.failure is not None

    def _fail(self, error: ServingError) -> None:
        if self.failure is None:
            self.failure = error
        self._touched.clear()
        self._changed.notify_all()

    def _is_full(self) -> bool:
        limit = self._plan.max_queue_size
        return limit >= 0 and any(
            len(queue) >= limit for node in self._nodes for queue in node.queues
        )

    def _deliver(self, stream: int, timestamp: int, value: Any) -> None:
        for at, position in self._plan.streams[stream].consumers:
            node = self._nodes[at]
            if node.is_closed:
                continue
            node.queues[position].append(_Packet(timestamp, value))
            node.bounds[position] = timestamp + 1
            self._touched.append(node)

    def _raise_bound(self, stream: int, bound: int) -> None:
        """No packet before `bound` will come on a stream."""
        for at, position in self._plan.streams[stream].consumers:
            node = self._nodes[at]
            if bound > node.bounds[position]:
                node.bounds[position] = bound
                self._touched.append(node)

    def _take(self) -> _Task | None:
        while self._touched:
            node = self._touched.pop()
            ready = node.ready()
            if ready is None:
                self._pass_bound(node)
                continue
            node.is_running = True
            return _Task(node, ready.timestamp, node.take(ready))
        return None

    def _pass_bound(self, node: _Node) -> None:
        """A node that keeps the time of its inputs lets others know what will not come."""
        if not node.plan.is_offset_zero or node.is_running or node.is_closed:
            return
        self._raise_output_bounds(node, node.input_bound())

    def _raise_output_bounds(self, node: _Node, bound: int) -> None:
        for position, stream in enumerate(node.plan.outputs):
            if bound > node.out_bounds[position]:
                node.out_bounds[position] = bound
                self._raise_bound(stream, bound)

    def _call_worker(self) -> None:
        """Have one more thread work, where something is to be done and threads are allowed."""
        if self._pool is None or self._n_workers >= self._plan.n_threads:
            return
        if any(node.ready() is not None for node in self._touched):
            self._n_workers += 1
            self._pool.submit(self._work, leads=False)

    # Work; without the lock but for looking.

    def _work(self, *, leads: bool) -> None:
        while True:
            with self._changed:
                task = self._take()
                while task is None and leads and self._n_running:
                    self._changed.wait()
                    task = self._take()
                if task is None:
                    self._n_workers -= 1
                    self._changed.notify_all()
                    return
                self._n_running += 1
                self._call_worker()
            node = task.node
            try:
                self._run(task)
            finally:
                del task  # its values are not kept while this thread waits
                with self._changed:
                    self._n_running -= 1
                    node.is_running = False
                    if not self._has_ended():
                        self._touched.append(node)
                    self._changed.notify_all()
                del node

    def _run(self, task: _Task) -> None:
        node = task.node
        if task.timestamp == _CLOSE:
            self._close(node)
            return
        context = node.context
        context.timestamp, context.inputs = task.timestamp, task.values
        try:
            node.calculator.process(context)
            context.inputs = ()
            self._forward(node)
        except Exception as error:
            context.inputs = ()
            context.sent.clear()
            self._fail_at(node, "Process", error)
            return
        if node.plan.is_offset_zero:
            with self._changed:
                self._raise_output_bounds(node, task.timestamp + 1)

    def _open(self, node: _Node) -> None:
        try:
            node.calculator.open(node.context)
            self._side_packets.update(node.context.side_sent)
            self._forward(node)
        except Exception as error:
            self._fail_at(node, "Open", error)

    def _close(self, node: _Node) -> None:
        with self._changed:
            if node.is_closed:
                return
            node.is_closed = True
            for queue in node.queues:
                queue.clear()
        try:
            node.calculator.close(node.context)
            if not self._has_ended():
                self._forward(node)
        except Exception as error:
            self._fail_at(node, "Close", error)
        with self._changed:
            if not self._has_ended():
                self._raise_output_bounds(node, DONE)

    def _forward(self, node: _Node) -> None:
        """Send on what a node has sent, output by output."""
        sent = node.context.sent
        if not sent:
            return
        sent.sort(key=lambda packet: packet.output)
        for output, timestamp, value in sent:
            if self._has_ended():
                break
            stream = node.plan.outputs[output]
            bound = node.out_bounds[output]
            if not max(bound, MIN_TIMESTAMP) <= timestamp <= MAX_TIMESTAMP:
                raise _MismatchError(_mismatch(self._plan.streams[stream].name, bound, timestamp))
            node.out_bounds[output] = timestamp + 1
            leaving = self._plan.streams[stream].output
            if leaving is not None:
                self._on_output(leaving, timestamp, value)
            with self._changed:
                if not self._has_ended():
                    self._deliver(stream, timestamp, value)
                    self._call_worker()
        sent.clear()

    def _fail_at(self, node: _Node, method: str, error: Exception) -> None:
        self.fail(failure_at(node.plan.spec.name, method, error))
        if self._on_failure is not None and self.failure is not None:
            self._on_failure(self.failure)


class _MismatchError(Exception):
    """A node sent something too late."""

    def __init__(self, failure: ServingError) -> None:
        super().__init__(str(failure))
        self.failure = failure


def failure_at(node: str, method: str, error: Exception) -> ServingError:
    """What a call ends with when a node raised `error`."""
    if isinstance(error, _MismatchError):
        return error.failure
    if isinstance(error, ServingError):
        return error
    if isinstance(error, CalculatorError):
        code, text = error.code, str(error)
    else:
        _log.error("Unexpected error in node %s", node, exc_info=error)
        code, text = Code.INTERNAL, "Unexpected error"
    status = errors.GRAPH_EXECUTION_ERROR
    if code is Code.FAILED_PRECONDITION:
        status = errors.GRAPH_PRECONDITION_FAILED
    return ServingError(
        status,
        f"{code.name}: CalculatorGraph::Run() failed: \n"
        f'Calculator::{method}() for node "{node}" failed: {text}',
    )


def _mismatch(stream: str, bound: int, timestamp: int) -> ServingError:
    return ServingError(
        errors.GRAPH_EXECUTION_ERROR,
        "INVALID_ARGUMENT: Graph has errors: \nPacket timestamp mismatch on a calculator "
        f'receiving from stream "{stream}". Current minimum expected timestamp is {bound} but '
        f"received {timestamp}. Timestamps have to increase on every stream.",
    )
