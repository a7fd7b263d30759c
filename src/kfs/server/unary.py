"""Unary calls on a completion queue of their own.

grpcio's own server hands a unary call from the thread that learns of it to one of a pool, back
for its message, and to the pool again, which takes longer than a small inference. Here the message
is asked for at once, and the thread that gets it answers. This is done with grpcio's inner
classes, those that its own server is made of; pyproject.toml admits the versions they are known in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from kfs import errors
from kfs.errors import ServingError
from kfs.servables.base import CallContext
from kfs.server.arrival import wait_for_arrival
from kfs.server.status import GrpcStatus, status_of
from kfs.server.threads import CallThreads
from kfs.server.turns import Turn, Turns

_NO_FLAGS = 0

# How often to look whether the server has stopped.
_POLL_S = 0.5

# A call whose message has not come for so long goes for another, once too many are under way.
_PATIENCE_S = 1.0

# So many calls gRPC takes before they are looked at; those that it has not taken when the server is
# stopped end as cancelled.
_N_AWAITED = 128

_OK = GrpcStatus(grpc.StatusCode.OK, "")
_NO_MESSAGE = GrpcStatus(grpc.StatusCode.UNIMPLEMENTED, "A call needs exactly one message")

_Event = Any  # what a completion queue tells: cygrpc.BaseEvent
#: What to do at an event; it is the tag of the operation that the event is about.
_Action = Callable[[_Event, Turn], None]

#: From a message to its answer; whatever it raises becomes a status.
Answer = Callable[[bytes, CallContext], bytes]


class UnaryCalls:
    """The calls of some methods: takes them, bounds them, has them answered.

    Args:
        server: one that has not been started and does not have the methods.
        methods: by their full names, "/package.Service/Method".
        threads: what the calls are answered on; one more than `max_calls`, if all are to go on.
        max_calls: how many may be under way; others are refused with RESOURCE_EXHAUSTED, those
            first that keep the server waiting for their message.
    """

    def __init__(
        self,
        server: grpc.Server,
        methods: Mapping[str, Answer],
        threads: CallThreads,
        max_calls: int,
    ) -> None:
        self._methods = methods
        self._max_calls = max_calls
        self._server = server._cy_server  # type: ignore[attr-defined]
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        for method in methods:
            self._server.register_method(method)
        self._turns = Turns(threads, self._step)
        # Those that have the turn change these, one after another.
        self._n_calls = 0
        self._n_awaited = 0
        #: Those whose message is waited for, in their order: since when, by `time.monotonic`.
        self._without_message: dict[_Call, float] = {}
        # No call can be waited for once the server has been told to stop; until then, one always
        # is: those that come meanwhile would end as cancelled.
        self._lock = threading.Lock()
        self.is_stopping = False
        self._has_stopped = False

    def start(self) -> None:
        """Take calls; the server has been started."""
        for method in self._methods:
            for _ in range(_N_AWAITED // len(self._methods)):
                self._await_call(method)
        self._turns.start()

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Within, the server is told to stop: no new call is taken, those under way go on."""
        with self._lock:
            self.is_stopping = True
            yield

    def close(self) -> None:
        """Wait no more for calls under way. The server has stopped."""
        self._has_stopped = True

    def take_message(self, call: _Call) -> bool:
        """Its message has come, or will not come any more; False if it was not waited for."""
        return self._without_message.pop(call, None) is not None

    def note_end(self) -> None:
        """Nothing more will be heard of one of the calls."""
        self._n_calls -= 1

    def _step(self, turn: Turn) -> bool:
        event = self._queue.poll(time.time() + _POLL_S)
        if event.completion_type != cygrpc.CompletionType.queue_timeout:
            event.tag(event, turn)
        elif self._has_stopped:
            return False
        return not self.is_stopping or self._n_awaited > 0 or self._n_calls > 0

    def _await_call(self, method: str) -> None:
        with self._lock:
            if not self.is_stopping:
                self._n_awaited += 1
                self._server.request_registered_call(
                    self._queue, self._queue, method, partial(self._begin_call, method)
                )

    def _begin_call(self, method: str, event: _Event, turn: Turn) -> None:
        self._n_awaited -= 1
        if not event.success:  # the server is stopping
            return
        self._n_calls += 1
        try:
            call = _Call(event, self._methods[method], self)
            if self._n_calls <= self._max_calls or self._make_room():
                self._without_message[call] = time.monotonic()
                call.begin()
            else:
                expected = f"Expected: at most {self._max_calls} under way"
                call.refuse(ServingError(errors.TOO_MANY_CALLS, expected))
        finally:  # whatever became of this one
            self._await_call(method)

    def _make_room(self) -> bool:
        """Refuse the call that has kept us waiting for its message longest, if that is long."""
        # Those that are refused count until they have been told so, which some never hear.
        if self._n_calls > 2 * self._max_calls:
            return False
        oldest = next(iter(self._without_message), None)
        if oldest is None or time.monotonic() - self._without_message[oldest] < _PATIENCE_S:
            return False
        del self._without_message[oldest]
        expected = f"Expected: at most {self._max_calls} under way, or a message sooner"
        oldest.refuse(ServingError(errors.TOO_MANY_CALLS, expected))
        return True


class _Call:
    """One call, from its arrival until nothing more is to be heard of it.

    All that happens to it but the answering happens in someone's turn, one after another.
    """

    __slots__ = ("_answer", "_call", "_calls", "_deadline", "_is_cancelled", "_n_due")

    def __init__(self, event: _Event, answer: Answer, calls: UnaryCalls) -> None:
        self._answer = answer
        self._calls = calls
        self._call = event.call
        # It comes by `time.time`, which jumps when somebody sets the clock.
        remaining_s = max(event.call_details.deadline - time.time(), 0.0)
        self._deadline = time.monotonic() + remaining_s
        self._is_cancelled = False
        #: Events that are still to come: of the call's end, of the answer, of the message if any.
        self._n_due = 2
        self._start([cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS)], self._note_end)

    def begin(self) -> None:
        self._n_due += 1
        self._start([cygrpc.ReceiveMessageOperation(_NO_FLAGS)], self._receive)

    def refuse(self, error: ServingError) -> None:
        """Answer without the message, which has not been asked for or has not come."""
        self._send(None, status_of(error))

    def is_active(self) -> bool:
        return not self._is_cancelled

    def _start(self, operations: list[Any], action: _Action) -> None:
        self._call.start_server_batch(operations, action)

    def _count_event(self) -> None:
        self._n_due -= 1
        if not self._n_due:
            self._calls.note_end()

    def _note_end(self, event: _Event, turn: Turn) -> None:
        """The client has got its answer, or has gone."""
        self._is_cancelled = event.batch_operations[0].cancelled()
        self._count_event()

    def _receive(self, event: _Event, turn: Turn) -> None:
        is_wanted = self._calls.take_message(self)
        self._count_event()
        if not is_wanted:  # the call has been refused
            return
        data = event.batch_operations[0].message()
        if data is None:
            # The client sent none, or one of more bytes than are allowed; then gRPC has told it.
            self._send(None, _NO_MESSAGE)
        else:
            turn.do(lambda: self._respond(data, turn))

    def _respond(self, data: bytes, turn: Turn) -> None:
        context = CallContext(self.is_active, self._deadline, turn.pass_on)
        try:
            self._send(self._answer(data, context), _OK)
        except BaseException as error:  # SystemExit, for instance, of a node in Python
            self._send(None, status_of(error))

    def _send(self, answer: bytes | None, status: GrpcStatus) -> None:
        operations = [cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS)]
        if answer is not None:
            operations.append(cygrpc.SendMessageOperation(answer, _NO_FLAGS))
        code, details = status.code.value[0], status.details.encode(errors="replace")
        end = cygrpc.SendStatusFromServerOperation(None, code, details, _NO_FLAGS)
        if self._calls.is_stopping and answer is not None:
            # The end of the last call is that of its connection.
            self._start(operations, lambda _, turn: turn.do(lambda: self._end_arrived(end)))
        else:
            self._start([*operations, end], self._note_sent)

    def _end_arrived(self, end: Any) -> None:
        """End the call once its answer has arrived, or nobody waits for it any more."""
        wait_for_arrival(self._call.peer().decode(), self.is_active)
        self._start([end], self._note_sent)

    def _note_sent(self, event: _Event, turn: Turn) -> None:
        self._count_event()
