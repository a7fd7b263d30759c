"""What operators are told of a repository: `check`, `models`, and the index of the protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import pytest
import tritonclient.grpc as triton
from click.testing import CliRunner, Result
from conftest import ServeModels
from graphs.graph_site import dummy_graph, ends, python

from kfs.cli import cli
from kfs.options import VersionPolicy
from kfs.servables.model.compile import core
from kfs.settings import ModelSettings

ENDLESS = """
import threading

class OvmsPythonModel:
    def execute(self, inputs):
        return []

    def finalize(self):
        threading.Event().wait()
"""


def check(folder: Path, *configs: dict[str, Any]) -> Result:
    path = folder / "config.json"
    path.write_text(json.dumps({"model_config_list": [{"config": config} for config in configs]}))
    return CliRunner().invoke(cli, ["check", "--config-path", str(path)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.dummy(tmp_path / "good" / "1")
    models.dummy(tmp_path / "good" / "2", (2, 10))
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"no model")
    return tmp_path


def test_check_shows_what_would_be_served(folder: Path) -> None:
    done = check(folder, {"name": "good", "base_path": "good", "model_version_policy": {"all": {}}})
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines() if line.startswith("good")]
    assert rows == [
        ["good", "1", "b", "FP32", "(1,10)", "a", "FP32", "(1,10)", "ok"],
        ["good", "2", "b", "FP32", "(2,10)", "a", "FP32", "(2,10)", "ok"],
    ]
    assert "Everything is fine" in done.output


def test_check_finds_every_fault(folder: Path) -> None:
    done = check(
        folder,
        {"name": "good", "base_path": "good"},
        {"name": "bad", "base_path": "bad"},
        {"name": "nowhere", "base_path": "nowhere"},
        {"name": "shaped", "base_path": "good", "shape": {"x": "(1,10)"}},
        {"name": "laid", "base_path": "good", "layout": "XX"},
        {"name": "hinted", "base_path": "good", "plugin_config": {"PERFORMANCE_HINT": "FAST"}},
    )
    assert done.exit_code == 1
    for told in ("OpenVINO cannot read", "No such file", "shape of x: the model has only b",
                 "layout: expected a layout", "Wrong value FAST",
                 "5 of 6 cannot be served"):  # fmt: skip
        assert told in done.output
    (good,) = (line for line in done.stdout.splitlines() if line.startswith("good"))
    assert len(good) < 80, "a long fault makes no other line long"
    assert "Exception from" not in done.output, "nothing of places in sources"


def test_check_names_the_place_in_a_broken_file(folder: Path) -> None:
    done = check(folder, {"name": "good", "base_path": "good", "nireq": "x"})
    assert done.exit_code == 1
    assert "model_config_list[0].config.nireq: Input should be a valid integer" in done.output


def test_the_index_and_models_show_states_and_errors(serve: ServeModels, folder: Path) -> None:
    (folder / "good" / "3").mkdir()
    policy = VersionPolicy(latest=2)
    server = serve(ModelSettings("good", folder / "good", version_policy=policy))
    url = f"127.0.0.1:{server.port}"
    with triton.InferenceServerClient(url) as client:
        index = client.get_model_repository_index(as_json=True)["models"]
    assert [(model["version"], model["state"]) for model in index] == [
        ("1", "READY"), ("2", "READY"), ("3", "UNAVAILABLE"),
    ]  # fmt: skip
    assert "no model in" in index[2]["reason"]
    done = CliRunner().invoke(cli, ["models", "--url", url])
    assert done.exit_code == 0, done.output
    assert "1, 2, 3 (unavailable)" in done.output
    assert "version 3: no model in" in done.output


PIPELINE = {
    "name": "shards", "inputs": ["x"], "demultiply_count": 3,
    "nodes": [{"name": "each", "type": "DL model", "model_name": "good", "version": 1,
               "inputs": [{"b": {"node_name": "request", "data_item": "x"}}],
               "outputs": [{"data_item": "a", "alias": "y"}]}],
    "outputs": [{"result": {"node_name": "each", "data_item": "y"}}],
}  # fmt: skip


def check_pipelines(folder: Path, *pipelines: dict[str, Any], **keys: Any) -> Result:
    policy = {"specific": {"versions": [1]}}
    good = {"name": "good", "base_path": "good", "model_version_policy": policy}
    path = folder / "config.json"
    config = {"model_config_list": [{"config": good}], "pipeline_config_list": pipelines, **keys}
    path.write_text(json.dumps(config))
    return CliRunner().invoke(cli, ["check", "--config-path", str(path)])


def test_check_draws_a_pipeline_with_its_shapes(folder: Path) -> None:
    done = check_pipelines(folder, PIPELINE)
    assert done.exit_code == 0, done.output
    tree = """
pipeline shards
  request
    x FP32 (3,1,10)
    for each of 3 shards
      each: model good, version 1
        b FP32 (1,10) <- request.x
        -> y: FP32 (1,10)
  response
    result FP32 (3,1,10) <- each.y
"""
    assert tree in done.output


def test_check_draws_a_graph(folder: Path) -> None:
    (folder / "graph").mkdir()
    (folder / "graph" / "graph.pbtxt").write_text(
        'input_stream: "in" output_stream: "out"\n'
        'node { calculator: "PassThroughCalculator" input_stream: "in" output_stream: "out" }\n'
    )
    done = check_pipelines(folder, mediapipe_config_list=[{"name": "graph"}])
    assert done.exit_code == 0, done.output
    assert "\ngraph graph\n  input in: " in done.output
    assert "  node PassThroughCalculator\n    in -> out\n" in done.output


def test_check_says_which_node_of_a_pipeline_is_wrong(folder: Path) -> None:
    node = {**PIPELINE["nodes"][0], "model_name": "none"}
    custom = {**PIPELINE["nodes"][0], "type": "custom", "library_name": "lib"}
    del custom["model_name"], custom["version"]
    done = check_pipelines(
        folder,
        PIPELINE,
        {**PIPELINE, "name": "modelless", "nodes": [node]},
        {**PIPELINE, "name": "closed", "nodes": [custom]},
        custom_node_library_config_list=[{"name": "lib", "base_path": "lib.so"}],
    )
    assert done.exit_code == 1
    assert "pipeline modelless: node each: model none version 1 is not available" in done.output
    assert "pipeline closed: node each: library lib: cannot open" in done.output
    assert "2 of 4 cannot be served" in done.output
    assert "pipeline shards\n" in done.output, "the others are drawn"


def test_check_finds_what_a_graph_asks_for_in_vain(folder: Path) -> None:
    for graph, model in (("fine", "good"), ("lost", "none"), ("nested", "fine")):
        (folder / graph).mkdir()
        text = dummy_graph().replace('"dummy"', f'"{model}"')
        (folder / graph / "graph.pbtxt").write_text(text)
    (folder / "fine" / "subconfig.json").write_text('{"model_config_list": [}')
    graphs = [{"name": name} for name in ("fine", "lost", "nested")]
    done = check_pipelines(folder, mediapipe_config_list=graphs)
    assert done.exit_code == 1
    rows = [line for line in done.stdout.splitlines() if "its requests need" in line]
    assert [row.split()[0] for row in rows] == ["lost", "nested"]
    assert "its requests need none: Model with requested name is not found" in rows[0]
    assert "its requests need fine, which is a graph" in rows[1]
    assert "fine/subconfig.json" in done.stdout
    assert "is not JSON" in done.stdout
    assert "3 of 5 cannot be served" in done.output


def test_check_ends_though_a_handler_does_not(folder: Path) -> None:
    text = ends(["OVMS_PY_TENSOR:in"], ["OVMS_PY_TENSOR:out"])
    (folder / "graph.pbtxt").write_text(text + python("handler", ["IN:in"], ["OUT:out"]))
    (folder / "handler.py").write_text(ENDLESS)
    config = {"model_config_list": [], "mediapipe_config_list": [{"name": "g", "base_path": "."}]}
    (folder / "config.json").write_text(json.dumps(config))
    code = (
        "from kfs.cli import main; from kfs.repository import repository; "
        "repository._END_S = 0.1; main()"
    )
    command = [sys.executable, "-c", code, "check", "--config_path", str(folder / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "What is being unloaded is left" in done.stderr


def test_check_takes_operations_of_the_user(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text('{"model_config_list": []}')
    flags = ["--config_path", str(path), "--cpu_extension", str(folder / "ops.so")]
    done = CliRunner().invoke(cli, ["check", *flags])
    assert done.exit_code == 1
    assert f"Error: cpu_extension {folder / 'ops.so'}: " in done.output


def test_operations_of_tokenizers_are_looked_for_where_their_package_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library = tmp_path / "openvino_tokenizers" / "lib" / "libopenvino_tokenizers.so"
    library.parent.mkdir(parents=True)
    (library.parent.parent / "__init__.py").write_text("raise ImportError('not imported')")
    library.write_text("of another version")
    monkeypatch.syspath_prepend(tmp_path)
    assert "CPU" in core.__wrapped__().available_devices  # what cannot be used stops nothing
    assert f"{library} is left out: " in caplog.text
