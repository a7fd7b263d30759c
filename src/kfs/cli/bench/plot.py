"""Pictures of runs, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from kfs.cli.bench.report import clients
from kfs.cli.bench.results import Run

_BINS = 60
_STYLES = ("-", "--")


def draw_runs(runs: Mapping[str, Run], path: Path) -> None:
    """A histogram of latencies at each level; with several levels the rates beside it.

    The runs are told apart by their names and the style of their lines. The file is PNG or SVG,
    as its name says.
    """
    several = any(len(run.levels) > 1 for run in runs.values())
    figure = Figure(figsize=(10 if several else 6, 3.8), layout="constrained")
    axes = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    _draw_latencies(axes[0], runs)
    if several:
        _draw_rates(axes[1], runs)
    models = dict.fromkeys(f"{run.model} ({run.mode})" for run in runs.values())
    figure.suptitle(", ".join(models), fontsize=10)
    for part in axes:
        part.spines[["top", "right"]].set_visible(False)
        if part.get_legend_handles_labels()[0]:
            part.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def _draw_latencies(axes: Axes, runs: Mapping[str, Run]) -> None:
    everything = [
        latency / 1000
        for run in runs.values()
        for level in run.levels
        for latency in level.permille_us[:-1]  # the one longest would stretch the axis
    ]
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("share of calls, %")
    if not everything:
        return
    colors = {concurrency: f"C{number}" for number, concurrency in enumerate(_levels(runs))}
    edges = np.geomspace(min(everything), max(everything) * 1.001, _BINS + 1)
    for (name, run), style in zip(runs.items(), _STYLES, strict=False):
        for level in run.levels:
            counts, _ = np.histogram(np.array(level.permille_us) / 1000, edges)
            axes.stairs(
                100 * counts / max(len(level.permille_us), 1),
                edges,
                color=colors[level.concurrency],
                linestyle=style,
                label=_label(name, level.concurrency, len(runs)),
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _draw_rates(axes: Axes, runs: Mapping[str, Run]) -> None:
    for (name, run), style in zip(runs.items(), _STYLES, strict=False):
        axes.plot(
            [level.concurrency for level in run.levels],
            [level.rate_per_s for level in run.levels],
            "o", linestyle=style, color="C0", label=name if len(runs) > 1 else None,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(_levels(runs), [str(level) for level in _levels(runs)])
    axes.minorticks_off()
    axes.set_xlabel("clients")
    axes.set_ylabel("calls per second")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])


def _levels(runs: Mapping[str, Run]) -> list[int]:
    return sorted({level.concurrency for run in runs.values() for level in run.levels})


def _label(name: str, concurrency: int, n_runs: int) -> str:
    return f"{name}: {clients(concurrency)}" if n_runs > 1 else clients(concurrency)
