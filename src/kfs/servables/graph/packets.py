"""Packets at the ends of a graph: from requests, and into responses.

The checks and their texts are those of OpenVINO Model Server.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kfs import errors, pyovms
from kfs._fast import contents
from kfs._fast.memory import TensorView
from kfs._fast.wire import InputTensor, Parameter, Request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.datatypes import BY_NUMPY, DATATYPES, Datatype
from kfs.errors import ServingError, Status, ValueRangeError
from kfs.servables.graph.calculator import (
    IMAGE,
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    MP_TENSOR,
    MP_TENSORS,
    OV_TENSOR,
    OV_TENSORS,
    PY_TENSOR,
    REQUEST,
    RESPONSE,
    TF_TENSOR,
    TF_TENSORS,
    PacketType,
)
from kfs.servables.graph.plan import Plan
from kfs.signature import format_shape
from kfs.tensors.arrays import Array, StringTensor, array_over

#: The parameter that carries the time of a packet.
TIMESTAMP = "OVMS_MP_TIMESTAMP"

#: Side packets that the server gives, whatever a client says.
SERVER_SIDE_PACKETS = frozenset(
    ("llm", "llm_ctx", "pipes", "embeddings_servable", "rerank_servable", "s2t_servable",
     "t2s_servable")
)  # fmt: skip
_RESERVED = "py"

# Neither numpy nor Python's own buffers have more dimensions.
_MAX_RANK = 64

_SPECIAL_TIMESTAMPS = {
    -(1 << 63): "Timestamp::Unset()",
    -(1 << 63) + 1: "Timestamp::Unstarted()",
    -(1 << 63) + 2: "Timestamp::PreStream()",
    (1 << 63) - 3: "Timestamp::PostStream()",
    (1 << 63) - 2: "Timestamp::OneOverPostStream()",
    (1 << 63) - 1: "Timestamp::Done()",
}


@dataclass(frozen=True)
class ImageFrame:
    """An image.

    Attributes:
        format: MediaPipe's name of its format, such as SRGB.
        pixels: rows, columns and channels; C-contiguous.
    """

    format: str
    pixels: Array


#: The values of packets, as far as the server knows their types.
VALUES: dict[PacketType, type | tuple[type, ...]] = {
    OV_TENSOR: (np.ndarray, StringTensor), OV_TENSORS: (list, tuple),
    MP_TENSOR: np.ndarray, MP_TENSORS: (list, tuple),
    TF_TENSOR: np.ndarray, TF_TENSORS: (list, tuple),
    IMAGE: ImageFrame, PY_TENSOR: pyovms.Tensor,
    REQUEST: pb.ModelInferRequest, RESPONSE: pb.ModelInferResponse,
}  # fmt: skip

# What a packet takes beside its values, about.
_PACKET_NBYTES = 512


def packet_nbytes(value: Any) -> int:
    """What a packet takes while it waits, as far as the server knows its type."""
    return _PACKET_NBYTES + _values_nbytes(value)


def _values_nbytes(value: Any) -> int:
    match value:
        case np.ndarray():
            return value.nbytes
        case pyovms.Tensor():
            return value.size
        case ImageFrame():
            return value.pixels.nbytes
        case list() | tuple():
            return sum(map(_values_nbytes, value))
    return 0


#: (bytes per value, is a float, channels) of formats with a name.
_FORMATS = {
    (1, False, 1): "GRAY8", (1, False, 3): "SRGB", (1, False, 4): "SRGBA",
    (2, False, 1): "GRAY16", (2, False, 3): "SRGB48", (2, False, 4): "SRGBA64",
    (4, True, 1): "VEC32F1", (4, True, 2): "VEC32F2", (4, True, 4): "VEC32F4",
}  # fmt: skip
_IMAGE_DATATYPES = {
    "UINT8": (1, False), "INT8": (1, False), "UINT16": (2, False), "INT16": (2, False),
    "FP16": (2, False), "FP32": (4, True),
}  # fmt: skip
#: What frames are sent as; the sign and the kind of the values are not kept.
_FORMAT_DATATYPES = {
    "GRAY8": "UINT8", "SRGB": "UINT8", "SRGBA": "UINT8",
    "GRAY16": "UINT16", "SRGB48": "UINT16", "SRGBA64": "UINT16",
    "VEC32F1": "FP32", "VEC32F2": "FP32", "VEC32F4": "FP32",
}  # fmt: skip
_MP_DATATYPES = ("FP32", "FP16", "INT32", "INT8", "UINT8", "BOOL")


def image_format(pixels: Array) -> str | None:
    """The name of the format of (height, width, channels); None when there is none."""
    is_float = pixels.dtype == np.float32
    return _FORMATS.get((pixels.itemsize, is_float, pixels.shape[2]))


# Parameters.


class Clock:
    """Timestamps of packets without one: microseconds, always later than the last."""

    def __init__(self) -> None:
        self._last = MIN_TIMESTAMP

    def timestamp(self, request: Request) -> int:
        """The time of a request's packets.

        Raises:
            ServingError: INVALID_ARGUMENT, the parameter is no allowed time.
        """
        parameter = request.parameters.get(TIMESTAMP)
        if parameter is None:
            self._last = max(time.time_ns() // 1000, self._last + 1)
            return self._last
        value = parameter.value
        if parameter.kind != "int64_param" or not isinstance(value, int):
            raise ServingError(
                errors.INVALID_TIMESTAMP,
                f"Invalid timestamp format in request parameter {TIMESTAMP}. Should be int64",
            )
        if not MIN_TIMESTAMP <= value <= MAX_TIMESTAMP:
            raise ServingError(errors.INVALID_TIMESTAMP, _SPECIAL_TIMESTAMPS[value])
        self._last = max(self._last, value)
        return value


def side_packets(request: Request, *, is_queued: bool) -> dict[str, Any]:
    """What the parameters of a request give to nodes, by name.

    Raises:
        ServingError: FAILED_PRECONDITION, the name is reserved, or the graph takes none;
            INVALID_ARGUMENT, a value of a kind that nodes cannot take.
    """
    found: dict[str, Any] = {}
    for name, parameter in request.parameters.items():
        if name == TIMESTAMP:
            continue
        if is_queued:
            raise ServingError(
                errors.GRAPH_INITIALIZATION_ERROR,
                "Input side packets are not supported for graphs with queue enabled",
            )
        if name == _RESERVED:
            raise ServingError(
                errors.GRAPH_INITIALIZATION_ERROR,
                f"Incoming input side packet: {name} is special reserved name and cannot be used",
            )
        if parameter.kind not in ("string_param", "int64_param", "bool_param"):
            raise ServingError(
                errors.INVALID_PARAMETER,
                f"Expected: string_param, int64_param or bool_param; Actual: "
                f"{parameter.kind or 'nothing'}; parameter name: {name}",
            )
        if name not in SERVER_SIDE_PACKETS:
            found[name] = parameter.value
    return found


# Requests.


def read_packet(request: Request, index: int, kind: PacketType) -> Any:
    """The value of one input of a request.

    Raises:
        ServingError: INVALID_ARGUMENT; what was expected, what was found, and the input's name.
    """
    return _READERS[kind](request, index)


def _read_request(request: Request, index: int) -> pb.ModelInferRequest:
    return pb.ModelInferRequest.FromString(request.data)


def _read_ov_tensor(request: Request, index: int) -> Array:
    tensor = request.inputs[index]
    _check_sizes(tensor, low=0, what="Negative")
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is None or not datatype.itemsize:
        view = contents.raw_view(request, index) if request.n_raw else None
        raise _fault(
            errors.INVALID_CONTENT_SIZE,
            f"Expected: a datatype with values of a fixed size; Actual: {tensor.datatype}"
            + ("" if view is None else f", {view.nbytes} bytes"),
            tensor,
        )
    return _read_values(request, index, datatype)


def _read_values(request: Request, index: int, datatype: Datatype) -> Array:
    tensor = request.inputs[index]
    n_values = _n_values(tensor, datatype.itemsize)
    if request.n_raw:
        view = contents.raw_view(request, index)
        _check_nbytes(view, n_values * datatype.itemsize, tensor)
    else:
        view = _contents_view(request, index, datatype, n_values)
    return array_over(view, datatype, tensor.shape)


def _contents_view(request: Request, index: int, datatype: Datatype, n_values: int) -> TensorView:
    tensor = request.inputs[index]
    found = contents.count(request, index, datatype.field_number)
    if found != n_values:
        raise _fault(
            errors.INVALID_VALUE_COUNT,
            f"Expected: {n_values} values; Actual: {found} values",
            tensor,
        )
    try:
        return contents.contents_view(request, index, datatype.name)
    except ValueRangeError as error:
        raise _fault(
            errors.INVALID_VALUE,
            f"Expected: values of {datatype.name}; Actual: {error.value} at index {error.index}",
            tensor,
        ) from None


def _read_mp_tensor(request: Request, index: int) -> Array:
    tensor = request.inputs[index]
    if tensor.datatype not in _MP_DATATYPES:
        raise _fault(
            errors.INVALID_PRECISION,
            f"Not supported precision for Mediapipe tensor deserialization: {tensor.datatype}",
            tensor,
        )
    _check_sizes(tensor, low=1, what="Negative or zero")
    return _read_values(request, index, DATATYPES[tensor.datatype])


def _read_tf_tensor(request: Request, index: int) -> Array:
    tensor = request.inputs[index]
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is None or not datatype.itemsize:
        raise _fault(
            errors.INVALID_PRECISION,
            f"Not supported precision for Tensorflow tensor deserialization: {tensor.datatype}",
            tensor,
        )
    _check_sizes(tensor, low=0, what="Negative")
    if request.n_raw:
        expected = _n_values(tensor, datatype.itemsize) * datatype.itemsize
        found = contents.raw_view(request, index).nbytes
        if found != expected:
            raise _fault(
                errors.INVALID_CONTENT_SIZE,
                "Mediapipe deserialization content size mismatch; allocated TF Tensor: "
                f"{expected} bytes vs KServe buffer: {found} bytes",
                tensor,
            )
    return _read_values(request, index, datatype)


def _read_image(request: Request, index: int) -> ImageFrame:
    tensor = request.inputs[index]
    if not request.n_raw:
        raise ServingError(
            errors.GRAPH_EXECUTION_ERROR,
            f"Expected: raw_input_contents; Actual: contents; input name: {tensor.name}",
        )
    _check_image_shape(tensor)
    size, is_float = _IMAGE_DATATYPES.get(tensor.datatype, (0, False))
    channels = tensor.shape[2]
    name = _FORMATS.get((size, is_float, channels))
    if name is None:
        raise ServingError(
            errors.INVALID_INPUT_FORMAT,
            "Invalid KFS request datatype, conversion to Mediapipe ImageFrame format failed. "
            f"Expected: a datatype of {', '.join(_IMAGE_DATATYPES)} with channels it has; Actual: "
            f"{tensor.datatype} with {channels}; input name: {tensor.name}",
        )
    expected = _n_values(tensor, size) * size
    view = contents.raw_view(request, index)
    if view.nbytes != expected:
        raise _fault(
            errors.INVALID_CONTENT_SIZE,
            f"Invalid Mediapipe Image input buffer size. Actual: {view.nbytes}; "
            f"Expected: {expected}",
            tensor,
        )
    datatype = DATATYPES[_FORMAT_DATATYPES[name]]
    return ImageFrame(name, array_over(view, datatype, tensor.shape))


def _check_image_shape(tensor: InputTensor) -> None:
    if len(tensor.shape) != 3:
        raise _fault(
            errors.INVALID_SHAPE,
            f"Invalid Mediapipe Image input shape size. Expected: 3; Actual: {len(tensor.shape)}",
            tensor,
        )
    for what, size in zip(("height", "width", "number of channels"), tensor.shape, strict=True):
        if size <= 0:
            raise _fault(
                errors.INVALID_SHAPE,
                f"Invalid Mediapipe Image input {what}. Expected greater than 0; Actual: {size}; "
                "Expected layout - HWC.",
                tensor,
            )


def _read_py_tensor(request: Request, index: int) -> pyovms.Tensor:
    tensor = request.inputs[index]
    _check_sizes(tensor, low=0, what="Negative")
    datatype = DATATYPES.get(tensor.datatype)
    is_known = datatype is not None and datatype.itemsize > 0
    if request.n_raw:
        view = contents.raw_view(request, index)
        if datatype is not None and is_known:
            expected = _n_values(tensor, datatype.itemsize) * datatype.itemsize
            if view.nbytes != expected:
                raise _fault(
                    errors.INVALID_CONTENT_SIZE,
                    f"Invalid Python tensor buffer size. Actual: {view.nbytes}; "
                    f"Expected: {expected}",
                    tensor,
                )
        data: Any = view
    elif datatype is not None and is_known:
        n_values = _n_values(tensor, datatype.itemsize)
        data = _contents_view(request, index, datatype, n_values)
    elif tensor.datatype == "BYTES":
        items = [bytes(item) for item in contents.bytes_items(request, index)]
        data = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    else:
        raise _fault(
            errors.INVALID_PRECISION,
            "Provided datatype is invalid, custom datatypes are allowed only when "
            "raw_input_contents is used.",
            tensor,
        )
    return pyovms.from_server(tensor.name, data, tensor.shape, tensor.datatype)


_READERS: dict[PacketType, Callable[[Request, int], Any]] = {
    OV_TENSOR: _read_ov_tensor,
    MP_TENSOR: _read_mp_tensor,
    TF_TENSOR: _read_tf_tensor,
    IMAGE: _read_image,
    PY_TENSOR: _read_py_tensor,
    REQUEST: _read_request,
}


def _fault(status: Status, details: str, tensor: InputTensor) -> ServingError:
    return ServingError(status, f"{details}; input name: {tensor.name}")


def _check_sizes(tensor: InputTensor, *, low: int, what: str) -> None:
    if len(tensor.shape) > _MAX_RANK:
        raise _fault(
            errors.INVALID_RANK,
            f"Expected: at most {_MAX_RANK} dimensions; Actual: {len(tensor.shape)}",
            tensor,
        )
    if any(size < low for size in tensor.shape):
        raise _fault(
            errors.INVALID_SHAPE,
            f"{what} dimension size is not acceptable: {format_shape(tensor.shape)}",
            tensor,
        )


def _n_values(tensor: InputTensor, itemsize: int) -> int:
    product = 1
    for size in tensor.shape:
        product *= size or 1  # no array can have them, not even without a value
    if product * itemsize > sys.maxsize:
        raise _fault(
            errors.INVALID_CONTENT_SIZE,
            "Provided shape and datatype declare too large buffer.",
            tensor,
        )
    return 0 if 0 in tensor.shape else product


def _check_nbytes(view: TensorView, expected: int, tensor: InputTensor) -> None:
    if view.nbytes != expected:
        raise _fault(
            errors.INVALID_CONTENT_SIZE,
            f"Expected: {expected} bytes; Actual: {view.nbytes} bytes",
            tensor,
        )


# Responses.


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


def told_type(value: object) -> str:
    """The type of a value, for people to read."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{name} of {value.dtype}" if isinstance(value, np.ndarray) else name


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
    datatype = _FORMAT_DATATYPES.get(value.format, "UINT8")
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


def timestamp_parameter(timestamp: int) -> dict[str, Parameter]:
    return {TIMESTAMP: Parameter("int64_param", timestamp)}
