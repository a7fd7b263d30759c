"""From the inputs of a request to the packets of a graph.

The checks and their texts are those of OpenVINO Model Server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from kfs import errors, pyovms
from kfs._fast import contents
from kfs._fast.memory import TensorView
from kfs._fast.wire import InputTensor, Request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.datatypes import DATATYPES, Datatype
from kfs.errors import ServingError, Status, ValueRangeError
from kfs.servables.binding import hint_at_shared_memory
from kfs.servables.graph.calculator import (
    IMAGE,
    MP_TENSOR,
    OV_TENSOR,
    PY_TENSOR,
    REQUEST,
    TF_TENSOR,
    PacketType,
)
from kfs.servables.graph.packets import FORMAT_DATATYPES, FORMATS, ImageFrame
from kfs.signature import format_shape
from kfs.tensors.arrays import Array, array_over

# Neither numpy nor Python's own buffers have more dimensions.
_MAX_RANK = 64

_IMAGE_DATATYPES = {
    "UINT8": (1, False), "INT8": (1, False), "UINT16": (2, False), "INT16": (2, False),
    "FP16": (2, False), "FP32": (4, True),
}  # fmt: skip
_MP_DATATYPES = ("FP32", "FP16", "INT32", "INT8", "UINT8", "BOOL")


def read_packet(request: Request, index: int, kind: PacketType) -> Any:
    """The value of one input of a request.

    Raises:
        ServingError: INVALID_ARGUMENT; what was expected, what was found, and the input's name.
    """
    try:
        return _READERS[kind](request, index)
    except ServingError as error:
        raise hint_at_shared_memory(error, request) from None


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
    name = FORMATS.get((size, is_float, channels))
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
    datatype = DATATYPES[FORMAT_DATATYPES[name]]
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
