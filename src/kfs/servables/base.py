"""The interface of everything that can be served, and the context of a call."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from kfs import errors
from kfs._fast.wire import Request
from kfs.errors import ServingError
from kfs.servables.binding import bind
from kfs.signature import Signature
from kfs.tensors.arrays import TensorMap


def _always() -> bool:
    return True


class CallContext:
    """One call: whether anyone still waits for it, and what to give back at its end.

    A context manager: whatever `on_close` was given runs when the block is left, last in first
    out. Outputs of `Servable.infer` are valid until then.

    Args:
        is_active: False once the client has cancelled or gone.
        deadline: `time.monotonic` seconds at which the call expires; None for never.
    """

    __slots__ = ("_is_active", "_releases", "deadline")

    def __init__(
        self, is_active: Callable[[], bool] = _always, deadline: float | None = None
    ) -> None:
        self._is_active = is_active
        self.deadline = deadline
        self._releases: list[Callable[[], None]] = []

    def on_close(self, release: Callable[[], None]) -> None:
        self._releases.append(release)

    def time_remaining_s(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    def part(self) -> CallContext:
        """A context for a part of this call: the same client and deadline, an end of its own."""
        return CallContext(self._is_active, self.deadline)

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


class Servable(ABC):
    """A model, a pipeline or a graph: one version of one name.

    Attributes:
        name: the name clients use.
        version: a number; 1 for what has no versions.
        signature: its inputs and outputs.
        is_auto: requests reshape it (batch_size or shape auto), so that no pipeline can use it.
    """

    name: str
    version: int
    signature: Signature
    is_auto: bool = False

    def bind(self, request: Request) -> TensorMap:
        """The request's inputs as tensors of this signature; see `binding.bind`."""
        return bind(request, self.signature)

    @abstractmethod
    def infer(self, tensors: TensorMap, call: CallContext) -> TensorMap:
        """Every output by name, valid until `call` is closed.

        Raises:
            ServingError: the inference failed, or nobody waits for it any more.
        """

    @abstractmethod
    def unload(self) -> None:
        """Give back what loading took. No call is running, none will come."""


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
