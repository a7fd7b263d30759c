"""ModelInfer and ModelStreamInfer, on bytes, with no transport in them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from kfs import errors
from kfs._fast.response import write_error
from kfs._fast.wire import Request, read_request
from kfs.errors import ServingError, WireError
from kfs.metrics.servables import infer_method
from kfs.repository.catalog import Catalog
from kfs.servables.base import CallContext, NewContext, StreamSink
from kfs.servables.request_log import log_request

_UNARY = infer_method(stream=False)


class InferHandler:
    """Answers inference requests from the servables of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def infer(self, data: bytes, call: CallContext) -> bytes:
        """A serialized ModelInferRequest to a serialized ModelInferResponse.

        Raises:
            ServingError: whatever is wrong with the request or went wrong with the inference.
        """
        begin = time.perf_counter()
        name = version = id = ""
        try:
            request = _read(data)
            name, version, id = request.model_name, request.model_version, request.id
            with (
                self._catalog.lease(name, version, call) as servable,
                call,
            ):
                answer = servable.respond(request, call)
        except BaseException as error:
            log_request(_UNARY, begin, name, version, id, error)
            raise
        log_request(_UNARY, begin, name, version, id)
        return answer

    def stream(self, messages: Iterable[bytes], new_context: NewContext, sink: StreamSink) -> None:
        """Serialized ModelInferRequests to serialized ModelStreamInferResponses.

        The first message that can be read names the servable, which the stream keeps to its end.

        Raises:
            ServingError: the first request names nothing that is served, or the call ended, or
                what is served cannot go on with it.
        """
        requests = _requests(messages)
        for first in requests:
            if isinstance(first, Request):
                break
            sink.send(write_error(str(first)))
        else:
            return
        begin = time.perf_counter()
        name, version = first.model_name, first.model_version
        try:
            with self._catalog.lease_for_stream(name, version, new_context()) as servable:
                requests = _chain(first, requests)
                del first  # its payload is not held for the life of the stream
                servable.stream(requests, new_context, sink)
        except BaseException as error:
            log_request("Stream", begin, name, version, error=error)
            raise
        log_request("Stream", begin, name, version)


def _requests(messages: Iterable[bytes]) -> Iterator[Request | ServingError]:
    """What was sent, or why it cannot be read."""
    for data in messages:
        try:
            request: Request | ServingError = _read(data)
        except ServingError as error:
            request = error
        del data  # the request holds it as long as it needs it
        yield request
        del request


def _chain(
    first: Request, others: Iterator[Request | ServingError]
) -> Iterator[Request | ServingError]:
    yield first
    del first  # its payload is not held for the life of the stream
    yield from others


def _read(data: bytes) -> Request:
    try:
        return read_request(data)
    except WireError as error:
        raise ServingError(errors.MALFORMED_MESSAGE, str(error)) from None
