"""Our server beside the transport floor and a plain server, interleaved.

    python bench/server/measure.py --out server.json && python bench/report.py --server server.json

Each round measures every server once on every case, from a client process of its own; figures
are medians over the rounds. Servers that are not measured are stopped meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import openvino as ov
from openvino import opset13 as op

HERE = Path(__file__).resolve().parent
CASES = [
    ("1x16", "raw"), ("1x150528", "raw"), ("1x150528", "contents"), ("1x4000000", "raw"),
]  # fmt: skip


def save_identity(folder: Path) -> Path:
    """x + 0, which OpenVINO makes a copy of: the cheapest model there is."""
    node = op.parameter([-1, -1], ov.Type.f32, name="input")
    node.output(0).set_names({"input"})
    result = op.result(op.add(node, op.constant(np.float32(0))))
    result.get_output_tensor(0).set_names({"output"})
    folder.mkdir(parents=True)
    ov.save_model(ov.Model([result], [node]), folder / "model.xml")
    return folder / "model.xml"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def commands(model: Path, ports: dict[str, int]) -> dict[str, list[str]]:
    python = [sys.executable]
    ours = "from kfs.cli import main; main()"
    return {
        "kfs-fast": [
            *python, "-c", ours, "serve", "--model_name", "identity", "--model_path",
            str(model.parents[1]), "--port", str(ports["kfs-fast"]), "--grpc_bind_address",
            "127.0.0.1", "--log_level", "WARNING",
        ],
        "echo": [*python, str(HERE / "servers.py"), "echo", str(ports["echo"]), str(model)],
        "plain": [*python, str(HERE / "servers.py"), "plain", str(ports["plain"]), str(model)],
    }  # fmt: skip


@contextlib.contextmanager
def running(model: Path) -> Iterator[dict[str, tuple[int, subprocess.Popen[bytes]]]]:
    ports = {name: free_port() for name in ("kfs-fast", "echo", "plain")}
    servers = {}
    try:
        for name, command in commands(model, ports).items():
            process = subprocess.Popen(command)
            servers[name] = (ports[name], process)
            with grpc.insecure_channel(f"127.0.0.1:{ports[name]}") as channel:
                grpc.channel_ready_future(channel).result(timeout=60)
            process.send_signal(signal.SIGSTOP)
        yield servers
    finally:
        for _, process in servers.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for _, process in servers.values():
            process.wait(timeout=60)


def measure(port: int, shape: str, mode: str, concurrency: int, seconds: float) -> list[float]:
    command = [sys.executable, str(HERE / "client.py"), str(port), shape, mode, str(concurrency),
               str(seconds)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    latencies: list[float] = json.loads(done.stdout)
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("server.json"))
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        model = save_identity(Path(folder) / "identity" / "1")
        with running(model) as servers:
            for shape, mode in CASES:
                for concurrency in (1, 4):
                    rounds: dict[str, list[list[float]]] = {name: [] for name in servers}
                    for _ in range(options.rounds):
                        for name, (port, process) in servers.items():
                            process.send_signal(signal.SIGCONT)
                            rounds[name].append(
                                measure(port, shape, mode, concurrency, options.seconds)
                            )
                            process.send_signal(signal.SIGSTOP)
                    for name, measured in rounds.items():
                        results.append(
                            {"server": name, "shape": shape, "mode": mode,
                             "concurrency": concurrency,
                             "p50_us": statistics.median(map(statistics.median, measured)),
                             "p99_us": statistics.median(
                                 float(np.percentile(one, 99)) for one in measured),
                             "calls_per_s": statistics.median(
                                 len(one) / options.seconds for one in measured)}
                        )  # fmt: skip
                        print(results[-1], flush=True)
    options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
