"""Load from client processes: closed loops over connections of their own.

Every unit of concurrency is a connection with one request under way. The connections are spread
over processes, so that no client waits for another's interpreter, and all send the same bytes,
made once. Latencies are of calls that succeeded, from the bytes of the request to those of the
answer, which is not parsed.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import grpc

from kfs.cli.client import Connect

_INFER = "/inference.GRPCInferenceService/ModelInfer"
#: How often a client process tells how far it is.
_TICK_S = 0.25


class LoadError(Exception):
    """A client process ended before it was done."""


@dataclass(frozen=True)
class Load:
    """What each connection does.

    Attributes:
        connect: the server.
        request: a serialized ModelInferRequest.
        warm_up_s: calls before the measurement, for this long and at least one.
        duration_s: calls that are measured begin within this time.
    """

    connect: Connect
    request: bytes
    warm_up_s: float
    duration_s: float


@dataclass
class Tally:
    """What came of some connections.

    Attributes:
        latencies_us: of the calls that succeeded.
        rate_per_s: calls that succeeded, over the time of each connection, summed.
        errors: calls that failed, by the name of their status.
        first_error: status and text of the first that failed.
        cpu_s: processor time that the client processes took.
    """

    latencies_us: array[float] = field(default_factory=lambda: array("d"))
    rate_per_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    first_error: str = ""
    cpu_s: float = 0.0

    def add(self, other: Tally) -> None:
        self.latencies_us.extend(other.latencies_us)
        self.rate_per_s += other.rate_per_s
        self.errors.update(other.errors)
        self.first_error = self.first_error or other.first_error
        self.cpu_s += other.cpu_s


#: Told the number of calls that succeeded so far and the share of the time that has passed.
OnProgress = Callable[[int, float], None]


def n_processes(concurrency: int) -> int:
    """Client processes for so many connections: more than two for each core gain nothing."""
    return min(concurrency, 2 * (os.cpu_count() or 1))


def measure(load: Load, concurrency: int, on_progress: OnProgress) -> Tally:
    """Run `concurrency` closed loops at a time and count what comes of them.

    Raises:
        LoadError: a client process ended before it was done.
    """
    with _started(load, concurrency) as pipes:
        for pipe in pipes:
            _receive(pipe)  # warm
        for pipe in pipes:
            pipe.send(None)
        return _collect(pipes, load.duration_s, on_progress)


@contextmanager
def _started(load: Load, concurrency: int) -> Iterator[list[Connection]]:
    # Spawned, not forked: gRPC does not survive a fork.
    context = multiprocessing.get_context("spawn")
    count = n_processes(concurrency)
    pipes, processes = [], []
    try:
        for index in range(count):
            n_connections = concurrency // count + (index < concurrency % count)
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_run_client, args=(load, n_connections, theirs), daemon=True
            )
            with _interrupts_ignored():
                process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.terminate()
            process.join()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process started meanwhile keeps ignoring them: the terminal's is meant for the command."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _collect(pipes: Sequence[Connection], duration_s: float, on_progress: OnProgress) -> Tally:
    begin = time.perf_counter()
    counts = dict.fromkeys(pipes, 0)
    total = Tally()
    pending = set(pipes)
    while pending:
        for pipe in multiprocessing.connection.wait(pending):
            assert isinstance(pipe, Connection)
            message = _receive(pipe)
            if isinstance(message, Tally):
                counts[pipe] = len(message.latencies_us)
                total.add(message)
                pending.remove(pipe)
            elif message is not None:
                counts[pipe] = message
        passed = (time.perf_counter() - begin) / duration_s
        on_progress(sum(counts.values()), min(passed, 1.0))
    return total


def _receive(pipe: Connection) -> int | Tally | None:
    try:
        message: int | Tally | None = pipe.recv()
    except EOFError:
        raise LoadError("a client process ended before it was done") from None
    return message


def _run_client(load: Load, n_connections: int, pipe: Connection) -> None:
    """A client process: warm up, say so, wait for the word, measure, tell."""
    loops = [_Loop(load) for _ in range(n_connections)]
    with ThreadPoolExecutor(n_connections) as threads, pipe:
        for warm in [threads.submit(loop.warm_up) for loop in loops]:
            warm.result()
        pipe.send(None)
        pipe.recv()
        before = _cpu_s()
        # All begin together, and not while threads are still being woken.
        gate = threading.Event()
        running = [threads.submit(loop.run, gate) for loop in loops]
        gate.set()
        total = Tally()
        for tally in _finished(running, loops, pipe):
            total.add(tally)
        total.cpu_s = _cpu_s() - before
        pipe.send(total)


def _finished(
    running: list[Future[Tally]], loops: Sequence[_Loop], pipe: Connection
) -> Iterator[Tally]:
    while wait(running, timeout=_TICK_S).not_done:
        pipe.send(sum(len(loop.tally.latencies_us) for loop in loops))
    for future in running:
        yield future.result()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class _Loop:
    """One connection."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = load.connect.channel().unary_unary(
            _INFER
        )
        self.tally = Tally()

    def warm_up(self) -> None:
        end = time.perf_counter() + self._load.warm_up_s
        timeout_s = self._load.connect.timeout_s
        while True:
            with suppress(grpc.RpcError):  # one that lasts is met again where it is counted
                self._call(self._load.request, timeout=timeout_s, wait_for_ready=True)
            if time.perf_counter() >= end:
                return

    def run(self, gate: threading.Event) -> Tally:
        call, request, timeout_s = self._call, self._load.request, self._load.connect.timeout_s
        tally, clock = self.tally, time.perf_counter
        gate.wait()
        begin = now = clock()
        end = begin + self._load.duration_s
        while now < end:
            before = now
            try:
                call(request, timeout=timeout_s)
            except grpc.RpcError as error:
                self._count(error)
                now = clock()
            else:
                now = clock()
                tally.latencies_us.append((now - before) * 1e6)
        tally.rate_per_s = len(tally.latencies_us) / (now - begin)
        return tally

    def _count(self, error: grpc.RpcError) -> None:
        status = error.code().name
        self.tally.errors[status] += 1
        if not self.tally.first_error:
            details = " ".join((error.details() or "").split())
            self.tally.first_error = f"{status}: {details}"
