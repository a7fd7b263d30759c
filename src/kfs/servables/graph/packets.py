"""The values of packets, as far as the server knows their types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kfs import pyovms
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


def packet_nbytes(value: Any) -> int:
    """What a packet takes while it waits, as far as the server knows its type."""
    return _PACKET_NBYTES + _values_nbytes(value)


def _values_nbytes(value: Any) -> int:
    match value:
        case np.ndarray():
            return value.nbytes
        case pyovms.Tensor():
            return value.size
        case ImageFrame():
            return value.pixels.nbytes
        case pb.ModelInferRequest():
            return value.ByteSize()
        case list() | tuple():
            return sum(map(_values_nbytes, value))
    return 0


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
