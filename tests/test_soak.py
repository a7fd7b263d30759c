"""Everything at once for a while: no valid request fails, and nothing grows.

`KFS_SOAK_S` says for how many seconds; a few by default.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import grpc
import models
import numpy as np
import psutil
import pytest
from conftest import wait_until
from graphs.graph_site import add_graph, ends, inference, session
from site_of_models import ONES, Site, ask, plus
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb

DURATION_S = float(os.environ.get("KFS_SOAK_S", "5"))
N_CLIENTS = 8
#: What malloc keeps, and OpenVINO for models that are compiled again and again.
SPARE_NBYTES = 48 << 20
#: OpenVINO keeps the threads of as many executors as were ever in use at a time, which is a matter
#: of how many models happen to be replaced while calls use the old ones.
SPARE_NATIVE_THREADS = 32

PICTURE = np.random.default_rng(3).integers(0, 255, (8, 6, 3), np.uint8)
PNG = bytes(cv2.imencode(".png", PICTURE)[1])
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip

HANDLED = (
    ends(["OVMS_PY_TENSOR:b"], ["OVMS_PY_TENSOR:a"])
    + """
node {
  name: "five"
  calculator: "PythonExecutorCalculator"
  input_side_packet: "PYTHON_NODE_RESOURCES:py"
  input_stream: "INPUT:b"
  output_stream: "OUTPUT:a"
  node_options: {
    [type.googleapis.com/mediapipe.PythonExecutorCalculatorOptions]: { handler_path: "handler.py" }
  }
}
"""
)
HANDLER = """
    import numpy as np
    from kfs import pyovms

    class OvmsPythonModel:
        def execute(self, inputs):
            return [pyovms.Tensor("a", np.asarray(inputs[0]) + np.float32(5))]
"""


def same(stub: Stub, request: pb.ModelInferRequest, expected: bytes) -> None:
    answer = stub.ModelInfer(request, timeout=60)
    assert answer.raw_output_contents[0] == expected


def ending(call: grpc.Future) -> grpc.StatusCode | None:
    """How a call ends; None when it is answered."""
    error = call.exception()
    return None if error is None else error.code()


def infer_raw(stub: Stub, dice: random.Random) -> None:
    datatype = dice.choice(list(models.NUMERIC))
    values = np.arange(dice.randrange(1, 2000)).reshape(1, -1).astype(models.NUMERIC[datatype][1])
    data = values.tobytes()
    name = f"identity_{datatype}"
    same(stub, infer_request(name, "input", datatype, values.shape, raw=data), data)


def infer_contents(stub: Stub, dice: random.Random) -> None:
    datatype = dice.choice(list(CONTENTS))
    values = np.arange(dice.randrange(1, 100)).reshape(1, -1).astype(models.NUMERIC[datatype][1])
    request = infer_request(
        f"identity_{datatype}", "input", datatype, values.shape,
        **{CONTENTS[datatype]: values.ravel().tolist()},
    )  # fmt: skip
    same(stub, request, values.tobytes())


def infer_strings(stub: Stub, dice: random.Random) -> None:
    strings = [dice.randbytes(dice.randrange(200)) for _ in range(dice.randrange(1, 50))]
    raw = b"".join(len(each).to_bytes(4, "little") + each for each in strings)
    form: dict[str, Any] = dice.choice([{"raw": raw}, {"bytes_contents": strings}])
    same(stub, infer_request("strings", "input", "BYTES", [len(strings)], **form), raw)


def infer_images(stub: Stub, dice: random.Random) -> None:
    n_images = dice.randrange(1, 5)
    request = infer_request("images", "input", "BYTES", [n_images], bytes_contents=[PNG] * n_images)
    same(stub, request, PICTURE.astype(np.float32).tobytes() * n_images)


def infer_reloaded(stub: Stub, dice: random.Random) -> None:
    assert ask(stub, "one") == 1


def infer_pipeline(stub: Stub, dice: random.Random) -> None:
    assert ask(stub, "sum") == 3


def infer_graph(stub: Stub, dice: random.Random) -> None:
    name = dice.choice(["graph", "handled"])
    assert ask(stub, name) == {"graph": 2, "handled": 5}[name]


def stream_on_graph(stub: Stub, dice: random.Random) -> None:
    name = dice.choice(["graph", "handled"])
    requests = [infer_request(name, raw=(n * ONES).tobytes()) for n in range(dice.randrange(1, 9))]
    answers = list(stub.stream(requests))
    assert not any(answer.error_message for answer in answers), answers
    raw = [answer.infer_response.raw_output_contents[0] for answer in answers]
    found = [np.frombuffer(each, np.float32)[0] for each in raw]
    added = {"graph": 2, "handled": 5}[name]
    assert found == [n + added for n in range(len(requests))]


def leave_stream(stub: Stub, dice: random.Random) -> None:
    name = dice.choice(["two", "sum", "graph", "handled"])
    answers = stub.stream([infer_request(name, raw=ONES.tobytes())] * 20)
    for _ in range(dice.randrange(5)):
        assert not next(answers).error_message
    answers.cancel()  # type: ignore[attr-defined]


def stream(stub: Stub, dice: random.Random) -> None:
    good = infer_request("two", raw=ONES.tobytes())
    bad = infer_request("two", raw=b"1234")
    requests = [good, *dice.choices([good, bad, b"\x0a\x05ab"], k=8)]
    answers = list(stub.stream(requests))
    assert [not answer.error_message for answer in answers] == [each is good for each in requests]


def ask_of_models(stub: Stub, dice: random.Random) -> None:
    name = dice.choice(["one", "two", "sum", "graph", "strings"])
    assert stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=60).ready
    assert stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=60).inputs


def leave(stub: Stub, dice: random.Random) -> None:
    call = stub.ModelInfer.future(infer_request("two", raw=bytes(40)), timeout=60)
    if dice.random() < 0.5:
        call.cancel()
    del call


def expire(stub: Stub, dice: random.Random) -> None:
    call = stub.ModelInfer.future(infer_request("two", raw=bytes(40)), timeout=dice.random() / 1000)
    assert ending(call) in (None, grpc.StatusCode.DEADLINE_EXCEEDED)


def send_junk(stub: Stub, dice: random.Random) -> None:
    data = bytearray(infer_request("two", raw=bytes(40)).SerializeToString())
    del data[dice.randrange(1, len(data)) :]
    call = stub.ModelInfer.future(bytes(data), timeout=60)
    assert ending(call) in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


TRAFFIC: list[Callable[[Stub, random.Random], None]] = [
    infer_raw, infer_contents, infer_strings, infer_images, infer_reloaded, infer_pipeline,
    infer_graph, stream, stream_on_graph, leave_stream, ask_of_models, leave, expire, send_junk,
]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, repository: Path) -> Iterator[Site]:
    """Models, a pipeline of two of them, a graph of one, and a graph with a handler."""
    site = Site(tmp_path)
    site.add("one", 1)
    site.add("two", 2)
    for name in ("images", "strings", *(f"identity_{datatype}" for datatype in models.NUMERIC)):
        site.models[name] = {"name": name, "base_path": str(repository / name)}
    node = {"type": "DL model", "outputs": [{"data_item": "a", "alias": "a"}]}
    site.pipelines = [
        {
            "name": "sum",
            "inputs": ["b"],
            "nodes": [
                {**node, "name": "first", "model_name": "one",
                 "inputs": [{"b": {"node_name": "request", "data_item": "b"}}]},
                {**node, "name": "second", "model_name": "two",
                 "inputs": [{"b": {"node_name": "first", "data_item": "a"}}]},
            ],
            "outputs": [{"a": {"node_name": "second", "data_item": "a"}}],
        }
    ]  # fmt: skip
    text = inference("two", {"B": "b"}, {"A": "a"}, B="b", A="a")
    add_graph(site, "graph", ends(["b"], ["a"]) + session("two") + text)
    add_graph(site, "handled", HANDLED, handler=HANDLER)
    yield site
    site.stop()


def reload(site: Site, number: int) -> None:
    """A new version of one model, which adds the same; new options of another; a graph anew."""
    plus(site.root / "one" / str(number + 1), 1)
    site.models["two"]["nireq"] = 1 + number % 3
    site.write()
    add_graph(site, "handled", HANDLED + f"# {number}")
    site.poll()
    shutil.rmtree(site.root / "one" / str(number))
    site.poll()


class Traffic:
    """Clients that send everything there is until told to stop."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._stopping = threading.Event()
        self.counts: Counter[str] = Counter()

    def run(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self._stopping.is_set():
            act = dice.choice(TRAFFIC)
            act(self._stub, dice)
            self.counts[act.__name__] += 1

    def stop(self) -> None:
        self._stopping.set()


class Held(NamedTuple):
    """What this process holds, server and clients."""

    n_bytes: int
    n_python_threads: int
    n_threads: int
    n_files: int

    @staticmethod
    def now() -> Held:
        gc.collect()
        process = psutil.Process()
        return Held(
            process.memory_info().rss,
            threading.active_count(),
            process.num_threads(),
            process.num_fds(),
        )


def thread_names() -> Counter[str]:
    """Whose the threads are: those of gRPC and OpenVINO have names of their own."""
    names: Counter[str] = Counter()
    for file in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it has ended
            names[file.read_text().strip()] += 1
    return names + Counter(thread.name for thread in threading.enumerate())


@pytest.mark.timeout(DURATION_S + 120)
def test_everything_at_once(site: Site) -> None:
    stub = site.start()
    traffic = Traffic(stub)
    number = 1
    end = time.monotonic() + DURATION_S
    warm = end - DURATION_S / 2
    told = time.monotonic()
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        clients = [pool.submit(traffic.run, seed) for seed in range(N_CLIENTS)]
        before = None
        while time.monotonic() < end and not any(client.done() for client in clients):
            reload(site, number)
            number += 1
            if time.monotonic() > told + 60:
                told = time.monotonic()
                print(f"{end - told:.0f} s to go, {number} reloads, {Held.now()}", flush=True)
                print(dict(thread_names()), flush=True)
            if before is None and time.monotonic() > warm:
                before = Held.now()
        after = Held.now()
        traffic.stop()
    for client in clients:
        client.result()
    assert before is not None
    print(before, after, number, traffic.counts)
    assert len(traffic.counts) == len(TRAFFIC)
    assert after.n_bytes - before.n_bytes < SPARE_NBYTES
    assert after.n_python_threads - before.n_python_threads < N_CLIENTS
    assert after.n_threads - before.n_threads < N_CLIENTS + SPARE_NATIVE_THREADS
    assert after.n_files - before.n_files < N_CLIENTS
    assert site.server is not None
    for entry in site.server.catalog.snapshot.values():
        for version in entry.versions.values():
            wait_until(lambda version=version: not version.leases)  # type: ignore[misc]
