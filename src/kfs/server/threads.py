"""Threads that calls run on."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

_log = logging.getLogger("kfs.server")

_Method = TypeVar("_Method", bound=Callable[..., Any])
_Result = TypeVar("_Result")
_Task = Callable[[], None]

# A call that has run for longer is taken to wait for something.
_LONG_S = 0.05
# How often to look whether calls have ended, when the server does.
_LOOK_S = 0.005
# A thread that had nothing to do for so long ends, if there are more than run at a time.
_IDLE_S = 10.0

# For questions about the server and its models; more of them wait for their messages.
_N_CONTROL_THREADS = 8
MAX_CONTROL_THREADS = 512


class _Worker:
    """One thread: what it is to do, and since when."""

    __slots__ = ("began", "task", "wake")

    def __init__(self) -> None:
        self.task: _Task | None = None
        self.began = 0.0
        self.wake = threading.Lock()  # released when there is a task
        self.wake.acquire()


class CallThreads(ThreadPoolExecutor):
    """Threads for calls, some of which wait: for a handler, an infer request, a message.

    Calls that have run for long do not count among those that run at a time, as they are more
    likely to wait than to compute. So short ones go on, however many others are stuck. The thread
    that was idle last takes the next call, while its caches are warm.

    Args:
        n_threads: how many calls run at a time.
        max_threads: how many do together with those that take long; others wait.
    """

    # Derived from what grpcio takes for a method of its own; its queue and threads are not used.

    def __init__(self, n_threads: int, max_threads: int, name: str) -> None:
        super().__init__(max_threads)
        self._n_threads = n_threads
        self._most_threads = max_threads
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._queue: deque[_Task] = deque()
        self._is_watched = False

    def wait(self, timeout_s: float) -> int:
        """Wait until no call runs; how many are stuck and run all the same."""
        end = time.monotonic() + timeout_s
        while self._busy and time.monotonic() < end:
            time.sleep(_LOOK_S)
        return len(self._busy)

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        """Run a function as soon as there is a thread for it."""
        future: Future[_Result] = Future()

        def task() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._room() <= 0 or not self._begin(task):
                self._queue.append(task)
                self._watch()
        return future

    # All below, but for `_run`, is called with the lock held.

    def _begin(self, task: _Task) -> bool:
        """Begin on an idle thread or a new one; whether there was one to be had."""
        if self._idle:
            worker = self._idle.pop()
        else:
            worker = _Worker()
            if not self._start(self._run, worker):
                return False
        self._hand_over(worker, task)
        return True

    def _hand_over(self, worker: _Worker, task: _Task) -> None:
        worker.task = task
        worker.began = time.monotonic()
        self._busy.add(worker)
        worker.wake.release()

    def _start(self, target: Callable[..., None], *args: object) -> bool:
        # A daemon: one that is stuck does not keep the process from ending.
        thread = threading.Thread(target=target, args=args, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            _log.warning("No thread for a call: the system has no more")
            return False
        return True

    def _run(self, worker: _Worker) -> None:
        while True:
            if not worker.wake.acquire(timeout=_IDLE_S):
                with self._lock:
                    n_workers = len(self._idle) + len(self._busy)
                    if n_workers > self._n_threads and worker in self._idle:
                        self._idle.remove(worker)
                        return
                continue
            task = worker.task
            worker.task = None  # an idle thread keeps nothing of a call alive
            assert task is not None
            task()
            del task
            with self._lock:
                self._busy.remove(worker)
                if not self._queue:
                    self._idle.append(worker)
                elif self._room() > 0:
                    self._hand_over(worker, self._queue.popleft())
                else:
                    return

    def _room(self) -> int:
        """How many more calls may begin."""
        n_running = len(self._busy)
        if n_running < self._n_threads:
            return self._n_threads - n_running
        long_ago = time.monotonic() - _LONG_S
        n_short = sum(worker.began > long_ago for worker in self._busy)
        return min(self._n_threads - n_short, self._most_threads - n_running)

    def _watch(self) -> None:
        """See to it that calls in the queue do not wait for those that are stuck."""
        if not self._is_watched:
            self._is_watched = self._start(self._look)

    def _look(self) -> None:
        while True:
            time.sleep(_LONG_S)
            with self._lock:
                for _ in range(min(self._room(), len(self._queue))):
                    if not self._begin(self._queue[0]):
                        break
                    self._queue.popleft()
                if not self._queue:
                    self._is_watched = False
                    return


@cache
def control_threads() -> CallThreads:
    """Threads that no inference takes."""
    return CallThreads(_N_CONTROL_THREADS, MAX_CONTROL_THREADS, "control")


def on_control_threads(method: _Method) -> _Method:
    """Let grpcio run a function on threads that no inference takes, so that it always answers."""
    method.experimental_thread_pool = control_threads()  # type: ignore[attr-defined]
    return method
