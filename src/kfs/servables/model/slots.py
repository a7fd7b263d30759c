"""Infer requests in a pool: as many inferences at a time as there are slots."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import openvino as ov

from kfs import errors
from kfs._fast.strings import ITEMSIZE, StringArray
from kfs.datatypes import BF16
from kfs.errors import ModelLoadError, ServingError
from kfs.metrics.servables import ModelMetrics, elapsed_us
from kfs.servables.base import CallContext
from kfs.servables.model.words import words_of
from kfs.tensors.arrays import Array, StringTensor, Tensor

# Larger inputs are bound where they are.
_MAX_COPIED_NBYTES = 16 << 10

# How often a waiting call looks whether its client is still there.
_LOOK_S = 0.25


class Slot:
    """One infer request.

    Every input is brought anew for every inference, so a slot cannot run with a stale one: small
    ones are copied to memory of the slot's own, which stays bound while their shape is the same,
    because to bind costs more than to copy; all others are bound where they are. The infer request
    does not own that memory: the caller holds the tensors until `infer` has returned. The same
    goes for outputs that are to be written to memory of the caller's; after the inference the slot
    has its own again.
    """

    def __init__(self, request: ov.InferRequest, *, alias: bool) -> None:
        self._request = request
        # OpenVINO's own, without its Python class around it, whose mapping of outputs takes as
        # long as a small inference.
        self._infer = super(ov.InferRequest, request).infer  # type: ignore[misc]
        self._alias = alias
        self._n_outputs = len(request.model_outputs)
        #: numpy has no such types: `infer` would copy strings, and cut them at NULs, and would
        #: give BF16 as if it were FP16.
        self._gives_others = any(
            output.element_type in (ov.Type.string, ov.Type.bf16)
            for output in request.model_outputs
        )
        self._takes_bf16 = [port.element_type == ov.Type.bf16 for port in request.model_inputs]
        #: `_infer` takes an only input and binds it at once, sooner than if that is done before.
        self._infer_binds = len(request.model_inputs) == 1 and not self._gives_others
        #: Memory of the slot's own that is bound, by input.
        self._bound: dict[int, Array] = {}

    def infer(self, inputs: Sequence[Tensor], places: Mapping[int, Array]) -> Sequence[Tensor]:
        """Run on `inputs`, by index of the model's inputs.

        Args:
            places: arrays to write outputs into, by index, each of the shape the output has;
                the others lie in the slot.

        Returns:
            All outputs by index: views, valid until the slot is given back, or copies of strings.

        Raises:
            ServingError: INTERNAL, with OpenVINO's own words.
        """
        request = self._request
        try:
            # The list keeps the wrappers alive until inference is over.
            wrappers = [self._bring(index, tensor) for index, tensor in enumerate(inputs)]
        except Exception as error:
            raise ServingError(errors.DESERIALIZATION_ERROR, words_of(error)) from error
        own = {index: request.get_output_tensor(index) for index in places}
        try:
            for index, array in places.items():
                request.set_output_tensor(index, ov.Tensor(array, shared_memory=True))
            return self._run(wrappers)
        except ServingError:
            raise
        except Exception as error:
            raise ServingError(errors.INFERENCE_ERROR, words_of(error)) from error
        finally:
            del wrappers
            for index, tensor in own.items():
                request.set_output_tensor(index, tensor)

    def _bring(self, index: int, tensor: Tensor) -> ov.Tensor | None:
        """Make `tensor` the input; a wrapper, to be bound or bound already, for the inference."""
        if isinstance(tensor, StringTensor):
            wrapper = _string_tensor(tensor.strings, tensor.shape)
        elif self._alias and tensor.nbytes <= _MAX_COPIED_NBYTES:
            self._copy(index, tensor)
            return None
        else:
            wrapper = self._wrap(index, tensor, shared=self._alias)
        self._bound.pop(index, None)
        if not self._infer_binds:
            self._request.set_input_tensor(index, wrapper)
        return wrapper

    def _copy(self, index: int, tensor: Array) -> None:
        own = self._bound.get(index)
        if own is None or own.shape != tensor.shape:
            own = np.empty_like(tensor)
            self._request.set_input_tensor(index, self._wrap(index, own, shared=True))
            self._bound[index] = own
        np.copyto(own, tensor)

    def _wrap(self, index: int, array: Array, *, shared: bool) -> ov.Tensor:
        if not self._takes_bf16[index]:
            return ov.Tensor(array, shared_memory=shared)
        wrapper = ov.Tensor(array.view(np.uint16), ov.Shape(array.shape), ov.Type.bf16)
        if shared:
            return wrapper
        copy = ov.Tensor(ov.Type.bf16, ov.Shape(array.shape))
        wrapper.copy_to(copy)
        return copy

    def _run(self, wrappers: Sequence[ov.Tensor | None]) -> Sequence[Tensor]:
        if self._gives_others:
            # To run on another thread costs less than to copy more than a hundred strings.
            self._request.start_async()
            self._request.wait()
            return [self._output(index) for index in range(self._n_outputs)]
        wrapper = wrappers[0] if self._infer_binds else None
        inputs = {} if wrapper is None else wrapper
        return tuple(self._infer(inputs, share_outputs=True, decode_strings=False).values())

    def _output(self, index: int) -> Tensor:
        try:
            tensor = self._request.get_output_tensor(index)
            if tensor.element_type == ov.Type.string:
                return _read_strings(tensor)
            array: Array = tensor.data
            return array.view(BF16.numpy) if tensor.element_type == ov.Type.bf16 else array
        except Exception as error:
            raise ServingError(errors.SERIALIZATION_ERROR, words_of(error)) from error


def check_strings() -> None:
    """See to it that OpenVINO's strings have the size of ours, whose memory it is to share.

    Both are std::string, but each of the C++ library that it was built with.

    Raises:
        ModelLoadError: they differ, so every string but the first would be read amiss.
    """
    found = _openvino_string_nbytes()
    if found != ITEMSIZE:
        raise ModelLoadError(
            f"models with strings cannot be served: a string has {found} bytes in this build of "
            f"OpenVINO, {ITEMSIZE} in this build of kfs-fast"
        )


@cache
def _openvino_string_nbytes() -> int:
    n_strings = 2
    tensor = ov.Tensor(ov.Type.string, ov.Shape([n_strings]))
    return int(tensor.byte_size) // n_strings


def _string_tensor(strings: StringArray, shape: tuple[int, ...]) -> ov.Tensor:
    """An OpenVINO tensor over `strings`, which must outlive it."""
    if not strings:
        return ov.Tensor(ov.Type.string, ov.Shape(shape))  # OpenVINO 2026.0 takes no empty memory
    memory = np.frombuffer(strings, np.uint8)  # type: ignore[call-overload]
    return ov.Tensor(memory, ov.Shape(shape), ov.Type.string)


def _read_strings(tensor: ov.Tensor) -> StringTensor:
    # OpenVINO's own conversions to numpy cut trailing NULs; a copy between string tensors
    # keeps every byte.
    shape = tuple(tensor.shape)
    strings = StringArray.empty(tensor.size)
    if tensor.size:
        tensor.copy_to(_string_tensor(strings, shape))
    return StringTensor(strings, shape)


class _Waiter:
    """A call that waits for a slot."""

    __slots__ = ("slot", "woken")

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.woken = threading.Lock()  # released once there is a slot
        self.woken.acquire()


class Slots:
    """The pool; waiting calls are served first come, first served.

    Args:
        count: how many slots.
        max_waiting: how many calls may wait for one; each of them holds a thread and its request.
        metrics: told of slots in use and of calls that wait.
    """

    def __init__(
        self, compiled: Any, count: int, metrics: ModelMetrics, *, alias: bool, max_waiting: int
    ) -> None:
        self.count = count
        self._metrics = metrics
        self._max_waiting = max_waiting
        # While a call waits, no slot is idle: who gives one back hands it to the first that waits.
        self._lock = threading.Lock()
        self._waiters: deque[_Waiter] = deque()
        self._idle = [Slot(compiled.create_infer_request(), alias=alias) for _ in range(count)]

    @property
    def n_waiting(self) -> int:
        return len(self._waiters)

    def take(self, call: CallContext) -> Slot:
        """A slot of the call's own until the call is closed.

        Raises:
            ServingError: RESOURCE_EXHAUSTED when too many wait; DEADLINE_EXCEEDED or CANCELLED
                while waiting.
        """
        begin = time.perf_counter()
        with self._lock:
            slot = self._idle.pop() if self._idle else None
        if slot is None:
            slot = self._queue(call)
        call.on_close(lambda: self._give_back(slot))
        self._metrics.wait_time.observe(elapsed_us(begin))
        self._metrics.active.inc()
        return slot

    def _give_back(self, slot: Slot) -> None:
        self._metrics.active.dec()
        self._pass_on(slot)

    def _pass_on(self, slot: Slot) -> None:
        with self._lock:
            if not self._waiters:
                self._idle.append(slot)
                return
            waiter = self._waiters.popleft()
            waiter.slot = slot
        waiter.woken.release()

    def _queue(self, call: CallContext) -> Slot:
        waiter = _Waiter()
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if len(self._waiters) >= self._max_waiting:
                self._metrics.refuse()
                raise ServingError(
                    errors.TOO_MANY_WAITING,
                    f"Expected: at most {self._max_waiting} for one of {self.count} infer requests",
                )
            self._waiters.append(waiter)
        self._metrics.waiting.inc()
        try:
            return self._wait(waiter, call)
        finally:
            self._metrics.waiting.dec()

    def _wait(self, waiter: _Waiter, call: CallContext) -> Slot:
        call.expect_long()
        try:
            while True:
                call.check()
                timeout_s = _LOOK_S
                if call.deadline is not None:
                    timeout_s = min(timeout_s, max(call.deadline - time.monotonic(), 0.0))
                if waiter.woken.acquire(timeout=timeout_s):
                    assert waiter.slot is not None
                    return waiter.slot
        except BaseException:
            self._leave(waiter)
            raise

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        if waiter.slot is not None:  # it came too late
            self._pass_on(waiter.slot)
