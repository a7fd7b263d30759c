"""A folder that may not answer, such as one of a network that is gone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait

from kfs.repository.storage.base import ModelFolder, NoAnswerError, Storage

_PATIENCE_S = 10.0


class PatientStorage:
    """Another storage, whose answer is waited for once and not for long.

    `look_at` asks it; while it has not answered, for hours maybe, it is not asked again.
    """

    def __init__(self, base_path: str, storage: Storage) -> None:
        self.is_remote = storage.is_remote
        self._base_path = base_path
        self._storage = storage
        self._answer: Future[dict[int, str]] = Future()
        #: Those that are asked after it on the same thread; None before it is asked.
        self._next: deque[PatientStorage] | None = None
        self._is_late = False

    def find_versions(self) -> dict[int, str]:
        """Locations by version number, as they were when it was last asked.

        Raises:
            NoAnswerError: there is no answer yet.
            ModelLoadError: whatever the storage says.
        """
        if self._next is None:
            look_at([self])
        wait([self._answer], 0 if self._is_late else _PATIENCE_S)
        if self._answer.done():
            return self._answer.result()
        if not self._is_late and self._next:
            _ask(self._next)  # the thread hangs, so another one goes on
        self._is_late = True
        raise NoAnswerError(f"no answer from {self._base_path} yet")

    def fetch(self, location: str) -> ModelFolder:
        """The version's files as a local folder, whole. Raises ModelLoadError."""
        return self._storage.fetch(location)

    def close(self) -> None:
        """Let go of connections."""
        self._storage.close()

    def _queue(self, others: deque[PatientStorage]) -> bool:
        """Get ready to be asked; False while the last answer is still to come."""
        if self._next is not None and not self._answer.done():
            return False
        self._answer, self._next, self._is_late = Future(), others, False
        return True

    def _look(self) -> None:
        try:
            self._answer.set_result(self._storage.find_versions())
        except BaseException as error:
            self._answer.set_exception(error)


def look_at(storages: Iterable[PatientStorage]) -> None:
    """Ask storages for their versions, one after the other on a thread of their own."""
    queue: deque[PatientStorage] = deque()
    queue.extend([storage for storage in storages if storage._queue(queue)])
    _ask(queue)


def _ask(queue: deque[PatientStorage]) -> None:
    def ask() -> None:
        for storage in _taken_from(queue):
            storage._look()

    try:
        threading.Thread(target=ask, name="look", daemon=True).start()
    except RuntimeError as error:  # the system has no more; they can be asked again
        for storage in _taken_from(queue):
            fault = NoAnswerError(f"{storage._base_path} was not asked: {error}")
            storage._answer.set_exception(fault)


def _taken_from(queue: deque[PatientStorage]) -> Iterator[PatientStorage]:
    """Until none is left; a thread that hung may come back and take some as well."""
    while queue:
        try:
            yield queue.popleft()
        except IndexError:
            return
