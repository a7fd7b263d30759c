"""A folder of this machine."""

from __future__ import annotations

from pathlib import Path

from kfs.repository.folders import find_versions
from kfs.repository.storage.base import ModelFolder


class LocalStorage:
    """A folder of this machine; its versions are used where they are."""

    is_remote = False

    def __init__(self, base_path: str) -> None:
        self._base = Path(base_path)

    def find_versions(self) -> dict[int, str]:
        """Locations by version number. Raises ModelLoadError."""
        return {number: str(path) for number, path in find_versions(self._base).items()}

    def fetch(self, location: str) -> ModelFolder:
        """The folder itself."""
        return ModelFolder(Path(location))

    def close(self) -> None:
        """There is nothing to let go of."""
