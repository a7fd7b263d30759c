"""A folder of this machine."""

from __future__ import annotations

from pathlib import Path

from kfs.repository.folders import find_versions
from kfs.repository.storage.base import ModelFolder, NoAnswerError


class LocalStorage:
    """A folder of this machine; its versions are used where they are."""

    is_remote = False

    def __init__(self, base_path: str) -> None:
        self._base = Path(base_path)

    def find_versions(self) -> dict[int, str]:
        """Locations by version number.

        Raises:
            NoAnswerError: what is there cannot be told, for want of a descriptor for instance.
            ModelLoadError: nothing is there.
        """
        try:
            found = find_versions(self._base)
        except OSError as error:
            raise NoAnswerError(
                f"cannot read the model path {self._base}: {error.strerror}"
            ) from None
        return {number: str(path) for number, path in found.items()}

    def fetch(self, location: str) -> ModelFolder:
        """The folder itself."""
        return ModelFolder(Path(location))

    def close(self) -> None:
        """There is nothing to let go of."""
