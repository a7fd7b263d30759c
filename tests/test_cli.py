"""The command line: what users type, what they read, and the exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli import cli
from kfs.cli.console import print_table
from kfs.cli.refused import REFUSED
from kfs.digits import images
from kfs.errors import ModelLoadError
from kfs.servables.model import Model
from kfs.server.side_port import SidePort
from kfs.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("signals_as_before")

COMMAND = [sys.executable, "-c", "from kfs.cli import main; main()"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of the bundled model in a process of its own, stopped with SIGTERM."""
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--grpc-bind-address", "127.0.0.1"],
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            port = ""
            for line in process.stdout:
                if "Started gRPC server on port " in line:
                    port = line.rsplit(" ", 1)[1].strip()
                if line.rstrip().endswith("Ready"):
                    break
            assert port, "the server did not start"
            yield f"127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def _foreign_metadata(
    request: pb.ModelMetadataRequest, context: grpc.ServicerContext
) -> pb.ModelMetadataResponse:
    metadata = pb.ModelMetadataResponse(name=request.name, versions=["1"])
    for datatype in ("FP32", "BF16", "BYTES"):
        metadata.inputs.add(name=datatype.lower(), datatype=datatype, shape=[2])
    return metadata


def _foreign_answer(
    request: pb.ModelInferRequest, context: grpc.ServicerContext
) -> pb.ModelInferResponse:
    if request.model_name == "faulty":
        context.abort(grpc.StatusCode.INTERNAL, "first line\nsecond line")
    response = pb.ModelInferResponse(model_name=request.model_name, model_version="1")
    datatype = "BF16" if request.model_name == "bf16" else "FP32"
    output = response.outputs.add(name="out", datatype=datatype, shape=[2])
    output.contents.fp32_contents.extend([1.5] if request.model_name == "short" else [1.5, 2.5])
    return response


@pytest.fixture(scope="module")
def foreign_url() -> Iterator[str]:
    """Another maker's server: no health service, and typed contents in its answers."""
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ModelMetadata": grpc.unary_unary_rpc_method_handler(
            _foreign_metadata,
            pb.ModelMetadataRequest.FromString,
            pb.ModelMetadataResponse.SerializeToString,
        ),
        "ModelInfer": grpc.unary_unary_rpc_method_handler(
            _foreign_answer,
            pb.ModelInferRequest.FromString,
            pb.ModelInferResponse.SerializeToString,
        ),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_the_demo_classifies_the_bundled_images() -> None:
    done = run("demo")
    assert done.returncode == 0, done.stderr
    assert "12 of 12 correct" in done.stdout
    for image in images():
        assert image.path.name in done.stdout


def test_a_demo_that_fails_says_so(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, kfs.cli, kfs.cli.demo\n"
        f"sys.modules['kfs.cli.demo'].MODEL_PATH = pathlib.Path({str(tmp_path / 'gone')!r})\n"
        "kfs.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "demo"], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("Error: model digits: ")
    assert "Traceback" not in done.stderr


def test_help_does_not_wait_for_big_imports() -> None:
    code = "import sys, kfs.cli; print([m for m in ('grpc','cv2','openvino') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_models_lists_what_is_served(url: str) -> None:
    done = run("models", "--url", url)
    assert done.returncode == 0, done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("digits")]
    assert row[:4] == ["digits", "yes", "1", "image"]
    (described,) = json.loads(run("models", "digits", "--json", "--url", url).stdout)
    assert described["inputs"] == ["image FP32 [-1, 8, 8, 1]"]


def test_models_fails_when_one_that_was_named_is_not_ready(url: str) -> None:
    assert run("models", "digits", "--url", url).returncode == 0
    done = run("models", "digits", "nope", "--json", "--url", url)
    assert done.returncode == 1
    assert [row["ready"] for row in json.loads(done.stdout)] == [True, False]
    assert "Model with requested name is not found - nope" in done.stdout


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


def test_infer_refuses_files_that_are_no_array(url: str, tmp_path: Path) -> None:
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("hello")
    np.savez(tmp_path / "several.npz", np.zeros(2))
    np.save(tmp_path / "objects.npy", np.array([b"x", None], object))
    for file in ("empty.npy", "text.npy", "several.npz", "objects.npy"):
        done = run("infer", "digits", "--input", f"image={tmp_path / file}", "--url", url)
        assert done.returncode == 64
        assert f"{file} is no .npy file of numbers" in done.stderr


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (["bf16=b"], "b.npy holds bool; the input bf16 takes BF16, which no .npy file can hold"),
        (["bytes=f"], "f.npy holds float32; the input bytes takes BYTES, numpy's S (bytes) or U"),
        (["fp32=s"], "s.npy holds |S2; the input fp32 takes FP32, numpy's float32"),
        (["fp32=f", "fp32=f"], "the input fp32 is given twice"),
        (["nope=f"], "expected NAME=FILE.npy with one of the inputs fp32, bf16, bytes"),
    ],
)
def test_infer_says_what_inputs_take(
    foreign_url: str, tmp_path: Path, inputs: list[str], text: str
) -> None:
    np.save(tmp_path / "b.npy", np.zeros(2, bool))
    np.save(tmp_path / "f.npy", np.zeros(2, np.float32))
    np.save(tmp_path / "s.npy", np.array([b"x", b"yy"]))
    arguments = []
    for given in inputs:
        name, file = given.split("=")
        arguments += ["--input", f"{name}={tmp_path / file}.npy"]
    done = run("infer", "m", *arguments, "--url", foreign_url)
    assert done.returncode == 64
    assert text in done.stderr.replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("typed", 0, "out FP32 [2]\n  [1.5 2.5]\n"),
        ("bf16", 1, "Error: the output out is BF16, which cannot be shown"),
        ("short", 1, "Error: the values of the output out do not fill its shape [2]"),
        ("faulty", 1, "Error: INTERNAL: first line second line\n"),
    ],
)
def test_infer_reads_answers_of_other_servers(
    foreign_url: str, tmp_path: Path, name: str, code: int, text: str
) -> None:
    np.save(tmp_path / "f.npy", np.zeros(2, ">f4"))
    done = run("infer", name, "--input", f"fp32={tmp_path}/f.npy", "--url", foreign_url)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_models_wants_names_where_nothing_is_listed(foreign_url: str) -> None:
    done = run("models", "--url", foreign_url)
    assert done.returncode == 1
    assert "name the servables: kfs-fast models NAME" in done.stderr


def test_who_asks_the_http_port_is_told() -> None:
    side_port = SidePort(lambda: True)
    port = side_port.start(["127.0.0.1"], 0)
    try:
        done = CliRunner().invoke(cli, ["models", "--url", f"127.0.0.1:{port}"])
    finally:
        side_port.stop()
    assert done.exit_code == 1
    assert f"127.0.0.1:{port} speaks HTTP, and not gRPC; is it the" in done.output


def test_the_hint_at_the_example_is_not_among_the_lines_of_the_log() -> None:
    missing = ["--log_format", "json", "--grpc_bind_address", "no.such.host.invalid"]
    done = CliRunner().invoke(cli, ["serve", *missing, "--port", "0"])
    assert done.exit_code == 1
    assert "No model given: serving the bundled example" in done.stderr
    assert not done.stdout


def test_brackets_are_no_markup_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table("Servables of [fe80::1]:9000", ["name"], [["a [b] c" + "." * 30]])
    shown = capsys.readouterr().out
    assert "[fe80::1]:9000" in shown
    assert "a [b] c" in shown


def test_a_narrow_terminal_shows_names_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "24")
    print_table("Servables", ["name", "ready", "error"], [["abcdefghijkl", "yes", ""]])
    first_cells = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines()
                   if "│" in line]  # fmt: skip
    assert "".join(first_cells) == "abcdefghijkl"


def test_names_that_the_terminal_has_no_letters_for_are_escaped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    entry = {"name": "modèle", "base_path": "nowhere"}
    (tmp_path / "config.json").write_text(json.dumps({"model_config_list": [{"config": entry}]}))
    done = run("check", "--config_path", str(tmp_path / "config.json"))
    assert "mod\\xe8le " in done.stdout
    assert "1 of 1 cannot be served" in done.stdout


def test_help_names_every_flag_but_those_never_served() -> None:
    shown = CliRunner().invoke(cli, ["serve", "--help"]).output
    for option in cli.commands["serve"].params:
        assert (f"  {option.opts[0]}" in shown) is (option.name not in REFUSED)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "A KServe v2 gRPC inference server"),
        (["--version"], 0, "kfs-fast, version"),
        (["serve", "--help"], 0, "--model_name"),
        (["serve", "--version"], 0, "kfs-fast, version"),
        (["nope"], 64, "No such command"),
        (["serve", "--nope"], 64, "No such option"),
        (["serve", "--model_name", "m"], 64, "--model_name needs --model_path"),
        (["serve", "--model_name", "", "--model_path", "p"], 64, "--model_name is empty"),
        (["serve", "--model-path", "p"], 64, "--model_path needs --model_name"),
        (["serve", "--port", "65536"], 64, "65536"),
        (["serve", "--plugin_config", "{"], 64, "this is not JSON"),
        (["serve", "--plugin_config", "[" * 99_999], 64, "this is not JSON"),
        (["serve", "--model_version_policy", "[" * 99_999], 64, 'expected {"latest"'),
        (["serve", "--plugin_config", '{"A": [1]}'], 64, "its values strings, numbers or booleans"),
        (["serve", "--log_path", "/nope/x.log"], 1, "--log_path /nope/x.log: No such file"),
        (["serve", "--workers", "0"], 64, "expected a whole number from 1 to 1024; found 0"),
        (
            ["serve", "--custom_node_resources_cleaner_interval_seconds", "-1"],
            64,
            "of at least 0; found -1",
        ),
        (["serve", "--metrics_enable=true"], 64, "rest_port setting is missing"),
        (["serve", "--metrics_enable=maybe"], 64, "'maybe' is not a valid boolean"),
        (["serve", "--rest_workers", "2"], 64, "--rest_workers: there is no REST inference here"),
        (["serve", "--grpc_memory_quota", "1"], 64, "gRPC for Python has no memory quota"),
        (["serve", "--model_name", "m", "--model_path", "a/../b"], 64, "'..' is not allowed"),
        (["serve", "--model_name", "m", "--model_path", "/nope", "--port", "0"], 1, "model m: "),
        (["serve", "--port", "0", "--grpc_bind_address", "192.0.2.1"], 1, "cannot listen on"),
        (
            [
                "serve",
                "--grpc_certificate_path",
                "/nope",
                "--grpc_key_path",
                "/nope",
                "--port",
                "0",
            ],
            1,
            "cannot read /nope for TLS: No such file",
        ),
        (["serve", "--port", "x"], 64, "expected a whole number from 0 to 65535; found x"),
        (["serve", "--nireq", "-1"], 64, "expected a whole number from 0 to 100000; found -1"),
        (["serve", "--max_streams", "0"], 64, "expected a whole number of at least 1; found 0"),
        (["models", "--timeout", "0"], 64, "expected a number above 0; found 0"),
        (["bench", "m", "--duration", "nan"], 64, "expected a number from 0.01 to 86400; found"),
        (["infer", "digits"], 64, "nothing to send: give"),
        (
            ["models", "--url", "127.0.0.1:1"],
            1,
            "nothing answers at 127.0.0.1:1; is the server "
            "running, and --url its address? UNAVAILABLE",
        ),
        (["models", "--url", "localhost"], 64, "expected host:port, such as localhost:9000; found"),
        (["models", "--url", "http://localhost:9000"], 64, "expected host:port"),
        (["serve", "--model_version_policy", "latest"], 64, 'found "latest"'),
        (["serve", "--grpc_channel_arguments", "a=2147483648"], 64, "found 2147483648"),
        (["serve", "--grpc_channel_arguments", "a=-" + "9" * 5000], 64, "numbers of 32 bits"),
        (
            ["serve", "--workers", "2", "--port", "0", "--grpc_bind_address", "a" * 64],
            1,
            "this is no host name",
        ),
    ],
)
def test_exit_codes_and_messages(arguments: list[str], code: int, text: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flag", REFUSED)
def test_no_flag_is_ignored_in_silence(flag: str) -> None:
    for spelling in (f"--{flag}", f"--{flag.replace('_', '-')}"):
        not_off = "false" if flag in ("idle_unload_timeout_seconds", "grpc_memory_quota") else "0"
        for arguments in (
            [spelling],
            [f"{spelling}=true"],
            [spelling, "1", "--port", "0"],
            [spelling, not_off],
        ):
            result = CliRunner().invoke(cli, ["serve", *arguments])
            assert result.exit_code != 0
            assert f"Error: --{flag}: " in result.output


@pytest.mark.parametrize(
    "flags",
    [
        ["--custom_node_resources_cleaner_interval_seconds", "5"],
        ["--custom_node_resources_cleaner_interval_seconds", "0"],
        ["--metrics_enable", "--rest_port", "0"],
        ["--metrics_enable=false"],
        ["--stateful=false"],
        ["--idle_unload_timeout_seconds", "0", "--grpc_memory_quota=0"],
    ],
)
def test_flags_that_ask_for_nothing_special_are_taken(
    monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    monkeypatch.setattr("kfs.cli.app.run", lambda *_: 0)
    assert CliRunner().invoke(cli, ["serve", *flags]).exit_code == 0


def test_limits_on_clients_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ServerSettings] = []
    monkeypatch.setattr("kfs.cli.app.run", lambda settings, end: asked.append(settings) or 0)
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1000")
    limits = ["--max_waiting_calls", "5", "--max_streams", "6", "--grpc_max_threads", "7"]
    assert CliRunner().invoke(cli, ["serve", *limits]).exit_code == 0
    (settings,) = asked
    assert settings.models[0].max_waiting_calls == settings.defaults.max_waiting_calls == 5
    assert (settings.max_streams, settings.grpc_max_threads) == (6, 7)
    assert os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] == "1000"
    CliRunner().invoke(cli, ["serve", "--max_image_pixels", "2000"])
    assert os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] == "2000"


def test_properties_of_devices_behind_another_may_be_nested(
    monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    asked: list[ServerSettings] = []
    monkeypatch.setattr("kfs.cli.app.run", lambda settings, end: asked.append(settings) or 0)
    dummy = repository / "dummy"
    flags = {
        "model_name": "dummy", "model_path": dummy, "target_device": "HETERO:CPU",
        "plugin_config": '{"DEVICE_PROPERTIES": {"CPU": {"NUM_STREAMS": %s}}}',
    }  # fmt: skip
    for n_streams in ("2", '"many"'):
        texts = [f"--{name}={text}".replace("%s", n_streams) for name, text in flags.items()]
        done = CliRunner().invoke(cli, ["serve", *texts])
        assert done.exit_code == 0, done.output
    good, bad = (settings.models[0] for settings in asked)
    assert Model.load(good, 1, dummy / "1").name == "dummy"
    with pytest.raises(ModelLoadError, match="many"):
        Model.load(bad, 1, dummy / "1")


def test_a_limit_of_pixels_that_is_no_number_is_refused() -> None:
    """OpenCV would end the process over it."""
    junk = {"OPENCV_IO_MAX_IMAGE_PIXELS": "junk"}
    result = CliRunner().invoke(cli, ["serve"], env=junk)
    assert result.exit_code
    assert "Invalid value for '--max_image_pixels'" in result.output
    assert "found junk" in result.output
