"""Files that users name, which may be something else."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


class NoFileError(OSError):
    """What is there is a pipe, a socket or a device."""


def check_is_file(path: Path) -> None:
    """Look at a path before it is opened: a pipe would be waited for, a device be read for ever.

    Raises:
        NoFileError: it is neither a file nor a folder.
        OSError: nothing is there, or it cannot be looked at.
        ValueError: the path is none, with a NUL for instance.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise NoFileError(errno.EINVAL, "Not a file", str(path))
