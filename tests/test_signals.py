"""What ends a server, seen by who waits for it."""

from __future__ import annotations

import signal
import threading
from multiprocessing.connection import wait

import pytest

from kfs.cli.signals import end_signals

pytestmark = pytest.mark.usefixtures("signals_as_before")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_is_told_once(number: signal.Signals) -> None:
    with end_signals() as end:
        assert not end.has_come()
        for _ in range(3):
            signal.raise_signal(number)
        assert wait([end.news], timeout=30) == [end.news]
        assert end.has_come()
        assert end.has_come()


def test_who_waits_can_be_woken_without_an_end() -> None:
    with end_signals() as end:
        threading.Thread(target=end.wake).start()
        assert wait([end.news], timeout=30) == [end.news]
        assert not end.has_come()
        for _ in range(100_000):
            end.wake()
        signal.raise_signal(signal.SIGTERM)
        assert wait([end.news], timeout=30) == [end.news]
    end.wake()


def test_other_signals_end_nothing() -> None:
    with end_signals() as end:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.raise_signal(signal.SIGUSR1)
        assert wait([end.news], timeout=30) == [end.news]
        assert not end.has_come()
        assert wait([end.news], timeout=0) == [], "nobody looks again and again"
        signal.raise_signal(signal.SIGTERM)
        assert end.has_come()
