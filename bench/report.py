"""Results of the benches as one table and one picture.

python bench/report.py --server server.json --codec codec.json --picture docs/numbers.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def server_table(results: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| FP32 tensor | sent as | clients | kfs-fast p50 | transport floor | plain server |",
        "|---|---|--:|--:|--:|--:|",
    ]
    cells = {(r["shape"], r["mode"], r["concurrency"], r["server"]): r for r in results}
    for shape, mode, concurrency in dict.fromkeys(key[:3] for key in cells):
        ours, echo, plain = (
            cells[shape, mode, concurrency, name]["p50_us"]
            for name in ("kfs-fast", "echo", "plain")
        )
        lines.append(
            f"| {shape} | {mode} | {concurrency} | {ours / 1000:.2f} ms | {echo / ours:.2f}x | "
            f"{plain / ours:.2f}x |"
        )
    return lines


def codec_table(document: dict[str, Any]) -> list[str]:
    times: dict[str, dict[str, float]] = {}
    for bench in document["benchmarks"]:
        case = bench["name"].replace("-ours", "").replace("-protobuf", "")
        who = "ours" if "ours" in bench["name"] else "protobuf"
        times.setdefault(case, {})[who] = bench["stats"]["median"] * 1e6
    lines = ["| case | kfs-fast | protobuf + numpy | ratio |", "|---|--:|--:|--:|"]
    for case, both in times.items():
        if len(both) == 2:
            ratio = both["protobuf"] / both["ours"]
            lines.append(
                f"| {case} | {both['ours']:.2f} us | {both['protobuf']:.2f} us | {ratio:.1f}x |"
            )
    return lines


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Median latency at one client, one group of bars per case, relative to ours."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    alone = [r for r in results if r["concurrency"] == 1]
    cases = list(dict.fromkeys((r["shape"], r["mode"]) for r in alone))
    p50 = {(r["shape"], r["mode"], r["server"]): r["p50_us"] for r in alone}
    labels = {"echo": "transport floor (no inference)", "kfs-fast": "kfs-fast",
              "plain": "plain grpcio + protobuf + numpy"}  # fmt: skip
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for number, (name, label) in enumerate(labels.items()):
        heights = [p50[(*case, name)] / p50[(*case, "kfs-fast")] for case in cases]
        places = [index + (number - 1) * 0.27 for index in range(len(cases))]
        axes.bar(
            places, heights, 0.25, label=label, color=["#b8b8b8", "#1f77b4", "#e0904a"][number]
        )
        for place, height, case in zip(places, heights, cases, strict=True):
            axes.text(place, height, f"{p50[(*case, name)] / 1000:.2f} ms", ha="center",
                      va="bottom", fontsize=7)  # fmt: skip
    axes.set_xticks(range(len(cases)), [f"FP32 {shape}\n{mode}" for shape, mode in cases])
    axes.set_ylabel("median latency, kfs-fast = 1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", type=Path)
    parser.add_argument("--codec", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.server:
        results = json.loads(options.server.read_text())
        print("\n".join(server_table(results)))
        if options.picture:
            draw(results, options.picture)
    if options.codec:
        print("\n".join(codec_table(json.loads(options.codec.read_text()))))


if __name__ == "__main__":
    main()
