"""`kfs-fast bench`: figures of real runs against servers on loopback, and what it refuses."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import psutil
import pytest
from conftest import wait_until

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli.app import Server

COMMAND = [sys.executable, "-c", "from kfs.cli import main; main()", "bench"]
SHORT = ["--duration", "0.5", "--warmup", "0.1"]
SHORTEST = ["--duration", "0.05", "--warmup", "0"]
Save = Callable[..., dict[str, Any]]


def bench(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **variables},
    )  # fmt: skip


@pytest.fixture
def url(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.fixture
def measure(url: str, tmp_path: Path) -> Save:
    """Run the command and read what it saved."""

    def save(*arguments: str) -> dict[str, Any]:
        file = tmp_path / "results.json"
        done = bench(*arguments, "--url", url, "--json", str(file), *SHORT)
        assert done.returncode == 0, done.stderr
        return json.loads(file.read_text())

    return save


def test_figures_agree_with_each_other(measure: Save) -> None:
    run = measure("dummy", "--concurrency", "1,3")
    assert [level["concurrency"] for level in run["levels"]] == [1, 3]
    for level in run["levels"]:
        assert level["errors"] == {}
        assert level["calls"] > 10
        assert level["calls"] == pytest.approx(level["rate_per_s"] * run["duration_s"], rel=0.2)
        latency = level["latency_us"]
        order = [latency[name] for name in ("min", "p50", "p90", "p95", "p99", "max")]
        assert all(low <= high for low, high in pairwise(order))
        # Closed loops: with nothing but calls to do, their number follows from the mean latency.
        expected = level["concurrency"] * 1e6 / latency["mean"]
        assert level["rate_per_s"] == pytest.approx(expected, rel=0.2)
        assert len(level["permille_us"]) == 1001
        assert level["client_cpus"] > 0


def test_results_say_what_was_measured_and_where(measure: Save, url: str) -> None:
    run = measure("dummy", "--mode", "contents")
    assert (run["model"], run["mode"], run["url"]) == ("dummy", "contents", url)
    assert run["inputs"] == ["b FP32 [1, 10]"]
    assert run["server"].startswith("kfs-fast ")
    assert 40 < run["request_nbytes"] < 120
    assert {"kfs-fast", "python", "grpcio", "system", "cpu", "cores"} <= set(run["client"])


@dataclass
class Foreign:
    """Another maker's server, that does not say what its models take.

    Attributes:
        url: its address.
        requests: those that came, as bytes.
        peers: the connections they came from.
    """

    url: str
    requests: list[bytes] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)


@contextmanager
def foreign(answer: Callable[[int, grpc.ServicerContext], bytes]) -> Iterator[Foreign]:
    """A server of one model, whose answer is told which inference it is, from 0 on."""
    numbers = count()

    def infer(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.requests.append(request)
        seen.peers.add(context.peer())
        return answer(next(numbers), context)

    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ModelMetadata": grpc.unary_unary_rpc_method_handler(
            lambda request, context: pb.ModelMetadataResponse(name="any"),
            pb.ModelMetadataRequest.FromString,
            pb.ModelMetadataResponse.SerializeToString,
        ),
        "ModelInfer": grpc.unary_unary_rpc_method_handler(infer),
    }
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
    )
    seen = Foreign(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        yield seen
    finally:
        server.stop(0).wait()


def bench_foreign(url: str, file: Path, *arguments: str) -> tuple[Any, dict[str, Any]]:
    done = bench("any", "--shape", "x:FP32:2", "--url", url, "--duration", "0.5", "--warmup", "0",
                 "--json", str(file), *arguments)  # fmt: skip
    assert "Traceback" not in done.stderr
    return done, json.loads(file.read_text())["levels"][0]


def test_every_counted_call_was_answered_on_a_connection_of_each_client(tmp_path: Path) -> None:
    with foreign(lambda number, context: b"") as server:
        done, level = bench_foreign(server.url, tmp_path / "results.json", "--concurrency", "3")
    assert done.returncode == 0, done.stderr
    # Before the measurement: one look whether it works, and one call to warm up each connection.
    assert len(server.requests) == level["calls"] + 1 + 3
    assert len(server.peers) == 1 + 3
    assert len(set(server.requests)) == 1


def test_failures_are_counted_apart_and_the_first_is_told(tmp_path: Path) -> None:
    def every_other(number: int, context: grpc.ServicerContext) -> bytes:
        if number > 1 and number % 2:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"too many,\nsaid {number}")
        return b""

    with foreign(every_other) as server:
        done, level = bench_foreign(server.url, tmp_path / "results.json")
    assert done.returncode == 0, done.stderr
    assert abs(level["errors"]["RESOURCE_EXHAUSTED"] - level["calls"]) <= 1
    assert level["first_error"] == "RESOURCE_EXHAUSTED: too many, said 3"
    told = f"1 client: failed calls: RESOURCE_EXHAUSTED {level['errors']['RESOURCE_EXHAUSTED']}; "
    assert f"{told}the first: RESOURCE_EXHAUSTED: too many, said 3" in done.stdout


def test_a_run_without_an_answer_fails(tmp_path: Path) -> None:
    def once(number: int, context: grpc.ServicerContext) -> bytes:
        if number:
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        return b""

    with foreign(once) as server:
        done, level = bench_foreign(server.url, tmp_path / "results.json")
    assert done.returncode == 1
    assert done.stderr.endswith("Error: no call succeeded\n")
    assert (level["calls"], level["latency_us"], level["permille_us"]) == (0, {}, [])
    assert level["errors"]["INTERNAL"] > 0


@pytest.mark.parametrize("mode", ["raw", "contents"])
@pytest.mark.parametrize(
    ("datatype", "nbytes"), [("FP32", 24), ("INT64", 48), ("UINT8", 6), ("BOOL", 6), ("BYTES", 120)]
)
def test_values_are_made_of_every_kind(datatype: str, nbytes: int, mode: str) -> None:
    shape = f"x:0:{datatype}:2,3"
    with foreign(lambda number, context: b"") as server:
        done = bench("any", "--shape", shape, "--url", server.url, "--mode", mode, *SHORTEST)
    assert done.returncode == 0, done.stderr
    request = pb.ModelInferRequest.FromString(server.requests[0])
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x:0", datatype, [2, 3])
    if mode == "raw":
        assert [len(raw) for raw in request.raw_input_contents] == [nbytes]
    else:
        ((_, values),) = tensor.contents.ListFields()
        assert len(values) == 6


def test_inputs_may_come_from_files(url: str, tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.ones((1, 10), np.float32))
    png = str(tmp_path / "image.png")
    cv2.imwrite(png, np.zeros((9, 9, 3), np.uint8))
    for arguments in (
        ["dummy", "--input", f"b={tmp_path}/b.npy"],
        ["dynamic", "--input", f"b={tmp_path}/b.npy", "--mode", "contents"],
        ["images", "--image", png, "--image", png],
        ["images", "--image", f"input={png}", "--mode", "contents"],
    ):
        done = bench(*arguments, "--url", url, *SHORTEST)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 64, "name a servable, or give --compare A.json B.json"),
        (["nope"], 1, "Error: NOT_FOUND: Model with requested name is not found - nope"),
        (["dummy", "--url", "127.0.0.1:1"], 1, "UNAVAILABLE"),
        (["dynamic"], 64, "the input b has the shape [-1, -1], which is not fixed: say which to "
                          "send, as in --shape b:1,1"),
        (["dummy", "--shape", "b:1,x"], 64, "--shape b:1,x: expected INPUT:SIZE,SIZE,... as in"),
        (["dummy", "--shape", "c:1,2"], 64, "--shape c:1,2: expected INPUT:SIZE,SIZE,... with one "
                                            "of the inputs b"),
        (["add_two", "--shape", "1,2"], 64, "with one of the inputs input1, input2"),
        (["dummy", "--shape", "b:1,11"], 1, "Error: INVALID_ARGUMENT: Invalid input shape"),
        (["dummy", "--shape", "1,999999999"], 64, "has 3999999996 bytes; a message holds at most"),
        (["dummy", "--shape", "c:FP32:1"], 1, "Error: INVALID_ARGUMENT: "),
        (["identity_FP16", "--shape", "1,2", "--mode", "contents"], 64,
         "the input input is FP16, which only raw contents can carry"),
        (["dummy", "--concurrency", "1,0"], 64, "'1,0': expected numbers from 1 to 10000"),
        (["dummy", "--concurrency", "many"], 64, "'many': expected numbers from 1 to 10000"),
        (["dummy", "--duration", "0"], 64, "Invalid value for '--duration'"),
        (["dummy", "--json", "/nope/x.json"], 64, "there is no folder /nope"),
        (["dummy", "--plot", "x.gif"], 64, "x.gif: expected a name that ends in .png or .svg"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_change(url: str, arguments: list[str], code: int, text: str) -> None:
    where = [] if "--url" in arguments else ["--url", url]
    done = bench(*SHORTEST, *arguments, *where)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_says_nothing_of_its_inputs_needs_them_told() -> None:
    with foreign(lambda number, context: b"") as server:
        done = bench("any", "--url", server.url)
    assert done.returncode == 64
    assert (
        "the server does not say what any takes: say it, as in --shape INPUT:FP32:" in done.stderr
    )


def test_the_terminal_shows_a_table_and_histograms_of_all_calls(url: str) -> None:
    for encoding, mark in (("utf-8", "█"), ("ascii", "#")):
        done = bench("dummy", "--url", url, "--concurrency", "1,2", "--duration", "0.3",
                     "--warmup", "0", PYTHONIOENCODING=encoding)  # fmt: skip
        assert done.returncode == 0, done.stderr
        title, columns, *rows = done.stdout.splitlines()
        assert title == f"dummy on {url}, raw: b FP32 [1, 10]; times in ms"
        assert columns.split() == [
            "clients",
            "calls/s",
            "p50",
            "p90",
            "p95",
            "p99",
            "max",
            "errors",
        ]
        assert [row.split()[0] for row in rows[:2]] == ["1", "2"]
        one, two = done.stdout.split("\n\n")[1:]
        assert one.startswith("Latency in ms, 1 client\n")
        assert two.startswith("Latency in ms, 2 clients\n")
        for histogram in (one, two):
            shares = re.findall(r"(\d+\.\d)%", histogram)
            assert sum(map(float, shares)) == pytest.approx(100, abs=1)
            assert mark * 40 in histogram  # one bar, or several as long
        assert "1 client: " in done.stderr
        assert "2 clients: " in done.stderr


def test_progress_on_a_terminal_is_a_bar(url: str) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "dummy", "--url", url, *SHORT], stdout=subprocess.DEVNULL, stderr=follower
    )
    os.close(follower)
    shown = b""
    with suppress(OSError):  # what reading brings when the other side is closed
        while part := os.read(leader, 1 << 16):
            shown += part
    os.close(leader)
    assert process.wait(timeout=60) == 0
    assert "1 client: warming up" in shown.decode()
    assert re.search(r"calls/s .*━", shown.decode())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Results of a quick and of a slow server, at 1 and 2 clients and at 2 and 3."""
    folder = tmp_path_factory.mktemp("saved")
    with foreign(lambda number, context: b"") as quick:
        bench_foreign(quick.url, folder / "quick.json", "--concurrency", "1,2")
    with foreign(lambda number, context: time.sleep(0.05) or b"") as slow:
        bench_foreign(slow.url, folder / "slow.json", "--concurrency", "2,3")
    return str(folder / "quick.json"), str(folder / "slow.json")


def test_two_results_side_by_side(saved: tuple[str, str]) -> None:
    done = bench("--compare", *saved)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"A = {saved[0]}: any on 127.0.0.1:")
    assert lines[1].startswith(f"B = {saved[1]}: any on 127.0.0.1:")
    rows = {line[9:].rsplit(maxsplit=3)[0]: line.split()[-3:] for line in lines[4:8]}
    assert all(line.startswith("2 ") for line in lines[4:8])
    rate, p50 = ([float(cell.replace(",", "")) for cell in rows[name]] for name in
                 ("calls/s", "p50, ms"))  # fmt: skip
    assert rate[2] == pytest.approx(rate[1] / rate[0], abs=0.01)
    assert rate[2] < 0.5
    assert p50[2] > 2
    assert p50[1] >= 50


def test_results_that_share_nothing_or_are_none(saved: tuple[str, str], tmp_path: Path) -> None:
    document = json.loads(Path(saved[0]).read_text())
    document["levels"] = document["levels"][:1]
    (tmp_path / "one.json").write_text(json.dumps(document))
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("text")
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    for name, text in (
        ("one.json", "have no concurrency in common"),
        ("list.json", "list.json holds no results of kfs-fast bench"),
        ("text.json", "text.json holds no results of kfs-fast bench"),
        ("bytes.json", "bytes.json holds no results of kfs-fast bench"),
        ("gone.json", "does not exist"),
    ):
        done = bench("--compare", str(tmp_path / name), saved[1])
        assert done.returncode == 64
        assert text in done.stderr


def test_different_requests_are_told(saved: tuple[str, str], tmp_path: Path) -> None:
    document = json.loads(Path(saved[0]).read_text())
    document["mode"] = "contents"
    document["client"]["cores"] = 1000
    (tmp_path / "other.json").write_text(json.dumps(document))
    told = ["The two runs sent different requests.",
            "The clients of the two runs had different versions or machines."]  # fmt: skip
    assert (
        bench("--compare", saved[0], str(tmp_path / "other.json")).stdout.splitlines()[-2:] == told
    )
    assert not any(line in bench("--compare", *saved).stdout for line in told)


def test_pictures(url: str, saved: tuple[str, str], tmp_path: Path) -> None:
    one, several, both = (tmp_path / name for name in ("one.png", "several.svg", "both.png"))
    assert bench("dummy", "--url", url, "--plot", str(one), *SHORTEST).returncode == 0
    levels = ["--concurrency", "1,2"]
    assert bench("dummy", "--url", url, "--plot", str(several), *levels, *SHORTEST).returncode == 0
    assert bench("--compare", *saved, "--plot", str(both)).returncode == 0
    assert "<svg" in several.read_text()
    for picture in (one, both):
        height, width, _ = cv2.imread(str(picture)).shape
        assert height > 300
        assert width > 500


def test_a_picture_without_matplotlib_is_refused_before_the_measurement(url: str) -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from kfs.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "bench", "dummy", "--url", url, "--plot", "x.png"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("Error: a picture needs matplotlib: pip install matplotlib")


@pytest.fixture(autouse=True, scope="module")
def interruptible() -> Iterator[None]:
    """A process that began with SIGINT ignored, as under nohup, hands that on to its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def measuring() -> Iterator[tuple[subprocess.Popen[str], Foreign]]:
    """The command at a long measurement with two clients."""
    with foreign(lambda number, context: b"") as server:
        process = subprocess.Popen(
            [*COMMAND, "any", "--shape", "x:FP32:1", "--url", server.url, "--duration", "60",
             "--warmup", "0", "--concurrency", "2"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        with process:
            yield process, server


def clients_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [
        child for child in psutil.Process(process.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]  # fmt: skip


def test_an_interrupt_ends_it_and_its_processes() -> None:
    with measuring() as (process, server):
        wait_until(lambda: len(server.requests) > 100)
        clients = clients_of(process)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.strip().endswith("Aborted!")
    assert "Traceback" not in told
    assert len(clients) == 2
    assert psutil.wait_procs(clients, timeout=30)[1] == []


def test_an_interrupt_is_no_matter_of_client_processes_even_while_they_start() -> None:
    with measuring() as (process, server):
        wait_until(lambda: bool(clients_of(process)))
        clients_of(process)[0].send_signal(signal.SIGINT)
        wait_until(lambda: len(server.requests) > 100)
        assert len(clients_of(process)) == 2
        process.send_signal(signal.SIGINT)


def test_a_client_process_that_dies_ends_it() -> None:
    with measuring() as (process, server):
        wait_until(lambda: len(server.requests) > 100)
        clients_of(process)[0].kill()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told == "Error: a client process ended before it was done\n"
