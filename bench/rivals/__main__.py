"""Our server beside its rivals: `python bench/rivals`.

    python bench/rivals --with kserve --with mlserver --docs

Each round measures every server once on every case, with the load of `kfs-fast bench`: ours, the
transport floor, a plain server, and with `--with` those that are installed into environments of
their own first. All serve the same models with the same OpenVINO. Servers that are not measured
are stopped meanwhile.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import models
import numpy as np
import report
from peers import ECHO, OPTIONAL, OURS, PLACE, PLAIN, Peer, Running, install, started, versions

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli.bench.load import Load, measure
from kfs.cli.bench.results import Level, machine, now
from kfs.cli.console import progress
from kfs.cli.inputs import Tensor

ROOT = Path(__file__).resolve().parents[2]
CONCURRENCY = (1, 4)
WARM_UP_S = 0.3


@dataclass(frozen=True)
class Case:
    model: str
    shape: tuple[int, ...]
    mode: str

    def request(self) -> pb.ModelInferRequest:
        """The request in the case's mode."""
        values = np.random.default_rng(0).standard_normal(self.shape, np.float32)
        tensor = Tensor("input", "FP32", self.shape, values)
        request = pb.ModelInferRequest(model_name=self.model)
        if self.mode == "raw":
            tensor.add_raw(request)
        else:
            tensor.add_contents(request)
        return request


CASES = (
    Case("identity", (1, 16), "raw"),
    Case("identity", (1, 150528), "raw"),
    Case("identity", (1, 150528), "contents"),
    Case("identity", (1, 4000000), "raw"),
    Case("resnet50", (1, 3, 224, 224), "raw"),
)


def compare(pythons: dict[Peer, str], n_rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    """The figures of every server in every case."""
    for model in dict.fromkeys(case.model for case in CASES):
        cases = [case for case in CASES if case.model == model]
        with tempfile.TemporaryDirectory() as folder:
            path = models.save(model, Path(folder) / model)
            requests = [case.request() for case in cases]
            with started(pythons, model, path, requests) as servers:
                for case in cases:
                    for concurrency in CONCURRENCY:
                        yield from compare_case(servers, case, concurrency, n_rounds, seconds)


def compare_case(
    servers: dict[Peer, Running], case: Case, concurrency: int, n_rounds: int, seconds: float
) -> Iterator[dict[str, Any]]:
    data = case.request().SerializeToString()
    rounds: dict[Peer, list[Level]] = {peer: [] for peer in servers}
    steps = n_rounds * len(servers)
    with progress() as show:
        for _ in range(n_rounds):
            for peer, server in servers.items():
                done = sum(map(len, rounds.values()))
                show(f"{case.model} {case.shape} {case.mode}, {concurrency}: {peer.name}",
                     done / steps)  # fmt: skip
                rounds[peer].append(measure_once(server, data, concurrency, seconds))
    for peer, levels in rounds.items():
        yield {**asdict(case), "concurrency": concurrency, "peer": peer.name, **medians(levels)}


def measure_once(server: Running, data: bytes, concurrency: int, seconds: float) -> Level:
    server.wake()
    load = Load(server.connect, data, WARM_UP_S, seconds)
    tally = measure(load, concurrency, lambda n_calls, share: None)
    server.sleep()
    if tally.errors:
        raise click.ClickException(f"{server.connect.url}: {tally.first_error}")
    return Level.of(tally, concurrency, seconds)


def medians(levels: list[Level]) -> dict[str, Any]:
    """Over the rounds; the medians of each round besides, for ratios within rounds."""
    return {
        "p50_us": statistics.median(level.latency_us["p50"] for level in levels),
        "p99_us": statistics.median(level.latency_us["p99"] for level in levels),
        "rate_per_s": statistics.median(level.rate_per_s for level in levels),
        "rounds_p50_us": [level.latency_us["p50"] for level in levels],
        "rounds_rate_per_s": [level.rate_per_s for level in levels],
    }


@click.command()
@click.option("--with", "optional", type=click.Choice(list(OPTIONAL)), multiple=True,
              help="A rival to install into an environment of its own.")  # fmt: skip
@click.option("--rounds", "n_rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=2.0, show_default=True,
              help="Of each measurement.")  # fmt: skip
@click.option("--docs", is_flag=True, help="Write the tables and the picture of the documentation.")
def main(optional: tuple[str, ...], n_rounds: int, seconds: float, docs: bool) -> None:
    """Measure our server beside its rivals, interleaved."""
    peers = [ECHO, OURS, PLAIN, *(OPTIONAL[name] for name in dict.fromkeys(optional))]
    PLACE.mkdir(parents=True, exist_ok=True)
    pythons = {peer: install(peer) for peer in peers}
    document = {
        "labels": {peer.name: peer.label for peer in peers},
        "versions": {peer.name: versions(peer, python) for peer, python in pythons.items()},
        "rounds": n_rounds,
        "seconds": seconds,
        "results": list(compare(pythons, n_rounds, seconds)),
        "machine": machine(),
        "when": now(),
    }
    (PLACE / "results.json").write_text(json.dumps(document, indent=1))
    click.echo(report.text(document))
    if docs:
        report.write(document, ROOT / "docs")


if __name__ == "__main__":
    main()
