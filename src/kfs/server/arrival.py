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
import threading
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

_Client = tuple[str, int]  # its address and its port


def wait_for_arrival(peer: str, is_awaited: Callable[[], bool]) -> None:
    """Wait until all has arrived that was written to a client, or the client waits no more.

    Args:
        peer: the client, as `Arrival` takes it.
        is_awaited: whether the client still waits.
    """
    # Where the kernel does not answer, nothing can be told.
    with suppress(OSError), closing(Arrival(peer)) as arrival:
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
    if kind not in ("ipv4", "ipv6"):
        return None
    host, _, port = unquote(address).rpartition(":")
    return _connections.find((_plain(host), int(port)))


class _Connections:
    """Those of this process, by their clients.

    All of them are looked at once for many calls: when the server stops, each may have one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[_Client, int] = {}

    def find(self, client: _Client) -> socket.socket | None:
        with self._lock:
            found = self._take(client)
            if found is None:
                # The lowest counts: others are those that such calls have for a while.
                numbers = sorted(_descriptors(), reverse=True)
                seen = ((_client_of(number), number) for number in numbers)
                self._numbers = {client: number for client, number in seen if client is not None}
                found = self._take(client)
        return found

    def _take(self, client: _Client) -> socket.socket | None:
        if client not in self._numbers:
            return None
        try:
            ours = os.dup(self._numbers[client])
        except OSError:  # closed meanwhile, or there is none left
            return None
        if _client_of(ours) != client:
            os.close(ours)
            return None
        return socket.socket(fileno=ours)


_connections = _Connections()


def _descriptors() -> list[int]:
    try:
        return [int(number) for number in os.listdir("/proc/self/fd")]
    except OSError:  # not mounted, or there is none left to look with
        return []


def _client_of(number: int) -> _Client | None:
    """Who is at the other end of what a descriptor stands for, if that is a connection."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return None
        connection = socket.socket(fileno=number)
    except OSError:  # closed meanwhile
        return None
    try:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        host, port = connection.getpeername()[:2]
    except OSError:  # it listens
        return None
    finally:
        connection.detach()
    return _plain(host), port


def _plain(host: str) -> str:
    """An address without brackets, and that of IPv4 within IPv6 as the former writes it."""
    return host.strip("[]").removeprefix("::ffff:")
