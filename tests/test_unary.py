"""Unary calls on a completion queue of their own, seen by grpcio's client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import h2
import pytest
from conftest import wait_until

from kfs import errors
from kfs.errors import ServingError
from kfs.servables.base import CallContext
from kfs.server import turns, unary
from kfs.server.threads import CallThreads
from kfs.server.unary import Answer, UnaryCalls

METHOD = "/test.Test/Do"
MAX_CALLS = 5
MAX_MESSAGE_NBYTES = 1000


class Peer:
    """A server with one method, and its client."""

    def __init__(self) -> None:
        self.answer: Answer = lambda data, call: data
        self.threads = CallThreads(2, MAX_CALLS + 1, "call")
        options = [("grpc.max_receive_message_length", MAX_MESSAGE_NBYTES)]
        self.server = grpc.server(CallThreads(1, 1, "other"), options=options)
        self.calls = UnaryCalls(
            self.server, {METHOD: lambda *call: self.answer(*call)}, self.threads, MAX_CALLS
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.calls.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.call = self.channel.unary_unary(METHOD)

    def ask(self, data: bytes = b"?") -> bytes:
        answer: bytes = self.call(data, timeout=30)
        return answer

    def stop(self, grace_s: float, wait_s: float = 10) -> int:
        """How many calls are stuck."""
        return self.end(self.begin_to_stop(grace_s), wait_s)

    def begin_to_stop(self, grace_s: float) -> threading.Event:
        with self.calls.stopping():
            return self.server.stop(grace_s)

    def end(self, stopped: threading.Event, wait_s: float = 10) -> int:
        stopped.wait()
        self.calls.close()
        return self.threads.wait(wait_s)


class HeldBack:
    """An answer that does not come until it is released."""

    def __init__(self) -> None:
        self.began, self.released = threading.Event(), threading.Event()

    def __call__(self, data: bytes, call: CallContext) -> bytes:
        self.began.set()
        self.released.wait(60)
        return data


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.channel.close()
    assert peer.stop(10) == 0
    assert peer.calls._n_calls == 0, "every call is told to its end"


def status(call: grpc.Future) -> tuple[str, str]:
    error = call.exception(timeout=30)
    assert error is not None
    return error.code().name, error.details()


def raising(error: BaseException) -> Answer:
    def answer(data: bytes, call: CallContext) -> bytes:
        raise error

    return answer


def test_bytes_are_answered_with_bytes(peer: Peer) -> None:
    for n_bytes in (0, 1, 900):
        assert peer.ask(bytes(n_bytes)) == bytes(n_bytes)


def test_one_after_another_is_answered_on_one_thread(peer: Peer) -> None:
    idents = set()

    def answer(data: bytes, call: CallContext) -> bytes:
        idents.add(threading.get_ident())
        return data

    peer.answer = answer
    for _ in range(20):
        peer.ask()
    # But for some millisecond in which the machine did something else.
    assert len(idents) <= 3


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServingError(errors.CANCELLED), ("CANCELLED", errors.CANCELLED.text)),
        (ValueError("ours"), ("INTERNAL", errors.INTERNAL_ERROR.text)),
        (SystemExit(3), ("INTERNAL", errors.INTERNAL_ERROR.text)),
    ],
)
def test_what_is_raised_becomes_a_status(
    peer: Peer, error: BaseException, expected: tuple[str, str]
) -> None:
    peer.answer = raising(error)
    assert status(peer.call.future(b"?", timeout=30)) == expected
    peer.answer = lambda data, call: b"on"
    assert peer.ask() == b"on"


def test_details_that_no_message_can_carry_are_told_as_far_as_possible(peer: Peer) -> None:
    peer.answer = raising(ServingError(errors.MODEL_NAME_MISSING, "\ud800"))
    code, details = status(peer.call.future(b"?", timeout=30))
    assert (code, details) == ("NOT_FOUND", f"{errors.MODEL_NAME_MISSING.text} - ?")


def test_a_message_that_unpacks_to_more_bytes_than_are_allowed_is_refused(peer: Peer) -> None:
    data = bytes(10 * MAX_MESSAGE_NBYTES)  # compressed, they are some dozen
    code, _ = status(peer.call.future(data, compression=grpc.Compression.Gzip, timeout=30))
    assert code == "RESOURCE_EXHAUSTED"
    assert peer.ask() == b"?"


def test_the_deadline_is_known_and_so_is_the_end_of_a_call(peer: Peer) -> None:
    seen = []
    cancelled = threading.Event()

    def answer(data: bytes, call: CallContext) -> bytes:
        assert call.deadline is not None
        seen.append(call.deadline - time.monotonic())
        call.check()
        call.expect_long()
        with pytest.raises(ServingError, match="cancelled"):
            wait_until(lambda: call.check())
        cancelled.set()
        return data

    peer.answer = answer
    call = peer.call.future(b"?", timeout=20)
    wait_until(lambda: bool(seen))
    call.cancel()
    assert cancelled.wait(30)
    assert 10 < seen[0] <= 20


def test_calls_that_block_keep_nobody_waiting(peer: Peer) -> None:
    gate = threading.Event()

    def answer(data: bytes, call: CallContext) -> bytes:
        if data == b"block":
            gate.wait(30)
        return data

    peer.answer = answer
    blocked = [peer.call.future(b"block", timeout=30) for _ in range(MAX_CALLS - 1)]
    for _ in range(20):
        assert peer.ask() == b"?"
    gate.set()
    assert [call.result(timeout=30) for call in blocked] == [b"block"] * len(blocked)


def test_more_calls_than_may_be_under_way_are_refused(peer: Peer) -> None:
    gate = threading.Event()

    def answer(data: bytes, call: CallContext) -> bytes:
        gate.wait(30)
        return data

    peer.answer = answer
    calls = [peer.call.future(b"?", timeout=30) for _ in range(20)]
    wait_until(lambda: sum(call.done() for call in calls) == 20 - MAX_CALLS)
    refused = [call for call in calls if call.done()]
    assert {status(call) for call in refused} == {
        ("RESOURCE_EXHAUSTED", f"Too many calls - Expected: at most {MAX_CALLS} under way")
    }
    gate.set()
    for call in calls:
        assert call in refused or call.result(timeout=30) == b"?"
    assert peer.ask() == b"?"


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_who_sets_the_clock_changes_no_deadline(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    remaining: list[float | None] = []
    peer.answer = lambda data, call: remaining.append(call.time_remaining_s()) or data
    headers = h2.call_headers("Do", "test.Test") + h2.header("grpc-timeout", "30S")
    with h2.Connection(peer.port) as client:
        client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, headers))
        wait_until(lambda: peer.calls._n_calls == 1)
        clock = time.time
        monkeypatch.setattr(time, "time", lambda: clock() + jump_s)
        client.send(h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b"?")))
        client.wait_for_end(1)
    assert remaining[0]
    assert 0 < remaining[0] <= 30


@contextmanager
def half_open(peer: Peer, number: int) -> Iterator[list[grpc.Future]]:
    """Calls whose message does not come; in the end they are closed without one."""
    gate = threading.Event()

    def no_message() -> Iterator[bytes]:
        gate.wait(30)
        yield from ()

    call = peer.channel.stream_unary(METHOD)
    calls = [call.future(no_message(), timeout=30) for _ in range(number)]
    wait_until(lambda: peer.calls._n_calls == number)
    try:
        yield calls
    finally:
        gate.set()


def test_calls_whose_message_does_not_come_take_no_thread(peer: Peer) -> None:
    with half_open(peer, MAX_CALLS - 1) as calls:
        assert peer.ask() == b"?"
        wait_until(lambda: len(peer.threads._busy) == 1)  # that which waits for calls
    for call in calls:
        assert status(call) == ("UNIMPLEMENTED", "A call needs exactly one message")


def test_calls_whose_message_does_not_come_make_room_for_others(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with half_open(peer, MAX_CALLS) as calls:
        too_many = f"Too many calls - Expected: at most {MAX_CALLS} under way"
        assert status(peer.call.future(b"?", timeout=30)) == ("RESOURCE_EXHAUSTED", too_many)
        assert not any(call.done() for call in calls), "they have not been waited for for long"
        monkeypatch.setattr(unary, "_PATIENCE_S", 0.0)
        assert peer.ask() == b"?"
        wait_until(lambda: peer.calls._n_calls < MAX_CALLS)
        assert peer.ask() == b"?"
        (refused,) = [call for call in calls if call.done()]
        assert status(refused) == ("RESOURCE_EXHAUSTED", f"{too_many}, or a message sooner")
    for call in calls:
        assert call is refused or status(call)[0] == "UNIMPLEMENTED"


def test_calls_whose_message_has_come_make_no_room(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unary, "_PATIENCE_S", 0.0)
    peer.answer = held = HeldBack()
    calls = [peer.call.future(b"?", timeout=30) for _ in range(MAX_CALLS)]
    wait_until(lambda: len(peer.threads._busy) == MAX_CALLS + 1)
    assert status(peer.call.future(b"?", timeout=30))[0] == "RESOURCE_EXHAUSTED"
    held.released.set()
    assert [call.result(timeout=30) for call in calls] == [b"?"] * MAX_CALLS


def test_a_message_of_too_many_bytes_is_refused(peer: Peer) -> None:
    assert status(peer.call.future(bytes(2000), timeout=30))[0] == "RESOURCE_EXHAUSTED"
    assert peer.ask() == b"?"


def test_a_call_under_way_is_finished_when_the_server_stops() -> None:
    peer = Peer()
    peer.answer = held = HeldBack()
    call = peer.call.future(b"?", timeout=30)
    assert held.began.wait(30)
    stopped = peer.begin_to_stop(30)
    held.released.set()
    assert call.result(timeout=30) == b"?"
    assert peer.end(stopped) == 0
    peer.channel.close()


def test_an_answer_arrives_however_slowly_it_is_read_when_the_server_stops() -> None:
    """Though the client sends more meanwhile, to a connection that gRPC would have closed."""
    peer = Peer()
    held = HeldBack()
    large = bytes(1_500_000)
    peer.answer = lambda data, call: held(data, call) + large
    with h2.SlowReader(peer.port) as client:
        client.send(
            h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.call_headers("Do", "test.Test")),
            h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b"?")),
        )
        assert held.began.wait(30)
        stopped = peer.begin_to_stop(30)
        n_bytes = client.last_answer(held.released.set, stopped)
    assert n_bytes == len(h2.message(b"?" + large))
    assert peer.end(stopped) == 0
    peer.channel.close()


def test_calls_that_have_come_are_answered_though_the_server_stops_before_it_looks_at_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_LONG_S", 30)
    peer = Peer()
    peer.answer = held = HeldBack()
    calls = [peer.call.future(b"?", timeout=30)]
    assert held.began.wait(30)
    calls += [peer.call.future(b"?", timeout=30) for _ in range(MAX_CALLS - 1)]
    # Answered after the others on the same connection have come.
    unknown = peer.channel.unary_unary("/test.Test/Unknown").future(b"?", timeout=30)
    assert status(unknown)[0] == "UNIMPLEMENTED"
    stopped = peer.begin_to_stop(30)
    held.released.set()
    assert [call.result(timeout=30) for call in calls] == [b"?"] * MAX_CALLS
    assert peer.end(stopped) == 0
    peer.channel.close()


def test_a_call_that_is_stuck_is_counted_when_the_server_stops() -> None:
    peer = Peer()
    peer.answer = held = HeldBack()
    call = peer.call.future(b"?", timeout=30)
    assert held.began.wait(30)
    assert peer.stop(0, wait_s=1) == 1
    assert status(call)[0] in ("UNAVAILABLE", "CANCELLED")
    held.released.set()  # its answer goes nowhere
    wait_until(lambda: not peer.threads._busy)
    peer.channel.close()
