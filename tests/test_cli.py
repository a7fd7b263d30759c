"""The command line: what users type, what they read, and the exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kfs.cli import cli
from kfs.cli.serve import NOT_YET, REFUSED, VALUELESS
from kfs.digits import images

COMMAND = [sys.executable, "-c", "from kfs.cli import main; main()"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of the bundled model in a process of its own, stopped with SIGTERM."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--grpc-bind-address", "127.0.0.1"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    port = ""
    for line in process.stdout:
        if "Started gRPC server on port " in line:
            port = line.rsplit(" ", 1)[1].strip()
        if line.rstrip().endswith("Ready"):
            break
    yield f"127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    process.stdout.close()


def test_the_demo_classifies_the_bundled_images() -> None:
    done = run("demo")
    assert done.returncode == 0, done.stderr
    assert "12 of 12 correct" in done.stdout
    for image in images():
        assert image.path.name in done.stdout


def test_models_lists_what_is_served(url: str) -> None:
    done = run("models", "--url", url)
    assert done.returncode == 0, done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("digits")]
    assert row[:4] == ["digits", "yes", "1", "image"]
    (described,) = json.loads(run("models", "digits", "--json", "--url", url).stdout)
    assert described["inputs"] == ["image FP32 [-1, 8, 8, 1]"]
    (missing,) = json.loads(run("models", "nope", "--json", "--url", url).stdout)
    assert missing["error"] == "Model with requested name is not found - nope"


def test_infer_sends_images(url: str) -> None:
    seven = next(image.path for image in images() if image.truth == 7)
    done = run("infer", "digits", "--image", str(seven), "--url", url)
    assert done.returncode == 0, done.stderr
    assert "probabilities FP32 [1, 10]" in done.stdout
    assert "highest in each row: 7" in done.stdout


def test_infer_sends_arrays(url: str, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((3, 8, 8, 1), np.float32))
    done = run("infer", "digits", "--input", f"image={tmp_path}/image.npy", "--json", "--url", url)
    answer = json.loads(done.stdout)
    assert answer["model_version"] == "1"
    assert answer["outputs"][0]["shape"] == [3, 10]
    assert len(answer["outputs"][0]["data"]) == 30


def test_infer_says_what_an_input_takes(url: str, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((1, 8, 8, 1), np.float64))
    done = run("infer", "digits", "--input", f"image={tmp_path}/image.npy", "--url", url)
    assert done.returncode == 64
    assert "holds float64; the input image takes FP32, numpy's float32" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "A KServe v2 gRPC inference server"),
        (["--version"], 0, "kfs-fast, version"),
        (["serve", "--help"], 0, "--model_name"),
        (["nope"], 64, "No such command"),
        (["serve", "--nope"], 64, "No such option"),
        (["serve", "--model_name", "m"], 64, "--model_name needs --model_path"),
        (["serve", "--model-path", "p"], 64, "--model_path needs --model_name"),
        (["serve", "--port", "65536"], 64, "65536"),
        (["serve", "--plugin_config", "{"], 64, "this is not JSON"),
        (["serve", "--plugin_config", '{"A": [1]}'], 64, "its values strings, numbers or booleans"),
        (["serve", "--workers", "2"], 64, "more than one server process is not served yet"),
        (["serve", "--grpc_workers", "0"], 64, "more than one server process"),
        (["serve", "--rest_workers", "2"], 64, "--rest_workers: there is no REST inference here"),
        (["serve", "--grpc_memory_quota", "1"], 64, "gRPC for Python has no memory quota"),
        (["serve", "--model_name", "m", "--model_path", "a/../b"], 64, "'..' is not allowed"),
        (["serve", "--model_name", "m", "--model_path", "/nope", "--port", "0"], 1, "model m: "),
        (["serve", "--port", "0", "--grpc_bind_address", "192.0.2.1"], 1, "cannot listen on"),
        (["infer", "digits"], 64, "nothing to send: give"),
        (["models", "--url", "127.0.0.1:1"], 1, "UNAVAILABLE"),
    ],
)
def test_exit_codes_and_messages(arguments: list[str], code: int, text: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flag", [*NOT_YET, *REFUSED])
def test_no_flag_is_ignored_in_silence(flag: str) -> None:
    value = [] if flag in VALUELESS else ["1"]
    for spelling in (f"--{flag}", f"--{flag.replace('_', '-')}"):
        result = CliRunner().invoke(cli, ["serve", spelling, *value])
        assert result.exit_code != 0
        assert f"Error: --{flag}: " in result.output
