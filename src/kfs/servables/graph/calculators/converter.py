"""PyTensorOvTensorConverterCalculator: between tensors of handlers and those of models."""

from __future__ import annotations

import numpy as np

from kfs import pyovms
from kfs._proto import calculator_graph_pb2 as pb
from kfs.datatypes import BY_NUMPY
from kfs.errors import Code
from kfs.servables.graph.calculator import (
    OV_TENSOR,
    PY_TENSOR,
    Calculator,
    CalculatorError,
    Contract,
    NodeContext,
    options_of,
)
from kfs.servables.graph.spec import GraphError
from kfs.tensors.arrays import Array, StringTensor, Tensor

_OPTIONS = pb.PyTensorOvTensorConverterCalculatorOptions
_OV, _PY = "OVTENSOR", "OVMS_PY_TENSOR"
_BY_NAME = {row.name: row for row in BY_NUMPY.values() if row.itemsize}


class PyTensorOvTensorConverterCalculator(Calculator):
    """One input and one output, OVTENSOR to OVMS_PY_TENSOR or the reverse."""

    @classmethod
    def contract(cls, contract: Contract) -> None:
        node = contract.node
        tags = [port.tag for port in node.inputs], [port.tag for port in node.outputs]
        if tags not in (([_OV], [_PY]), ([_PY], [_OV])):
            raise GraphError(
                f"expected one input and one output, {_OV} to {_PY} or {_PY} to {_OV}; found "
                f"{', '.join(tags[0])} to {', '.join(tags[1])}"
            )
        if tags[0] == [_OV] and _PY not in options_of(node, _OPTIONS).tag_to_output_tensor_names:
            raise GraphError(
                f"expected tag_to_output_tensor_names with the key {_PY}: the name of the tensor"
            )
        types = {_OV: OV_TENSOR, _PY: PY_TENSOR}
        contract.inputs[node.inputs[0]] = types[node.inputs[0].tag]
        contract.outputs[node.outputs[0]] = types[node.outputs[0].tag]

    def process(self, context: NodeContext) -> None:
        value = context.inputs[0]
        if value is None:
            return
        if context.node.inputs[0].tag == _OV:
            name = options_of(context.node, _OPTIONS).tag_to_output_tensor_names[_PY]
            context.send(_to_python(value, name), _PY)
        else:
            context.send(_from_python(value), _OV)


def _to_python(tensor: Tensor, name: str) -> pyovms.Tensor:
    row = None if isinstance(tensor, StringTensor) else BY_NUMPY.get(tensor.dtype.str)
    if row is None or not row.itemsize or isinstance(tensor, StringTensor):
        found = "STRING" if isinstance(tensor, StringTensor) else str(tensor.dtype)
        raise CalculatorError(
            f"Undefined precision in input tensor: {found}", Code.INVALID_ARGUMENT
        )
    return pyovms.from_server(name, tensor.tobytes(), tensor.shape, row.name)


def _from_python(tensor: pyovms.Tensor) -> Array:
    row = _BY_NAME.get(tensor.datatype)
    if row is None:
        raise CalculatorError(
            f"Undefined precision in input python tensor: {tensor.datatype}", Code.INVALID_ARGUMENT
        )
    if any(size < 0 for size in tensor.shape):
        raise CalculatorError(
            f"expected sizes that are not negative; found {tensor.shape}", Code.INVALID_ARGUMENT
        )
    nbytes = row.itemsize
    for size in tensor.shape:
        nbytes *= size
    if nbytes != tensor.size:
        raise CalculatorError(
            f"python buffer size: {tensor.size}; OV tensor size: {nbytes}; mismatch",
            Code.INVALID_ARGUMENT,
        )
    try:
        # A copy: the handler may change its memory, and OpenVINO takes none that is read-only.
        values: Array = np.ndarray(tensor.shape, row.numpy, memoryview(tensor)).copy()
    except ValueError as error:  # too many dimensions, or such as could not be addressed
        raise CalculatorError(str(error), Code.INVALID_ARGUMENT) from None
    return values
