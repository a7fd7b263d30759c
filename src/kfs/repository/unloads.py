"""Unloading, which may take long: handlers are finalized, custom nodes give back what they have."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable
from concurrent.futures import Future

from kfs.helpers import Helpers

_log = logging.getLogger("kfs.repository")

# Those that hang keep their threads; with so many of them, nothing more is unloaded.
_MAX_THREADS = 64


class Unloads:
    """Threads that unload, so that no call, no look and no end has to wait for it."""

    def __init__(self) -> None:
        self._helpers = Helpers(_MAX_THREADS)
        self._running: set[Future[None]] = set()

    def begin(self, unload: Callable[[], None]) -> None:
        """Unload on another thread, or here if the system has none for it; errors are logged."""

        def work() -> None:
            try:
                unload()
            except Exception:
                _log.exception("Unexpected error while something was unloaded")

        future = self._helpers.call(work)
        if future is None:
            work()
        else:
            self._running.add(future)
            future.add_done_callback(self._running.discard)

    def wait(self, timeout_s: float) -> bool:
        """Wait until all that has begun is done; whether it is."""
        return not concurrent.futures.wait(list(self._running), timeout_s).not_done
