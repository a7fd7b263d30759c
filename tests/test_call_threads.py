"""The threads that calls run on: some calls are stuck, the others do not notice."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from conftest import wait_until

from kfs.server import threads
from kfs.server.threads import CallThreads


class Gate:
    """Functions that wait until it is opened."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._lock = threading.Lock()
        self.n_inside = 0
        self.most_inside = 0

    def wait(self) -> int:
        """Wait, and tell the thread it was done on."""
        with self._lock:
            self.n_inside += 1
            self.most_inside = max(self.most_inside, self.n_inside)
        assert self._opened.wait(30)
        with self._lock:
            self.n_inside -= 1
        return threading.get_ident()

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def results(futures: list[Future[int]]) -> list[int]:
    return [future.result(timeout=30) for future in futures]


def test_a_result_or_an_exception_arrives() -> None:
    pool = CallThreads(2, 2, "test")
    assert pool.submit(divmod, 7, 2).result(timeout=30) == (3, 1)
    failed = pool.submit(divmod, 7, 0)
    assert isinstance(failed.exception(timeout=30), ZeroDivisionError)
    assert pool.submit(int, "7", base=8).result(timeout=30) == 7, "and its thread goes on"


def test_who_is_told_of_the_end_is_told_once_it_has_come(gate: Gate) -> None:
    """grpcio counts calls by it."""
    pool = CallThreads(1, 1, "test")
    told = threading.Event()
    future = pool.submit(gate.wait)
    future.add_done_callback(lambda _: told.set())
    assert not told.is_set()
    gate.open()
    assert told.wait(30)


def test_calls_that_are_stuck_do_not_keep_others_waiting(gate: Gate) -> None:
    pool = CallThreads(2, 50, "test")
    stuck = [pool.submit(gate.wait) for _ in range(40)]
    assert pool.submit(str, 1).result(timeout=10) == "1"
    wait_until(lambda: gate.n_inside == 40)
    assert pool.wait(0.01) == 40
    gate.open()
    results(stuck)
    assert pool.wait(30) == 0


def test_no_more_calls_run_than_there_may_be_threads(gate: Gate) -> None:
    pool = CallThreads(2, 5, "test")
    futures = [pool.submit(gate.wait) for _ in range(9)]
    wait_until(lambda: gate.n_inside == 5)
    gate.open()
    results(futures)
    assert gate.most_inside == 5


def test_short_calls_run_on_as_many_threads_as_there_are_to_be(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_LONG_S", 60.0)  # none of them is long
    pool = CallThreads(3, 50, "test")
    futures = [pool.submit(gate.wait) for _ in range(30)]
    wait_until(lambda: gate.n_inside == 3)
    gate.open()
    assert len(set(results(futures))) == 3


def test_threads_that_stuck_calls_left_idle_do_not_run_more_than_there_are_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = CallThreads(2, 50, "test")
    before, after = Gate(), Gate()
    stuck = [pool.submit(before.wait) for _ in range(20)]
    wait_until(lambda: before.n_inside == 20)
    before.open()
    results(stuck)
    assert pool.wait(30) == 0
    monkeypatch.setattr(threads, "_LONG_S", 60.0)
    futures = [pool.submit(after.wait) for _ in range(20)]
    wait_until(lambda: after.n_inside == 2)
    after.open()
    results(futures)
    assert after.most_inside == 2


def test_the_thread_that_was_idle_last_is_the_next(gate: Gate) -> None:
    pool = CallThreads(3, 3, "test")
    results_of_all = [pool.submit(gate.wait) for _ in range(3)]
    gate.open()
    results(results_of_all)
    assert pool.wait(30) == 0
    used = set()
    for _ in range(10):
        used.add(pool.submit(threading.get_ident).result(timeout=30))
        assert pool.wait(30) == 0
    assert len(used) == 1


def test_threads_beyond_those_that_run_at_a_time_end_without_work(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_IDLE_S", 0.01)
    pool = CallThreads(4, 20, "idlers")
    futures = [pool.submit(gate.wait) for _ in range(20)]
    wait_until(lambda: gate.n_inside == 20)
    gate.open()
    results(futures)
    wait_until(lambda: len([t for t in threading.enumerate() if t.name == "idlers"]) == 4)
    assert pool.submit(str, 1).result(timeout=30) == "1"


def test_an_idle_thread_keeps_nothing_of_a_call_alive() -> None:
    class Payload:
        pass

    gone = threading.Event()
    pool = CallThreads(1, 1, "test")
    payload = Payload()
    weakref.finalize(payload, gone.set)
    pool.submit(id, payload).result(timeout=30)
    del payload
    assert gone.wait(30)


def test_where_the_system_has_no_more_threads_calls_wait_for_those_there_are(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = CallThreads(4, 4, "test")
    first = pool.submit(gate.wait)
    wait_until(lambda: gate.n_inside == 1)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    second = pool.submit(str, 2)
    gate.open()
    assert second.result(timeout=30) == "2"
    assert first.result(timeout=30)
