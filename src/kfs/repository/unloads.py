"""Unloading, which may take long: handlers are finalized, custom nodes give back what they have."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger("kfs.repository")


class Unloads:
    """Threads that unload, so that neither a call nor a look for changes has to wait for it."""

    def __init__(self) -> None:
        #: One for each that has begun, set when it is done.
        self._running: set[threading.Event] = set()

    def begin(self, unload: Callable[[], None]) -> None:
        """Unload on a thread of its own, or here if the system has none; errors are logged."""
        done = threading.Event()
        # Taken out to be called, so that all of it is gone when it is done: the interpreter must
        # not end while a daemon destroys a model.
        waiting = [unload]
        del unload

        def work() -> None:
            try:
                waiting.pop()()
            except BaseException:  # SystemExit, for instance, of a node in Python
                _log.exception("Unexpected error while something was unloaded")
            finally:
                self._running.discard(done)
                done.set()

        self._running.add(done)
        try:
            # A daemon: one that hangs does not keep the process from ending.
            threading.Thread(target=work, name="unload", daemon=True).start()
        except RuntimeError:
            work()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all that has begun is done; whether it is."""
        end = time.monotonic() + timeout_s
        return all(done.wait(max(end - time.monotonic(), 0)) for done in list(self._running))
