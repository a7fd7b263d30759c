"""One line at DEBUG for every inference request and every stream."""

from __future__ import annotations

import logging
import time

from kfs.errors import Code, ServingError

_log = logging.getLogger("kfs.requests")


def log_request(
    method: str,
    begin: float,
    servable: str = "",
    version: str = "",
    id: str = "",
    error: BaseException | None = None,
) -> None:
    """Log what became of a request.

    Args:
        begin: when it came, a value of `time.perf_counter`.
        version: as it was asked for, or that which answered.
        error: what it was answered with; None for success.
    """
    if not _log.isEnabledFor(logging.DEBUG):
        return
    duration_us = round((time.perf_counter() - begin) * 1e6)
    status, reason = "OK", ""
    if error is not None:
        status = (error.status.code if isinstance(error, ServingError) else Code.INTERNAL).name
        reason = str(error)
    _log.debug(
        "%s of %s, version %s, id %s: %s in %d us%s",
        method, servable or "nothing readable", version or "default", id or "none", status,
        duration_us, reason and f": {reason}",
        extra={
            "method": method, "servable": servable, "version": version, "request_id": id,
            "status": status, "duration_us": duration_us, "reason": reason,
        },
    )  # fmt: skip
