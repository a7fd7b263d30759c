"""The servers that are compared: how each is installed, started, waited for and stopped."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli.client import Connect

HERE = Path(__file__).resolve().parent
SERVERS = HERE / "servers"
#: Where environments, the servers' logs and the results go.
PLACE = HERE.parents[1] / "build" / "rivals"
_KFS_FAST = "from kfs.cli import main; main()"
_START_S = 120


@dataclass(frozen=True)
class Peer:
    """A server to compare.

    Attributes:
        name: short, for results and columns.
        label: what it is, for pictures.
        script: what serves, called with a port, the model's name and its path; ours has none.
        package: what an environment of its own must have; empty for those that run in ours.
        flags: for the script, after the path.
    """

    name: str
    label: str
    script: str = ""
    package: str = ""
    flags: tuple[str, ...] = ()


ECHO = Peer("floor", "transport floor (no inference)", "echo.py")
OURS = Peer("kfs-fast", "kfs-fast")
PLAIN = Peer("plain", "plain grpcio + protobuf + numpy", "plain.py")
OPTIONAL = {
    "kserve": Peer(
        "KServe SDK", "KServe SDK", "kserve_sdk.py", "kserve",
        (f"--grpc_max_send_message_length={1 << 30}",
         f"--grpc_max_receive_message_length={1 << 30}"),
    ),
    "mlserver": Peer("MLServer", "MLServer", "mlserver_runtime.py", "mlserver"),
}  # fmt: skip


def install(peer: Peer) -> str:
    """The interpreter that runs the peer, in an environment of its own if it needs one."""
    if not peer.package:
        return sys.executable
    place = PLACE / peer.package
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    command = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        peer.package,
        f"openvino=={openvino_version()}",
    ]
    subprocess.run(command, check=True)
    return str(python)


def openvino_version() -> str:
    """OpenVINO's release, without the build."""
    return version("openvino").split("-")[0]


def versions(peer: Peer, python: str) -> str:
    """The releases that matter, as text."""
    names = [peer.package or "kfs-fast", "grpcio", "openvino"]
    code = f"from importlib.metadata import version; print(*map(version, {names!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    pairs = zip(names, found.stdout.split(), strict=True)
    return ", ".join(f"{name} {number}" for name, number in pairs)


class Running:
    """A started server, put to sleep while others are measured."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.connect = Connect(f"127.0.0.1:{port}", timeout_s=60)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def sleep(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def wait(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Its answer to a request, as soon as it gives one."""
        end = time.monotonic() + _START_S
        while True:
            try:
                with self.connect() as client:
                    return client.infer(request)
            except click.ClickException as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    command = " ".join(map(str, self._process.args))
                    raise click.ClickException(f"{error.message}; see {PLACE}: {command}") from None
                time.sleep(0.2)


@contextmanager
def started(
    pythons: dict[Peer, str], name: str, model: Path, requests: Sequence[pb.ModelInferRequest]
) -> Iterator[dict[Peer, Running]]:
    """All peers with the model, each asked every request once, and put to sleep."""
    with ExitStack() as stack:
        running = {}
        for peer, python in pythons.items():
            running[peer] = stack.enter_context(_started(peer, python, name, model))
            for request in requests:
                answer = running[peer].wait(request)
                if name == "identity" and peer is not ECHO:
                    _check(peer, request, answer)
            running[peer].sleep()
        yield running


@contextmanager
def _started(peer: Peer, python: str, name: str, model: Path) -> Iterator[Running]:
    port = _free_port()
    command = [python, *_arguments(peer, name, model, port)]
    log = PLACE / f"{Path(peer.script).stem or 'ours'}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Running(process, port)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _arguments(peer: Peer, name: str, model: Path, port: int) -> Sequence[str]:
    if peer.script:
        return [str(SERVERS / peer.script), str(port), name, str(model), *peer.flags]
    repository = str(model.parents[1])
    return [
        "-c", _KFS_FAST, "serve", "--model_name", name, "--model_path", repository,
        "--port", str(port), "--grpc_bind_address", "127.0.0.1", "--log_level", "WARNING",
        "--plugin_config", '{"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}',
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check(peer: Peer, request: pb.ModelInferRequest, answer: pb.ModelInferResponse) -> None:
    """The identity gives back what it is given."""
    sent = _values(request.raw_input_contents, request.inputs[0])
    if _values(answer.raw_output_contents, answer.outputs[0]) != sent:
        raise click.ClickException(f"{peer.name} gives a wrong answer")


def _values(raw: Sequence[bytes], tensor: Any) -> bytes:
    return raw[0] if raw else np.array(tensor.contents.fp32_contents, "<f4").tobytes()
