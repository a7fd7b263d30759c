"""What packets carry, and what that takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfs import pyovms
from kfs._fast.memory import TensorView
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.servables.graph.calculator import (
    IMAGE,
    MP_TENSOR,
    MP_TENSORS,
    OV_TENSOR,
    OV_TENSORS,
    PY_TENSOR,
    REQUEST,
    RESPONSE,
    TF_TENSOR,
    TF_TENSORS,
    PacketType,
)
from kfs.tensors.arrays import Array, StringTensor


@dataclass(frozen=True)
class ImageFrame:
    """An image.

    Attributes:
        format: MediaPipe's name of its format, such as SRGB.
        pixels: rows, columns and channels; C-contiguous.
    """

    format: str
    pixels: Array


#: The values of packets, as far as the server knows their types.
VALUES: dict[PacketType, type | tuple[type, ...]] = {
    OV_TENSOR: (np.ndarray, StringTensor), OV_TENSORS: (list, tuple),
    MP_TENSOR: np.ndarray, MP_TENSORS: (list, tuple),
    TF_TENSOR: np.ndarray, TF_TENSORS: (list, tuple),
    IMAGE: ImageFrame, PY_TENSOR: pyovms.Tensor,
    REQUEST: pb.ModelInferRequest, RESPONSE: pb.ModelInferResponse,
}  # fmt: skip

# What a packet takes beside its values, about.
_PACKET_NBYTES = 512


def held_nbytes(values: Iterable[Any]) -> int:
    """What waiting packets keep in memory, as far as the server knows their types.

    What lies in a message keeps all of it, and what several packets keep is there once.
    """
    blocks: dict[int, int] = {}
    n_packets = 0
    for value in values:
        n_packets += 1
        blocks.update(_blocks(value))
    return n_packets * _PACKET_NBYTES + sum(blocks.values())


def _blocks(value: Any) -> Iterator[tuple[int, int]]:
    """The identities and sizes of what a value keeps in memory."""
    match value:
        case np.ndarray():
            yield _block(value, 0)
        case pyovms.Tensor():
            yield _block(value.ref_obj, value.size)
        case ImageFrame():
            yield _block(value.pixels, 0)
        case StringTensor():
            yield id(value), value.strings.framed_nbytes
        case pb.ModelInferRequest() | pb.ModelInferResponse():
            yield id(value), value.ByteSize()
        case list() | tuple():
            for each in value:
                yield from _blocks(each)


def _block(memory: Any, nbytes: int) -> tuple[int, int]:
    """What memory is part of; `nbytes` where that cannot be asked for its size."""
    while isinstance(memory, np.ndarray):
        nbytes = memory.nbytes
        if memory.base is None:
            break
        memory = memory.base
    if isinstance(memory, TensorView):
        memory = memory.owner
    return id(memory), len(memory) if isinstance(memory, bytes) else nbytes


#: (bytes per value, is a float, channels) of formats with a name.
FORMATS = {
    (1, False, 1): "GRAY8", (1, False, 3): "SRGB", (1, False, 4): "SRGBA",
    (2, False, 1): "GRAY16", (2, False, 3): "SRGB48", (2, False, 4): "SRGBA64",
    (4, True, 1): "VEC32F1", (4, True, 2): "VEC32F2", (4, True, 4): "VEC32F4",
}  # fmt: skip
#: What frames are sent as; the sign and the kind of the values are not kept.
FORMAT_DATATYPES = {
    "GRAY8": "UINT8", "SRGB": "UINT8", "SRGBA": "UINT8",
    "GRAY16": "UINT16", "SRGB48": "UINT16", "SRGBA64": "UINT16",
    "VEC32F1": "FP32", "VEC32F2": "FP32", "VEC32F4": "FP32",
}  # fmt: skip


def image_format(pixels: Array) -> str | None:
    """The name of the format of (height, width, channels); None when there is none."""
    is_float = pixels.dtype == np.float32
    return FORMATS.get((pixels.itemsize, is_float, pixels.shape[2]))


def told_type(value: object) -> str:
    """The type of a value, for people to read."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{name} of {value.dtype}" if isinstance(value, np.ndarray) else name
