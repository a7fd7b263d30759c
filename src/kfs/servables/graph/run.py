"""Running a plan: one instance for each unary call and each stream.

Packets have timestamps, and a node runs when its input stream handler finds one that is settled.
A node runs one timestamp at a time; several nodes may run at once, on threads that the caller lends
or a pool has. Waking a thread costs more than most nodes take, so it is done for those that take
long, and for those of which nothing is known.

Source of the rules: MediaPipe's framework; its scheduler, timestamp bounds and errors.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from kfs import errors
from kfs.errors import Code, ServingError
from kfs.helpers import Helpers
from kfs.servables.base import CallContext
from kfs.servables.graph.calculator import (
    DONE,
    FAILURES,
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    Calculator,
    CalculatorError,
    NodeContext,
    Sent,
)
from kfs.servables.graph.input_handlers import CLOSE, Packet, Ready, make_inputs
from kfs.servables.graph.packets import held_nbytes
from kfs.servables.graph.plan import NodePlan
from kfs.servables.graph.prepared import Prepared, check_side_packets, failure_at

#: Takes packets that leave the graph: position of the output, timestamp, value. It may block.
OnOutput = Callable[[int, int, Any], None]

# A node that takes longer is worth a thread of its own.
_LONG_S = 0.0002
#: What packets beyond the bound of a queue may take while they wait for packets of other inputs.
MAX_SURPLUS_NBYTES = 1 << 30
# How long the thread that pushes may work by itself before it looks for messages again.
_MAX_ADVANCE_S = 0.001


class _Node:
    """The state of a node in one instance."""

    __slots__ = (
        "calculator", "context", "index", "inputs", "is_closed", "is_closing", "is_open",
        "is_queued", "is_running", "out_bounds", "plan",
    )  # fmt: skip

    calculator: Calculator

    def __init__(self, index: int, plan: NodePlan, context: NodeContext) -> None:
        self.index = index
        self.plan = plan
        self.context = context
        self.inputs = make_inputs(plan.handler)
        self.out_bounds = [MIN_TIMESTAMP] * len(plan.outputs)
        self.is_open = False
        self.is_queued = False
        self.is_running = False
        self.is_closing = False
        self.is_closed = False

    def ready(self) -> Ready | None:
        """What it can do now, unless it has something to do already."""
        return None if self.is_running or self.is_closed else self.inputs.ready()


class Instance:
    """A graph at work for one call.

    Args:
        prepared: what runs.
        call: whom it works for.
        side_packets: from the request, by name.
        on_output: takes what leaves the graph.
        pool: lends threads, as many at a time as the plan says; None leaves it to the caller's.
        on_failure: told of the first failure of a node, on the node's thread.
    """

    def __init__(
        self,
        prepared: Prepared,
        call: CallContext,
        side_packets: Mapping[str, Any],
        on_output: OnOutput,
        pool: Helpers | None = None,
        on_failure: Callable[[ServingError], None] | None = None,
    ) -> None:
        self._prepared = prepared
        self._plan = plan = prepared.plan
        self._on_failure = on_failure
        self._on_output = on_output
        self._pool = pool
        self._side_packets = dict(side_packets)
        self._nodes = []
        for index, node in enumerate(plan.nodes):
            resource = prepared.resources[index]
            context = NodeContext(node.spec, prepared.setting, resource, call, self._side_packets)
            self._nodes.append(_Node(index, node, context))
        self._queues = [queue for node in self._nodes for queue in node.inputs.queues]
        self._input_bounds = {port.stream: MIN_TIMESTAMP for port in plan.inputs}
        self._lock = threading.Lock()
        #: For threads that wait for others to finish.
        self._changed = threading.Condition(self._lock)
        self._n_waiting = 0
        #: For the thread that pushes, while an input holds as much as this; 0 when it does not.
        self._room = threading.Condition(self._lock)
        self._room_limit = 0
        #: What packets beyond it take at most: some may have gone since they were counted.
        self._surplus_nbytes = 0
        limit = plan.max_queue_size
        self._max_length = limit if limit >= 0 else sys.maxsize
        #: Nodes that may have become ready; the last one is looked at first.
        self._touched: list[_Node] = []
        self._n_workers = 0
        self._n_running = 0
        #: Nothing new begins: it was stopped, or has failed.
        self._has_ended = False
        self.failure: ServingError | None = None

    # What the caller does, in this order.

    def start(self) -> None:
        """Open every node.

        Raises:
            ServingError: a side packet is missing, or a node cannot be opened.
        """
        check_side_packets(self._plan, self._side_packets)
        for node in self._nodes:
            self._open(node)
            if self.failure is not None:
                raise self.failure

    def push(self, stream: int, timestamp: int, value: Any) -> None:
        """Add a packet to an input of the graph; waits while the queues are full and nodes run.

        Nothing runs before `advance` or `work`, but a stream that is an output of the graph too
        leaves it at once. A timestamp that is not later than those before is a failure of the
        graph.
        """
        with self._lock:
            if self._is_full(self._plan.max_queue_size):
                self._wait_for_room()
                self._check_surplus()
            if self._has_ended:
                return
            bound = self._input_bounds[stream]
            if not bound <= timestamp <= MAX_TIMESTAMP:
                self._fail(_mismatch(self._plan.streams[stream].name, bound, timestamp))
                return
            self._input_bounds[stream] = timestamp + 1
            self._deliver(stream, timestamp, value)
        leaving = self._plan.streams[stream].output
        if leaving is not None:
            try:
                self._on_output(leaving, timestamp, value)
            except ServingError as error:  # its type is not that of the output, or nobody listens
                self.fail(error)

    def advance(self) -> None:
        """See that what was pushed is worked on: here if that is short, else on other threads."""
        with self._lock:
            if self._n_workers >= self._plan.n_threads or not self._touched:
                return
            self._n_workers += 1
        self._work(until_s=time.perf_counter() + _MAX_ADVANCE_S)

    def close_inputs(self) -> None:
        """No more packets will be pushed."""
        with self._lock:
            for stream in self._input_bounds:
                self._raise_bound(stream, DONE)

    def work(self) -> None:
        """Run what is ready, on this thread too, until nothing is and nothing runs."""
        with self._lock:
            self._n_workers += 1
        self._work(leads=True)

    def finish(self) -> None:
        """After `close_inputs`: run to the end and close every node, whatever has failed."""
        while not self._has_ended:
            self.work()
            left = [node for node in self._nodes if not node.is_closed]
            if not left:
                return
            self._close(left[0])  # back edges, or bounds that never moved, kept it open
        with self._lock:
            while self._n_running:
                self._wait()
        for node in self._nodes:
            self._close(node)

    def stop(self) -> None:
        """Let nothing new begin: the answer is complete, or nobody waits for it."""
        with self._lock:
            self._end()

    def fail(self, error: ServingError) -> None:
        """End with this error, unless there is one before."""
        with self._lock:
            self._fail(error)

    # Scheduling; all of it with the lock held.

    def _wait(self) -> None:
        self._n_waiting += 1
        self._changed.wait()
        self._n_waiting -= 1

    def _wait_for_room(self) -> None:
        """Until half is gone, so that threads do not take turns for every packet."""
        self._room_limit = max(1, self._plan.max_queue_size // 2)
        # Without a thread at work, what is queued waits for other inputs, which have to come.
        while self._n_workers and not self._has_ended and self._is_full(self._room_limit):
            self._room.wait()
        self._room_limit = 0

    def _check_surplus(self) -> None:
        """Fail where the others do not come, before that takes all memory."""
        if self._surplus_nbytes <= MAX_SURPLUS_NBYTES:
            return
        self._surplus_nbytes = held_nbytes(chain.from_iterable(map(self._surplus, self._queues)))
        if self._surplus_nbytes > MAX_SURPLUS_NBYTES:
            self._fail(self._too_many_packets())

    def _surplus(self, queue: deque[Packet]) -> Iterator[Any]:
        """The values that are in a queue beyond its bound."""
        return (value for _, value in islice(queue, self._max_length, None))

    def _too_many_packets(self) -> ServingError:
        _, count, node, stream = max(
            (held_nbytes(self._surplus(queue)), len(queue), node.plan.spec.name, port.name)
            for node in self._nodes
            for queue, port in zip(node.inputs.queues, node.plan.spec.inputs, strict=True)
        )
        return ServingError(
            errors.TOO_MANY_PACKETS,
            f'node "{node}" has {count} of stream "{stream}", and waits for those of other inputs; '
            f"beyond the max_queue_size of {self._plan.max_queue_size}, they may take "
            f"{MAX_SURPLUS_NBYTES} bytes",
        )

    def _wake(self) -> None:
        if self._n_waiting:
            self._changed.notify_all()
        if self._room_limit and not (self._n_workers and self._is_full(self._room_limit)):
            self._room.notify()

    def _fail(self, error: ServingError) -> None:
        if self.failure is None:
            self.failure = error
        self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._touched.clear()
        self._changed.notify_all()
        self._room.notify()

    def _is_full(self, limit: int) -> bool:
        if limit >= 0:
            for queue in self._queues:
                if len(queue) >= limit:
                    return True
        return False

    def _touch(self, node: _Node) -> None:
        # After the end, inputs are closed: a node that waited for one would run without it.
        if not (self._has_ended or node.is_queued or node.is_running or node.is_closed):
            node.is_queued = True
            self._touched.append(node)

    def _deliver(self, stream: int, timestamp: int, value: Any) -> None:
        for at, position in self._plan.streams[stream].consumers:
            node = self._nodes[at]
            if not node.is_closed:
                inputs = node.inputs
                queue = inputs.queues[position]
                queue.append((timestamp, value))
                if len(queue) > self._max_length:
                    self._surplus_nbytes += held_nbytes([value])
                inputs.bounds[position] = timestamp + 1
                self._touch(node)

    def _raise_bound(self, stream: int, bound: int) -> None:
        """No packet before `bound` will come on a stream."""
        for at, position in self._plan.streams[stream].consumers:
            node = self._nodes[at]
            if bound > node.inputs.bounds[position]:
                node.inputs.bounds[position] = bound
                self._touch(node)

    def _take(self, until_s: float | None) -> _Node | None:
        """A node that can run, with its inputs in its context."""
        while self._touched:
            node = self._touched.pop()
            node.is_queued = False
            ready = node.ready()
            if ready is None:
                self._pass_bound(node)
                continue
            if self._is_left_to_others(node, until_s) and self._lend_thread():
                self._touch(node)
                return None
            node.is_closing = ready is CLOSE
            if not node.is_closing:
                node.context.timestamp, node.context.inputs = ready[0], node.inputs.take(ready)
            node.is_running = True
            self._n_running += 1
            return node
        return None

    def _pass_bound(self, node: _Node) -> None:
        """A node that keeps the time of its inputs lets others know what will not come."""
        if node.plan.is_offset_zero and not node.is_running and not node.is_closed:
            self._raise_output_bounds(node, node.inputs.bound())

    def _raise_output_bounds(self, node: _Node, bound: int) -> None:
        for position, stream in enumerate(node.plan.outputs):
            if bound > node.out_bounds[position]:
                node.out_bounds[position] = bound
                self._raise_bound(stream, bound)

    def _settle(self, node: _Node) -> None:
        """A node has run: what it sent goes on, and it may run again, after those behind it."""
        self._n_running -= 1
        node.is_running = False
        if not self._has_ended:
            if node.inputs.has_more(node.context.timestamp):
                self._touch(node)
            self._deliver_sent(node)
            if node.plan.is_offset_zero and not node.is_closed:
                self._raise_output_bounds(node, node.context.timestamp + 1)
        self._wake()

    def _deliver_sent(self, node: _Node) -> None:
        for output, timestamp, value in node.context.sent:
            self._deliver(node.plan.outputs[output], timestamp, value)
        node.context.sent.clear()

    def _is_left_to_others(self, node: _Node, until_s: float | None) -> bool:
        """Whether this thread, which has other things to do, does not run it."""
        if until_s is None or self._pool is None:
            return False
        return self._is_long(node) or time.perf_counter() >= until_s

    def _is_long(self, node: _Node) -> bool:
        return self._prepared.costs_s[node.index] >= _LONG_S

    def _call_helper(self) -> None:
        """Have one more thread work, where something long is ready and threads are allowed."""
        if self._pool is None or self._n_workers >= self._plan.n_threads:
            return
        if any(self._is_long(node) and node.ready() is not None for node in self._touched):
            self._lend_thread()

    def _lend_thread(self) -> bool:
        """Whether one was to be had."""
        assert self._pool is not None
        is_lent = self._pool.call(self._work) is not None
        self._n_workers += is_lent  # before it looks: the lock is held
        return is_lent

    # Work; without the lock but for looking.

    def _work(self, *, leads: bool = False, until_s: float | None = None) -> None:
        """Run nodes until none is ready.

        Args:
            leads: wait for what other threads run, too.
            until_s: leave what is long, and all that is left then, to other threads.
        """
        node = None
        while True:
            node = self._next(node, leads, until_s)
            if node is None:
                return
            self._run(node)

    def _next(self, ended: _Node | None, leads: bool, until_s: float | None) -> _Node | None:
        with self._lock:
            if ended is not None:
                self._settle(ended)
            node = self._take(until_s)
            while node is None and leads and self._n_running:
                self._wait()
                node = self._take(until_s)
            if node is None:
                self._n_workers -= 1
                self._wake()
            else:
                self._call_helper()
            return node

    def _run(self, node: _Node) -> None:
        if node.is_closing:
            self._close(node)
            return
        began = time.perf_counter()
        try:
            if node.inputs.complaint:
                raise CalculatorError(node.inputs.complaint, Code.INVALID_ARGUMENT)
            # The thread that reads would not notice it: it may wait for room in the queues.
            node.context.call.check()
            node.calculator.process(node.context)
            self._emit(node)
        except FAILURES as error:
            self._fail_at(node, "Process", error)
        node.context.inputs = ()
        self._prepared.learn(node.index, time.perf_counter() - began)

    def _open(self, node: _Node) -> None:
        try:
            node.calculator = node.plan.calculator()
            node.calculator.open(node.context)
            node.is_open = True
            self._side_packets.update(node.context.side_sent)
            self._emit(node)
        except FAILURES as error:
            self._fail_at(node, "Open", error)
        with self._lock:
            self._deliver_sent(node)

    def _close(self, node: _Node) -> None:
        with self._lock:
            if node.is_closed:
                return
            node.is_closed = True
            node.inputs.clear()
        try:
            if node.is_open:
                node.calculator.close(node.context)
            self._emit(node)
        except FAILURES as error:
            self._fail_at(node, "Close", error)
        with self._lock:
            if not self._has_ended:
                self._deliver_sent(node)
                self._raise_output_bounds(node, DONE)

    def _emit(self, node: _Node) -> None:
        """Check what a node has sent, output by output, and send on what leaves the graph."""
        sent = node.context.sent
        if len(sent) > 1:
            sent.sort(key=_output_of)
        for output, timestamp, value in sent:
            if self._has_ended:
                return
            stream = node.plan.outputs[output]
            bound = node.out_bounds[output]
            if not bound <= timestamp <= MAX_TIMESTAMP:
                raise _mismatch(self._plan.streams[stream].name, bound, timestamp)
            node.out_bounds[output] = timestamp + 1
            leaving = self._plan.streams[stream].output
            if leaving is not None:
                self._on_output(leaving, timestamp, value)

    def _fail_at(self, node: _Node, method: str, error: BaseException) -> None:
        node.context.sent.clear()
        self.fail(failure_at(node.plan, method, error, node.context.inputs))
        if self._on_failure is not None and self.failure is not None:
            self._on_failure(self.failure)


def _output_of(packet: Sent) -> int:
    return packet.output


def _mismatch(stream: str, bound: int, timestamp: int) -> ServingError:
    limit = (
        f"Current minimum expected timestamp is {bound}"
        if timestamp < bound
        else f"Maximum timestamp is {MAX_TIMESTAMP}"
    )
    return ServingError(
        errors.GRAPH_EXECUTION_ERROR,
        "INVALID_ARGUMENT: Graph has errors: \nPacket timestamp mismatch on a calculator "
        f'receiving from stream "{stream}". {limit} but received {timestamp}. Timestamps have to '
        "increase on every stream.",
    )
