"""Tensors on their way from one servable to another, against what the next one takes."""

from __future__ import annotations

from kfs import errors
from kfs.datatypes import BY_NUMPY, DATATYPES
from kfs.errors import ServingError
from kfs.signature import TensorSpec, format_shape
from kfs.tensors.arrays import StringTensor, Tensor


def check_input(spec: TensorSpec, tensor: Tensor) -> None:
    """
    Raises:
        ServingError: INVALID_ARGUMENT, the tensor is not what the input takes.
    """
    if not has_datatype(spec, tensor):
        expected, actual = spec.datatype.label, datatype_label(tensor)
        raise _input_fault(errors.INVALID_PRECISION, spec, "precision", expected, actual)
    shape = tensor.shape
    if shape == spec.static_shape:
        return
    if len(shape) != len(spec.shape):
        raise _shape_fault(errors.INVALID_RANK, spec, shape)
    wrong = [
        axis for axis, (dim, size) in enumerate(zip(spec.shape, shape, strict=True))
        if not dim.accepts(size)
    ]  # fmt: skip
    if spec.batch_axis is not None and wrong == [spec.batch_axis]:
        expected, actual = str(spec.shape[spec.batch_axis]), str(shape[spec.batch_axis])
        raise _input_fault(errors.INVALID_BATCH_SIZE, spec, "batch size", expected, actual)
    if wrong:
        raise _shape_fault(errors.INVALID_SHAPE, spec, shape)


def has_datatype(spec: TensorSpec, tensor: Tensor) -> bool:
    """Whether the tensor has the datatype of `spec`."""
    if isinstance(tensor, StringTensor):
        return spec.datatype is DATATYPES["BYTES"]
    numpy: str = tensor.dtype.str
    return numpy == spec.datatype.numpy


def datatype_label(tensor: Tensor) -> str:
    """The datatype of a tensor, for people to read."""
    if isinstance(tensor, StringTensor):
        return DATATYPES["BYTES"].label
    row = BY_NUMPY.get(tensor.dtype.str)
    return tensor.dtype.name if row is None else row.label


def _shape_fault(status: errors.Status, spec: TensorSpec, shape: tuple[int, ...]) -> ServingError:
    return _input_fault(status, spec, "shape", format_shape(spec.shape), format_shape(shape))


def _input_fault(
    status: errors.Status, spec: TensorSpec, what: str, expected: str, actual: str
) -> ServingError:
    return ServingError(
        status, f"input: {spec.name} Invalid {what} - Expected: {expected}; Actual: {actual}"
    )
