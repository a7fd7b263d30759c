"""Numbers on the command line, refused in words that say what was expected and found."""

from __future__ import annotations

import math
from typing import Any

import click


class Whole(click.IntRange):
    """A whole number that has a least and maybe a greatest value."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"expected a whole number {_bounds(self)}; found {value}", param, ctx)


class Real(click.FloatRange):
    """A number that has a least and maybe a greatest value."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = super().convert(value, param, ctx)
        except click.BadParameter:
            number = math.nan  # which is in no range
        if math.isnan(number):
            self.fail(f"expected a number {_bounds(self)}; found {value}", param, ctx)
        return number


def _bounds(kind: click.IntRange | click.FloatRange) -> str:
    if kind.max is not None:
        return f"from {kind.min} to {kind.max}"
    return f"above {kind.min}" if kind.min_open else f"of at least {kind.min}"
