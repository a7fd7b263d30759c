"""From what a handler raises to a gRPC status: one table, one place."""

from __future__ import annotations

import logging
from typing import NamedTuple

import grpc

from kfs import errors
from kfs.errors import Code, ServingError

_log = logging.getLogger("kfs.server")

GRPC_CODES: dict[Code, grpc.StatusCode] = {
    Code(status.value[0]): status
    for status in grpc.StatusCode
    if status.value[0] in Code.__members__.values()
}

# Statuses travel in HTTP/2 trailers, of which peers take 8 KiB by default, percent-encoded.
_MAX_DETAILS_NBYTES = 2000


class GrpcStatus(NamedTuple):
    code: grpc.StatusCode
    details: str


def status_of(error: BaseException) -> GrpcStatus:
    """The status that `error` stands for.

    What is no ServingError is our own fault: logged with its traceback, and INTERNAL.
    """
    if isinstance(error, ServingError):
        return GrpcStatus(GRPC_CODES[error.status.code], clip(str(error)))
    _log.error("Unexpected error", exc_info=error)
    return GrpcStatus(grpc.StatusCode.INTERNAL, errors.INTERNAL_ERROR.text)


def clip(details: str) -> str:
    """Details that fit into the trailers, however long the names are that a client sent."""
    data = details.encode(errors="replace")
    if len(data) <= _MAX_DETAILS_NBYTES:
        return details
    return data[:_MAX_DETAILS_NBYTES].decode(errors="ignore") + "..."
