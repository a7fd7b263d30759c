"""What a servable is made of, for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kfs.signature import TensorSpec, format_shape


@dataclass(frozen=True)
class Outline:
    """One line, and what belongs under it."""

    text: str
    parts: tuple[Outline, ...] = ()

    def lines(self, depth: int = 0) -> Iterator[tuple[int, str]]:
        """Every line with how deep it lies, from the top."""
        yield depth, self.text
        for part in self.parts:
            yield from part.lines(depth + 1)


def format_tensor(spec: TensorSpec) -> str:
    """`image FP32 (1,3,224,224)`"""
    return f"{spec.name} {spec.datatype.label} {format_shape(spec.shape)}"


def outline_tensors(specs: Iterable[TensorSpec]) -> tuple[Outline, ...]:
    return tuple(Outline(format_tensor(spec)) for spec in specs)
