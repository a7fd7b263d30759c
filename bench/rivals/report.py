"""Results of `python bench/rivals` as text for the documentation and as its picture.

python bench/rivals/report.py build/rivals/results.json    # writes docs/ again
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kfs.cli.bench.report import milliseconds, rate

OURS, FLOOR = "kfs-fast", "floor"
_MARKS = "<!-- rivals -->", "<!-- /rivals -->"
_COLORS = ("#b8b8b8", "#1f77b4", "#e0904a", "#8c6bb1", "#6b9e78")
#: Bars end here, in multiples of our latency; their labels tell how far they would go.
_TOP = 5.0

Document = dict[str, Any]
Case = tuple[str, str, str, int]


def cells(document: Document) -> dict[Case, dict[str, Any]]:
    """By case (model, shape, mode, concurrency) and then by server."""
    found: dict[Case, dict[str, Any]] = {}
    for result in document["results"]:
        shape = "x".join(map(str, result["shape"]))
        case = result["model"], shape, result["mode"], result["concurrency"]
        found.setdefault(case, {})[result["peer"]] = result
    return found


def ratio(theirs: dict[str, Any], ours: dict[str, Any], figure: str) -> float:
    """Theirs over ours, the median of the rounds' ratios: machines drift between rounds."""
    pairs = zip(theirs[f"rounds_{figure}"], ours[f"rounds_{figure}"], strict=True)
    return statistics.median(one / other for one, other in pairs)


def text(document: Document) -> str:
    """Two tables, and what they were measured with."""
    versions = [f"{name} ({text})" for name, text in document["versions"].items()]
    machine = document["machine"]
    return "\n".join([
        "Median latency, and in brackets its ratio to ours:",
        "",
        *_table(document, "p50_us", lambda us: f"{milliseconds(us)} ms"),
        "",
        "Calls per second:",
        "",
        *_table(document, "rate_per_s", rate),
        "",
        f"{document['when'][:10]}, {machine['cores']} cores of {machine['cpu']}, "
        f"Python {machine['python']}; {document['rounds']} rounds of {document['seconds']:g} s. "
        f"Servers: {'; '.join(versions)}.",
    ])  # fmt: skip


def _table(document: Document, figure: str, show: Any) -> list[str]:
    names = list(document["labels"])
    head = ["model", "FP32 tensor", "sent as", "clients", OURS]
    others = [name for name in names if name != OURS]
    lines = [
        f"| {' | '.join([*head, *('transport floor' if n == FLOOR else n for n in others)])} |",
        f"|{'---|' * 3}{'--:|' * (2 + len(others))}",
    ]
    for (model, shape, mode, concurrency), servers in cells(document).items():
        ours = servers[OURS]
        row = [model, shape, mode, str(concurrency), show(ours[figure])]
        row += [
            f"{show(servers[name][figure])} ({_times(ratio(servers[name], ours, figure))})"
            for name in others
        ]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _times(value: float) -> str:
    return f"{value:.2g}x" if value < 0.995 else f"{value:.{2 if value < 10 else 0}f}x"


def draw(document: Document, path: Path) -> None:
    """Median latency at one client, a group of bars for each case, relative to ours."""
    alone = {case: servers for case, servers in cells(document).items() if case[3] == 1}
    labels = document["labels"]
    width = 0.84 / len(labels)
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, label) in enumerate(labels.items()):
        for index, servers in enumerate(alone.values()):
            times = ratio(servers[name], servers[OURS], "p50_us")
            place = index + (number - (len(labels) - 1) / 2) * width
            axes.bar(place, min(times, _TOP), 0.92 * width, color=_COLORS[number],
                     label=None if index else label)  # fmt: skip
            shown = f"{milliseconds(servers[name]['p50_us'])} ms"
            if times > _TOP:
                shown += f", {times:.0f}x"
            axes.text(place, min(times, _TOP) + 0.05, shown, ha="center", va="bottom", fontsize=7,
                      rotation=90)  # fmt: skip
    axes.set_xticks(
        range(len(alone)), [f"{model}\n{shape} {mode}" for model, shape, mode, _ in alone]
    )
    axes.set_ylabel("median latency, kfs-fast = 1")
    axes.set_ylim(0, _TOP + 1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", frameon=False,
                  fontsize=8, ncols=len(labels))  # fmt: skip
    figure.savefig(path, dpi=120)


def write(document: Document, docs: Path) -> None:
    """Put the tables between their marks in docs/performance.md, and the picture beside it."""
    page = docs / "performance.md"
    begin, end = _MARKS
    between = re.compile(f"{begin}.*?{end}", re.DOTALL)
    tables = f"{begin}\n{text(document)}\n{end}"
    page.write_text(between.sub(lambda found: tables, page.read_text()))
    draw(document, docs / "numbers.png")


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text()), Path(__file__).resolve().parents[2] / "docs")
