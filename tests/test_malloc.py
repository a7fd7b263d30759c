"""Freed memory that stays with the process."""

import os
import subprocess
import sys

import pytest

from kfs.cli.malloc import is_glibc

FAULTS = """
import resource, sys
from kfs.cli.malloc import keep_freed_memory
print(keep_freed_memory(int(sys.argv[1])))
def use():
    blocks = [b"x" * (8 << 20) for _ in range(4)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(not is_glibc(), reason="glibc's allocator is what is set")


def faults(kept_nbytes: int, **environment: str) -> tuple[str, int]:
    """Whether memory is kept, and the page faults of using 32 MiB ten times over."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, str(kept_nbytes)],
        env={**inherited, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    kept, count = done.stdout.split()
    return kept, int(count)


def test_kept_memory_is_not_faulted_in_again():
    kept, count = faults(64 << 20)
    assert kept == "True"
    assert count < 100

    kept, count = faults(0)
    assert kept == "False"
    assert count > 1000


def test_settings_of_the_environment_win():
    kept, count = faults(64 << 20, MALLOC_TRIM_THRESHOLD_="131072")
    assert kept == "False"
    assert count > 1000
