"""Calculators from a model's tensors to what was seen: classifications and detections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfs._proto import calculator_graph_pb2 as pb
from kfs.files import check_is_file
from kfs.servables.graph.calculator import (
    OV_TENSORS,
    Calculator,
    CalculatorError,
    Contract,
    NodeContext,
    PacketType,
    Setting,
    options_of,
)
from kfs.servables.graph.spec import GraphError, NodeSpec
from kfs.tensors.arrays import Array

CLASSIFICATIONS: PacketType = "mediapipe::ClassificationList"
DETECTIONS: PacketType = "std::vector<mediapipe::Detection>"

_CLASSIFY = pb.OpenVINOTensorsToClassificationCalculatorOptions
_DETECT = pb.OpenVINOTensorsToDetectionsCalculatorOptions


@dataclass(frozen=True)
class Classification:
    """One class and how likely it is; `label` is empty without a label map."""

    index: int
    score: float
    label: str


@dataclass(frozen=True)
class Detection:
    """One object: its class and its box, in parts of the image's width and height.

    Attributes:
        keypoints: x and y of each.
    """

    label_id: int
    score: float
    xmin: float
    ymin: float
    width: float
    height: float
    keypoints: tuple[tuple[float, float], ...] = ()


def _contract(contract: Contract, tag: str, kind: PacketType) -> None:
    node = contract.node
    if [port.tag for port in node.inputs] != ["TENSORS"]:
        raise GraphError("expected one input_stream with the tag TENSORS")
    if [port.tag for port in node.outputs] != [tag]:
        raise GraphError(f"expected one output_stream with the tag {tag}")
    contract.inputs[node.inputs[0]] = OV_TENSORS
    contract.outputs[node.outputs[0]] = kind
    contract.is_offset_zero = True


class OpenVINOTensorsToClassificationCalculator(Calculator):
    """TENSORS, a list of one FP32 [1,N], to CLASSIFICATIONS, the likeliest first."""

    @classmethod
    def contract(cls, contract: Contract) -> None:
        _contract(contract, "CLASSIFICATIONS", CLASSIFICATIONS)

    @classmethod
    def prepare(cls, node: NodeSpec, setting: Setting) -> dict[int, str]:
        """The label map: from the options, or a file with a label in each line."""
        options = options_of(node, _CLASSIFY)
        if not options.label_map_path:
            return {entry.id: entry.label for entry in options.label_map.entries}
        path = setting.folder / options.label_map_path
        try:
            check_is_file(path)
            return dict(enumerate(path.read_text(encoding="utf-8").splitlines()))
        except (OSError, ValueError) as error:
            raise GraphError(f"node {node.name}, label_map_path: {error}") from None

    def process(self, context: NodeContext) -> None:
        tensors = context.input("TENSORS")
        if tensors is None:
            return
        options = options_of(context.node, _CLASSIFY)
        if len(tensors) != 1 or tensors[0].ndim != 2 or tensors[0].shape[0] != 1:
            shapes = [tensor.shape for tensor in tensors]
            raise CalculatorError(f"expected one tensor [1,N]; found {shapes}")
        scores: Array = tensors[0][0].astype(np.float32)
        if options.binary_classification:
            if len(scores) != 1:
                raise CalculatorError(f"expected one score for two classes; found {len(scores)}")
            scores = np.array([scores[0], 1 - scores[0]], np.float32)
        context.send(_classify(scores, options, context.resource), "CLASSIFICATIONS")


def _classify(
    scores: Array, options: pb.OpenVINOTensorsToClassificationCalculatorOptions,
    labels: Mapping[int, str],
) -> list[Classification]:  # fmt: skip
    order = np.argsort(-scores, kind="stable")
    if options.HasField("min_score_threshold"):
        order = order[scores[order] >= options.min_score_threshold]
    if options.top_k > 0:
        order = order[: options.top_k]
    return [
        Classification(int(index), float(scores[index]), labels.get(int(index), ""))
        for index in order
    ]


class OpenVINOTensorsToDetectionsCalculator(Calculator):
    """TENSORS to DETECTIONS.

    Two tensors are raw boxes [1,B,C] and scores [1,B,K], decoded with the anchors of a third one
    [B,4] or of the side packet ANCHORS; each anchor is the centre y and x, height and width. Four
    tensors are boxes [1,N,4] with ymin, xmin, ymax and xmax, classes, scores, and how many.
    """

    @classmethod
    def contract(cls, contract: Contract) -> None:
        _contract(contract, "DETECTIONS", DETECTIONS)
        options = options_of(contract.node, _DETECT)
        for name in ("num_classes", "num_boxes", "num_coords"):
            if getattr(options, name) <= 0:
                raise GraphError(f"expected {name} of at least 1 in the options")

    def process(self, context: NodeContext) -> None:
        tensors = context.input("TENSORS")
        if tensors is None:
            return
        options = options_of(context.node, _DETECT)
        try:
            if len(tensors) == 4:
                found = list(_after_suppression(tensors, options))
            else:
                found = list(_decode(tensors, context.side_packet("ANCHORS"), options))
        except (ValueError, IndexError) as error:
            shapes = [tensor.shape for tensor in tensors]
            raise CalculatorError(f"tensors {shapes} do not fit the options: {error}") from error
        context.send(found, "DETECTIONS")


def _after_suppression(
    tensors: list[Array], options: pb.OpenVINOTensorsToDetectionsCalculatorOptions
) -> Iterator[Detection]:
    boxes, classes, scores, count = tensors
    for at in range(int(count.flat[0])):
        yield from _kept(
            boxes.reshape(-1, 4)[at], int(classes.flat[at]), float(scores.flat[at]), (), options
        )


def _decode(
    tensors: list[Array], anchors: Any, options: pb.OpenVINOTensorsToDetectionsCalculatorOptions
) -> Iterator[Detection]:
    if len(tensors) == 3:
        anchors = tensors[2]
    if len(tensors) not in (2, 3) or anchors is None:
        raise CalculatorError(
            f"expected 2 tensors with ANCHORS, 3 tensors with anchors, or 4; found {len(tensors)}"
        )
    n_boxes = options.num_boxes
    raw = np.asarray(tensors[0], np.float32).reshape(n_boxes, options.num_coords)
    scores = np.asarray(tensors[1], np.float32).reshape(n_boxes, options.num_classes).copy()
    anchors = np.asarray(anchors, np.float32).reshape(n_boxes, 4)
    if options.sigmoid_score:
        if options.HasField("score_clipping_thresh"):
            limit = options.score_clipping_thresh
            scores = np.clip(scores, -limit, limit)
        scores = 1 / (1 + np.exp(-scores))
    ignored = [index for index in options.ignore_classes if 0 <= index < options.num_classes]
    scores[:, ignored] = -np.inf
    boxes = _boxes(raw, anchors, options)
    best = scores.argmax(axis=1)
    for at in range(n_boxes):
        yield from _kept(
            boxes[at], int(best[at]), float(scores[at, best[at]]),
            _keypoints(raw[at], anchors[at], options), options,
        )  # fmt: skip


def _boxes(
    raw: Array, anchors: Array, options: pb.OpenVINOTensorsToDetectionsCalculatorOptions
) -> Array:
    """ymin, xmin, ymax and xmax of each box."""
    coords = raw[:, options.box_coord_offset : options.box_coord_offset + 4]
    if coords.shape[1] != 4:
        raise ValueError("a box needs 4 coordinates from box_coord_offset on")
    columns = (1, 0, 3, 2) if options.reverse_output_order else (0, 1, 2, 3)
    y, x, h, w = (coords[:, column] for column in columns)
    y = y / options.y_scale * anchors[:, 2] + anchors[:, 0]
    x = x / options.x_scale * anchors[:, 3] + anchors[:, 1]
    h, w = h / options.h_scale, w / options.w_scale
    if options.apply_exponential_on_box_size:
        h, w = np.exp(h), np.exp(w)
    h, w = h * anchors[:, 2], w * anchors[:, 3]
    boxes: Array = np.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], axis=1)
    return boxes


def _keypoints(
    raw: Array, anchor: Array, options: pb.OpenVINOTensorsToDetectionsCalculatorOptions
) -> tuple[tuple[float, float], ...]:
    points = []
    for number in range(options.num_keypoints):
        at = options.keypoint_coord_offset + number * options.num_values_per_keypoint
        first, second = float(raw[at]), float(raw[at + 1])
        x, y = (first, second) if options.reverse_output_order else (second, first)
        y = y / options.y_scale * float(anchor[2]) + float(anchor[0])
        x = x / options.x_scale * float(anchor[3]) + float(anchor[1])
        points.append((x, 1 - y if options.flip_vertically else y))
    return tuple(points)


def _kept(
    box: Array, label_id: int, score: float, keypoints: tuple[tuple[float, float], ...],
    options: pb.OpenVINOTensorsToDetectionsCalculatorOptions,
) -> Iterator[Detection]:  # fmt: skip
    """The detection, unless it is too unlikely, or no box."""
    if options.HasField("min_score_thresh") and not score >= options.min_score_thresh:
        return
    ymin, xmin, ymax, xmax = map(float, box)
    if not np.isfinite(box).all() or ymax < ymin or xmax < xmin:
        return
    top = 1 - ymax if options.flip_vertically else ymin
    yield Detection(label_id, score, xmin, top, xmax - xmin, ymax - ymin, keypoints)
