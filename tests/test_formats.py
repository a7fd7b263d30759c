"""Models in the formats of other frameworks: loaded from disk and asked by a client."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import model_formats
import models
import numpy as np
import openvino as ov
import pytest
import tritonclient.grpc as triton
from conftest import ServeModels
from openvino import opset13 as op

from kfs.errors import ModelLoadError
from kfs.settings import ModelSettings

#: The maker of each, and what OpenVINO calls its tensors: in a frozen graph, outputs of nodes.
FORMATS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "ONNX": (model_formats.onnx, "b", "a"),
    "TensorFlow frozen graph": (model_formats.frozen_graph, "b:0", "a:0"),
    "TensorFlow SavedModel": (model_formats.saved_model, "b", "a"),
    "TensorFlow Lite": (model_formats.tflite, "b", "a"),
    "PaddlePaddle": (model_formats.paddle, "b", "a"),
}
VALUES = np.linspace(-1, 1, 20, dtype=np.float32).reshape(2, 10)


@pytest.mark.parametrize("where", ["version folder", "single file"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_model_of_another_framework_is_served(
    serve: ServeModels, tmp_path: Path, name: str, where: str
) -> None:
    make, input_name, output_name = FORMATS[name]
    file = make(tmp_path / "1")
    server = serve(ModelSettings("m", tmp_path if where == "version folder" else file))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        metadata = client.get_model_metadata("m")
        for tensors, tensor_name in (
            (metadata.inputs, input_name),
            (metadata.outputs, output_name),
        ):
            assert [(t.name, t.datatype, list(t.shape)) for t in tensors] == [
                (tensor_name, "FP32", [-1, 10])
            ]
        tensor = triton.InferInput(input_name, [2, 10], "FP32").set_data_from_numpy(VALUES)
        answer = client.infer("m", [tensor], client_timeout=60)
        assert answer.get_response().model_version == "1"
        assert np.array_equal(answer.as_numpy(output_name), VALUES + 1)


@pytest.mark.parametrize("beside", ["fingerprint.pb", "keras_metadata.pb"])
def test_what_tensorflow_saves_beside_a_model_is_not_taken_for_it(
    serve: ServeModels, tmp_path: Path, beside: str
) -> None:
    model_formats.saved_model(tmp_path / "1")
    (tmp_path / "1" / beside).write_bytes(b"\x08\x01")
    server = serve(ModelSettings("m", tmp_path))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert [tensor.name for tensor in client.get_model_metadata("m").inputs] == ["b"]


def test_the_parameters_of_a_paddle_model_name_it_too(serve: ServeModels, tmp_path: Path) -> None:
    file = model_formats.paddle(tmp_path).with_suffix(".pdiparams")
    server = serve(ModelSettings("m", file))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_model_ready("m")


def test_the_suffix_of_a_model_file_may_be_in_capitals(serve: ServeModels, tmp_path: Path) -> None:
    models.dummy(tmp_path)
    file = (tmp_path / "model.xml").rename(tmp_path / "model.XML")
    server = serve(ModelSettings("m", file))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_model_ready("m")


def test_a_mapping_file_gives_a_frozen_graph_plain_names(
    serve: ServeModels, tmp_path: Path
) -> None:
    file = model_formats.frozen_graph(tmp_path / "1")
    (file.parent / "mapping_config.json").write_text(
        '{"inputs": {"b:0": "image"}, "outputs": {"a:0": "result"}}'
    )
    server = serve(ModelSettings("m", tmp_path))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        tensor = triton.InferInput("image", [2, 10], "FP32").set_data_from_numpy(VALUES)
        answer = client.infer("m", [tensor], client_timeout=60)
        assert np.array_equal(answer.as_numpy("result"), VALUES + 1)


def without_names(folder: Path, tensor: str) -> Path:
    """The dummy model as converters leave models: one of its tensors has no name."""
    file = models.dummy(folder) / "model.xml"
    text = file.read_text()
    assert f'names="{tensor}"' in text
    file.write_text(re.sub(f' (output_)?names="{tensor}"', "", text))
    return file


def test_an_output_without_a_name_is_numbered(serve: ServeModels, tmp_path: Path) -> None:
    server = serve(ModelSettings("m", without_names(tmp_path, "a")))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert [output.name for output in client.get_model_metadata("m").outputs] == ["out_0"]


def test_an_input_without_a_name_could_not_be_sent(serve: ServeModels, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="input 0 has no name, so no request could send it"):
        serve(ModelSettings("m", without_names(tmp_path, "b")))


@pytest.mark.parametrize("n_values", [4, 500_000])
def test_a_tensor_that_is_an_output_twice_is_one_output(
    serve: ServeModels, tmp_path: Path, n_values: int
) -> None:
    """As the last hidden state of a language model is, which is one of all of them too."""
    x = models.parameter("x", [1, n_values], "f32")
    y = op.add(x, np.float32(1))
    y.output(0).set_names({"last", "states.1"})
    (tmp_path / "1").mkdir()
    twice = ov.Model([op.result(y), op.result(op.negative(y)), op.result(y)], [x])
    twice.outputs[1].set_names({"minus"})
    ov.save_model(twice, tmp_path / "1" / "model.xml", compress_to_fp16=False)
    server = serve(ModelSettings("m", tmp_path))
    values = np.arange(n_values, dtype=np.float32)[np.newaxis]
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        names = [output.name for output in client.get_model_metadata("m").outputs]
        tensor = triton.InferInput("x", [1, n_values], "FP32").set_data_from_numpy(values)
        answer = client.infer("m", [tensor], client_timeout=60)
    assert names == ["last", "minus"]
    assert np.array_equal(answer.as_numpy("last"), values + 1)
    assert np.array_equal(answer.as_numpy("minus"), -values - 1)


def test_a_mapping_file_may_use_any_name_of_a_tensor(serve: ServeModels, tmp_path: Path) -> None:
    x = models.parameter("x", [1, 4], "f32")
    x.output(0).set_names({"x", "y", "z"})
    models.save(tmp_path / "1", [x], {"a": op.negative(x)})
    (tmp_path / "1" / "mapping_config.json").write_text('{"inputs": {"y": "image"}}')
    server = serve(ModelSettings("m", tmp_path))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert [tensor.name for tensor in client.get_model_metadata("m").inputs] == ["image"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [("input", ["input1", "input2"]), ("output", ["sum", "difference"])],
)
def test_two_tensors_of_one_name_could_not_be_told_apart(
    serve: ServeModels, tmp_path: Path, kind: str, names: list[str]
) -> None:
    folder = models.add_two(tmp_path / "1")
    mapping = {f"{kind}s": dict.fromkeys(names, "both")}
    (folder / "mapping_config.json").write_text(json.dumps(mapping))
    with pytest.raises(ModelLoadError, match=f"several {kind}s are named both"):
        serve(ModelSettings("m", tmp_path))
