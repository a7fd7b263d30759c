"""Signals that end the server."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _nothing() -> None:
    pass


@contextmanager
def told_to_stop(on_signal: Callable[[], None] = _nothing) -> Iterator[socket.socket]:
    """Something can be read from it once SIGTERM or SIGINT has come.

    Both are taken once: one that comes while the interpreter ends would kill the process.

    Args:
        on_signal: called on the main thread as soon as that executes Python.
    """

    def take(*_: object) -> None:
        _ignore_end_signals()
        on_signal()

    heard, tell = socket.socketpair()
    with heard, tell:
        # What is called in Python waits for the main thread, which a signal that comes just before
        # it begins to wait does not wake. So the interpreter's own handler tells.
        tell.setblocking(False)
        signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        try:
            for number in _END_SIGNALS:
                signal.signal(number, take)
            yield heard
        finally:
            _ignore_end_signals()
            signal.set_wakeup_fd(-1)


def _ignore_end_signals() -> None:
    for number in _END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
