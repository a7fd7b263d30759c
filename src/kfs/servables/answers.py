"""TensorMap -> response: the outputs a request asks for, written as one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kfs import errors
from kfs._fast.response import write_response
from kfs._fast.strings import Rows
from kfs._fast.wire import Request
from kfs.datatypes import DATATYPES
from kfs.errors import ServingError
from kfs.signature import Signature, TensorSpec
from kfs.tensors.arrays import Array, StringTensor, Tensor, TensorMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from kfs._fast.response import OutputData

_UINT8 = DATATYPES["UINT8"]


def select_outputs(request: Request, signature: Signature) -> tuple[TensorSpec, ...]:
    """The outputs to answer with: those asked for, in that order, or all of them by name.

    Raises:
        ServingError: INVALID_ARGUMENT, an output that the servable does not have, or one of a
            precision that cannot be sent.
    """
    wanted = signature.outputs
    if request.outputs:
        by_name = {spec.name: spec for spec in signature.outputs}
        check_outputs(request, list(by_name))
        wanted = tuple(by_name[name] for name in request.outputs)
    for spec in wanted:
        if spec.datatype.name not in DATATYPES:
            raise ServingError(
                errors.UNSUPPORTED_OUTPUT_PRECISION,
                f"Output {spec.name} has the precision {spec.datatype.label}, which cannot be sent",
            )
    return wanted


def check_outputs(request: Request, known: Sequence[str]) -> None:
    """
    Raises:
        ServingError: INVALID_ARGUMENT, the request asks for an output that is not known.
    """
    for name in request.outputs:
        if name not in known:
            raise ServingError(
                errors.MISSING_OUTPUT,
                f"Requested output: {name}; Available outputs: {', '.join(known)}",
            )


def write_answer(
    name: str,
    version: int,
    id: str,
    wanted: tuple[TensorSpec, ...],
    outputs: TensorMap,
    *,
    stream: bool,
) -> bytes:
    """A serialized ModelInferResponse, or with `stream` the ModelStreamInferResponse with it."""
    data = [_output(spec, outputs[spec.name]) for spec in wanted]
    return write_response(name, str(version), id, data, stream=stream)


def _output(spec: TensorSpec, tensor: Tensor) -> tuple[str, str, tuple[int, ...], OutputData]:
    """What the response says of one output: name, datatype, shape and data."""
    if isinstance(tensor, StringTensor):
        return spec.name, "BYTES", tensor.shape, tensor.strings
    if _holds_strings(spec, tensor):
        return spec.name, "BYTES", tensor.shape[:1], Rows(cast("Buffer", tensor))
    return spec.name, spec.datatype.name, tensor.shape, cast("Buffer", tensor)


def _holds_strings(spec: TensorSpec, tensor: Array) -> bool:
    """Whether it is the legacy form of strings, rows that end with a zero or with the row."""
    if spec.datatype is not _UINT8 or tensor.ndim != 2:
        return False
    n_rows, width = tensor.shape
    # Rows of no width are numbers: billions of them, of no memory, would be as many strings.
    return spec.name.lower().endswith("_string") and (width > 0 or n_rows == 0)
