"""Request x Signature -> TensorMap. Every complaint about a request's inputs is made here.

Everything is checked before memory is made. Inputs are looked at in the order of the signature
(ascending names) and the first fault ends the call; the order of the checks and their texts are
those of OpenVINO Model Server.
"""

from __future__ import annotations

import math
import sys

from kfs import errors
from kfs._fast import contents
from kfs._fast.strings import StringArray
from kfs._fast.wire import InputTensor, Request
from kfs.datatypes import DATATYPES
from kfs.errors import ServingError, Status, ValueRangeError
from kfs.signature import Dim, Signature, TensorSpec, format_shape
from kfs.tensors.arrays import StringTensor, Tensor, TensorMap, array_over
from kfs.tensors.images import decode_images

_BYTES = DATATYPES["BYTES"]
_MAX_NATIVE_STRINGS = (1 << 30) // 32
_MAX_STRING_MATRIX_NBYTES = 1 << 30
# Elements take four bytes at least in raw contents, and some eighty here where each is an image.
_MAX_IMAGES = 1 << 20

NO_SHARED_MEMORY = "Shared memory is not supported: send tensors in the messages"
#: Where Triton's clients say that a tensor is elsewhere.
_REGION = "shared_memory_region"


def bind(request: Request, signature: Signature, *, demultiplexed: bool = False) -> TensorMap:
    """The tensors of a request, aliasing its memory where the wire already is the tensor.

    The arrays stay valid as long as they are held: each keeps the request's bytes alive.

    Args:
        demultiplexed: the first dimension of every input counts shards, so encoded images go
            into five dimensions.

    Raises:
        ServingError: INVALID_ARGUMENT; what was expected, what was found, and the input's name.
    """
    try:
        return _bind(request, signature, demultiplexed)
    except ServingError as error:
        raise hint_at_shared_memory(error, request) from None


def hint_at_shared_memory(error: ServingError, request: Request) -> ServingError:
    """The error; one that also says so, where a client left the values in shared memory."""
    if not any(_REGION in tensor.parameters for tensor in request.inputs):
        return error
    return ServingError(error.status, f"{error.details}; {NO_SHARED_MEMORY}")


def _bind(request: Request, signature: Signature, demultiplexed: bool) -> TensorMap:
    _check_structure(request, signature)
    if len(request.inputs) == 1:
        index_of = {request.inputs[0].name: 0}
    else:
        index_of = {}
        for index, tensor in enumerate(request.inputs):
            index_of.setdefault(tensor.name, index)
    tensors: TensorMap = {}
    for spec in signature.inputs:
        index = index_of.get(spec.name, -1)
        if index < 0:
            raise ServingError(
                errors.MISSING_INPUT,
                f"Required input: {spec.name}; Actual: {', '.join(sorted(index_of))}",
            )
        tensors[spec.name] = _bind_input(request, index, spec, demultiplexed)
    return tensors


def _check_structure(request: Request, signature: Signature) -> None:
    n_inputs = len(request.inputs)
    if n_inputs != len(signature.inputs) or n_inputs == 0:
        raise ServingError(
            errors.INVALID_INPUT_COUNT, f"Expected: {len(signature.inputs)}; Actual: {n_inputs}"
        )
    check_coherency(request)


def check_coherency(request: Request) -> None:
    """
    Raises:
        ServingError: raw and typed contents are mixed, or do not belong to the inputs.
    """
    if not request.n_raw:
        return
    if request.n_raw != len(request.inputs):
        raise ServingError(
            errors.INVALID_MESSAGE_STRUCTURE,
            f"Size of raw_input_contents: {request.n_raw} is different than number of inputs: "
            f"{len(request.inputs)}",
        )
    for tensor in request.inputs:
        if tensor.has_contents:
            raise ServingError(
                errors.INVALID_MESSAGE_STRUCTURE,
                "Passing buffers both in InferInputTensor contents and in raw_input_contents is "
                "not allowed. Detected buffer in InferInputTensor contents for input: "
                f"{tensor.name}",
            )


def _fault(status: Status, details: str, spec: TensorSpec) -> ServingError:
    return ServingError(status, f"{details}; input name: {spec.name}")


def _bind_input(request: Request, index: int, spec: TensorSpec, demultiplexed: bool) -> Tensor:
    tensor = request.inputs[index]
    has_shape = spec.accepts(tensor.shape)
    if not has_shape and any(size < 0 for size in tensor.shape):
        raise _fault(
            errors.INVALID_SHAPE,
            f"Negative or zero dimension size is not acceptable: {format_shape(tensor.shape)}",
            spec,
        )
    if tensor.datatype == "BYTES":
        return _bind_bytes(request, index, spec, demultiplexed)
    if tensor.datatype != spec.datatype.name or spec.datatype.name not in DATATYPES:
        raise _wrong_datatype(tensor, spec)
    if not has_shape:
        raise _wrong_shape(tensor.shape, spec)
    return _bind_numbers(request, index, spec)


def _bind_numbers(request: Request, index: int, spec: TensorSpec) -> Tensor:
    tensor = request.inputs[index]
    datatype = spec.datatype
    n_values = _product(tensor.shape, spec)
    if request.n_raw:
        view = contents.raw_view(request, index)
        expected = _nbytes(n_values, spec)
        if view.nbytes != expected:
            raise _fault(
                errors.INVALID_CONTENT_SIZE,
                f"Expected: {expected} bytes; Actual: {view.nbytes} bytes",
                spec,
            )
    else:
        _check_count(contents.count(request, index, datatype.field_number), n_values, spec)
        try:
            view = contents.contents_view(request, index, datatype.name)
        except ValueRangeError as error:
            raise _fault(
                errors.INVALID_VALUE,
                f"Expected: values of {datatype.name}; Actual: {error.value} at index "
                f"{error.index}",
                spec,
            ) from None
    return array_over(view, datatype, tensor.shape)


def _wrong_datatype(tensor: InputTensor, spec: TensorSpec) -> ServingError:
    if spec.datatype.name in DATATYPES:
        details = f"Expected: {spec.datatype.label}; Actual: {tensor.datatype}"
    else:
        details = (
            f"The model's input has the precision {spec.datatype.label}, which cannot be sent; "
            f"Actual: {tensor.datatype}"
        )
    return _fault(errors.INVALID_PRECISION, details, spec)


def _wrong_shape(shape: tuple[int, ...], spec: TensorSpec) -> ServingError:
    """Why the shape is not accepted: for its rank, its batch or another size, in this order."""
    expected = f"Expected: {format_shape(spec.shape)}; Actual: {format_shape(shape)}"
    if len(shape) != len(spec.shape):
        return _fault(errors.INVALID_RANK, expected, spec)
    if spec.batch_axis is not None and not _batch_dim(spec).accepts(shape[spec.batch_axis]):
        return _wrong_batch(shape[spec.batch_axis], spec)
    return _fault(errors.INVALID_SHAPE, expected, spec)


def _batch_dim(spec: TensorSpec) -> Dim:
    return spec.shape[0 if spec.batch_axis is None else spec.batch_axis]


def _wrong_batch(size: int, spec: TensorSpec) -> ServingError:
    details = f"Expected: {_batch_dim(spec)}; Actual: {size}"
    return _fault(errors.INVALID_BATCH_SIZE, details, spec)


def _check_batch(size: int, spec: TensorSpec) -> None:
    if not _batch_dim(spec).accepts(size):
        raise _wrong_batch(size, spec)


def _product(shape: tuple[int, ...], spec: TensorSpec) -> int:
    product = math.prod(shape)
    if product > sys.maxsize:
        raise _fault(errors.INVALID_CONTENT_SIZE, "Shape dimensions overflow", spec)
    # numpy has no arrays of which the other dimensions, beside a zero, could not be addressed.
    if not product:
        _nbytes(math.prod(filter(None, shape)), spec)
    return product


def _nbytes(n_values: int, spec: TensorSpec) -> int:
    nbytes = n_values * spec.datatype.itemsize
    if nbytes > sys.maxsize:
        raise _fault(errors.INVALID_CONTENT_SIZE, "Shape too large", spec)
    return nbytes


def _check_count(found: int, expected: int, spec: TensorSpec) -> None:
    if found != expected:
        raise _fault(
            errors.INVALID_VALUE_COUNT, f"Expected: {expected} values; Actual: {found} values", spec
        )


def _bind_bytes(request: Request, index: int, spec: TensorSpec, demultiplexed: bool) -> Tensor:
    n_items = _count_items(request, index, spec)
    if spec.datatype is _BYTES:
        return _bind_strings(request, index, spec, n_items)
    if spec.datatype.name == "UINT8" and len(spec.shape) == 2 and not demultiplexed:
        return _bind_string_matrix(request, index, spec, n_items)
    if takes_images(spec, demultiplexed=demultiplexed):
        _check_items_shape(request.inputs[index], spec, n_items)
        _check_batch(n_items, spec)
        if n_items > _MAX_IMAGES:
            details = f"Expected: at most {_MAX_IMAGES} images; Actual: {n_items}"
            raise _fault(errors.INVALID_BATCH_SIZE, details, spec)
        items = contents.bytes_items(request, index)
        return decode_images(items, spec, raw=bool(request.n_raw))
    raise _fault(
        errors.BYTES_NOT_ACCEPTED,
        f"Expected: {spec.datatype.label} {format_shape(spec.shape)}; Actual: BYTES, which only "
        "inputs for strings or encoded images take",
        spec,
    )


def takes_images(spec: TensorSpec, *, demultiplexed: bool = False) -> bool:
    """Whether BYTES to this input are encoded images, and not strings."""
    return spec.datatype is not _BYTES and len(spec.shape) == (5 if demultiplexed else 4)


def _count_items(request: Request, index: int, spec: TensorSpec) -> int:
    if not request.n_raw:
        return contents.count(request, index, _BYTES.field_number)
    n_items = contents.raw_item_count(request, index)
    if n_items < 0:
        raise _fault(
            errors.INVALID_INPUT_FORMAT,
            "Expected: elements that each follow their length in 4 bytes, little-endian; "
            f"Actual: {contents.raw_view(request, index).nbytes} bytes that do not end with an "
            "element",
            spec,
        )
    return n_items


def _bind_strings(request: Request, index: int, spec: TensorSpec, n_items: int) -> Tensor:
    tensor = request.inputs[index]
    if n_items > _MAX_NATIVE_STRINGS:
        raise _fault(
            errors.STRING_LIMIT_EXCEEDED,
            f"Expected: at most {_MAX_NATIVE_STRINGS} elements; Actual: {n_items}",
            spec,
        )
    if not spec.accepts(tensor.shape):
        raise _wrong_shape(tensor.shape, spec)
    _check_count(n_items, _product(tensor.shape, spec), spec)
    return StringTensor(StringArray.from_request(request, index), tensor.shape)


def _check_items_shape(tensor: InputTensor, spec: TensorSpec, n_items: int) -> None:
    """Strings of the legacy form and images: the request's shape counts the elements."""
    if len(tensor.shape) != 1:
        raise _fault(
            errors.INVALID_RANK,
            f"Expected number of input shape dimensions: 1; Actual: {len(tensor.shape)}",
            spec,
        )
    if n_items == 0 or tensor.shape[0] != n_items:
        raise _fault(
            errors.INVALID_BATCH_SIZE,
            f"Expected: {tensor.shape[0]} elements, at least 1; Actual: {n_items}",
            spec,
        )


def _bind_string_matrix(request: Request, index: int, spec: TensorSpec, n_items: int) -> Tensor:
    """BYTES to a 2-D U8 input: one row per element, padded with zeros, at least one of them."""
    _check_items_shape(request.inputs[index], spec, n_items)
    width = contents.bytes_lengths_max(request, index) + 1
    if n_items * width > _MAX_STRING_MATRIX_NBYTES:
        raise _fault(
            errors.STRING_LIMIT_EXCEEDED,
            f"Expected: at most {_MAX_STRING_MATRIX_NBYTES} bytes with padding; "
            f"Actual: {n_items * width}",
            spec,
        )
    _check_batch(n_items, spec)
    rows, columns = spec.shape
    if not (rows.accepts(n_items) and columns.accepts(width)):
        raise _fault(
            errors.INVALID_SHAPE,
            f"Expected batch size: {rows}; got: {n_items}; Expected max null terminated string "
            f"length: {columns}; got: {width}",
            spec,
        )
    view = contents.padded_rows(request, index, width)
    return array_over(view, spec.datatype, (n_items, width))
