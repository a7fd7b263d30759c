"""TensorMap -> response: the outputs a request asks for, written as one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kfs import errors
from kfs._fast.response import reserve_response, write_response
from kfs._fast.strings import Rows
from kfs._fast.wire import Request
from kfs.datatypes import DATATYPES
from kfs.errors import ServingError
from kfs.settings import MAX_MESSAGE_NBYTES
from kfs.signature import Signature, TensorSpec
from kfs.tensors.arrays import Array, StringTensor, Tensor, TensorMap, array_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Buffer

    from kfs._fast.response import OutputData

_UINT8 = DATATYPES["UINT8"]

# To tell OpenVINO a place costs some microseconds for each inference; below this a copy costs
# no more.
_MIN_STRAIGHT_NBYTES = 1 << 20


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


def has_place(spec: TensorSpec) -> bool:
    """Whether the place of this output in a message is known before its values are."""
    can_be_sent = spec.datatype.name in DATATYPES and not _is_named_as_strings(spec)
    return can_be_sent and 0 < (spec.nbytes or 0) <= MAX_MESSAGE_NBYTES


def choose_straight(outputs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """Those that have a place, if they are so large that it pays to write them there at once."""
    placed = [spec for spec in outputs if has_place(spec)]
    return placed if sum(spec.nbytes or 0 for spec in placed) >= _MIN_STRAIGHT_NBYTES else []


def reserve_answer(
    name: str, version: int, id: str, wanted: tuple[TensorSpec, ...], *, stream: bool
) -> tuple[bytes, dict[str, Array]]:
    """The same message, and arrays over the places of its outputs, which all have one of their own.

    They are to be filled before anyone else sees the message.
    """
    sizes = [
        (spec.name, spec.datatype.name, spec.static_shape or (), spec.nbytes or 0)
        for spec in wanted
    ]
    message, places = reserve_response(name, str(version), id, sizes, stream=stream)
    arrays = {
        spec.name: array_over(place, spec.datatype, spec.static_shape or ())
        for place, spec in zip(places, wanted, strict=True)
    }
    return message, arrays


def _output(spec: TensorSpec, tensor: Tensor) -> tuple[str, str, tuple[int, ...], OutputData]:
    """What the response says of one output: name, datatype, shape and data."""
    if isinstance(tensor, StringTensor):
        return spec.name, "BYTES", tensor.shape, tensor.strings
    if _is_named_as_strings(spec) and _has_width(tensor):
        return spec.name, "BYTES", tensor.shape[:1], Rows(cast("Buffer", tensor))
    return spec.name, spec.datatype.name, tensor.shape, cast("Buffer", tensor)


def _is_named_as_strings(spec: TensorSpec) -> bool:
    """Whether it has the legacy form of strings: rows that end with a zero or with the row."""
    return (
        spec.datatype is _UINT8 and len(spec.shape) == 2 and spec.name.lower().endswith("_string")
    )


def _has_width(rows: Array) -> bool:
    """Rows of no width are numbers: billions of them, of no memory, would be as many strings."""
    n_rows, width = rows.shape
    return bool(width > 0 or n_rows == 0)
