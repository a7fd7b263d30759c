"""A folder that may not answer, such as one of a network that is gone."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait

from kfs.repository.storage.base import ModelFolder, NoAnswerError, Storage

_PATIENCE_S = 10.0


class PatientStorage:
    """Another storage, whose answer is waited for once and not for long.

    Each look has a thread, which may hang for hours; meanwhile there is no other look, and other
    models are looked at.
    """

    def __init__(self, base_path: str, storage: Storage) -> None:
        self.is_remote = storage.is_remote
        self._base_path = base_path
        self._storage = storage
        self._look: Future[dict[int, str]] | None = None

    def find_versions(self) -> dict[int, str]:
        """Locations by version number.

        Raises:
            NoAnswerError: there is no answer yet.
            ModelLoadError: whatever the storage says.
        """
        look, patience_s = self._look, 0.0
        if look is None:
            look, patience_s = Future(), _PATIENCE_S
            threading.Thread(target=self._answer, args=(look,), name="look", daemon=True).start()
        wait([look], patience_s)
        if not look.done():
            self._look = look
            raise NoAnswerError(f"no answer from {self._base_path} yet")
        self._look = None
        return look.result()

    def _answer(self, look: Future[dict[int, str]]) -> None:
        try:
            look.set_result(self._storage.find_versions())
        except BaseException as error:
            look.set_exception(error)

    def fetch(self, location: str) -> ModelFolder:
        """The version's files as a local folder, whole. Raises ModelLoadError."""
        return self._storage.fetch(location)

    def close(self) -> None:
        """Let go of connections."""
        self._storage.close()
