"""What a servable takes and gives: names, datatypes and shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kfs.datatypes import Datatype


class Dim(NamedTuple):
    """The sizes one dimension accepts, both ends included; `high` None means no upper end."""

    low: int
    high: int | None

    @property
    def is_static(self) -> bool:
        return self.low == self.high

    @property
    def is_any(self) -> bool:
        return self.low == 0 and self.high is None

    def accepts(self, size: int) -> bool:
        return self.low <= size and (self.high is None or size <= self.high)

    def __str__(self) -> str:
        if self.is_static:
            return str(self.low)
        return "-1" if self.high is None else f"[{self.low}~{self.high}]"


ANY = Dim(0, None)


def fixed(*sizes: int) -> tuple[Dim, ...]:
    """A static shape; -1 stands for a dimension of any size."""
    return tuple(ANY if size < 0 else Dim(size, size) for size in sizes)


def format_shape(shape: Iterable[object]) -> str:
    """`(1,3,-1,[20~40])`: how shapes are printed in error texts, without spaces."""
    return "(" + ",".join(str(dim) for dim in shape) + ")"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: the name clients use.
        datatype: its row in the table of datatypes.
        shape: one `Dim` per dimension, batch included; empty for a scalar.
        layout: letters as OpenVINO writes them (`NHWC`, `N...`).
        static_shape: the sizes when all are fixed, else None.
        batch_axis: the position of `N` in the layout, None when there is none.
    """

    name: str
    datatype: Datatype
    shape: tuple[Dim, ...]
    layout: str = "N..."
    static_shape: tuple[int, ...] | None = field(init=False)
    batch_axis: int | None = field(init=False)

    def __post_init__(self) -> None:
        static = all(dim.is_static for dim in self.shape)
        sizes = tuple(dim.low for dim in self.shape) if static else None
        object.__setattr__(self, "static_shape", sizes)
        axis = expand_layout(self.layout, len(self.shape)).find("N")
        object.__setattr__(self, "batch_axis", axis if axis >= 0 else None)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor may have this shape."""
        if shape == self.static_shape:
            return True
        if len(shape) != len(self.shape):
            return False
        # Without a call for each dimension: this is asked twice for every inference.
        for (low, high), size in zip(self.shape, shape, strict=True):
            if size < low or (high is not None and size > high):
                return False
        return True

    @property
    def nbytes(self) -> int | None:
        """Bytes of the values, when the shape is fixed and they are numbers."""
        if self.static_shape is None or not self.datatype.itemsize:
            return None
        return self.datatype.itemsize * math.prod(self.static_shape)

    @property
    def metadata_shape(self) -> list[int]:
        """The shape as metadata tells it: -1 for every dimension that is not fixed."""
        return [dim.low if dim.is_static else -1 for dim in self.shape]


def expand_layout(layout: str, rank: int) -> str:
    """One letter per dimension, `?` where the layout says nothing: `N...C` of rank 4 is `N??C`."""
    head, dots, tail = layout.partition("...")
    if not dots:
        return layout
    return head[:rank] + "?" * (rank - len(head) - len(tail)) + tail[: max(rank - len(head), 0)]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a servable, each sorted by name."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
        def by_name(spec: TensorSpec) -> bytes:
            return spec.name.encode()

        return cls(tuple(sorted(inputs, key=by_name)), tuple(sorted(outputs, key=by_name)))
