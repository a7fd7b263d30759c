"""Files that users name, which may be something else."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


def check_is_file(path: Path) -> None:
    """Look at a path before it is opened: a pipe would be waited for, a device be read for ever.

    Raises:
        OSError: nothing is there, or it is neither a file nor a folder.
        ValueError: the path is none, with a NUL for instance.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "Not a file", str(path))
