"""Signals that end the server."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_MANY = 4096
_NO_SIGNAL = b"\0"


class End:
    """Whether SIGTERM or SIGINT has come.

    Attributes:
        news: can be read once any signal has come, also one that a library has a handler for, or
            `wake` was called.
    """

    def __init__(self, news: socket.socket, tell: socket.socket) -> None:
        self.news = news
        self._tell = tell
        self._has_come = False

    def wake(self) -> None:
        """Wake who waits for news; from any thread."""
        with suppress(OSError):  # there is news enough, or nobody waits any more
            self._tell.send(_NO_SIGNAL)

    def has_come(self) -> bool:
        """Whether it is time to end; reads the news."""
        with suppress(BlockingIOError):
            came = self.news.recv(_MANY)
            self._has_come |= any(number in came for number in _END_SIGNALS)
        return self._has_come


@contextmanager
def end_signals() -> Iterator[End]:
    """Listen for SIGTERM and SIGINT.

    Both are taken once: one that comes while the interpreter ends would kill the process.
    """
    heard, tell = socket.socketpair()
    with heard, tell:
        # What is called in Python waits for the main thread, which a signal that comes just before
        # it begins to wait does not wake. So the interpreter's own handler tells.
        heard.setblocking(False)
        tell.setblocking(False)
        signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        try:
            for number in _END_SIGNALS:
                signal.signal(number, _ignore_end_signals)
            yield End(heard, tell)
        finally:
            _ignore_end_signals()
            signal.set_wakeup_fd(-1)


def _ignore_end_signals(*_: object) -> None:
    for number in _END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
