"""What shapes and layouts allow together."""

from __future__ import annotations

from kfs.datatypes import UNSUPPORTED
from kfs.servables.pipeline.spec import DYNAMIC
from kfs.signature import ANY, Dim, TensorSpec, expand_layout

Shape = tuple[Dim, ...]


def count_dim(count: int) -> Dim:
    """The dimension that a demultiply count stands for."""
    return ANY if count == DYNAMIC else Dim(count, count)


def overlap(first: Dim, second: Dim) -> Dim | None:
    """The sizes both accept; None when there is none."""
    low = max(first.low, second.low)
    highs = [dim.high for dim in (first, second) if dim.high is not None]
    high = min(highs, default=None)
    return None if high is not None and high < low else Dim(low, high)


def shapes_meet(first: Shape, second: Shape) -> bool:
    return len(first) == len(second) and all(
        overlap(one, other) is not None for one, other in zip(first, second, strict=True)
    )


def intersect(first: TensorSpec, second: TensorSpec) -> TensorSpec | None:
    """What two consumers of one tensor both accept; None when nothing is.

    A library that says no precision takes any.
    """
    datatypes = {spec.datatype for spec in (first, second)} - {UNSUPPORTED} or {UNSUPPORTED}
    if len(datatypes) > 1 or len(first.shape) != len(second.shape):
        return None
    dims = [overlap(one, other) for one, other in zip(first.shape, second.shape, strict=True)]
    shape = tuple(dim for dim in dims if dim is not None)
    layout = _intersect_layouts(first.layout, second.layout, len(first.shape))
    if len(shape) != len(dims) or layout is None:
        return None
    return TensorSpec(first.name, datatypes.pop(), shape, layout)


def _intersect_layouts(first: str, second: str, rank: int) -> str | None:
    if first == second:
        return first
    one, other = expand_layout(first, rank), expand_layout(second, rank)
    if len(one) != len(other):
        return None
    letters = []
    for a, b in zip(one, other, strict=True):
        if "?" not in (a, b) and a != b:
            return None
        letters.append(b if a == "?" else a)
    known = [letter for letter in letters if letter != "?"]
    if len(known) != len(set(known)):
        return None
    merged = "".join(letters)
    return next((text for text in (first, second) if expand_layout(text, rank) == merged), merged)


def shard_of(spec: TensorSpec) -> TensorSpec:
    """What each shard is of an input that gathers them: without the dimension in front."""
    layout = spec.layout if spec.layout.startswith("...") else spec.layout[1:]
    return TensorSpec(spec.name, spec.datatype, spec.shape[1:], layout)


def demultiplexed(spec: TensorSpec, count: int) -> TensorSpec:
    """An input of a pipeline that demultiplexes its request: one dimension more, in front."""
    layout = spec.layout
    if layout != "...":
        layout = "N" + layout.replace("N", "?", 1)
    return TensorSpec(spec.name, spec.datatype, (count_dim(count), *spec.shape), layout)
