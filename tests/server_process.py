"""A server in a process of its own, on a free loopback port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import wait_until

KFS_FAST = [sys.executable, "-c", "from kfs.cli import main; main()"]


@dataclass
class ServerProcess:
    """The process, what it wrote, and where it listens."""

    process: subprocess.Popen[bytes]
    log: Path

    def has_said(self, text: str) -> bool:
        """Whether the log has the text; fails when the process has ended without it."""
        found = text in self.log.read_text()
        assert found or self.process.poll() is None, self.log.read_text()
        return found

    @property
    def port(self) -> int:
        lines = self.log.read_text().splitlines()
        (port,) = {line.rsplit(" ", 1)[1] for line in lines if "gRPC server on port" in line}
        return int(port)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.has_said("Ready"))


@contextmanager
def server_process(
    log: Path, *, ulimit: tuple[str, int] | None = None, **flags: object
) -> Iterator[ServerProcess]:
    """Start a server; killed at the end, if it has not ended by itself.

    Args:
        log: the file that it writes to.
        ulimit: a flag of the shell's `ulimit` and a number, to limit what it may do.
        flags: those of `serve`.
    """
    flags = {"port": 0, "grpc_bind_address": "127.0.0.1", **flags}
    command = [*KFS_FAST, "serve", *(f"--{name}={value}" for name, value in flags.items())]
    if ulimit is not None:
        # By a shell, since no code of ours may run in a fork of a process with gRPC's threads.
        flag, limit = ulimit
        command = ["bash", "-c", f'ulimit {flag} {limit}; exec "$@"', "limited", *command]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
        )
    try:
        yield ServerProcess(process, log)
    finally:
        process.kill()
        process.wait()
