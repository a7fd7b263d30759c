"""The codec's benches as a table: `python bench/codec/report.py codec.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def table(document: dict[str, Any]) -> list[str]:
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


if __name__ == "__main__":
    print("\n".join(table(json.loads(Path(sys.argv[1]).read_text()))))
