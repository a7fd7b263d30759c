"""The models to compare with: from FP32 `input` to FP32 `output`, weights made up, seed fixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as op

_RESNET_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


def save(name: str, folder: Path) -> Path:
    """Save the model in the form of a repository, `folder/1/model.xml`."""
    (folder / "1").mkdir(parents=True)
    path = folder / "1" / "model.xml"
    ov.save_model({"identity": _identity, "resnet50": _resnet50}[name](), path)
    return path


def _model(node: ov.Node, parameter: ov.Node) -> ov.Model:
    parameter.output(0).set_names({"input"})
    result = op.result(node)
    result.get_output_tensor(0).set_names({"output"})
    return ov.Model([result], [parameter])


def _identity() -> ov.Model:
    """x + 0, which OpenVINO makes a copy of: the cheapest model there is."""
    node = op.parameter([-1, -1], ov.Type.f32)
    return _model(op.add(node, op.constant(np.float32(0))), node)


def _resnet50() -> ov.Model:
    """The layers of ResNet-50, batch normalization folded."""
    random = np.random.default_rng(50)

    def conv(node: ov.Node, n_in: int, n_out: int, size: int, stride: int) -> ov.Node:
        scale = np.sqrt(1 / (n_in * size * size))
        weights = random.standard_normal((n_out, n_in, size, size), np.float32) * scale
        pad = [size // 2] * 2
        out = op.convolution(
            node, op.constant(weights.astype(np.float32)), [stride] * 2, pad, pad, [1, 1]
        )
        return op.add(out, op.constant(np.zeros((1, n_out, 1, 1), np.float32)))

    parameter = op.parameter([1, 3, 224, 224], ov.Type.f32)
    node = op.relu(conv(parameter, 3, 64, 7, 2))
    node = op.max_pool(node, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
    n_in = 64
    for stage, (width, n_blocks) in enumerate(_RESNET_STAGES):
        for block in range(n_blocks):
            stride = 2 if block == 0 and stage else 1
            short = conv(node, n_in, 4 * width, 1, stride) if block == 0 else node
            node = op.relu(conv(node, n_in, width, 1, 1))
            node = op.relu(conv(node, width, width, 3, stride))
            node = op.relu(op.add(conv(node, width, 4 * width, 1, 1), short))
            n_in = 4 * width
    node = op.reduce_mean(node, op.constant(np.array([2, 3])), False)
    weights = random.standard_normal((n_in, 1000), np.float32) / np.float32(np.sqrt(n_in))
    return _model(op.matmul(node, op.constant(weights), False, False), parameter)
