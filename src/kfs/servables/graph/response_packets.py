"""From the packets that leave a graph to the outputs of a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kfs import errors, pyovms
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.datatypes import BY_NUMPY
from kfs.errors import ServingError
from kfs.servables.graph.calculator import (
    IMAGE,
    MP_TENSOR,
    OV_TENSOR,
    PY_TENSOR,
    RESPONSE,
    TF_TENSOR,
    PacketType,
)
from kfs.servables.graph.packets import FORMAT_DATATYPES, ImageFrame, told_type
from kfs.servables.graph.parameters import TIMESTAMP
from kfs.servables.graph.plan import Plan
from kfs.tensors.arrays import StringTensor


class Output(NamedTuple):
    """One output of a response, as the response writer takes it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any


def write_packet(plan: Plan, position: int, value: Any) -> Output:
    """A packet that leaves the graph.

    Raises:
        ServingError: the packet is not of the type that the output's tag says.
    """
    port = plan.outputs[position]
    output = _WRITERS[port.type](port.name, value)
    if output is None:
        raise ServingError(
            errors.GRAPH_EXECUTION_ERROR,
            f'INTERNAL: stream "{port.name}": expected {port.type}; found {told_type(value)}',
        )
    return output


def _write_array(name: str, value: Any) -> Output | None:
    if isinstance(value, StringTensor):
        return Output(name, "BYTES", value.shape, value.strings)
    if not isinstance(value, np.ndarray) or not _is_plain(value.dtype):
        return None
    row = BY_NUMPY.get(value.dtype.str)
    datatype = "INVALID" if row is None else row.name
    return Output(name, datatype, value.shape, np.ascontiguousarray(value).reshape(value.shape))


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether its memory is the values: not the addresses of objects, and not dates."""
    return not dtype.hasobject and dtype.kind not in "mM"


def _write_image(name: str, value: Any) -> Output | None:
    if not isinstance(value, ImageFrame):
        return None
    datatype = FORMAT_DATATYPES.get(value.format, "UINT8")
    return Output(name, datatype, value.pixels.shape, np.ascontiguousarray(value.pixels))


def _write_py_tensor(name: str, value: Any) -> Output | None:
    if not isinstance(value, pyovms.Tensor):
        return None
    return Output(value.name, value.datatype, value.shape, value)


_WRITERS: dict[PacketType, Callable[[str, Any], Output | None]] = {
    OV_TENSOR: _write_array,
    MP_TENSOR: _write_array,
    TF_TENSOR: _write_array,
    IMAGE: _write_image,
    PY_TENSOR: _write_py_tensor,
}


def write_response_message(
    value: Any, name: str, id: str, timestamp: int, *, stream: bool
) -> bytes:
    """The packet of a RESPONSE stream: the whole response, but for what the server says in it.

    Raises:
        ServingError: the packet is something else.
    """
    if not isinstance(value, pb.ModelInferResponse):
        raise ServingError(
            errors.GRAPH_EXECUTION_ERROR,
            f"INTERNAL: expected {RESPONSE}, a ModelInferResponse; found "
            f"{type(value).__qualname__}",
        )
    value.model_name, value.model_version, value.id = name, "1", id
    value.parameters[TIMESTAMP].int64_param = timestamp
    if stream:
        return pb.ModelStreamInferResponse(infer_response=value).SerializeToString()
    return value.SerializeToString()
