"""Threads that help with work which their caller could do alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Helpers(ThreadPoolExecutor):
    """A pool of threads, made when first needed, that callers can do without."""

    def call(self, work: Callable[[], None]) -> Future[None] | None:
        """Let a thread call a function as soon as one is free.

        Returns:
            A future that can be cancelled until then; None if the system has no thread for it, or
            the pool is shut down: then the function is not called.
        """
        future: Future[None] = Future()

        def task() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(None)

        try:
            self.submit(task)
        except RuntimeError:
            # It may be in the queue all the same, or even be running.
            return None if future.cancel() else future
        return future
