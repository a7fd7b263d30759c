"""glibc's allocator, told to keep what the next message needs again."""

from __future__ import annotations

import ctypes
import os

# Numbers of parameters, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# The most that every glibc takes; larger blocks go back to the kernel when they are freed.
_MAX_KEPT_BLOCK_NBYTES = 32 << 20


def keep_freed_memory(nbytes: int) -> bool:
    """Let up to `nbytes` of freed memory stay with the process.

    Otherwise the buffers of every large message are given back to the kernel, and their pages
    faulted in and cleared again for the next one. One arena instead of some per core shares what
    is kept among all threads. To be called before other threads begin, which have arenas.

    Returns:
        Whether it was done: nothing is for 0, with another C library, or when the environment
        sets glibc's malloc itself (MALLOC_ARENA_MAX and its like).
    """
    if not nbytes or not is_glibc() or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        [
            mallopt(_M_ARENA_MAX, 1),
            mallopt(_M_TRIM_THRESHOLD, nbytes),
            mallopt(_M_MMAP_THRESHOLD, min(nbytes, _MAX_KEPT_BLOCK_NBYTES)),
        ]
    )


def is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):
        return False
