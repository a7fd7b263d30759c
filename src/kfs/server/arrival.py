"""Whether what was written to a connection has arrived.

gRPC closes a connection as soon as the kernel has taken the end of its last call. What of that is
still on its way is lost then, if the client sends anything more, as it does to let a large answer
through: the kernel resets a connection that nobody reads any more.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from urllib.parse import unquote

# linux/sockios.h: the bytes that the other side has not acknowledged.
_SIOCOUTQ = 0x5411
# linux/tcp.h: where tcp_info has how many it ever acknowledged.
_ACKNOWLEDGED = slice(120, 128)

# How often to look.
_POLL_S = 0.005


def wait_for_arrival(peer: str, is_awaited: Callable[[], bool]) -> None:
    """Wait until all has arrived that was written to a client, or the client waits no more.

    Args:
        peer: the client, as `Arrival` takes it.
        is_awaited: whether the client still waits.
    """
    with closing(Arrival(peer)) as arrival:
        while is_awaited() and not arrival.is_complete():
            time.sleep(_POLL_S)


class Arrival:
    """What tells whether all has arrived that was written to a client by now; to be closed.

    Args:
        peer: the client, as gRPC calls it: `ipv4:127.0.0.1:1234` or `ipv6:%5B::1%5D:1234`.
    """

    def __init__(self, peer: str) -> None:
        self._connection = _find(peer) if sys.platform == "linux" else None
        # What other calls write meanwhile is not waited for, which may be without an end.
        self._goal = 0
        if self._connection is not None:
            self._goal = _n_outstanding(self._connection) + _n_acknowledged(self._connection)

    def is_complete(self) -> bool:
        """Whether it has; also where nothing can be told.

        That is of a client that has gone, of a unix socket, and on other systems than Linux.
        """
        if self._connection is None:
            return True
        return (
            not _n_outstanding(self._connection) or _n_acknowledged(self._connection) >= self._goal
        )

    def close(self) -> None:
        """Give the descriptor back; the connection itself goes on."""
        if self._connection is not None:
            self._connection.close()


def _n_outstanding(connection: socket.socket) -> int:
    answer = fcntl.ioctl(connection, _SIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def _n_acknowledged(connection: socket.socket) -> int:
    """Bytes; always 0 where the kernel does not count them."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)
    return int.from_bytes(info[_ACKNOWLEDGED], sys.byteorder)


def _find(peer: str) -> socket.socket | None:
    """The connection with the client, by a descriptor of our own."""
    kind, _, address = peer.partition(":")
    host, _, port = unquote(address).rpartition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    for number in _descriptors():
        with suppress(OSError):  # closed meanwhile
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            found = socket.socket(fileno=os.dup(number))
            if _peer_of(found) == (_plain(host), int(port)):
                return found
            found.close()
    return None


def _descriptors() -> list[int]:
    try:
        return [int(number) for number in os.listdir("/proc/self/fd")]
    except OSError:  # not mounted, or there is none left to look with
        return []


def _peer_of(connection: socket.socket) -> tuple[str, int] | None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        host, port = connection.getpeername()[:2]
    except OSError:  # it listens
        return None
    return _plain(host), port


def _plain(host: str) -> str:
    """An address without brackets, and that of IPv4 within IPv6 as the former writes it."""
    return host.strip("[]").removeprefix("::ffff:")
