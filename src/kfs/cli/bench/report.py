"""Figures for reading: tables, histograms and comparisons."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise

import click

from kfs.cli.bench.results import PERCENTILES, Level, Run
from kfs.cli.console import bar, print_table

_ROWS = 12
_BAR_WIDTH = 40
#: Share of the cores that the clients can use at which they, not the server, may be the limit.
_BUSY = 0.9


def show(run: Run) -> None:
    """A table, a histogram for each level, and what a reader should know besides."""
    names = [*(f"p{percentile}" for percentile in PERCENTILES), "max"]
    print_table(
        f"{_what(run)}; times in ms",
        ["clients", "calls/s", *names, "errors"],
        [
            [str(level.concurrency), rate(level.rate_per_s),
             *(_ms(level, name) for name in names), str(level.n_errors)]
            for level in run.levels
        ],
    )  # fmt: skip
    for level in run.levels:
        _show_histogram(level)
    for level in run.levels:
        for note in _notes(level):
            click.echo(note)


def rate(value: float) -> str:
    """Calls per second, in as many digits as mean anything."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(us: float) -> str:
    """A latency in milliseconds, with three digits as far as there are so many."""
    ms = us / 1000
    return f"{ms:.{3 if ms < 1 else 2 if ms < 10 else 1 if ms < 100 else 0}f}"


def clients(count: int) -> str:
    return f"{count} client{'s' * (count > 1)}"


def _ms(level: Level, name: str) -> str:
    return milliseconds(level.latency_us[name]) if level.latency_us else "-"


def _show_histogram(level: Level) -> None:
    """Equal steps up to the 99th percentile, and one row for the rest."""
    import numpy as np

    if not level.permille_us:
        return
    low, high, top = (level.latency_us[name] for name in ("min", "p99", "max"))
    counts, edges = np.histogram(level.permille_us, _ROWS, (low, max(high, low + 1)))
    rest = len(level.permille_us) - int(counts.sum())
    click.echo(f"\nLatency in ms, {clients(level.concurrency)}")
    rows = [
        (f"{milliseconds(begin)} - {milliseconds(end)}", int(count))
        for (begin, end), count in zip(pairwise(edges), counts, strict=True)
    ]
    if rest:
        rows.append((f"{milliseconds(high)} - {milliseconds(top)}", rest))
    width = max(len(label) for label, _ in rows)
    most = max(count for _, count in rows)
    for label, count in rows:
        share = count / len(level.permille_us)
        click.echo(f"{label:>{width}}  {bar(count / most, _BAR_WIDTH)} {share:6.1%}")


def _notes(level: Level) -> list[str]:
    notes = []
    who = clients(level.concurrency)
    if level.errors:
        statuses = ", ".join(f"{status} {count}" for status, count in level.errors.items())
        notes.append(f"{who}: failed calls: {statuses}; the first: {level.first_error}")
    usable = min(level.processes, os.cpu_count() or 1)
    if level.client_cpus > _BUSY * usable:
        notes.append(
            f"{who}: the client processes kept {level.client_cpus:.1f} of the {usable} cores "
            "they can use busy: the figures may be theirs rather than the server's"
        )
    return notes


def compare(before: tuple[str, Run], after: tuple[str, Run]) -> None:
    """A table of both runs at the levels that both have.

    Raises:
        click.UsageError: there is none.
    """
    (first_name, first), (second_name, second) = before, after
    pairs = list(_common(first.levels, second.levels))
    if not pairs:
        raise click.UsageError(f"{first_name} and {second_name} have no concurrency in common")
    rows = [[str(a.concurrency), *row] for a, b in pairs for row in _figures(a, b)]
    click.echo(f"A = {first_name}: {_what(first)}, {first.when}")
    click.echo(f"B = {second_name}: {_what(second)}, {second.when}")
    print_table("A and B", ["clients", "", "A", "B", "B/A"], rows)
    if (first.inputs, first.mode) != (second.inputs, second.mode):
        click.echo("The two runs sent different requests.")
    if dict(first.client) != dict(second.client):
        click.echo("The clients of the two runs had different versions or machines.")


def _common(first: Sequence[Level], second: Sequence[Level]) -> list[tuple[Level, Level]]:
    others = {level.concurrency: level for level in second}
    return [(level, others[level.concurrency]) for level in first if level.concurrency in others]


def _what(run: Run) -> str:
    return f"{run.model} on {run.url}, {run.mode}: {', '.join(run.inputs)}"


def _figures(a: Level, b: Level) -> Iterator[list[str]]:
    yield ["calls/s", rate(a.rate_per_s), rate(b.rate_per_s), _ratio(a.rate_per_s, b.rate_per_s)]
    for name in ("p50", "p90", "p99"):
        ratio = _ratio(a.latency_us.get(name, 0), b.latency_us.get(name, 0))
        yield [f"{name}, ms", _ms(a, name), _ms(b, name), ratio]
    if a.errors or b.errors:
        yield ["errors", str(a.n_errors), str(b.n_errors), _ratio(a.n_errors, b.n_errors)]


def _ratio(first: float, second: float) -> str:
    return f"{second / first:.2f}" if first and second else "-"
