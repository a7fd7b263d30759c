"""Threads that take turns in waiting for events: work that takes long keeps no event waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest
from conftest import wait_until

from kfs.server import turns
from kfs.server.threads import CallThreads
from kfs.server.turns import Turn, Turns

Work = Callable[[Turn], object]


class Events:
    """Work to be done, in the order in which it was put here, and where it was done."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self.threads: list[int] = []
        self.n_waiting = 0
        self.most_waiting = 0

    def put(self, work: Work | None) -> None:
        self._queue.put(work)

    def step(self, turn: Turn) -> bool:
        self.n_waiting += 1
        self.most_waiting = max(self.most_waiting, self.n_waiting)
        work = self._queue.get()
        self.n_waiting -= 1
        if work is None:
            return False
        self.threads.append(threading.get_ident())
        turn.do(lambda: work(turn))
        return True


@pytest.fixture
def pool() -> CallThreads:
    return CallThreads(4, 20, "test")


@pytest.fixture
def events(pool: CallThreads) -> Iterator[Events]:
    events = Events()
    Turns(pool, events.step).start()
    yield events
    events.put(None)
    assert pool.wait(30) == 0, "whoever has the turn ends with the last event"
    assert events.most_waiting == 1, "one waits at a time"


def short(turn: Turn) -> None:
    """Work that nobody else need know of."""


def all_done(events: Events, n: int) -> None:
    wait_until(lambda: len(events.threads) == n and events.n_waiting == 1)


def test_short_work_is_done_by_the_thread_that_waits(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_LONG_S", 30)
    for _ in range(50):
        events.put(short)
    all_done(events, 50)
    assert len(set(events.threads)) == 1


def test_work_that_says_so_does_not_keep_others_waiting(events: Events) -> None:
    gate = threading.Event()

    def wait(turn: Turn) -> None:
        turn.pass_on()
        turn.pass_on()  # once is enough
        assert gate.wait(30)

    for _ in range(10):
        events.put(wait)
    events.put(short)
    all_done(events, 11)
    assert len(set(events.threads)) == 11
    gate.set()


def test_work_that_has_been_done_asks_in_vain_for_another_to_wait(
    pool: CallThreads, events: Events
) -> None:
    seen: list[Turn] = []
    events.put(seen.append)
    all_done(events, 1)
    seen[0].pass_on()
    assert pool.wait(0) == 1, "the one that waits already"


def test_work_that_takes_long_unexpectedly_keeps_others_waiting_for_milliseconds(
    events: Events,
) -> None:
    gate = threading.Event()
    for _ in range(10):
        events.put(lambda turn: gate.wait(30))
    events.put(short)
    all_done(events, 11)
    gate.set()


def test_work_after_a_pause_is_watched_as_well(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_N_IDLE_LOOKS", 0)
    gate = threading.Event()
    for n in range(1, 20):
        events.put(short)
        all_done(events, n)
    events.put(lambda turn: gate.wait(30))
    events.put(short)
    all_done(events, 21)
    gate.set()


def test_a_fault_in_the_work_is_logged_and_ends_nothing(
    events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    events.put(lambda turn: 1 // 0)
    events.put(short)
    all_done(events, 2)
    assert "Unexpected error of the transport" in caplog.text
