"""What every storage offers."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kfs.errors import ModelLoadError


class NoAnswerError(ModelLoadError):
    """A storage has not said yet what is there."""


@dataclass(frozen=True)
class ModelFolder:
    """The files of one version on this machine."""

    path: Path
    temporary: bool = False

    def remove(self) -> None:
        """Remove a downloaded copy; a local folder stays."""
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)


class Storage(Protocol):
    """A place with the versions of one model.

    Attributes:
        is_remote: whether it may be out of reach for a while.
    """

    is_remote: bool

    def find_versions(self) -> dict[int, str]:
        """Locations by version number. Raises ModelLoadError."""

    def fetch(self, location: str) -> ModelFolder:
        """The version's files as a local folder, whole. Raises ModelLoadError."""

    def close(self) -> None:
        """Let go of connections; the storage is not used any more."""
