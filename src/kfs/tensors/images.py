"""Encoded images to tensors.

What an encoded image becomes follows OpenVINO Model Server: decoded as it is (colour stays BGR,
grey stays one channel, alpha a fourth one, 16-bit files stay 16-bit, EXIF orientation is not
applied), never converted between grey and colour, never scaled in value.

OpenCV decodes every format it was built with; beyond JPEG, PNG and BMP its wheels read WebP and
also TIFF, which builds of OpenVINO Model Server leave out, as they do OpenEXR.
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from kfs import errors
from kfs.errors import ServingError, Status
from kfs.helpers import Helpers
from kfs.settings import MAX_MESSAGE_NBYTES, MAX_PIXELS_VARIABLE
from kfs.signature import Dim, TensorSpec, expand_layout, format_shape
from kfs.tensors.arrays import Array

# The most pixels one image may have, unless the environment says otherwise. A few kilobytes can
# announce gigabytes of them. OpenCV compares the header of every format with this before it
# allocates; it reads it when loaded, and would end the process over what is no number of its own.
_DEFAULT_MAX_PIXELS = 1 << 27
if not re.fullmatch("[0-9]{1,18}", os.environ.get(MAX_PIXELS_VARIABLE, "")):
    os.environ[MAX_PIXELS_VARIABLE] = str(_DEFAULT_MAX_PIXELS)

# What is wrong with an image is told to who sent it, not by OpenCV to the standard error. The
# libraries for JPEG and PNG within it write a line there all the same.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2  # noqa: E402

if TYPE_CHECKING:
    from typing_extensions import Buffer

# The cores are shared out by image here, and by request in the server; threads of OpenCV's own
# within one image would only compete with those.
cv2.setNumThreads(1)

# Resized after the conversion to the input's precision; OpenCV cannot resize the others, whose
# conversion comes after.
_RESIZED_LAST = frozenset({"UINT8", "UINT16", "INT16", "FP32", "FP64"})
_RESIZED_FIRST = frozenset({"INT8", "INT32", "FP16"})

# Fewer encoded bytes than this in a batch are decoded sooner than threads are woken.
_MIN_PARALLEL_NBYTES = 64 * 1024


def max_pixels() -> int:
    """The most pixels one image may have."""
    return int(os.environ[MAX_PIXELS_VARIABLE])


def accepts_images(spec: TensorSpec) -> bool:
    """Whether the layout can be read as images: batch first, then height, width and channels."""
    rank = len(spec.shape)
    letters = expand_layout(spec.layout, rank)
    if rank < 4 or len(letters) != rank:
        return False
    wanted = "N" + "?" * (rank - 4) + "HWC"
    return all(
        letter == "?" or (letter not in wanted if want == "?" else letter == want)
        for letter, want in zip(letters, wanted, strict=True)
    )


def decode_images(items: Sequence[Buffer], spec: TensorSpec, *, raw: bool = False) -> Array:
    """A batch of encoded images as one tensor.

    Args:
        items: the images, as JPEG, PNG, BMP or what else OpenCV decodes.
        spec: the input; of rank 4, or 5 when a demultiplexed dimension stands before.
        raw: the items came as raw contents, where an empty one is an undecodable image.

    Returns:
        An array of shape [N,H,W,C], or [N,1,H,W,C], in the input's precision.

    Raises:
        ServingError: INVALID_ARGUMENT; which image, what was expected and what was found.
    """
    if not accepts_images(spec):
        raise _fault(errors.UNSUPPORTED_LAYOUT, f"Expected: N...HWC; Actual: {spec.layout}", spec)
    _check_batch(items, spec, raw=raw)
    work = _Work(items, spec)
    helpers = [helper for _ in range(_n_helpers(items)) if (helper := _pool().call(work.help))]
    try:
        work.lead()
    finally:
        for helper in helpers:  # one that has begun may still read an item
            if not helper.cancel():
                helper.result()
    return work.array()


def _fault(status: Status, details: str, spec: TensorSpec) -> ServingError:
    return ServingError(status, f"{details}; input name: {spec.name}")


def _check_batch(items: Sequence[Buffer], spec: TensorSpec, *, raw: bool) -> None:
    rank = len(spec.shape)
    if rank not in (4, 5):
        raise _fault(
            errors.INVALID_SHAPE,
            f"Expected: 4 dimensions for encoded images; Actual: {format_shape(spec.shape)}",
            spec,
        )
    if not items or not spec.shape[0].accepts(len(items)):
        raise _fault(
            errors.INVALID_BATCH_SIZE,
            f"Expected: {spec.shape[0]}, at least 1 image; Actual: {len(items)}",
            spec,
        )
    if raw:
        return
    for index, item in enumerate(items):
        if not memoryview(item).nbytes:
            raise _fault(errors.EMPTY_BYTES, f"Expected: an encoded image; Actual: image {index} "
                         "has no bytes", spec)  # fmt: skip


@cache
def _pool() -> Helpers:
    return Helpers(max((os.cpu_count() or 1) - 1, 1), thread_name_prefix="decode")


def _n_helpers(items: Sequence[Buffer]) -> int:
    """How many threads to ask for help; OpenCV and numpy work without the GIL."""
    n_threads = min(os.cpu_count() or 1, len(items))
    if n_threads < 2 or sum(memoryview(item).nbytes for item in items) < _MIN_PARALLEL_NBYTES:
        return 0
    return n_threads - 1


class _Work:
    """The images of one batch, which threads take in order, one at a time.

    The caller leads: it takes the first image, which fixes the tensor, and works until none is
    left. It never waits for a thread that is busy elsewhere, and no more images are decoded at a
    time than threads work. Images are begun in order, so all before a faulty one are finished
    too, and the first fault of the batch is the same on every run.
    """

    def __init__(self, items: Sequence[Buffer], spec: TensorSpec) -> None:
        self._items = items
        self._spec = spec
        self._left = deque(range(1, len(items)))
        self._batch: Future[_Batch] = Future()
        self._faults: list[tuple[int, Exception]] = []

    def lead(self) -> None:
        try:
            first = self._decode(0)
            batch = _Batch(self._spec, first, len(self._items))
            self._batch.set_result(batch)
            batch.add(0, first)
        except Exception as error:
            self._stop(0, error)
            return
        del first
        self.help()

    def help(self) -> None:
        while True:
            try:
                index = self._left.popleft()
            except IndexError:
                return
            try:
                image = self._decode(index)
                self._batch.result().add(index, image)
            except Exception as error:
                self._stop(index, error)

    def array(self) -> Array:
        """The tensor, once all have finished."""
        self._items = ()  # a thread lets go of its work a moment after it has finished
        if not self._faults:
            return self._batch.result().array
        index, error = min(self._faults, key=lambda fault: fault[0])
        self._faults.clear()
        if isinstance(error, MemoryError):
            raise _fault(
                errors.UNDECODABLE_IMAGE,
                f"Expected: images that fit in memory; Actual: image {index} does not",
                self._spec,
            )
        try:
            raise error
        finally:
            del error  # its traceback leads here: a circle would keep the items alive

    def _stop(self, index: int, error: Exception) -> None:
        self._left.clear()
        self._faults.append((index, error))
        if not index:
            self._batch.cancel()  # nothing to wait for, unless the tensor is there already

    def _decode(self, index: int) -> Array:
        image = _decode(self._items[index])
        if image is None:
            raise _fault(
                errors.UNDECODABLE_IMAGE,
                f"Expected: an image, of at most {max_pixels()} pixels; Actual: image {index} "
                "cannot be decoded",
                self._spec,
            )
        return image


def _decode(item: Buffer) -> Array | None:
    """The image, with an axis of channels; None for what is no image."""
    if not memoryview(item).nbytes:
        return None
    data = np.frombuffer(item, np.uint8)  # type: ignore[call-overload]
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if image is None:
        return None
    return image[:, :, np.newaxis] if image.ndim == 2 else image


class _Batch:
    """The tensor as it fills; the first image fixes height, width and channels."""

    def __init__(self, spec: TensorSpec, first: Array, n_images: int) -> None:
        self._spec = spec
        self._resizes = _resizes(spec)
        self._resolution = first.shape[:2]
        self._channels = spec.shape[-1] if not spec.shape[-1].is_any else None
        self._n_channels = first.shape[2]
        self._check_channels(first, 0)
        self._target = tuple(
            _clamp(dim, size) for dim, size in zip(spec.shape[-3:-1], first.shape[:2], strict=True)
        )
        _check_precision(spec)
        demultiplexed = (1,) * (len(spec.shape) - 4)
        shape = (n_images, *demultiplexed, *self._target, self._n_channels)
        _check_nbytes(shape, spec)
        self.array: Array = np.empty(shape, spec.datatype.numpy)

    def add(self, index: int, image: Array) -> None:
        if not self._resizes and image.shape[:2] != self._resolution:
            raise _fault(
                errors.RESOLUTION_MISMATCH,
                f"Expected: {_size(self._resolution)}, as image 0; Actual: image {index} has "
                f"{_size(image.shape)}",
                self._spec,
            )
        self._check_channels(image, index)
        place = self.array[index] if self.array.ndim == 4 else self.array[index, 0]
        if image.shape[:2] == self._target:
            _convert(image, place)
            return
        if not self._resizes:
            raise _fault(
                errors.INVALID_SHAPE,
                f"Expected: {_size(self._target)}; Actual: image {index} has "
                f"{_size(image.shape)}, and this input does not resize",
                self._spec,
            )
        try:
            self._resize(image, place)
        except cv2.error as error:
            raise _fault(
                errors.UNDECODABLE_IMAGE,
                f"Expected: pixels that can be resized to {_size(self._target)}; Actual: image "
                f"{index} has {_size(image.shape)} of {image.dtype}",
                self._spec,
            ) from error

    def _resize(self, image: Array, place: Array) -> None:
        size = (self._target[1], self._target[0])
        if image.dtype == place.dtype:
            cv2.resize(image, size, dst=place)
        elif self._spec.datatype.name in _RESIZED_FIRST:
            _convert(cv2.resize(image, size).reshape(place.shape), place)
        else:
            converted = np.empty(image.shape, place.dtype)
            _convert(image, converted)
            cv2.resize(converted, size, dst=place)

    def _check_channels(self, image: Array, index: int) -> None:
        found = image.shape[2]
        expected = self._channels
        if expected is None:
            if found == self._n_channels:
                return
        elif expected.accepts(found) and (expected.is_static or found == self._n_channels):
            return
        wanted = self._n_channels if expected is None or not expected.is_static else expected
        raise _fault(
            errors.INVALID_CHANNEL_COUNT,
            f"Expected: {expected if index == 0 else wanted}; Actual: {found} in image {index}",
            self._spec,
        )


def _resizes(spec: TensorSpec) -> bool:
    """Only when height and width have bounds, and the layout says where they are."""
    height, width = spec.shape[-3:-1]
    return not height.is_any and not width.is_any and spec.layout in ("NHWC", "N?HWC", "...")


def _clamp(dim: Dim, size: int) -> int:
    if size < dim.low:
        return dim.low
    return size if dim.high is None else min(size, dim.high)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]}x{shape[1]} pixels (height x width)"


def _check_precision(spec: TensorSpec) -> None:
    if spec.datatype.name not in _RESIZED_LAST | _RESIZED_FIRST:
        raise _fault(
            errors.INVALID_PRECISION,
            f"Expected: an input of FP32, FP64, FP16, U8, U16, I8, I16 or I32 for encoded images; "
            f"Actual: {spec.datatype.label}",
            spec,
        )


def _check_nbytes(shape: tuple[int, ...], spec: TensorSpec) -> None:
    """Images may become no more than clients can send as they are: one message."""
    nbytes = math.prod(shape) * spec.datatype.itemsize
    if nbytes > MAX_MESSAGE_NBYTES:
        raise _fault(
            errors.UNDECODABLE_IMAGE,
            f"Expected: images of at most {MAX_MESSAGE_NBYTES} bytes in all, decoded to "
            f"{spec.datatype.label}; Actual: {nbytes}",
            spec,
        )


def _convert(image: Array, place: Array) -> None:
    """Fill `place` in its own precision as OpenCV converts: values that do not fit saturate."""
    if place.dtype.kind == "f":
        with np.errstate(over="ignore"):  # 65535 is infinite as a half float, as in OpenCV
            np.copyto(place, image, casting="unsafe")
        return
    bounds = np.iinfo(place.dtype)
    if image.dtype.kind == "f":  # from formats with floating-point pixels; halves go to even
        # In doubles, which hold every bound; what is not a number goes to the lower one.
        exact = np.rint(np.nan_to_num(image.astype(np.float64), nan=bounds.min))
        np.clip(exact, bounds.min, bounds.max, out=place, casting="unsafe")
        return
    source = np.iinfo(image.dtype)
    low, high = max(bounds.min, source.min), min(bounds.max, source.max)
    if (low, high) == (source.min, source.max):
        np.copyto(place, image, casting="unsafe")
    else:
        np.clip(image, low, high, out=place, casting="unsafe")
