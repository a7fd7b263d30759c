"""Threads that take turns in waiting for events, and do themselves what those ask for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from kfs.server.threads import CallThreads

_log = logging.getLogger("kfs.server")

# Work that has taken so long is taken to wait for something, whatever was expected of it.
_LONG_S = 0.005
# After so many looks without any work nobody looks, until there is some.
_N_IDLE_LOOKS = 20


class Turn:
    """The time in which it is one thread's to wait for events."""

    __slots__ = ("_turns", "began", "is_over")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.is_over = False
        #: `time.monotonic` at which the work began that is being done now, if any.
        self.began: float | None = None

    def pass_on(self) -> None:
        """Let another thread wait for events while this one works; from any thread, at any time."""
        self._turns.pass_on(self)

    def do(self, work: Callable[[], None]) -> None:
        """Act on an event; the turn ends meanwhile if that takes long."""
        self.began = time.monotonic()
        self._turns.watch()
        try:
            work()
        finally:
            self.began = None


class Turns:
    """One thread at a time waits for events and acts on them.

    To hand an event over to another thread takes longer than a small inference does, so it is
    not handed over: where the work takes long, the turn is. Work that was not expected to take
    long loses its turn after some milliseconds, so that no other waits for it for longer.

    Args:
        threads: where the turns are taken; all but one of them can be at work.
        step: waits for one event, for some time, and acts on it; False when none will come.
    """

    def __init__(self, threads: CallThreads, step: Callable[[Turn], bool]) -> None:
        self._threads = threads
        self._step = step
        self._lock = threading.Lock()
        self._turn = Turn(self)
        self._has_ended = False
        self._work_began = threading.Event()

    def start(self) -> None:
        self._threads.submit(self._take, self._turn)
        threading.Thread(target=self._look, name="turns", daemon=True).start()

    def pass_on(self, turn: Turn) -> None:
        with self._lock:
            # Whoever does not work waits for events, and two would change the same things.
            if turn.is_over or turn.began is None:
                return
            turn.is_over = True
            self._turn = following = Turn(self)
        self._threads.submit(self._take, following)

    def watch(self) -> None:
        """Let someone look how long the work takes that has just begun."""
        if not self._work_began.is_set():
            self._work_began.set()

    def _take(self, turn: Turn) -> None:
        while not turn.is_over:
            try:
                if not self._step(turn):
                    break
            except Exception:
                _log.exception("Unexpected error of the transport")
        else:
            return
        self._has_ended = True
        self._work_began.set()

    def _look(self) -> None:
        """End the turns of threads whose work takes long."""
        n_idle = 0
        while not self._has_ended:
            time.sleep(_LONG_S)
            turn = self._turn
            began = turn.began
            if began is not None:
                n_idle = 0
                if time.monotonic() - began > _LONG_S:
                    turn.pass_on()
            elif n_idle < _N_IDLE_LOOKS:
                n_idle += 1
            else:
                self._work_began.clear()
                # Work that began before is seen here, work that begins after sets it again.
                if self._turn.began is None and not self._has_ended:
                    self._work_began.wait()
                n_idle = 0
