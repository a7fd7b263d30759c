"""Streams over gRPC: how long an answer takes, and how many packets pass.

    python bench/graphs/streams.py --out streams.json

The server is a process of its own; the client sends FP32 [16] through chains of pass-through nodes.
For latency, every stream waits for each answer before it sends again; for throughput, one stream
sends without waiting. Client and server share the machine.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np

from kfs._proto import grpc_predict_v2_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
NODES = [1, 2, 5, 10]
STREAMS = [1, 50]


def write_graphs(root: Path) -> Path:
    for n_nodes in NODES:
        names = ["in", *(f"s{n}" for n in range(1, n_nodes)), "out"]
        nodes = "".join(
            f'node {{ calculator: "PassThroughCalculator" input_stream: "{names[n]}" '
            f'output_stream: "{names[n + 1]}" }}\n'
            for n in range(n_nodes)
        )
        folder = root / f"chain{n_nodes}"
        folder.mkdir()
        (folder / "graph.pbtxt").write_text(f'input_stream: "in"\noutput_stream: "out"\n{nodes}')
    graphs = [{"name": f"chain{n_nodes}"} for n_nodes in NODES]
    path = root / "config.json"
    path.write_text(json.dumps({"model_config_list": [], "mediapipe_config_list": graphs}))
    return path


@contextmanager
def server(config: Path) -> Iterator[str]:
    command = [sys.executable, "-c", "from kfs.cli import main; main()", "serve", "--port", "0",
               "--grpc_bind_address", "127.0.0.1", "--config_path", str(config)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = ""
        for line in process.stdout:
            started = re.search(r"Started gRPC server on port (\d+)", line)
            port = started[1] if started else port
            if line.rstrip().endswith("Ready"):
                break
        yield f"127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        process.wait()


def message(n_nodes: int) -> bytes:
    request = pb.ModelInferRequest(model_name=f"chain{n_nodes}")
    request.inputs.add(name="in", datatype="FP32", shape=[16])
    request.raw_input_contents.append(np.ones(16, np.float32).tobytes())
    return request.SerializeToString()


class Talk:
    """One stream of ready-made messages; answers stay bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._messages: SimpleQueue[bytes | None] = SimpleQueue()
        self.send = self._messages.put
        self.answers = channel.stream_stream(METHOD)(iter(self._messages.get, None))


def measure_latency(channel: grpc.Channel, n_nodes: int, n_streams: int, for_s: float) -> Any:
    data = message(n_nodes)
    times_s: list[list[float]] = [[] for _ in range(n_streams)]
    ready = threading.Barrier(n_streams)

    def ask(mine: list[float]) -> None:
        talk = Talk(channel)
        talk.send(data)
        next(talk.answers)
        ready.wait()
        end = time.perf_counter() + for_s
        while time.perf_counter() < end:
            began = time.perf_counter()
            talk.send(data)
            next(talk.answers)
            mine.append(time.perf_counter() - began)
        talk.send(None)
        list(talk.answers)

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in times_s]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = np.concatenate(times_s) * 1e6
    p50, p99 = np.percentile(everything, [50, 99])
    return {"p50_us": round(p50), "p99_us": round(p99), "per_s": round(len(everything) / for_s)}


def measure_throughput(channel: grpc.Channel, n_nodes: int, n_packets: int) -> Any:
    data = message(n_nodes)
    talk = Talk(channel)
    talk.send(data)
    next(talk.answers)
    began = time.perf_counter()
    for _ in range(n_packets):
        talk.send(data)
    talk.send(None)
    n_answers = sum(1 for _ in talk.answers)
    assert n_answers == n_packets
    return {"per_s": round(n_packets / (time.perf_counter() - began))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--for_s", type=float, default=3.0)
    parser.add_argument("--packets", type=int, default=5000)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        server(write_graphs(Path(folder))) as url,
        grpc.insecure_channel(url) as channel,
    ):
        for n_nodes in NODES:
            found = measure_throughput(channel, n_nodes, options.packets)
            results.append({"what": "throughput", "nodes": n_nodes, **found})
            print(results[-1], flush=True)
        for n_streams in STREAMS:
            for n_nodes in (NODES[0], NODES[-1]):
                found = measure_latency(channel, n_nodes, n_streams, options.for_s)
                results.append({"what": "latency", "nodes": n_nodes, "streams": n_streams, **found})
                print(results[-1], flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
