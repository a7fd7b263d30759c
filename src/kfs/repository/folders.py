"""Version folders of a model repository."""

from __future__ import annotations

import logging
import os
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
    try:
        with os.scandir(base_path) as found:
            names = sorted(entry.name for entry in found if entry.is_dir())
    except NotADirectoryError:
        return {1: base_path}
    except OSError as error:
        raise ModelLoadError(f"cannot read the model path {base_path}: {error.strerror}") from None
    versions: dict[int, Path] = {}
    for name in names:
        if _VERSION.fullmatch(name) and int(name) <= MAX_VERSION:
            versions[int(name)] = base_path / name
        else:
            _warn_once(base_path / name)
    return versions


@lru_cache(maxsize=4096)
def _warn_once(folder: Path) -> None:
    """Folders are looked at again and again."""
    _log.warning("Ignored folder %s: its name is not a version number", folder)
