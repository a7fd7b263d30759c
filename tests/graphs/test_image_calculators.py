"""Images to tensors to what was seen, against plain numpy and OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from kfs._proto import calculator_graph_pb2 as pb
from kfs.errors import Code
from kfs.servables.base import CallContext
from kfs.servables.graph import Calculator, CalculatorError, Contract, GraphError, NodeContext
from kfs.servables.graph.calculator import Setting
from kfs.servables.graph.calculators import BUILTIN
from kfs.servables.graph.packets import ImageFrame
from kfs.servables.graph.spec import parse_graph

RNG = np.random.default_rng(1)
FRAME = ImageFrame("SRGB", RNG.integers(0, 256, (60, 90, 3), np.uint8))


def run(
    calculator: str, options: str, inputs: Mapping[str, Any], outputs: list[str],
    folder: Any = None, sides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What a single node sends for one set of inputs."""
    lines = [f'input_stream: "{tag}:{tag.lower()}"' for tag in inputs]
    lines += [f'output_stream: "{tag}:{tag.lower()}_out"' for tag in outputs]
    lines += [f'input_side_packet: "{tag}:{tag.lower()}"' for tag in sides or {}]
    packed = (
        f"node_options: {{ [type.googleapis.com/mediapipe.{calculator}Options]: {{ {options} }} }}"
    )
    text = f'node {{ calculator: "{calculator}" {" ".join(lines)} {packed} }}'
    node = parse_graph(text).nodes[0]
    kind: type[Calculator] = BUILTIN[calculator]
    kind.contract(Contract(node))
    setting = Setting(folder, None)  # type: ignore[arg-type]
    packets = {tag.lower(): value for tag, value in (sides or {}).items()}
    context = NodeContext(node, setting, kind.prepare(node, setting), CallContext(), packets)
    context.inputs = [inputs[port.tag] for port in node.inputs]
    kind().process(context)
    return {node.outputs[sent.output].tag: sent.value for sent in context.sent}


def transform(options: str, frame: ImageFrame = FRAME) -> np.ndarray:
    sent = run("ImageTransformationCalculator", options, {"IMAGE": frame}, ["IMAGE"])
    assert sent["IMAGE"].format == frame.format
    return sent["IMAGE"].pixels


def test_a_size() -> None:
    wanted = cv2.resize(FRAME.pixels, (30, 20), interpolation=cv2.INTER_AREA)
    assert (transform("output_width: 30 output_height: 20") == wanted).all()
    wanted = cv2.resize(FRAME.pixels, (180, 120), interpolation=cv2.INTER_LINEAR)
    assert (transform("output_width: 180 output_height: 120") == wanted).all()
    assert (transform("") == FRAME.pixels).all()


def test_a_frame_around_it() -> None:
    options = "output_width: 90 output_height: 90 scale_mode: FIT padding_color { red: 7 }"
    sent = run("ImageTransformationCalculator", options, {"IMAGE": FRAME},
               ["IMAGE", "LETTERBOX_PADDING"])  # fmt: skip
    pixels = sent["IMAGE"].pixels
    assert (pixels[15:75] == FRAME.pixels).all()
    assert (pixels[:15] == (7, 0, 0)).all()
    assert sent["LETTERBOX_PADDING"] == (0.0, 15 / 90, 0.0, 15 / 90)
    replicated = transform(options + " constant_padding: false")
    assert (replicated[:15] == FRAME.pixels[:1]).all()


def test_the_middle_of_it() -> None:
    pixels = transform("output_width: 60 output_height: 60 scale_mode: FILL_AND_CROP")
    assert (pixels == FRAME.pixels[:, 15:75]).all()


def test_a_line_is_not_made_a_picture_to_be_cut() -> None:
    options = "output_width: 100 output_height: 100 scale_mode: FILL_AND_CROP"
    line = np.zeros((1, 1_000_000, 3), np.uint8)
    with pytest.raises(CalculatorError, match="1x1000000, which becomes 100x100000000") as caught:
        transform(options, ImageFrame("SRGB", line))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert not transform(options, ImageFrame("SRGB", line[:, :1000])).any()


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("ROTATION_90", cv2.ROTATE_90_COUNTERCLOCKWISE),
        ("ROTATION_180", cv2.ROTATE_180),
        ("ROTATION_270", cv2.ROTATE_90_CLOCKWISE),
    ],
)
def test_turns(mode: str, code: int) -> None:
    assert (transform(f"rotation_mode: {mode}") == cv2.rotate(FRAME.pixels, code)).all()
    turned = transform(f"rotation_mode: {mode} output_width: 30 output_height: 40")
    assert turned.shape == (40, 30, 3)


def test_flips() -> None:
    assert (transform("flip_vertically: true") == FRAME.pixels[::-1]).all()
    assert (transform("flip_horizontally: true") == FRAME.pixels[:, ::-1]).all()


def test_one_channel_stays_one() -> None:
    grey = ImageFrame("GRAY8", FRAME.pixels[:, :, :1].copy())
    assert transform("output_width: 30 output_height: 20", grey).shape == (20, 30, 1)


def convert(options: str) -> np.ndarray:
    sent = run("OpenVINOConverterCalculator", options, {"IMAGE": FRAME}, ["TENSORS"])
    (tensor,) = sent["TENSORS"]
    return tensor


def test_an_image_as_a_tensor() -> None:
    assert (convert("") == FRAME.pixels[np.newaxis]).all()
    assert convert("").dtype == np.uint8
    assert convert("max_num_channels: 1").shape == (1, 60, 90, 1)
    assert (convert("flip_vertically: true")[0] == FRAME.pixels[::-1]).all()


def test_values_in_a_range() -> None:
    pixels = FRAME.pixels[np.newaxis].astype(np.float64)
    for options, wanted in (
        ("", pixels / 127.5 - 1),
        ("zero_center: false", pixels / 255),
        ("output_tensor_float_range { min: 2 max: 4 }", pixels / 127.5 + 2),
        ("use_custom_normalization: true custom_div: 2 custom_sub: 3", pixels / 2 - 3),
    ):
        found = convert("enable_normalization: true " + options)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-5)


SCORES = np.array([[0.1, 0.7, 0.05, 0.15]], np.float32)


def classify(
    options: str, scores: np.ndarray = SCORES, folder: Any = None
) -> list[tuple[int, str]]:
    sent = run("OpenVINOTensorsToClassificationCalculator", options, {"TENSORS": [scores]},
               ["CLASSIFICATIONS"], folder)  # fmt: skip
    return [(found.index, found.label) for found in sent["CLASSIFICATIONS"]]


def test_the_likeliest_classes_first(tmp_path: Any) -> None:
    assert classify("") == [(1, ""), (3, ""), (0, ""), (2, "")]
    assert classify("top_k: 2") == [(1, ""), (3, "")]
    assert classify("min_score_threshold: 0.12") == [(1, ""), (3, "")]
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    assert classify('label_map_path: "labels.txt" top_k: 1', folder=tmp_path) == [(1, "b")]
    assert classify('label_map { entries { id: 1 label: "x" } } top_k: 1') == [(1, "x")]
    yes = np.array([[0.2]], np.float32)
    assert classify("binary_classification: true", yes) == [(1, ""), (0, "")]
    with pytest.raises(GraphError, match="label_map_path"):
        classify('label_map_path: "nowhere.txt"', folder=tmp_path)
    with pytest.raises(CalculatorError, match="expected one tensor"):
        classify("", np.zeros((2, 3), np.float32))


SIZES = "num_classes: 2 num_boxes: 3 num_coords: 4 x_scale: 10 y_scale: 10 w_scale: 5 h_scale: 5 "
ANCHORS = np.array([[0.5, 0.5, 1, 1], [0.2, 0.3, 1, 1], [0, 0, 1, 1]], np.float32)
BOXES = np.array([[[0, 0, 1, 2], [1, 2, 1, 1], [0, 0, -1, 1]]], np.float32)
CLASS_SCORES = np.array([[[1, -1], [-2, 2], [3, 3]]], np.float32)


def detect(options: str, tensors: list[np.ndarray], **sides: Any) -> list[Any]:
    sent = run("OpenVINOTensorsToDetectionsCalculator", SIZES + options, {"TENSORS": tensors},
               ["DETECTIONS"], sides=sides)  # fmt: skip
    return sent["DETECTIONS"]


def test_boxes_from_anchors() -> None:
    found = detect("sigmoid_score: true", [BOXES, CLASS_SCORES, ANCHORS])
    assert [detection.label_id for detection in found] == [0, 1]  # the third has no height
    first = found[0]
    assert first.score == pytest.approx(1 / (1 + np.exp(-1)))
    box = first.xmin, first.ymin, first.width, first.height
    assert box == pytest.approx((0.5 - 0.2, 0.5 - 0.1, 0.4, 0.2))
    second = found[1]
    box = second.xmin, second.ymin, second.width, second.height
    assert box == pytest.approx((0.3 + 0.2 - 0.1, 0.2 + 0.1 - 0.1, 0.2, 0.2))
    assert detect("", [BOXES, CLASS_SCORES], ANCHORS=ANCHORS)[0].score == 1
    three = [BOXES, CLASS_SCORES, ANCHORS]
    assert [found.label_id for found in detect("min_score_thresh: 1.5", three)] == [1]
    assert [found.label_id for found in detect("ignore_classes: 1", three)] == [0, 0]
    swapped = detect("reverse_output_order: true", [BOXES, CLASS_SCORES, ANCHORS])[0]
    assert (swapped.width, swapped.height) == pytest.approx((0.2, 0.4))
    flipped = detect("flip_vertically: true", [BOXES, CLASS_SCORES, ANCHORS])[1]
    assert flipped.ymin == pytest.approx(1 - 0.4)


def test_boxes_that_are_found_already() -> None:
    boxes = np.array([[[0.1, 0.2, 0.5, 0.8], [0, 0, 1, 1]]], np.float32)
    tensors = [boxes, np.array([[3, 4]], np.float32), np.array([[0.9, 0.8]], np.float32),
               np.array([1], np.float32)]  # fmt: skip
    (found,) = detect("", tensors)
    assert (found.label_id, found.score) == (3, pytest.approx(0.9))
    box = found.xmin, found.ymin, found.width, found.height
    assert box == pytest.approx((0.2, 0.1, 0.6, 0.4))


def test_tensors_that_do_not_fit() -> None:
    with pytest.raises(CalculatorError, match="do not fit the options"):
        detect("", [BOXES[:, :2], CLASS_SCORES, ANCHORS])
    with pytest.raises(CalculatorError, match="expected 2 tensors with ANCHORS"):
        detect("", [BOXES, CLASS_SCORES])


def test_options_that_are_not_served() -> None:
    with pytest.raises(GraphError, match="max_num_channels of 1, 3 or 4; found 2"):
        convert("max_num_channels: 2")
    with pytest.raises(GraphError, match="IMAGE_GPU is not served"):
        run("ImageTransformationCalculator", "", {"IMAGE": FRAME, "IMAGE_GPU": FRAME}, ["IMAGE"])
    with pytest.raises(text_format.ParseError):
        text_format.Parse("top_k: x", pb.OpenVINOTensorsToClassificationCalculatorOptions())
