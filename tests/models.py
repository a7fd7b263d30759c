"""Models for the tests, made with OpenVINO's own opset and saved as IR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as op

NUMERIC = {
    "BOOL": ("boolean", np.bool_),
    "INT8": ("i8", np.int8),
    "INT16": ("i16", np.int16),
    "INT32": ("i32", np.int32),
    "INT64": ("i64", np.int64),
    "UINT8": ("u8", np.uint8),
    "UINT16": ("u16", np.uint16),
    "UINT32": ("u32", np.uint32),
    "UINT64": ("u64", np.uint64),
    "FP16": ("f16", np.float16),
    "FP32": ("f32", np.float32),
    "FP64": ("f64", np.float64),
}


def parameter(name: str, shape: Sequence[object], element: str, layout: str = "") -> ov.Node:
    node = op.parameter(ov.PartialShape(list(shape)), getattr(ov.Type, element), name=name)
    node.output(0).set_names({name})
    if layout:
        node.set_layout(ov.Layout(layout))
    return node


def save(folder: Path, inputs: Sequence[ov.Node], outputs: dict[str, ov.Node]) -> Path:
    """Save a model as `folder/model.xml` and give back `folder`."""
    results = []
    for name, node in outputs.items():
        result = op.result(node)
        result.get_output_tensor(0).set_names({name} if name else set())
        results.append(result)
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(ov.Model(results, list(inputs)), folder / "model.xml", compress_to_fp16=False)
    return folder


def dummy(folder: Path, shape: Sequence[object] = (1, 10)) -> Path:
    """b FP32 -> a = b + 1."""
    b = parameter("b", shape, "f32")
    return save(folder, [b], {"a": op.add(b, op.constant(np.float32(1)))})


def identity(
    folder: Path, datatype: str, shape: Sequence[object], layout: str = "", output: str = ""
) -> Path:
    """input -> the very same tensor, which so has one name, or a copy of it named `output`."""
    element = "string" if datatype == "BYTES" else NUMERIC[datatype][0]
    node = parameter("input", shape, element, layout)
    if not output:
        return save(folder, [node], {"input": node})
    return save(folder, [node], {output: op.reshape(node, op.shape_of(node), False)})


def add_two(folder: Path) -> Path:
    """input1, input2 FP32 [1,10] -> sum and difference."""
    first, second = parameter("input1", [1, 10], "f32"), parameter("input2", [1, 10], "f32")
    return save(
        folder,
        [first, second],
        {"sum": op.add(first, second), "difference": op.subtract(first, second)},
    )


def slow(folder: Path) -> Path:
    """b FP32 [600,600] -> a, in a good part of a second: a long chain of products of matrices."""
    b = parameter("b", [600, 600], "f32")
    node = b
    for _ in range(150):
        node = op.tanh(op.matmul(node, b, False, False))
    return save(folder, [b], {"a": node})
