"""Several server processes on one port, and the process that watches over them.

Each worker is a whole server; the kernel spreads connections over them. The supervisor reserves
the port, tells all workers at the same time to look for changes, offers the HTTP port with the
metrics of all, starts a worker anew that died, and passes the end on. One that is started anew
opens its port when it has loaded, as the others go on meanwhile. A worker whose supervisor is gone
drains and ends.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from kfs.cli.app import Server, StartError, begin_load, leave_stuck, metric_names
from kfs.cli.signals import End, end_signals
from kfs.errors import ModelLoadError
from kfs.helpers import Helpers
from kfs.metrics.registry import expose_shared, forget_process
from kfs.repository.schema import ConfigError
from kfs.servables.model import share_cores
from kfs.server.side_port import SidePort
from kfs.server.transport import ListenError
from kfs.settings import SHARED_METRICS_VARIABLE, ServerSettings

_log = logging.getLogger("kfs.workers")

# What supervisor and workers say to each other; a worker that cannot start says why.
_READY, _POLL, _POLLED, _STOP = "ready", "poll", "polled", "stop"

# A worker that dies young is started again after a while, which doubles.
_YOUNG_S = 30.0
_MIN_BACKOFF_S = 1.0
_MAX_BACKOFF_S = 60.0
# What a worker gets to end, after its running calls had their time: a second for each of its four
# kinds of threads to notice, five for a load that hangs, five for what is unloaded, and one more.
_END_S = 15.0


def run_workers(settings: ServerSettings, end: End, set_up: Callable[[], None]) -> int:
    """Serve with `settings.n_workers` processes until the end.

    Args:
        set_up: called first in each worker, for its logs and its memory; it has to be picklable.

    Returns:
        The exit code: 0 after draining, 1 when the server cannot start.
    """
    with ExitStack() as stack:
        try:
            metrics = metric_names(settings)
            port = stack.enter_context(_reserved_port(settings))
            supervisor = _Supervisor(replace(settings, port=port, metrics=metrics), set_up)
            if settings.rest_port is not None:
                expose = stack.enter_context(_shared_metrics()) if metrics else None
                side_port = SidePort(supervisor.is_ready, expose)
                rest_port = side_port.start(settings.rest_bind_address, settings.rest_port)
                stack.callback(side_port.stop)
                _log.info("Started HTTP server on port %d", rest_port)
            stack.callback(supervisor.stop)  # first of all, as workers count to their end
            _log.info("Starting %d workers on port %d", settings.n_workers, port)
            supervisor.run(end)
        except (StartError, ConfigError, ListenError) as error:
            print(f"kfs-fast: {error}", file=sys.stderr)
            return 1
        _log.info("Stopping: running calls get %g s to finish", settings.drain_s)
    _log.info("Stopped")
    return 0


class _Worker:
    """One worker, as the supervisor sees it: its process, and the link to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._is_polling = False
        #: Since when it takes calls, if it does.
        self._ready_since: float | None = None
        #: When to start it again.
        self.due = 0.0
        self._backoff_s = _MIN_BACKOFF_S
        self._process: BaseProcess | None = None
        self.link: Connection | None = None

    def start(
        self, settings: ServerSettings, set_up: Callable[[], None], *, loads_first: bool
    ) -> None:
        """
        Raises:
            OSError: the system has no room for it.
        """
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that are held
        link, theirs = context.Pipe()
        process = context.Process(
            target=_work,
            args=(settings, theirs, set_up, loads_first),
            name=f"worker-{self.number}",
        )
        with theirs:  # closed here, so that the end of the worker is the end of the link
            try:
                process.start()
            except OSError:
                link.close()
                raise
        self.link, self._process = link, process
        self._is_polling = False

    def poll(self) -> None:
        """Tell it to look for changes, unless it is still about something else.

        What it does not read fills the link, and who writes to a full one waits.
        """
        if self.is_ready and not self._is_polling:
            self._is_polling = True
            self._tell(_POLL)

    @property
    def is_ready(self) -> bool:
        return self.link is not None and self._ready_since is not None

    def has_loaded(self) -> None:
        self._ready_since = time.monotonic()

    def has_polled(self) -> None:
        self._is_polling = False

    def tell_end(self) -> None:
        if self._process is not None:
            self._tell(_STOP)
            self._process.terminate()  # which it hears while it loads or looks, too

    def _tell(self, word: str) -> None:
        assert self.link is not None
        with contextlib.suppress(OSError):  # it has died, as the link will say
            self.link.send(word)

    def bury(self) -> None:
        """Take note of its end, and choose when to start it again."""
        self.put_off(f"ended with exit code {self._end(_END_S)}")

    def put_off(self, reason: str) -> None:
        """Choose when to start it again."""
        now = time.monotonic()
        young = self._ready_since is None or now - self._ready_since < _YOUNG_S
        self._ready_since = None
        self._backoff_s = min(2 * self._backoff_s, _MAX_BACKOFF_S) if young else _MIN_BACKOFF_S
        self.due = now + self._backoff_s
        _log.error("Worker %d %s; starting it again in %g s",
                   self.number, reason, self._backoff_s)  # fmt: skip

    def stop(self, deadline: float) -> None:
        if self._process is not None:
            self._end(max(deadline - time.monotonic(), 0))

    def _end(self, timeout_s: float) -> int | None:
        assert self._process is not None
        assert self.link is not None
        self._process.join(timeout_s)
        if self._process.is_alive():
            _log.error("Worker %d does not end, and is killed", self.number)
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        forget_process(self._process.pid)
        self._process.close()
        self.link.close()
        self._process = self.link = None
        return code


class _Supervisor:
    def __init__(self, settings: ServerSettings, set_up: Callable[[], None]) -> None:
        self._settings = settings
        self._set_up = set_up
        self._workers = [_Worker(number) for number in range(1, settings.n_workers + 1)]
        self._was_ready = False
        self._is_stopping = False

    def is_ready(self) -> bool:
        """Whether all workers were, and not all have died since, nor are told to end."""
        is_one = any(worker.is_ready for worker in self._workers)
        return is_one and self._was_ready and not self._is_stopping

    def run(self, end: End) -> None:
        """Start the workers and watch over them until the end is told.

        Raises:
            StartError: a worker could not start when all of them were to.
        """
        for worker in self._workers:
            self._start(worker)
        interval_s = self._settings.poll_wait_s or None
        look = time.monotonic() + (interval_s or 0)
        while not end.has_come():
            heard = self._wait(end, look if interval_s else None)
            for worker in self._workers:
                if worker.link is not None and worker.link in heard:
                    self._hear(worker)
                elif worker.link is None and time.monotonic() >= worker.due:
                    self._start(worker)
            if interval_s and time.monotonic() >= look:
                look = time.monotonic() + interval_s
                for worker in self._workers:
                    worker.poll()

    def stop(self) -> None:
        self._is_stopping = True
        for worker in self._workers:
            worker.tell_end()
        deadline = time.monotonic() + self._settings.drain_s + _END_S
        for worker in self._workers:
            worker.stop(deadline)

    def _start(self, worker: _Worker) -> None:
        # All look for changes when they are told to, at the same time.
        settings = replace(self._settings, poll_wait_s=0, rest_port=None)
        try:
            worker.start(settings, self._set_up, loads_first=self._was_ready)
        except OSError as error:
            reason = f"cannot be started: {error.strerror}"
            if not self._was_ready:
                raise StartError(f"worker {worker.number} {reason}") from None
            worker.put_off(reason)

    def _wait(self, end: End, look: float | None) -> list[Any]:
        times = [worker.due for worker in self._workers if worker.link is None]
        if look is not None:
            times.append(look)
        timeout_s = max(min(times) - time.monotonic(), 0) if times else None
        links = [worker.link for worker in self._workers if worker.link is not None]
        return wait([end.news, *links], timeout_s)

    def _hear(self, worker: _Worker) -> None:
        assert worker.link is not None
        try:
            word = worker.link.recv()
        except (EOFError, OSError):
            if not self._was_ready:
                raise StartError(f"worker {worker.number} ended while it started") from None
            worker.bury()
            return
        if word == _POLLED:
            worker.has_polled()
        elif word == _READY:
            worker.has_loaded()
            if not self._was_ready and all(other.is_ready for other in self._workers):
                self._was_ready = True
                _log.info("Ready")
        elif not self._was_ready:
            raise StartError(word)
        else:
            _log.error("Worker %d cannot start: %s", worker.number, word)


def _work(
    settings: ServerSettings, supervisor: Connection, set_up: Callable[[], None], loads_first: bool
) -> None:
    """The life of a worker.

    Args:
        loads_first: whether the port is to be opened only then, since others serve what is asked.
    """
    set_up()
    share_cores(settings.n_workers)
    server = None
    with end_signals() as end:
        try:
            server = Server(settings, settings.metrics)
            if not loads_first:
                server.start()
            _serve(server, begin_load(server, end), supervisor, end, starts=loads_first)
        except (StartError, ModelLoadError, ConfigError) as error:
            _tell(supervisor, str(error))
            if server is not None:
                server.stop(0)
            sys.exit(1)
        leave_stuck(server.stop())


def _serve(
    server: Server, loading: Future[None], supervisor: Connection, end: End, *, starts: bool
) -> None:
    """Do what the supervisor says, until the end.

    Args:
        starts: whether the server is to be started once it has loaded.

    Raises:
        ModelLoadError, ConfigError: from `loading`.
        StartError: as `Server.start`.
    """
    looker = Helpers(1)  # a look may hang, too
    is_ready = False

    def look() -> None:
        server.repository.look()
        _tell(supervisor, _POLLED)

    while not end.has_come():
        if loading.done() and not is_ready:  # after the news of it was read, which comes once
            loading.result()
            if starts:
                server.start()
            is_ready = True
            _tell(supervisor, _READY)
        if supervisor not in wait([supervisor, end.news]):
            continue
        try:
            word = supervisor.recv()
        except (EOFError, OSError):
            _log.error("The supervisor is gone")
            return
        if word == _STOP:
            return
        if looker.call(look) is None:
            look()


def _tell(supervisor: Connection, word: str) -> None:
    with contextlib.suppress(OSError):  # it is gone, as the link will say
        supervisor.send(word)


@contextmanager
def _shared_metrics() -> Iterator[Callable[[], bytes]]:
    """A folder in which workers count, and what they counted together.

    Raises:
        StartError: there is no place for it.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="kfs-fast-metrics-")
    except OSError as error:
        raise StartError(
            "the workers have no folder to count metrics in; make /tmp writable, or name a folder "
            f"in the variable TMPDIR: {error.strerror}"
        ) from None
    with made as folder:
        os.environ[SHARED_METRICS_VARIABLE] = folder  # for the workers; looked at when they start
        try:
            yield lambda: expose_shared(folder)
        finally:
            del os.environ[SHARED_METRICS_VARIABLE]


@contextmanager
def _reserved_port(settings: ServerSettings) -> Iterator[int]:
    """The port of the settings, or a free one, which nobody but the workers can take.

    Raises:
        ListenError: it is taken, or an address is not of this machine.
    """
    port = settings.port
    for host in settings.grpc_bind_address:
        # Workers of another server would share theirs. Who has gone does not matter.
        _bound(host, port, socket.SO_REUSEADDR).close()
    with ExitStack() as stack:
        for host in settings.grpc_bind_address:
            # Bound and not listening, it takes no connections away from the workers.
            reserved = stack.enter_context(_bound(host, port, socket.SO_REUSEPORT))
            port = reserved.getsockname()[1]
        yield port


def _bound(host: str, port: int, option: int) -> socket.socket:
    """
    Raises:
        ListenError: it is taken, or the address is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with ExitStack() as stack:
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
            bound.bind(address)
            stack.pop_all()
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    except UnicodeError:  # a label of more than 63 characters, for instance
        raise ListenError(f"cannot listen on {host}:{port}: this is no host name") from None
    return bound
