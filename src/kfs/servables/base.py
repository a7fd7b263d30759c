"""The interface of everything that can be served, and the context of a call."""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import ClassVar, Protocol

from kfs import errors
from kfs._fast.response import write_error
from kfs._fast.wire import Request
from kfs.errors import ServingError
from kfs.metrics.servables import ServableMetrics, infer_method
from kfs.servables.answers import reserve_answer, select_outputs, write_answer
from kfs.servables.binding import bind
from kfs.servables.outline import Outline
from kfs.servables.request_log import log_request
from kfs.signature import Signature, TensorSpec
from kfs.tensors.arrays import NOWHERE, Array, TensorMap

_log = logging.getLogger("kfs.server")

_STREAM = infer_method(stream=True)


# A servable whose requests usually take longer says so, and others do not wait for its calls: the
# sooner, the more cores there are that could do something else meanwhile.
_LONG_S = max(1e-3 / max((os.cpu_count() or 1) - 1, 1), 0.2e-3)


_counting = threading.Lock()  # of calls under way, of whatever servable


def _always() -> bool:
    return True


def _nothing() -> None:
    pass


class CallContext:
    """One call: whether anyone still waits for it, and what to give back at its end.

    A context manager: whatever `on_close` was given runs when the block is left, last in first
    out. Outputs of `Servable.infer` are valid until then.

    Args:
        is_active: False once the client has cancelled or gone.
        deadline: `time.monotonic` seconds at which the call expires; None for never.
        expect_long: to be called when the call is about to wait or compute for long, so that its
            thread is not waited for.
    """

    __slots__ = ("_is_active", "_releases", "deadline", "expect_long")

    def __init__(
        self,
        is_active: Callable[[], bool] = _always,
        deadline: float | None = None,
        expect_long: Callable[[], None] = _nothing,
    ) -> None:
        self._is_active = is_active
        self.expect_long = expect_long
        self.deadline = deadline
        self._releases: list[Callable[[], None]] = []

    def on_close(self, release: Callable[[], None]) -> None:
        self._releases.append(release)

    def time_remaining_s(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    def part(self) -> CallContext:
        """A context for a part of this call: the same client and deadline, an end of its own."""
        return CallContext(self._is_active, self.deadline, self.expect_long)

    def check(self) -> None:
        """Raise when the answer is no longer wanted, so that no work starts for it.

        Raises:
            ServingError: DEADLINE_EXCEEDED or CANCELLED.
        """
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise ServingError(errors.DEADLINE_EXCEEDED)
        if not self._is_active():
            raise ServingError(errors.CANCELLED)

    def __enter__(self) -> CallContext:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._releases:
            self._releases.pop()()


#: Makes the context of one message of a stream; all of them share the stream's deadline.
NewContext = Callable[[], CallContext]


class StreamSink(Protocol):
    """Where the answers of a stream go; any thread may call it."""

    def send(self, message: bytes) -> None:
        """Send a serialized ModelStreamInferResponse; waits while the client does not read.

        Raises:
            ServingError: CANCELLED, the client has gone or the call has ended.
        """

    def fail(self, error: BaseException) -> None:
        """End the call with a status now, whatever still waits for messages of the client."""


class Servable(ABC):
    """A model, a pipeline or a graph: one version of one name.

    Attributes:
        name: the name clients use.
        version: a number; 1 for what has no versions.
        signature: its inputs and outputs.
        metrics: what is counted of it.
        kind: what it is, in a word; pipelines are made of models alone.
        is_auto: requests reshape it (batch_size or shape auto), so that no pipeline can use it.
        straight_outputs: the names of those that it can write where they are wanted, which saves
            a copy; their places in a response are known before the inference.
    """

    name: str
    version: int
    signature: Signature
    metrics: ServableMetrics = ServableMetrics()
    kind: ClassVar[str] = "model"
    is_auto: bool = False
    straight_outputs: Collection[str] = ()
    #: How many calls may be under way, streams aside; None for any number.
    max_calls: int | None = None
    #: How long a request takes, about; at most `4 * _LONG_S`.
    _usual_s: float = 0.0
    _n_calls: int = 0

    def respond(self, request: Request, call: CallContext, *, stream: bool = False) -> bytes:
        """A serialized ModelInferResponse to one request, or the ModelStreamInferResponse with it.

        Raises:
            ServingError: whatever is wrong with the request or went wrong with the inference.
        """
        begin = time.perf_counter()
        if self._usual_s > _LONG_S:
            call.expect_long()
        try:
            if self.max_calls is not None and not stream:
                self._enter(call, self.max_calls)
            answer = self._answer(request, call, stream=stream)
        except BaseException:
            self.metrics.count(infer_method(stream=stream), failed=True)
            raise
        self.metrics.count(infer_method(stream=stream))
        self.metrics.observe_request(begin)
        # One that took very long, of many that do not, says little about the next.
        taken_s = min(time.perf_counter() - begin, 4 * _LONG_S)
        self._usual_s += (taken_s - self._usual_s) / 8
        return answer

    def _enter(self, call: CallContext, max_calls: int) -> None:
        """Be one of the calls that are under way, until `call` is closed."""
        with _counting:
            if self._n_calls >= max_calls:
                self.metrics.refuse()
                expected = f"Expected: at most {max_calls} of {self.name} under way"
                raise ServingError(errors.TOO_MANY_CALLS, expected)
            self._n_calls += 1
        call.on_close(self._leave)

    def _leave(self) -> None:
        with _counting:
            self._n_calls -= 1

    def _answer(self, request: Request, call: CallContext, *, stream: bool) -> bytes:
        tensors = self.bind(request)
        # Before inference: the request is what asks for something that no message can carry.
        wanted = select_outputs(request, self.signature)
        if not self._writes_straight(wanted):
            outputs = self.infer(tensors, call)
            return write_answer(self.name, self.version, request.id, wanted, outputs, stream=stream)
        answer, places = reserve_answer(self.name, self.version, request.id, wanted, stream=stream)
        outputs = self.infer(tensors, call, places)
        for name, place in places.items():
            place[...] = outputs[name]  # numpy copies nothing where it is the place already
        return answer

    def _writes_straight(self, wanted: tuple[TensorSpec, ...]) -> bool:
        """Whether all outputs can be written into the answer itself."""
        if not self.straight_outputs:
            return False
        names = {spec.name for spec in wanted}
        # An output that is wanted twice has two places, of which only one would be filled.
        return len(names) == len(wanted) and all(name in self.straight_outputs for name in names)

    def stream(
        self, requests: Iterator[Request | ServingError], new_context: NewContext, sink: StreamSink
    ) -> None:
        """Answer the requests of one stream, to its end.

        Every message is one inference here; answers come in order, and a message that cannot be
        answered is answered with its error.

        Args:
            requests: what the client sends, or why it cannot be read; the first is a request.

        Raises:
            ServingError: the call ended.
        """
        for request in requests:
            sink.send(self._respond_in_band(request, new_context()))

    def _respond_in_band(self, request: Request | ServingError, call: CallContext) -> bytes:
        begin = time.perf_counter()
        id = "" if isinstance(request, ServingError) else request.id
        try:
            answer = self._respond_or_raise(request, call)
        except BaseException as error:
            log_request(_STREAM, begin, self.name, str(self.version), id, error)
            return self._tell_in_band(error)
        log_request(_STREAM, begin, self.name, str(self.version), id)
        return answer

    def _respond_or_raise(self, request: Request | ServingError, call: CallContext) -> bytes:
        if isinstance(request, ServingError):
            raise request
        check_same_servable(request, self)
        with call:
            return self.respond(request, call, stream=True)

    def _tell_in_band(self, error: BaseException) -> bytes:
        if not isinstance(error, ServingError):
            _log.error("Unexpected error in a stream on %s", self.name, exc_info=error)
            return write_error(errors.INTERNAL_ERROR.text)
        if error.status in (errors.CANCELLED, errors.DEADLINE_EXCEEDED):
            raise error
        return write_error(str(error))

    @property
    def accepted(self) -> Signature:
        """Inputs that `infer` takes: more than `signature` says, where requests reshape a model."""
        return self.signature

    def outline(self) -> Outline | None:
        """What it is made of; None for what has no parts."""
        return None

    def needs(self) -> Iterable[tuple[str, str]]:
        """Others that its requests look up, by name and version; an empty one is the default."""
        return ()

    def bind(self, request: Request) -> TensorMap:
        """The request's inputs as tensors of this signature; see `binding.bind`."""
        return bind(request, self.signature)

    @abstractmethod
    def infer(
        self, tensors: TensorMap, call: CallContext, places: Mapping[str, Array] = NOWHERE
    ) -> TensorMap:
        """Every output by name, valid until `call` is closed.

        Args:
            places: where some of the outputs may be written, each of the datatype and the shape
                of the signature; what is not written there lies elsewhere.

        Raises:
            ServingError: the inference failed, or nobody waits for it any more.
        """

    @abstractmethod
    def unload(self) -> None:
        """Give back what loading took. No call is running, none will come."""


def check_same_servable(request: Request, servable: Servable) -> None:
    """A stream keeps the servable that its first request named.

    Raises:
        ServingError: the request names another, or another version.
    """
    if request.model_name != servable.name:
        raise ServingError(
            errors.WRONG_STREAM_SERVABLE,
            f"Expected: {servable.name}; Actual: {request.model_name}",
        )
    if request.model_version not in ("", "0", str(servable.version)):
        raise ServingError(
            errors.WRONG_STREAM_VERSION,
            f"Expected: {servable.version}; Actual: {request.model_version}",
        )


class ServableLease(Protocol):
    """The right to use a servable until returned."""

    @property
    def servable(self) -> Servable: ...

    def release(self) -> None: ...


class ServableSource(Protocol):
    """Where a servable that is made of others finds them; the catalog is one."""

    def lease(self, name: str, version_text: str, call: CallContext) -> ServableLease:
        """
        Raises:
            ServingError: it is not there, or not available, or the call ended.
        """
