"""Faults from below, in files, folders, libraries and handlers: the rest keeps serving."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import grpc
import models
import numpy as np
import pytest
from conftest import no_more_threads, wait_until
from graphs.graph_site import add_graph, ends, python
from openvino import opset13 as op
from pipelines.pipes import C_NODES, compile_library, custom, entry
from server_process import ServerProcess, server_process
from site_of_models import ONES, Site, ask, plus, refusal
from wire import Stub, infer_request

from kfs.repository.storage import patient
from kfs.repository.storage.local import LocalStorage
from kfs.server.side_port import Accept

N_ROWS = 50_000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()


@contextmanager
def stub_of(server: ServerProcess) -> Iterator[Stub]:
    server.wait_until_ready()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Stub(channel)


# Files of models


@contextmanager
def without_descriptors() -> Iterator[None]:
    """Within, the process can open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 8, before[1]))
    opened: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            opened.extend(iter(lambda: os.open(os.devnull, os.O_RDONLY), None))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for file in opened:
            os.close(file)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_what_cannot_be_looked_at_is_served_as_it_was(site: Site) -> None:
    site.add("m", 1)
    add_graph(site, "g", graph_of("same"), same=HANDLER)
    stub = site.start()
    with without_descriptors():
        site.poll()
    assert site.server
    assert list(site.server.catalog.available("m")) == [1]
    assert list(site.server.catalog.available("g")) == [1]
    assert "Too many open files" in (site.server.catalog.entry("m").error or "")
    site.poll()
    assert site.server.catalog.entry("m").error is None
    assert ask(stub, "m") == 1


def test_the_http_port_waits_for_a_descriptor(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Without filling a core and the log meanwhile."""
    site.start(rest_port=0)
    assert site.server
    assert site.server.rest_port

    def told() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.threadName == "side-port"]

    with socket.socket() as client:
        with without_descriptors():
            client.connect(("127.0.0.1", site.server.rest_port))
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
            wait_until(lambda: bool(told()))
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.recv(1)
        client.settimeout(10)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert told() == ["The HTTP port takes no connection: Too many open files"]


def test_the_http_port_tells_once_of_connections_that_come_and_do_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As at the limit, where descriptors are given back and used again in turn."""
    full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    accept = Accept(Mock(side_effect=[full, "first", full, "second"]))
    assert [accept() for _ in range(4)] == [None, "first", None, "second"]
    assert caplog.messages == ["The HTTP port takes no connection: Too many open files"]


def test_a_link_to_itself_in_the_folder_of_a_model_is_nothing_to_it(site: Site) -> None:
    site.add("m", 1)
    stub = site.start()
    (site.root / "m" / "2").symlink_to("2")
    site.poll()
    assert ask(stub, "m") == 1


def table(folder: Path) -> None:
    """row INT32 [1] -> a row of a table of 12 MB, which is only read where it is asked for."""
    row = models.parameter("row", [1], "i32")
    rows = np.repeat(np.arange(N_ROWS, dtype=np.float32), 64).reshape(N_ROWS, 64)
    models.save(folder, [row], {"a": op.gather(op.constant(rows), row, op.constant(0))})


def look_up(stub: Stub, row: int) -> float:
    request = infer_request("table", "row", "INT32", [1], raw=np.int32(row).tobytes())
    answer = stub.ModelInfer(request, timeout=30)
    return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[-1])


@pytest.mark.parametrize("harm", ["cut short", "overwritten", "removed"])
def test_a_model_whose_file_is_harmed_is_served_as_it_was_loaded(tmp_path: Path, harm: str) -> None:
    table(tmp_path / "table" / "1")
    weights = tmp_path / "table" / "1" / "model.bin"
    flags = {"model_name": "table", "model_path": tmp_path / "table"}
    with server_process(tmp_path / "log", **flags) as server, stub_of(server) as stub:
        assert look_up(stub, 7) == 7
        if harm == "cut short":
            os.truncate(weights, 0)
        elif harm == "overwritten":
            weights.write_bytes(bytes(weights.stat().st_size))
        else:
            shutil.rmtree(weights.parent)
        assert [look_up(stub, row) for row in range(0, N_ROWS, 500)] == [*range(0, N_ROWS, 500)]


def test_a_file_that_is_gone_at_a_reload_leaves_the_model_as_it_was(site: Site) -> None:
    site.add("m", 1)
    site.add("other", 2)
    stub = site.start()
    (site.root / "m" / "1" / "model.bin").unlink()
    for name in ("m", "other"):
        site.models[name]["nireq"] = 3
    site.write()
    site.poll()
    assert (ask(stub, "m"), ask(stub, "other")) == (1, 2)
    assert site.server
    assert "no model in" in str(site.server.catalog.entry("m").error)
    assert site.server.catalog.entry("other").error is None


# The cache of compiled models


def test_a_cache_that_cannot_be_made_leaves_the_model_without_one(tmp_path: Path) -> None:
    plus(tmp_path / "m" / "1", 1)
    (tmp_path / "taken").write_text("a file")
    flags = {"model_name": "m", "model_path": tmp_path / "m"}
    with (
        server_process(tmp_path / "log", cache_dir=tmp_path / "taken" / "cache", **flags) as server,
        stub_of(server) as stub,
    ):
        assert ask(stub, "m") == 1
        assert server.has_said("cannot be used")


def test_a_full_disk_leaves_the_model_without_a_cache(tmp_path: Path) -> None:
    table(tmp_path / "table" / "1")
    cache = tmp_path / "cache"
    flags = {"model_name": "table", "model_path": tmp_path / "table", "cache_dir": cache}

    a_megabyte = ("-f", 1024)  # as if the disk were full after that
    with (
        server_process(tmp_path / "log", ulimit=a_megabyte, **flags) as server,
        stub_of(server) as stub,
    ):
        assert look_up(stub, 7) == 7
    with server_process(tmp_path / "log", **flags) as server, stub_of(server) as stub:
        assert look_up(stub, 7) == 7, "what was left in the cache does no harm"


@pytest.mark.parametrize("left", [0.0, 0.5, 0.999])
def test_a_cache_that_was_half_written_is_not_used(tmp_path: Path, left: float) -> None:
    table(tmp_path / "table" / "1")
    cache = tmp_path / "cache"
    flags = {"model_name": "table", "model_path": tmp_path / "table", "cache_dir": cache}
    with server_process(tmp_path / "log", **flags) as server, stub_of(server) as stub:
        assert look_up(stub, 7) == 7
    (blob,) = cache.glob("*.blob")
    os.truncate(blob, int(left * blob.stat().st_size))
    with server_process(tmp_path / "log", **flags) as server, stub_of(server) as stub:
        assert [look_up(stub, row) for row in (0, N_ROWS - 1)] == [0, N_ROWS - 1]


# Folders


def test_nothing_is_written_to_a_repository(site: Site) -> None:
    """So one that is read-only is served as any other."""
    site.add("m", 1)
    add_graph(site, "same", graph_of("same"), same=HANDLER)
    site.write()
    everything = [site.root, *site.root.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in everything if path.is_file()}
    log = site.root.parent / f"{site.root.name}.log"
    try:
        flags = {"config_path": site.root / "config.json"}
        with server_process(log, **flags) as server, stub_of(server) as stub:
            assert (ask(stub, "m"), ask(stub, "same")) == (1, 0)
    finally:
        for path in everything:
            path.chmod(0o755)
    # Python keeps what it compiled beside a handler, where it may.
    after = {path: path.stat().st_mtime_ns for path in site.root.rglob("*") if path.is_file()}
    assert {path: at for path, at in after.items() if path.suffix != ".pyc"} == before


class Network:
    """A network that some folders are in, which does not answer until it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = threading.Event()
        self.n_looks = 0
        self.names: set[str] = set()
        find_versions = LocalStorage.find_versions

        def find_slowly(storage: LocalStorage) -> dict[int, str]:
            if storage._base.name in self.names:
                self.n_looks += 1
                self.answers.wait(60)
            return find_versions(storage)

        monkeypatch.setattr(LocalStorage, "find_versions", find_slowly)
        monkeypatch.setattr(patient, "_PATIENCE_S", 0.1)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    network = Network(monkeypatch)
    yield network
    network.answers.set()


def test_a_folder_that_does_not_answer_at_the_start_leaves_the_others(
    site: Site, network: Network
) -> None:
    site.add("far", 1)
    site.add("near", 2)
    network.names = {"far"}
    stub = site.start()
    assert ask(stub, "near") == 2
    assert refusal(lambda: ask(stub, "far"))[0] == "NOT_FOUND"
    for _ in range(5):
        site.poll()
    assert network.n_looks == 1, "one thread waits, not one for each look"
    assert site.server
    assert "no answer from" in str(site.server.catalog.entry("far").error)
    network.answers.set()
    wait_until(lambda: site.poll() is None and site.server.catalog.entry("far").error is None)
    assert ask(stub, "far") == 1


def test_several_folders_that_do_not_answer_leave_the_others(site: Site, network: Network) -> None:
    for number, name in enumerate(("far", "near", "farther", "nearer"), 1):
        site.add(name, number)
    network.names = {"far", "farther"}
    stub = site.start()
    assert (ask(stub, "near"), ask(stub, "nearer")) == (2, 4)
    plus(site.root / "nearer" / "2", 5)
    site.poll()
    assert ask(stub, "nearer") == 5
    assert network.n_looks == 2
    network.answers.set()
    wait_until(lambda: site.poll() is None and network.n_looks > 3)
    assert (ask(stub, "far"), ask(stub, "farther")) == (1, 3)


def test_a_folder_that_stops_answering_is_served_as_it_was(site: Site, network: Network) -> None:
    site.add("far", 1)
    site.add("near", 2)
    stub = site.start()
    network.names = {"far"}
    plus(site.root / "near" / "2", 3)
    plus(site.root / "far" / "2", 4)
    site.poll()
    assert (ask(stub, "far"), ask(stub, "near")) == (1, 3)
    network.answers.set()
    wait_until(lambda: site.poll() is None and ask(stub, "far") == 4)


def test_a_look_that_gets_no_thread_is_made_up_for_by_the_next(site: Site) -> None:
    site.add("m", 1)
    stub = site.start()
    plus(site.root / "m" / "2", 2)
    with no_more_threads():
        site.poll()
    assert site.server
    assert "can't start new thread" in str(site.server.catalog.entry("m").error)
    assert ask(stub, "m") == 1
    site.poll()
    assert site.server.catalog.entry("m").error is None
    assert ask(stub, "m") == 2


# What is no file


def test_what_is_a_pipe_is_not_waited_for(site: Site) -> None:
    """Nobody may ever write to it."""
    site.add("m", 1)
    site.add("mapped", 2)
    pipes = ["mapped/1/mapping_config.json", "g/graph.pbtxt", "same/same.py", "nodes.so"]
    add_graph(site, "g", graph_of("g"), g=HANDLER)
    add_graph(site, "same", graph_of("same"), same=HANDLER)
    for path in (site.root / name for name in pipes):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    site.libraries = {"nodes": "nodes.so"}
    node = custom("n", "nodes", {"same": "same"}, numbers="request.b")
    site.pipelines = [entry(["b"], [node], a="n.same")]
    later = add_graph(site, "later", graph_of("later"), later=HANDLER) / "graph.pbtxt"
    stub = site.start()
    assert ask(stub, "later") == 0
    later.unlink()
    os.mkfifo(later)
    site.poll()
    assert ask(stub, "m") == 1
    assert site.server
    why = dict.fromkeys(("mapped", "g", "later", "p"), "Not a file") | {"same": "no such file"}
    for name, text in why.items():
        assert text in (site.server.catalog.entry(name).error or "")


# The file of the configuration


def test_a_server_that_was_killed_comes_up_while_its_file_is_being_written(
    tmp_path: Path,
) -> None:
    plus(tmp_path / "m" / "1", 1)
    config = tmp_path / "config.json"
    served = [{"config": {"name": "m", "base_path": "m"}}]
    text = json.dumps({"model_config_list": served})
    config.write_text(text)
    with (
        server_process(tmp_path / "log", config_path=config) as server,
        stub_of(server) as stub,
    ):
        assert ask(stub, "m") == 1
        with config.open("w") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            server.process.kill()
            with server_process(tmp_path / "again", config_path=config) as again:
                wait_until(lambda: again.has_said("in case it is being written"))
                file.write(text[len(text) // 2 :])
                file.flush()
                with stub_of(again) as stub_again:
                    assert ask(stub_again, "m") == 1


# Handlers and libraries

HANDLER = """
    from pyovms import Tensor

    class OvmsPythonModel:
        def execute(self, inputs):
            return [Tensor("a", inputs[0])]
"""


def graph_of(handler: str) -> str:
    node = python(handler, ["IN:b"], ["OUT:a"])
    return ends(["OVMS_PY_TENSOR:b"], ["OVMS_PY_TENSOR:a"]) + node


@pytest.mark.parametrize("fault", ["ValueError('no')", "SystemExit(3)"])
def test_a_handler_that_raises_in_finalize_is_gone_all_the_same(site: Site, fault: str) -> None:
    raising = HANDLER + f"\n        def finalize(self):\n            raise {fault}\n"
    add_graph(site, "first", graph_of("raising"), raising=raising)
    add_graph(site, "second", graph_of("raising"), raising=raising)
    site.add("m", 1)
    stub = site.start()
    assert ask(stub, "first") == 0
    add_graph(site, "first", graph_of("raising") + "# changed", raising=raising)
    del site.graphs["second"]
    site.write()
    site.poll()
    assert (ask(stub, "first"), ask(stub, "m")) == (0, 1)
    assert refusal(lambda: ask(stub, "second"))[0] == "NOT_FOUND"
    wait_until(lambda: modules_in(site.root) == [str(site.root / "first" / "raising.py")])


def modules_in(folder: Path) -> list[str]:
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return [file for file in files if file and Path(file).is_relative_to(folder)]


def test_a_custom_node_that_blocks_keeps_its_own_calls_alone(site: Site) -> None:
    site.add("m", 1)
    compile_library(C_NODES / "wait.c", site.root)
    until = site.root / "until"
    node = custom("n", "wait", {"same": "same"}, {"until": str(until)}, numbers="request.b")
    site.pipelines = [entry(["b"], [node], name="blocked", a="n.same")]
    site.libraries = {"wait": "libwait.so"}
    stub = site.start()
    request = infer_request("blocked", raw=ONES.tobytes())
    try:
        expires = stub.ModelInfer.future(request, timeout=0.2)
        waits = [stub.ModelInfer.future(request, timeout=60) for _ in range(20)]
        assert expires.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert ask(stub, "m") == 1
        plus(site.root / "m" / "2", 2)
        site.poll()
        assert ask(stub, "m") == 2
        assert not any(call.done() for call in waits)
    finally:
        until.touch()
    assert all(call.result().raw_output_contents[0] == ONES.tobytes() for call in waits)
