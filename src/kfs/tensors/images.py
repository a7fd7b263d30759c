"""Encoded images to tensors. The only importer of OpenCV.

What an encoded image becomes follows OpenVINO Model Server: decoded as it is (colour stays BGR,
grey stays one channel, alpha a fourth one, 16-bit files stay 16-bit, EXIF orientation is not
applied), never converted between grey and colour, never scaled in value.

OpenCV decodes every format it was built with; beyond JPEG, PNG and BMP that includes TIFF and
WebP.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kfs import errors
from kfs.errors import ServingError, Status
from kfs.signature import Dim, TensorSpec, expand_layout, format_shape
from kfs.tensors.arrays import Array

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Resized after the conversion to the input's precision; OpenCV cannot resize the others, whose
# conversion comes after.
_RESIZED_LAST = frozenset({"UINT8", "UINT16", "INT16", "FP32", "FP64"})
_RESIZED_FIRST = frozenset({"INT8", "INT32", "FP16"})

# Fewer encoded bytes than this in a batch are decoded sooner than threads are woken.
_MIN_PARALLEL_NBYTES = 64 * 1024


def accepts_images(spec: TensorSpec) -> bool:
    """Whether the layout can be read as images: batch first, then height, width and channels."""
    rank = len(spec.shape)
    letters = expand_layout(spec.layout, rank)
    if len(letters) != rank:
        return False
    wanted = "N" + "?" * (rank - 4) + "HWC"
    return all(
        "?" in (letter, want) or letter == want
        for letter, want in zip(letters, wanted, strict=True)
    ) and not any(letter in wanted and letters.index(letter) != wanted.index(letter)
                  for letter in letters if letter != "?")  # fmt: skip


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
    images = _decoded(items)
    first = _decode_first(images, spec)
    batch = _Batch(spec, first, len(items))
    batch.add(0, first)
    for index, image in enumerate(images, start=1):
        batch.add(index, _checked(image, index, spec))
    return batch.array


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
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")


def _decoded(items: Sequence[Buffer]) -> Iterator[Array | None]:
    """The decoded images in order; None for what is no image. OpenCV works without the GIL."""
    nbytes = sum(memoryview(item).nbytes for item in items)
    if len(items) < 2 or nbytes < _MIN_PARALLEL_NBYTES:
        return map(_decode, items)
    return _pool().map(_decode, items)


def _decode(item: Buffer) -> Array | None:
    data = np.frombuffer(item, np.uint8)  # type: ignore[call-overload]
    if not data.size:
        return None
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if image is None:
        return None
    return image[:, :, np.newaxis] if image.ndim == 2 else image


def _decode_first(images: Iterator[Array | None], spec: TensorSpec) -> Array:
    return _checked(next(images), 0, spec)


def _checked(image: Array | None, index: int, spec: TensorSpec) -> Array:
    if image is None:
        raise _fault(
            errors.UNDECODABLE_IMAGE,
            f"Expected: a JPEG, PNG or other image; Actual: image {index} cannot be decoded",
            spec,
        )
    return image


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
        self._convert = _conversion(spec)
        demultiplexed = (1,) * (len(spec.shape) - 4)
        self.array: Array = np.empty(
            (n_images, *demultiplexed, *self._target, self._n_channels), spec.datatype.numpy
        )

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
            place[...] = self._convert(image)
            return
        if not self._resizes:
            raise _fault(
                errors.INVALID_SHAPE,
                f"Expected: {_size(self._target)}; Actual: image {index} has "
                f"{_size(image.shape)}, and this input does not resize",
                self._spec,
            )
        if self._spec.datatype.name in _RESIZED_FIRST:
            place[...] = self._convert(_resize(image, self._target))
        else:
            place[...] = _resize(self._convert(image), self._target)

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


def _resize(image: Array, target: Sequence[int]) -> Array:
    resized: Array = cv2.resize(image, (target[1], target[0]))
    return resized[:, :, np.newaxis] if resized.ndim == 2 else resized


def _conversion(spec: TensorSpec) -> Callable[[Array], Array]:
    """To the input's precision as OpenCV converts: values that do not fit saturate."""
    name = spec.datatype.name
    if name not in _RESIZED_LAST | _RESIZED_FIRST:
        raise _fault(
            errors.INVALID_PRECISION,
            f"Expected: an input of FP32, FP64, FP16, U8, U16, I8, I16 or I32 for encoded images; "
            f"Actual: {spec.datatype.label}",
            spec,
        )
    target = np.dtype(spec.datatype.numpy)
    if target.kind == "f":
        return lambda image: image if image.dtype == target else _to_float(image, target)
    return lambda image: image if image.dtype == target else _saturate(image, target)


def _to_float(image: Array, target: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):  # 65535 is infinite as a half float, as in OpenCV
        return image.astype(target)


def _saturate(image: Array, target: np.dtype[Any]) -> Array:
    bounds = np.iinfo(target)
    if image.dtype.kind == "f":  # from formats with floating-point pixels; halves go to even
        image = np.rint(image)
        return np.clip(image, bounds.min, bounds.max).astype(target)
    source = np.iinfo(image.dtype)
    if bounds.min <= source.min and source.max <= bounds.max:
        return image.astype(target)
    return np.clip(image, max(bounds.min, source.min), min(bounds.max, source.max)).astype(target)
