"""Version folders of a model repository."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from pathlib import Path

from kfs.errors import ModelLoadError

_log = logging.getLogger("kfs.repository")
_VERSION = re.compile(r"[1-9][0-9]*")
#: The largest version number: versions are 64-bit integers on the wire.
MAX_VERSION = (1 << 63) - 1


def find_versions(base_path: Path) -> dict[int, Path]:
    """The versions of a model: folders named by positive integers; a file is its own version 1.

    Other names are left out with a warning.

    Raises:
        ModelLoadError: there is nothing at `base_path`, or it cannot be read.
    """
    if base_path.is_file():
        return {1: base_path}
    try:
        folders = sorted(path for path in base_path.iterdir() if path.is_dir())
    except OSError as error:
        raise ModelLoadError(f"cannot read the model path {base_path}: {error.strerror}") from None
    versions: dict[int, Path] = {}
    for folder in folders:
        if _VERSION.fullmatch(folder.name) and int(folder.name) <= MAX_VERSION:
            versions[int(folder.name)] = folder
        else:
            _warn_once(folder)
    return versions


@lru_cache(maxsize=4096)
def _warn_once(folder: Path) -> None:
    """Folders are looked at again and again."""
    _log.warning("Ignored folder %s: its name is not a version number", folder)
