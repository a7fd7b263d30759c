"""Deadlines, cancellation, slots and stopping; and what is loaded from disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path

import grpc
import models
import numpy as np
import pytest
from conftest import ServeModels, loopback, slow_request, wait_until
from server_process import server_process
from wire import Stub, infer_request

from kfs import errors
from kfs._fast.strings import ITEMSIZE
from kfs.cli.app import Server, StartError, begin_load, run
from kfs.cli.signals import End, end_signals
from kfs.errors import ModelLoadError, ServingError
from kfs.repository.versions import State
from kfs.servables.base import CallContext
from kfs.servables.model import Model, slots
from kfs.settings import ModelSettings

ONES = np.ones((1, 10), np.float32)


def test_calls_that_run_when_the_server_is_stopped_are_finished(slow: Path) -> None:
    server = Server(loopback(ModelSettings("slow", slow, nireq=1)))
    with server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = Stub(channel)
        entry = server.catalog.find("slow", "")
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(stub.ModelInfer, slow_request(), timeout=60) for _ in range(4)]
            wait_until(lambda: len(entry.leases) == 4)
            server.stop(grace_s=120)
            assert [answer.result().model_name for answer in answers] == ["slow"] * 4
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(slow_request(), timeout=5)


@pytest.mark.parametrize("when", ["start", "reload"])
def test_the_end_does_not_wait_for_models_that_are_still_to_be_loaded(
    tmp_path: Path, when: str
) -> None:
    count = 400
    models.dummy(tmp_path / "m" / "1")
    config = tmp_path / "config.json"

    def write(n_models: int) -> None:
        entries = [{"config": {"name": f"m{i}", "base_path": "m"}} for i in range(n_models)]
        config.with_suffix(".new").write_text(json.dumps({"model_config_list": entries}))
        config.with_suffix(".new").rename(config)

    write(1 if when == "reload" else count)
    log = tmp_path / "log"
    with server_process(log, config_path=config) as server:
        if when == "reload":
            server.wait_until_ready()
            write(count)
        wait_until(lambda: server.has_said("Loaded model m3;"))
        server.process.terminate()
        assert server.process.wait(60) == 0
    assert "Loaded model m399;" not in log.read_text()
    assert log.read_text().count("] Ready") == (when == "reload")


@pytest.mark.parametrize(("workers", "logger"), [(1, "serving"), (2, "workers")])
def test_who_asks_for_the_end_again_and_again_gets_the_same_end(
    tmp_path: Path, workers: int, logger: str
) -> None:
    with server_process(tmp_path / "log", workers=workers) as server:
        wait_until(lambda: server.has_said(f"[kfs.{logger}][INFO] Ready"))
        while server.process.poll() is None:
            server.process.terminate()
        assert server.process.returncode == 0


#: The main thread is interrupted by no signal: a thread of no other use takes them.
NEVER_INTERRUPTED = """
import signal, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
from kfs.cli import main
main()
"""


@pytest.mark.parametrize(("workers", "logger"), [(1, "serving"), (2, "workers")])
def test_a_signal_that_interrupts_nothing_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, logger: str
) -> None:
    """As one that comes just before the main thread begins to wait for it."""
    monkeypatch.setattr("server_process.KFS_FAST", [sys.executable, "-c", NEVER_INTERRUPTED])
    with server_process(
        tmp_path / "log", workers=workers, file_system_poll_wait_seconds=0
    ) as server:
        wait_until(lambda: server.has_said(f"[kfs.{logger}][INFO] Ready"))
        server.process.terminate()
        assert server.process.wait(60) == 0


STUCK_GRAPH = """
input_stream: "OVMS_PY_TENSOR:b"
output_stream: "OVMS_PY_TENSOR:a"
node {
  name: "stuck"
  calculator: "PythonExecutorCalculator"
  input_side_packet: "PYTHON_NODE_RESOURCES:py"
  input_stream: "IN:b"
  output_stream: "OUT:a"
  node_options: {
    [type.googleapis.com/mediapipe.PythonExecutorCalculatorOptions]: { handler_path: "handler.py" }
  }
}
"""

STUCK_HANDLER = """
import threading

class OvmsPythonModel:
    def execute(self, inputs):
        print("stuck", flush=True)
        threading.Event().wait()
"""


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("workers", "logger"), [(1, "serving"), (2, "workers")])
def test_a_handler_that_never_returns_does_not_keep_the_server_from_ending(
    tmp_path: Path, streams: bool, workers: int, logger: str
) -> None:
    (tmp_path / "graph.pbtxt").write_text(STUCK_GRAPH)
    (tmp_path / "handler.py").write_text(STUCK_HANDLER)
    flags = {"model_name": "graph", "model_path": tmp_path, "drain_seconds": 0}
    with server_process(tmp_path / "log", workers=workers, **flags) as server:
        wait_until(lambda: server.has_said(f"[kfs.{logger}][INFO] Ready"))
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = Stub(channel)
            request = infer_request("graph", raw=ONES.tobytes())
            call = stub.stream([request]) if streams else stub.ModelInfer.future(request)
            wait_until(lambda: server.has_said("stuck\n"))
            server.process.terminate()
            assert server.process.wait(30) == 0
            assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert "loads or what is unloaded: 1" in server.log.read_text()


IMPORTING = """
import signal, sys, time
from kfs.cli import main

class Finder:
    def find_spec(self, name, *_):
        if name == "openvino":
            print("imports", flush=True)
            while signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:  # as it is once it came
                time.sleep(0.01)

sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_while_everything_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr("server_process.KFS_FAST", [sys.executable, "-c", IMPORTING])
    with server_process(tmp_path / "log") as server:
        wait_until(lambda: server.has_said("imports\n"))
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log.read_text()


HANGING = """
import threading
from kfs.cli import main
from kfs.repository import repository

def hang(*_):
    print("hangs", flush=True)
    threading.Event().wait()

repository.Repository.%s = hang
repository._END_S = 0.5
main()
"""


@pytest.mark.parametrize("method", ["_apply", "_poll"])
def test_a_load_that_hangs_does_not_keep_the_server_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("server_process.KFS_FAST", [sys.executable, "-c", HANGING % method])
    with server_process(tmp_path / "log") as server:
        wait_until(lambda: server.has_said("hangs\n"))
        server.process.terminate()
        assert server.process.wait(20) == 0
        assert "loads or what is unloaded: 1" in server.log.read_text()


@pytest.mark.timeout(30)
@pytest.mark.usefixtures("signals_as_before")
def test_a_load_that_fails_before_anyone_waits_for_it_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin_and_fail(server: Server, end: End) -> Future[None]:
        loading = begin_load(server, end)
        wait([end.news])
        return loading

    monkeypatch.setattr("kfs.cli.app.begin_load", begin_and_fail)
    settings = loopback(ModelSettings("m", tmp_path / "nowhere"))
    with end_signals() as end:
        assert run(settings, end) == 1
    assert str(tmp_path / "nowhere") in capsys.readouterr().err


def test_openvino_is_imported_without_telling_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it tells is counted in a file in the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    imports = "import sys, kfs.servables.model; assert not sys.modules['openvino_telemetry']"
    subprocess.run([sys.executable, "-c", imports], check=True)
    assert not list(tmp_path.iterdir())


def test_a_deadline_ends_the_wait_for_a_slot(serve: ServeModels, slow: Path) -> None:
    server = serve(ModelSettings("slow", slow, nireq=1))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = Stub(channel)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(stub.ModelInfer, slow_request(), timeout=60)
            entry = server.catalog.find("slow", "")
            wait_until(lambda: len(entry.leases) == 1)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(slow_request(), timeout=0.01)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert first.result().model_name == "slow"


def test_no_inference_starts_for_a_call_that_nobody_waits_for(repository: Path) -> None:
    model = Model.load(ModelSettings("dummy", repository / "dummy"), 1, repository / "dummy" / "1")
    expired = CallContext(deadline=0.0)
    cancelled = CallContext(is_active=lambda: False)
    for call, status in ((expired, errors.DEADLINE_EXCEEDED), (cancelled, errors.CANCELLED)):
        with pytest.raises(ServingError) as caught, call:
            model.infer({"b": ONES}, call)
        assert caught.value.status is status
    with CallContext() as call:  # the slot was given back both times
        assert np.array_equal(model.infer({"b": ONES}, call)["a"], ONES + 1)


def test_a_lease_keeps_what_is_retired_until_it_is_returned(
    serve: ServeModels, repository: Path
) -> None:
    server = serve(ModelSettings("dummy", repository / "dummy"))
    entry = server.catalog.find("dummy", "")
    lease = server.catalog.lease("dummy", "", CallContext())
    entry.retire()
    assert entry.state is State.UNLOADING
    with pytest.raises(ServingError, match="is retired"):
        server.catalog.lease("dummy", "1", CallContext())
    with CallContext() as call:
        assert np.array_equal(lease.servable.infer({"b": ONES}, call)["a"], ONES + 1)
    lease.release()
    assert entry.state is State.END


def test_sixteen_clients_on_one_slot_get_their_own_answers(
    serve: ServeModels, repository: Path
) -> None:
    server = serve(ModelSettings("dummy", repository / "dummy", nireq=1))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = Stub(channel)

        def ask(number: int) -> bool:
            values = np.full((1, 10), number, np.float32)
            response = stub.ModelInfer(infer_request("dummy", raw=values.tobytes()), timeout=60)
            found = np.frombuffer(response.raw_output_contents[0], np.float32)
            return bool((found == number + 1).all())

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(400)))


def test_inference_does_not_write_into_the_request(stub: Stub) -> None:
    before = threading.active_count()
    request = infer_request("dummy", raw=ONES.tobytes()).SerializeToString()
    copy = bytes(bytearray(request))
    for _ in range(20):
        stub.ModelInfer(request, timeout=30)
    assert request == copy
    assert threading.active_count() <= before + 64


def test_the_latest_version_is_served(serve: ServeModels, tmp_path: Path) -> None:
    for version in ("1", "3", "20"):
        models.dummy(tmp_path / version)
    for other in ("0", "-1", "007", "1a", "notes"):
        (tmp_path / other).mkdir()
    server = serve(ModelSettings("m", tmp_path))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        response = Stub(channel).ModelInfer(infer_request("m", raw=ONES.tobytes()), timeout=30)
    assert response.model_version == "20"


def test_a_single_file_is_version_one(serve: ServeModels, tmp_path: Path) -> None:
    models.dummy(tmp_path)
    server = serve(ModelSettings("m", tmp_path / "model.xml"))
    assert server.catalog.find("m", "").version == 1


def test_a_folder_without_versions_is_served_as_a_name_without_them(
    serve: ServeModels, tmp_path: Path
) -> None:
    server = serve(ModelSettings("m", tmp_path))
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        Stub(channel).ModelInfer(infer_request("m", raw=ONES.tobytes()), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details().startswith("Model with requested version is not found")


def test_a_mapping_file_renames_tensors(serve: ServeModels, tmp_path: Path) -> None:
    models.dummy(tmp_path / "1")
    mapping = '{"inputs": {"b": "data"}, "outputs": {"a": "result"}}'
    (tmp_path / "1" / "mapping_config.json").write_text(mapping)
    server = serve(ModelSettings("m", tmp_path))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        response = Stub(channel).ModelInfer(infer_request("m", "data", raw=ONES.tobytes()))
    assert response.outputs[0].name == "result"


def test_what_a_mapping_file_names_in_vain_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models.dummy(tmp_path / "1")
    mapping = '{"inputs": {"zz": "x"}, "output": {"a": "y"}}'
    (tmp_path / "1" / "mapping_config.json").write_text(mapping)
    model = Model.load(ModelSettings("m", tmp_path), 1, tmp_path / "1")
    assert [spec.name for spec in model.signature.outputs] == ["a"]
    assert "the model has no input zz; it has b" in caplog.text
    assert "output means nothing; expected inputs and outputs" in caplog.text


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({}, "no model in"),
        ({"model.xml": b"<net/>"}, "no model in"),
        ({"model.xml": b"junk", "model.bin": b""}, "OpenVINO cannot read"),
        ({"model.onnx": b"junk"}, "OpenVINO cannot read"),
        ({"model.tflite": b"junk"}, "OpenVINO cannot read"),
        (
            {"mapping_config.json": b"{", "model.xml": b"", "model.bin": b""},
            "mapping_config.json is not JSON",
        ),
    ],
)
def test_a_model_that_cannot_be_read_is_one_readable_line(
    tmp_path: Path, files: dict[str, bytes], text: str
) -> None:
    (tmp_path / "1").mkdir()
    for name, data in files.items():
        (tmp_path / "1" / name).write_bytes(data)
    with pytest.raises(ModelLoadError) as caught:
        Server(loopback(ModelSettings("m", tmp_path))).load()
    assert str(caught.value).startswith("model m, version 1: ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_strings_of_another_size_in_openvino_are_refused_at_load(
    monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path
) -> None:
    """Strings are shared with OpenVINO as they lie in memory; another C++ library's differ."""
    models.identity(tmp_path / "strings" / "1", "BYTES", [-1])
    monkeypatch.setattr(slots, "ITEMSIZE", slots.ITEMSIZE + 8)
    with pytest.raises(ModelLoadError) as caught:
        Server(loopback(ModelSettings("strings", tmp_path / "strings"))).load()
    assert str(caught.value) == (
        "model strings, version 1: models with strings cannot be served: a string has "
        f"{ITEMSIZE} bytes in this build of OpenVINO, {ITEMSIZE + 8} in this build of kfs-fast"
    )
    Server(loopback(ModelSettings("dummy", repository / "dummy"))).load()


def test_properties_reach_openvino(tmp_path: Path) -> None:
    folder = models.dummy(tmp_path / "1")
    settings = ModelSettings("m", tmp_path, nireq=3, cache_dir=tmp_path / "cache")
    Model.load(settings, 1, folder)
    assert list((tmp_path / "cache").iterdir())
    bad = ModelSettings("m", tmp_path, plugin_config={"NO_SUCH_PROPERTY": "1"})
    with pytest.raises(ModelLoadError, match="NO_SUCH_PROPERTY"):
        Model.load(bad, 1, folder)


def test_a_port_in_use_is_told(serve: ServeModels, tmp_path: Path) -> None:
    taken = serve().port
    second = Server(loopback())
    object.__setattr__(second.settings, "port", taken)
    second.port = taken
    with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{taken}"):
        second.start()
    second.stop(0)
