"""Tensors between the rooms: numpy arrays, and strings in a form of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from kfs._fast.memory import TensorView
from kfs._fast.strings import StringArray
from kfs.datatypes import Datatype

Array = npt.NDArray[Any]


class StringTensor:
    """Strings with a shape, row-major; elements are bytes and may hold NULs."""

    __slots__ = ("shape", "strings")

    def __init__(self, strings: StringArray, shape: tuple[int, ...]) -> None:
        if len(strings) != math.prod(shape):
            raise ValueError(f"{len(strings)} strings do not fill the shape {shape}")
        self.strings = strings
        self.shape = shape


Tensor = Array | StringTensor
TensorMap = dict[str, Tensor]

#: No memory in which outputs are wanted.
NOWHERE: Mapping[str, Array] = MappingProxyType({})


def array_over(view: TensorView, datatype: Datatype, shape: tuple[int, ...]) -> Array:
    """A numpy array on the memory of `view`, without a copy; the array keeps the view alive."""
    # numpy lists types of its own where it takes any buffer.
    array: Array = np.ndarray(shape, datatype.numpy, view)  # type: ignore[arg-type]
    return array


def dense(array: Array) -> Array:
    """The array, or a copy of it: models and libraries take memory without gaps, and OpenVINO
    none that is read-only."""
    return array if array.flags.c_contiguous and array.flags.writeable else array.copy(order="C")
