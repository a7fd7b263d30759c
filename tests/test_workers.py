"""Several server processes on one port: `kfs-fast serve --workers N`."""

from __future__ import annotations

import errno
import os
import queue
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from types import SimpleNamespace

import grpc
import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from conftest import loopback, wait_until
from server_process import ServerProcess
from site_of_models import Site, ask
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli import cli, workers
from kfs.cli.signals import end_signals
from kfs.cli.workers import run_workers
from kfs.digits import MODEL_NAME
from kfs.metrics.families import DEFAULT

KFS_FAST = [sys.executable, "-c", "from kfs.cli import main; main()"]


class Running:
    """A supervisor with its workers, and what it logged."""

    def __init__(self, *flags: str) -> None:
        loopback = ["--grpc_bind_address", "127.0.0.1", "--rest_bind_address", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*KFS_FAST, "serve", "--port", "0", "--rest_port", "0", *loopback, *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.port = int(self.wait_for(r"workers on port (\d+)"))
            self.rest_port = int(self.wait_for(r"HTTP server on port (\d+)"))
            wait_until(self.is_ready)
        except BaseException:
            self.kill()
            raise

    def _read(self) -> None:
        assert self.process.stdout
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def wait_for(self, pattern: str) -> str:
        found: list[str] = []

        def look() -> bool:
            assert self.process.poll() is None, self.lines
            found.extend(re.findall(pattern, "".join(self.lines)))
            return bool(found)

        wait_until(look)
        return found[0]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.rest_port}{path}", timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    def is_ready(self) -> bool:
        return self.get("/v2/health/ready")[0] == 200

    def workers(self) -> list[psutil.Process]:
        """Of the children, those that are no helper of multiprocessing."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def on_fresh_connections(self, count: int, call: Callable[[Stub], object]) -> list[object]:
        """What calls give, each on a connection of its own, which any worker may have taken."""
        answers = []
        for _ in range(count):
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
                answers.append(call(Stub(channel)))
        return answers

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """End it, if it has not ended by itself, and what it says."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(*flags: str) -> Running:
        running.append(Running("--workers", "2", *flags))
        return running[-1]

    yield begin
    for each in running:
        each.kill()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.add("m", 1)
    site.write()
    return site


def test_workers_share_a_port_and_their_metrics_are_one(
    start: Callable[..., Running], site: Site
) -> None:
    running = start("--config_path", str(site.root / "config.json"), "--metrics_enable")
    assert len(running.workers()) == 2
    assert running.on_fresh_connections(20, lambda stub: ask(stub, "m")) == [1.0] * 20
    metrics = running.get("/metrics")[1]
    assert re.search(
        r'^ovms_requests_success{api="KServe",interface="gRPC",method="ModelInfer",name="m",'
        r'version="1"} 20.0$', metrics, re.MULTILINE,
    )  # fmt: skip
    assert 'ovms_current_requests{name="m",version="1"} 0.0' in metrics
    assert "kfs_config_last_reload_successful 1.0" in metrics
    children = running.workers()
    assert running.stop() == 0
    assert not any(child.is_running() for child in children)


def test_a_change_is_seen_by_all_workers(start: Callable[..., Running], site: Site) -> None:
    running = start("--config_path", str(site.root / "config.json"))
    site.add("new", 5)
    site.write()

    def knows(stub: Stub) -> bool:
        try:
            return stub.ModelReady(pb.ModelReadyRequest(name="new"), timeout=10).ready
        except grpc.RpcError:
            return False

    wait_until(lambda: all(running.on_fresh_connections(10, knows)))
    assert running.on_fresh_connections(10, lambda stub: ask(stub, "new")) == [5.0] * 10
    assert running.stop() == 0


def test_a_worker_that_dies_is_started_again(start: Callable[..., Running], site: Site) -> None:
    running = start("--config_path", str(site.root / "config.json"))
    victim, other = running.workers()
    victim.kill()
    running.wait_for("ended with exit code -9")
    assert running.is_ready(), "there is another one"
    wait_until(lambda: running.is_ready() and len(running.workers()) == 2)
    assert victim.pid not in [worker.pid for worker in running.workers()]
    assert other.pid in [worker.pid for worker in running.workers()]
    assert running.on_fresh_connections(10, lambda stub: ask(stub, "m")) == [1.0] * 10
    assert running.stop() == 0


def test_a_worker_that_does_not_get_ready_is_started_again_ever_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: now))
    worker = workers._Worker(1)
    pauses = []
    for is_loaded in (False, False, False, True):
        if is_loaded:
            worker.has_loaded()
        now += 100  # for so long it lived
        worker.put_off("ended")
        pauses.append(worker.due - now)
    assert pauses == [2, 4, 8, 1]


def test_workers_end_when_their_supervisor_is_gone(start: Callable[..., Running]) -> None:
    running = start()
    workers = running.workers()
    running.process.kill()
    running.process.wait()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert len(gone) == 2, alive


def test_running_calls_finish_when_the_server_stops(
    start: Callable[..., Running], tmp_path: Path, slow: Path
) -> None:
    shutil.copytree(slow, tmp_path / "slow")
    model = ("--model_name", "slow", "--model_path", str(tmp_path / "slow"))
    running = start(*model, "--metrics_enable")
    come = re.compile(r'^ovms_(current_requests|requests_success){.*name="slow".*} 1', re.M)
    ones = np.ones((600, 600), np.float32)
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = Stub(channel)
        stub.ServerLive(pb.ServerLiveRequest())
        messages: queue.SimpleQueue[None] = queue.SimpleQueue()
        stream = stub.stream(iter(messages.get, None))
        call = stub.ModelInfer.future(infer_request("slow", shape=ones.shape, raw=ones.tobytes()))
        wait_until(lambda: come.search(running.get("/metrics")[1]) is not None)
        running.process.terminate()
        wait_until(lambda: running.get("/v2/health/ready")[0] == 503)
        assert come.search(running.get("/metrics")[1]), "what is counted is told to the end"
        assert call.result().outputs
        messages.put(None)
        assert list(stream) == []
        assert running.process.wait(60) == 0


#: Each worker says so and hangs, as one that reads from a disk that does not answer.
HANGS = """
import threading
from kfs.repository import repository

def hang(*_):
    print("hangs", flush=True)
    threading.Event().wait()

repository._END_S = 0.5
repository.Repository.{} = hang
"""

SUPERVISOR = """
import sys
from kfs.cli import workers
from kfs.cli.signals import end_signals
from kfs.digits import MODEL_NAME, MODEL_PATH
from kfs.settings import ModelSettings, ServerSettings
from workers_set_up import set_up

if __name__ == "__main__":
    import logging
    logging.basicConfig(level="INFO", stream=sys.stdout)
    settings = ServerSettings(
        models=(ModelSettings(MODEL_NAME, MODEL_PATH),), port=0, n_workers=2,
        grpc_bind_address=("127.0.0.1",), poll_wait_s=0.001, drain_s=int(sys.argv[1]),
    )
    workers._END_S = float(sys.argv[2])
    workers._MIN_BACKOFF_S = 0.01
    with end_signals() as end:
        sys.exit(workers.run_workers(settings, end, set_up))
"""


@contextmanager
def supervisor(folder: Path, set_up: str, drain_s: int, end_s: float) -> Iterator[ServerProcess]:
    """A supervisor that looks for changes all the time, and workers with a part of their own.

    Args:
        end_s: what workers get to end besides `drain_s`.
    """
    (folder / "workers_set_up.py").write_text(f"def set_up():\n{indent(set_up, '    ')}\n")
    (folder / "supervisor.py").write_text(SUPERVISOR)
    log = folder / "log"
    with log.open("wb") as file:
        command = [sys.executable, "-u", str(folder / "supervisor.py"), str(drain_s), str(end_s)]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield ServerProcess(process, log)
    finally:
        process.kill()
        process.wait()


def children(process: ServerProcess) -> list[psutil.Process]:
    found = psutil.Process(process.process.pid).children()
    return [child for child in found if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("method", ["_apply", "_poll"])
def test_workers_hear_the_end_while_they_load_and_look(tmp_path: Path, method: str) -> None:
    with supervisor(tmp_path, HANGS.format(method), drain_s=60, end_s=0) as running:
        wait_until(lambda: running.log.read_text().count("hangs") == 2)
        running.process.terminate()
        assert running.process.wait(20) == 0
        assert "is killed" not in running.log.read_text()


def test_workers_end_when_their_supervisor_is_gone_while_they_load(tmp_path: Path) -> None:
    with supervisor(tmp_path, HANGS.format("_apply"), drain_s=60, end_s=0) as running:
        wait_until(lambda: running.log.read_text().count("hangs") == 2)
        workers = children(running)
        running.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive


#: Each worker says so and waits for a file before it loads.
LOADS_LATE = """
import logging, pathlib, sys, time
from kfs.repository.repository import Repository

logging.basicConfig(level="INFO", stream=sys.stdout)
load = Repository.load

def load_late(repository):
    while not pathlib.Path({!r}).exists():
        print("waits", flush=True)
        time.sleep(0.1)
    load(repository)

Repository.load = load_late
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are set")
def test_a_worker_that_is_started_again_takes_no_calls_before_it_has_loaded(tmp_path: Path) -> None:
    """And is started though the system had no room for it at first."""
    loads = tmp_path / "loads"
    loads.touch()
    with supervisor(tmp_path, LOADS_LATE.format(str(loads)), drain_s=5, end_s=5) as running:
        wait_until(lambda: running.has_said("kfs.workers:Ready"))
        loads.unlink()
        pid = running.process.pid
        n_open = psutil.Process(pid).num_fds()
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (n_open, before[1]))
        children(running)[0].kill()
        wait_until(lambda: running.has_said("cannot be started: Too many open files"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: running.has_said("waits"))
        for _ in range(20):  # on connections of their own, which any worker may have taken
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(f"127.0.0.1:{running.port}", options) as channel:
                assert Stub(channel).ModelReady(pb.ModelReadyRequest(name=MODEL_NAME)).ready
        loads.touch()
        wait_until(lambda: running.log.read_text().count("Started gRPC server on port") == 3)


def test_workers_that_read_nothing_keep_their_supervisor_from_nothing(tmp_path: Path) -> None:
    """Neither from its end, for which they get their time together and not each."""
    with supervisor(tmp_path, "pass", drain_s=0, end_s=4) as running:
        wait_until(lambda: running.has_said("kfs.workers:Ready"))
        stopped = children(running)
        for worker in stopped:
            worker.suspend()
        # It goes on to look, more often than there is room for in the links.
        counted = psutil.Process(running.process.pid).num_ctx_switches
        enough = counted().voluntary + 1000
        wait_until(lambda: counted().voluntary > enough)
        running.process.terminate()
        assert running.process.wait(7.5) == 0
        assert running.log.read_text().count("is killed") == 2
        assert not any(worker.is_running() for worker in stopped)


LOADS_AT_ONCE = """
from multiprocessing.connection import wait
from kfs.cli import workers

def begin(server, end, begin_load=workers.begin_load):
    loading = begin_load(server, end)
    wait([end.news])
    return loading

workers.begin_load = begin
"""


def test_workers_that_have_loaded_before_anyone_waits_for_it_are_ready(tmp_path: Path) -> None:
    with supervisor(tmp_path, LOADS_AT_ONCE, drain_s=0, end_s=4) as running:
        wait_until(lambda: running.has_said("kfs.workers:Ready"))


def test_a_model_that_cannot_be_loaded_ends_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [*KFS_FAST, "serve", "--workers", "2", "--port", "0", "--grpc_bind_address", "127.0.0.1",
         "--model_name", "m", "--model_path", str(tmp_path / "nowhere")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("kfs-fast: ") == 1
    assert str(tmp_path / "nowhere") in done.stderr


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_port_that_is_taken_ends_the_start(
    is_shared: bool, capsys: pytest.CaptureFixture[str], signals_as_before: None
) -> None:
    """Also by a server that would share it, as the workers of another one."""
    taken = socket.create_server(("127.0.0.1", 0), reuse_port=is_shared)
    with taken, end_signals() as end:
        port = taken.getsockname()[1]
        settings = replace(loopback(), port=port, n_workers=2)
        assert run_workers(settings, end, lambda: None) == 1
    told = f"kfs-fast: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("signals_as_before")
def test_workers_without_a_folder_to_count_in_end_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    settings = replace(loopback(), n_workers=2, rest_port=0, metrics=DEFAULT)
    with end_signals() as end:
        assert run_workers(settings, end, int) == 1
    told = capsys.readouterr().err
    assert "kfs-fast: the workers have no folder to count metrics in" in told
    assert "TMPDIR: No space left on device" in told


def test_a_unix_socket_takes_one_process() -> None:
    result = CliRunner().invoke(
        cli, ["serve", "--workers", "2", "--grpc_bind_address", "unix:/tmp/x"]
    )
    assert result.exit_code
    assert "a unix: socket takes one process" in result.output
