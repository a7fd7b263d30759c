"""What the parameters of a request say to a graph: the time of its packets, and side packets."""

from __future__ import annotations

import time
from typing import Any

from kfs import errors
from kfs._fast.wire import Parameter, Request
from kfs.errors import ServingError
from kfs.servables.graph.calculator import MAX_TIMESTAMP, MIN_TIMESTAMP

#: The parameter that carries the time of a packet.
TIMESTAMP = "OVMS_MP_TIMESTAMP"

# Side packets that the server gives, whatever a client says.
_SERVER_SIDE_PACKETS = frozenset(
    ("llm", "llm_ctx", "pipes", "embeddings_servable", "rerank_servable", "s2t_servable",
     "t2s_servable")
)  # fmt: skip
_RESERVED = "py"

_SPECIAL_TIMESTAMPS = {
    -(1 << 63): "Timestamp::Unset()",
    -(1 << 63) + 1: "Timestamp::Unstarted()",
    -(1 << 63) + 2: "Timestamp::PreStream()",
    (1 << 63) - 3: "Timestamp::PostStream()",
    (1 << 63) - 2: "Timestamp::OneOverPostStream()",
    (1 << 63) - 1: "Timestamp::Done()",
}


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
        if name not in _SERVER_SIDE_PACKETS:
            found[name] = parameter.value
    return found


def timestamp_parameter(timestamp: int) -> dict[str, Parameter]:
    return {TIMESTAMP: Parameter("int64_param", timestamp)}
