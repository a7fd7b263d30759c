"""Graphs: calculators that pass packets along streams, read from MediaPipe's graph files."""

from kfs.servables.graph.calculator import (
    ANY,
    BOOL,
    IMAGE,
    MP_TENSOR,
    MP_TENSORS,
    OV_TENSOR,
    OV_TENSORS,
    PY_TENSOR,
    REQUEST,
    RESPONSE,
    TF_TENSOR,
    TF_TENSORS,
    Calculator,
    CalculatorError,
    Contract,
    NodeContext,
    Setting,
    options_of,
)
from kfs.servables.graph.graph import Graph
from kfs.servables.graph.outline import outline
from kfs.servables.graph.packets import ImageFrame
from kfs.servables.graph.spec import GraphError, NodeSpec, Port

__all__ = [
    "ANY", "BOOL", "IMAGE", "MP_TENSOR", "MP_TENSORS", "OV_TENSOR", "OV_TENSORS", "PY_TENSOR",
    "REQUEST", "RESPONSE", "TF_TENSOR", "TF_TENSORS", "Calculator", "CalculatorError", "Contract",
    "Graph", "GraphError", "ImageFrame", "NodeContext", "NodeSpec", "Port", "Setting", "options_of",
    "outline",
]  # fmt: skip
