"""One client process: `client.py PORT SHAPE raw|contents CONCURRENCY SECONDS`.

Closed loop: each of CONCURRENCY threads has a connection of its own and one call under way.
Prints the latencies in microseconds as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import grpc
import numpy as np

from kfs._proto import grpc_predict_v2_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def message(shape: list[int], mode: str) -> bytes:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    request = pb.ModelInferRequest(model_name="identity")
    tensor = request.inputs.add(name="input", datatype="FP32", shape=shape)
    if mode == "raw":
        request.raw_input_contents.append(values.tobytes())
    else:
        tensor.contents.fp32_contents.extend(values.ravel().tolist())
    return request.SerializeToString()


def drive(port: str, data: bytes, end: float, latencies: list[float]) -> None:
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.unary_unary(METHOD)
        call(data, timeout=60, wait_for_ready=True)
        while (begin := time.perf_counter()) < end:
            call(data, timeout=60)
            latencies.append((time.perf_counter() - begin) * 1e6)


def main() -> None:
    port, shape, mode, concurrency, seconds = sys.argv[1:]
    data = message([int(size) for size in shape.split("x")], mode)
    end = time.perf_counter() + float(seconds)
    latencies: list[list[float]] = [[] for _ in range(int(concurrency))]
    threads = [threading.Thread(target=drive, args=(port, data, end, mine)) for mine in latencies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([latency for mine in latencies for latency in mine]))


if __name__ == "__main__":
    main()
