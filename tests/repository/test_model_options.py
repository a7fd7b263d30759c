"""What the options of a model do to it: shapes, batch, layouts, preprocessing, properties."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import models
import numpy as np
import pytest
from openvino import opset13 as op
from wire import infer_request

from kfs._fast.wire import read_request
from kfs.errors import Code, ModelLoadError, ServingError
from kfs.options import Conversion as Into
from kfs.options import parse_by_tensor, parse_layout, parse_shape
from kfs.servables.base import CallContext
from kfs.servables.model import Model
from kfs.servables.model.compile import plugin_properties
from kfs.settings import ModelSettings
from kfs.signature import ANY, Dim, fixed


def load(folder: Path, *, shape: Any = None, layout: Any = None, **options: Any) -> Model:
    if shape is not None:
        options["shapes"] = parse_by_tensor(shape, parse_shape)
    if layout is not None:
        options["layouts"] = parse_by_tensor(layout, parse_layout)
    return Model.load(ModelSettings("m", folder, **options), 1, folder)


def shapes(model: Model) -> dict[str, object]:
    return {spec.name: spec.shape for spec in model.signature.inputs}


def infer(model: Model, **tensors: Any) -> dict[str, Any]:
    with CallContext() as call:
        outputs = model.infer(dict(tensors), call)
        return {name: np.array(value) for name, value in outputs.items()}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return models.add_two(tmp_path / "two")


@pytest.fixture
def dummy(tmp_path: Path) -> Path:
    return models.dummy(tmp_path / "dummy")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """in FP32 [1,3,4,5] -> out = in + 1."""
    node = models.parameter("in", [1, 3, 4, 5], "f32")
    return models.save(tmp_path / "image", [node], {"out": op.add(node, np.float32(1))})


def test_a_shape_for_the_only_input(dummy: Path) -> None:
    assert shapes(load(dummy, shape="(3,10)")) == {"b": fixed(3, 10)}
    assert shapes(load(dummy, shape="(1:4,-1)")) == {"b": (Dim(1, 4), *fixed(-1))}
    assert shapes(load(dummy, shape={"b": "(2,7)"})) == {"b": fixed(2, 7)}


def test_shapes_by_input(two: Path) -> None:
    wanted = {"input1": "(2,10)", "input2": "(2,10)"}
    assert shapes(load(two, shape=wanted)) == {"input1": fixed(2, 10), "input2": fixed(2, 10)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "(1,10)"}, "shape: the model has several inputs (input1, input2)"),
        ({"shape": {"x": "(1,10)"}}, "shape of x: the model has only input1, input2"),
        ({"shape": {"input1": "(1,10,3,4,5)"}}, "these shapes: input1"),
        ({"layout": "NC"}, "layout: the model has several inputs"),
        (
            {"layout": {"x": "NC"}},
            "layout of x: the model has only input1, input2, sum, difference",
        ),
        ({"layout": {"input1": "NHWC"}}, "cannot apply layout"),
        ({"mean": (1.0,)}, "are for models with one input; this has input1, input2"),
        ({"plugin_config": {"SPEED": "high"}}, "plugin_config: CPU has no property SPEED"),
        ({"target_device": "TPU"}, "OpenVINO has no device TPU here; it has CPU"),
    ],
)
def test_options_that_do_not_fit_are_told(two: Path, options: Any, message: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        load(two, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_slots_than_are_allowed(dummy: Path) -> None:
    with pytest.raises(ModelLoadError, match="nireq is 100001; at most 100000 are allowed"):
        load(dummy, nireq=100_001)


def test_a_layout_of_an_input_that_is_also_an_output(tmp_path: Path) -> None:
    folder = models.identity(tmp_path / "m", "FP32", [1, 4, 5, 3])
    with pytest.raises(ModelLoadError, match="of input: an input and an output have this name"):
        load(folder, layout="NHWC")


def test_a_batch_goes_where_the_layout_says(dummy: Path) -> None:
    assert shapes(load(dummy, batch=Dim(4, 4))) == {"b": fixed(4, 10)}
    assert shapes(load(dummy, batch=Dim(1, 8))) == {"b": (Dim(1, 8), *fixed(10))}
    assert shapes(load(dummy, batch=Dim(4, 4), layout="CN")) == {"b": fixed(1, 4)}
    with pytest.raises(ModelLoadError, match="no input has a batch dimension"):
        load(dummy, batch=Dim(4, 4), layout="CD")


def test_strings_for_rows_are_counted_by_both_dimensions_where_the_batch_is_the_second(
    tmp_path: Path,
) -> None:
    model = load(models.identity(tmp_path / "m", "UINT8", [2, 4], "CN"))
    for count, complaint in (
        (2, "batch size - Expected: 4; Actual: 2"),
        (4, "shape - Expected batch size: 2; got: 4"),
    ):
        request = infer_request("m", "input", "BYTES", [count], bytes_contents=[b"abc"] * count)
        with pytest.raises(ServingError, match=complaint):
            model.bind(read_request(request.SerializeToString()))


def test_a_model_without_inputs_cannot_be_asked(tmp_path: Path) -> None:
    model = load(models.save(tmp_path / "m", [], {"y": op.constant(np.ones(2, np.float32))}))
    with pytest.raises(ServingError, match="number of inputs - Expected: 0; Actual: 0"):
        model.bind(read_request(b""))


def test_dimensions_may_have_names_of_which_nothing_is_known(tmp_path: Path) -> None:
    node = models.parameter("x", [2, 1, 4], "f32", layout="[SEQUENCE,N,C]")
    folder = models.save(tmp_path / "m", [node], {"y": op.add(node, np.float32(1))})
    model = load(folder, batch=Dim(3, 3))
    assert shapes(model) == {"x": fixed(2, 3, 4)}
    assert model.signature.inputs[0].layout == "?NC"
    request = infer_request("m", "x", shape=[2, 5, 4], raw=bytes(160))
    with pytest.raises(ServingError, match="batch size - Expected: 3; Actual: 5"):
        model.bind(read_request(request.SerializeToString()))


@pytest.mark.parametrize("shape", [[], [10]])
def test_a_batch_leaves_inputs_that_have_none(tmp_path: Path, shape: list[int]) -> None:
    first = models.parameter("first", [1, 10], "f32")
    second = models.parameter("second", shape, "f32", layout="C" if shape else "")
    folder = models.save(tmp_path / "m", [first, second], {"sum": op.add(first, second)})
    model = load(folder, batch=Dim(4, 4))
    assert shapes(model) == {"first": fixed(4, 10), "second": fixed(*shape)}
    if not shape:
        with pytest.raises(
            ModelLoadError, match="batch_size is auto, and input second is a scalar"
        ):
            load(folder, batch="auto")
        return
    model = load(folder, batch="auto")
    ones = np.ones(10, np.float32)
    assert infer(model, first=np.ones((3, 10), np.float32), second=ones)["sum"].shape == (3, 10)
    assert shapes(model) == {"first": fixed(3, 10), "second": fixed(10)}


def test_a_layout_transposes_inputs_and_outputs(image: Path) -> None:
    values = np.arange(60, dtype=np.float32).reshape(1, 4, 5, 3)
    model = load(image, layout="NHWC:NCHW")
    assert shapes(model) == {"in": fixed(1, 4, 5, 3)}
    assert model.signature.inputs[0].layout == "NHWC"
    assert np.array_equal(infer(model, **{"in": values})["out"], values.transpose(0, 3, 1, 2) + 1)
    both = load(image, layout={"in": "NHWC:NCHW", "out": "NHWC:NCHW"})
    assert both.signature.outputs[0].shape == fixed(1, 4, 5, 3)
    assert np.array_equal(infer(both, **{"in": values})["out"], values + 1)


def test_colour_precision_mean_and_scale_in_this_order(image: Path) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(1, 3, 4, 5)
    model = load(
        image, layout="NCHW", mean=(1.0, 2.0, 3.0), scale=(2.0,),
        color_format=Into("RGB", "BGR"), precision=Into("uint8", "fp32"),
    )  # fmt: skip
    assert model.signature.inputs[0].datatype.name == "UINT8"
    mean = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    expected = (values[:, ::-1].astype(np.float32) - mean) / 2 + 1
    assert np.allclose(infer(model, **{"in": values})["out"], expected)


def properties(**config: str) -> dict[str, object]:
    return {**plugin_properties(ModelSettings("m", "m", plugin_config=config))}


@pytest.mark.parametrize("device", ["AUTO", "HETERO:CPU"])
def test_what_is_not_the_cpu_alone_gets_copies(tmp_path: Path, device: str) -> None:
    folder = models.dummy(tmp_path / "m", [1, 500_000])
    model = load(folder, target_device=device, nireq=1)
    assert not model.straight_outputs, "nor is it told where to write"
    values = np.arange(500_000, dtype=np.float32)[np.newaxis]
    assert np.array_equal(infer(model, b=values)["a"], values + 1)


def test_names_of_old_properties_are_understood() -> None:
    unpinned = {"ENABLE_CPU_PINNING": False}
    assert properties(CPU_THROUGHPUT_STREAMS="2") == {"NUM_STREAMS": "2", **unpinned}
    assert properties(NUM_STREAMS="2", CPU_THREADS_NUM="1") == {
        "NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": 1, **unpinned,
    }  # fmt: skip
    auto = properties(CPU_THROUGHPUT_STREAMS="CPU_THROUGHPUT_AUTO")
    assert auto == {"PERFORMANCE_HINT": "THROUGHPUT", **unpinned}


def test_without_a_word_latency_is_low_and_calls_infer_on_the_core_they_are_on(dummy: Path) -> None:
    assert properties() == {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    compiled = load(dummy)._program.compiled.model
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    assert properties(ENABLE_CPU_PINNING="true")["ENABLE_CPU_PINNING"] is True


def test_an_auto_shape_follows_the_requests(dummy: Path) -> None:
    model = load(dummy, shape="auto")
    for shape in ((1, 10), (3, 4), (3, 4), (2, 10)):
        values = np.ones(shape, np.float32)
        assert np.array_equal(infer(model, b=values)["a"], values + 1)
        assert shapes(model) == {"b": fixed(*shape)}


def test_an_auto_shape_is_that_of_the_model_as_it_was_loaded(dummy: Path) -> None:
    model = load(dummy, shape="auto")
    shutil.rmtree(dummy)
    values = np.ones((3, 4), np.float32)
    assert np.array_equal(infer(model, b=values)["a"], values + 1)


def test_what_is_auto_stays_as_it_is_while_the_requests_fit(tmp_path: Path) -> None:
    folder = models.dummy(tmp_path / "m", [2, -1])
    for options in ({"shape": "auto"}, {"batch": "auto"}):
        model = load(folder, **options)
        for shape in ((2, 5), (2, 6)):
            assert infer(model, b=np.ones(shape, np.float32))["a"].shape == shape
            assert shapes(model) == {"b": (*fixed(2), ANY)}
        assert infer(model, b=np.ones((3, 6), np.float32))["a"].shape == (3, 6)
    assert shapes(model) == {"b": (*fixed(3), ANY)}, "an auto batch is no auto shape"


def test_an_input_that_is_not_auto_keeps_its_shape(two: Path) -> None:
    model = load(two, shape={"input1": "auto", "input2": "(-1,10)"})
    ones = np.ones((5, 10), np.float32)
    infer(model, input1=ones, input2=ones)
    assert shapes(model) == {"input1": fixed(5, 10), "input2": (ANY, *fixed(10))}


def test_an_auto_shape_may_be_that_of_several_inputs(two: Path) -> None:
    model = load(two, shape="auto")
    ones = np.ones((5, 4), np.float32)
    assert infer(model, input1=ones, input2=ones)["sum"].shape == (5, 4)
    assert shapes(model) == {"input1": fixed(5, 4), "input2": fixed(5, 4)}


def test_a_batch_beside_a_shape_is_ignored(two: Path) -> None:
    model = load(two, shape={"input1": "(1,10)"}, batch=Dim(4, 4))
    assert shapes(model) == {"input1": fixed(1, 10), "input2": fixed(1, 10)}


@pytest.mark.parametrize("options", [{"shape": "auto"}, {"batch": "auto"}])
def test_encoded_images_get_the_size_of_the_model_and_not_it_theirs(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    models.identity(tmp_path / "m", "UINT8", [1, 8, 6, 3], layout="NHWC")
    model = load(tmp_path / "m", **options)
    pictures = [np.full((height, 5, 3), height, np.uint8) for height in (9, 10)]
    items = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
    for n_images in (1, 2):
        request = infer_request("m", "input", "BYTES", (n_images,), bytes_contents=items[:n_images])
        tensors = model.bind(read_request(request.SerializeToString()))
        found = infer(model, **tensors)["input"]
        assert [image.tolist() for image in found] == [
            np.full((8, 6, 3), height).tolist() for height in (9, 10)[:n_images]
        ]
        assert shapes(model) == {"input": fixed(n_images, 8, 6, 3)}


def test_planes_that_would_be_inputs_without_names_are_refused(image: Path) -> None:
    with pytest.raises(ModelLoadError, match="color_format NV12_2: the planes would be inputs"):
        load(image, layout="NHWC:NCHW", color_format=Into("NV12_2", "BGR"))


def test_an_auto_batch_is_that_of_the_first_input(two: Path) -> None:
    model = load(two, batch="auto")
    ones = np.ones((5, 10), np.float32)
    assert infer(model, input1=ones, input2=ones)["sum"].shape == (5, 10)
    with pytest.raises(ServingError) as caught:
        infer(model, input1=ones, input2=ones[:2])
    assert caught.value.status.text == "Invalid input batch size"


def test_an_auto_batch_is_compared_where_there_is_one(tmp_path: Path) -> None:
    a = models.parameter("a", [10], "f32", layout="C")
    b, c = (models.parameter(name, [1, 10], "f32") for name in "bc")
    model = load(
        models.save(tmp_path / "m", [a, b, c], {"sum": op.add(a, op.add(b, c))}), batch="auto"
    )
    ones = np.ones((5, 10), np.float32)
    assert infer(model, a=ones[0], b=ones, c=ones)["sum"].shape == (5, 10)
    with pytest.raises(ServingError, match="batch size - Expected: 5; Actual: 1; input name: c"):
        infer(model, a=ones[0], b=ones, c=ones[:1])


def test_a_shape_that_the_model_cannot_take_leaves_it_as_it_was(tmp_path: Path) -> None:
    node = models.parameter("b", [1, 10], "f32")
    product = op.matmul(node, op.constant(np.ones((10, 2), np.float32)), False, False)
    model = load(models.save(tmp_path, [node], {"a": product}), shape="auto")
    with pytest.raises(ServingError) as caught:
        infer(model, b=np.ones((1, 11), np.float32))
    assert caught.value.status.code is Code.FAILED_PRECONDITION
    assert str(caught.value).startswith("Model could not be reshaped with requested shape - ")
    assert infer(model, b=np.ones((1, 10), np.float32))["a"].tolist() == [[10, 10]]


def test_what_is_auto_is_not_cached_unless_allowed(dummy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    load(dummy, shape="auto", cache_dir=cache)
    assert not cache.exists()
    load(dummy, shape="auto", cache_dir=cache, allow_cache=True)
    assert list(cache.iterdir())
