"""ModelInfer and ModelStreamInfer, bytes to bytes, with no transport in them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, cast

from kfs import errors
from kfs._fast.response import write_error, write_response
from kfs._fast.wire import Request, read_request
from kfs.datatypes import DATATYPES
from kfs.errors import ServingError, WireError
from kfs.repository.catalog import Catalog, parse_version
from kfs.servables.base import CallContext, Servable
from kfs.servables.binding import select_outputs
from kfs.signature import TensorSpec
from kfs.tensors.arrays import StringTensor, Tensor, cut_rows

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from kfs._fast.response import OutputData

_log = logging.getLogger("kfs.server")

#: Makes the context of one message of a stream; all of them share the stream's deadline.
NewContext = Callable[[], CallContext]

_UINT8 = DATATYPES["UINT8"]


class InferHandler:
    """Answers inference requests from the servables of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def infer(self, data: bytes, call: CallContext) -> bytes:
        """A serialized ModelInferRequest to a serialized ModelInferResponse.

        Raises:
            ServingError: whatever is wrong with the request or went wrong with the inference.
        """
        request = _read(data)
        with (
            self._catalog.lease(request.model_name, request.model_version, call) as servable,
            call,
        ):
            return _answer(request, servable, call)

    def stream(self, messages: Iterable[bytes], new_context: NewContext) -> Iterator[bytes]:
        """Serialized ModelInferRequests to serialized ModelStreamInferResponses.

        The first message that can be read names the servable, which the stream keeps to its end.
        Every message is one inference; answers come in order, and a message that cannot be
        answered is answered with its error.

        Raises:
            ServingError: the first request names nothing that is served, or the call ended.
        """
        lease = None
        name = ""
        try:
            for data in messages:
                call = new_context()
                try:
                    request = _read(data)
                except ServingError as error:
                    yield write_error(str(error))
                    continue
                if lease is None:
                    name = request.model_name
                    lease = self._catalog.lease(name, request.model_version, call)
                yield _answer_in_band(request, name, lease.servable, call)
        finally:
            if lease is not None:
                lease.release()


def _answer_in_band(request: Request, name: str, servable: Servable, call: CallContext) -> bytes:
    try:
        _check_same_servable(request, name, servable)
        with call:
            return _answer(request, servable, call, stream=True)
    except ServingError as error:
        if error.status in (errors.CANCELLED, errors.DEADLINE_EXCEEDED):
            raise
        return write_error(str(error))
    except Exception:
        _log.exception("Unexpected error in a stream on %s", name)
        return write_error(errors.INTERNAL_ERROR.text)


def _check_same_servable(request: Request, name: str, servable: Servable) -> None:
    if request.model_name != name:
        raise ServingError(
            errors.WRONG_STREAM_SERVABLE, f"Expected: {name}; Actual: {request.model_name}"
        )
    if parse_version(request.model_version) not in (None, 0, servable.version):
        raise ServingError(
            errors.WRONG_STREAM_VERSION,
            f"Expected: {servable.version}; Actual: {request.model_version}",
        )


def _read(data: bytes) -> Request:
    try:
        return read_request(data)
    except WireError as error:
        raise ServingError(errors.MALFORMED_MESSAGE, str(error)) from None


def _answer(
    request: Request, servable: Servable, call: CallContext, *, stream: bool = False
) -> bytes:
    tensors = servable.bind(request)
    wanted = select_outputs(request, servable.signature)
    # Before inference: the request is what asks for something that no message can carry.
    for spec in wanted:
        if spec.datatype.name not in DATATYPES:
            raise ServingError(
                errors.UNSUPPORTED_OUTPUT_PRECISION,
                f"Output {spec.name} has the precision {spec.datatype.label}, which cannot be sent",
            )
    outputs = servable.infer(tensors, call)
    return write_response(
        servable.name,
        str(servable.version),
        request.id,
        [_output(spec, outputs[spec.name]) for spec in wanted],
        stream=stream,
    )


def _output(spec: TensorSpec, tensor: Tensor) -> tuple[str, str, tuple[int, ...], OutputData]:
    """What the response says of one output: name, datatype, shape and data."""
    if isinstance(tensor, StringTensor):
        return spec.name, "BYTES", tensor.shape, tensor.strings
    if spec.datatype is _UINT8 and tensor.ndim == 2 and spec.name.lower().endswith("_string"):
        return spec.name, "BYTES", tensor.shape[:1], cut_rows(tensor)
    return spec.name, spec.datatype.name, tensor.shape, cast("Buffer", tensor)
