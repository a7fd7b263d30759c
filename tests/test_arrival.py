"""Whether what was written to a connection has arrived."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from conftest import wait_until

from kfs.server.arrival import Arrival


@pytest.mark.parametrize(
    ("family", "host", "client_host", "name"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", "ipv4:127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "::1", "ipv6:%5B::1%5D:{}"),
        (socket.AF_INET6, "::", "127.0.0.1", "ipv4:127.0.0.1:{}"),
    ],
)
def test_it_has_once_the_client_took_it(
    family: socket.AddressFamily, host: str, client_host: str, name: str
) -> None:
    try:
        server = socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::")
    except OSError:
        pytest.skip(f"no address {host} here")
    with server:
        address = (client_host, server.getsockname()[1])
        with socket.create_connection(address) as client, server.accept()[0] as connection:
            peer = name.format(client.getsockname()[1])
            with closing(Arrival(peer)) as arrival:
                assert arrival.is_complete()
            fill(connection)
            with closing(Arrival(peer)) as arrival:
                assert not arrival.is_complete()
                wait_until(lambda: client.recv(1 << 20) and arrival.is_complete())


def test_what_is_written_meanwhile_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        with client, server.accept()[0] as connection:
            fill(connection)
            with closing(Arrival(f"ipv4:127.0.0.1:{client.getsockname()[1]}")) as arrival:

                def has_arrived() -> bool:
                    client.recv(1 << 20)
                    fill(connection)
                    return arrival.is_complete()

                wait_until(has_arrived)


def test_the_descriptors_are_looked_at_once_for_many_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There may be thousands, and as many calls that end together."""
    looks: list[object] = []
    peers: list[str] = []
    look = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: looks.append(path) or look(path))
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(20):
            client = stack.enter_context(socket.create_connection(server.getsockname()))
            fill(stack.enter_context(server.accept()[0]))
            peers.append(f"ipv4:127.0.0.1:{client.getsockname()[1]}")
        arrivals = [stack.enter_context(closing(Arrival(peer))) for peer in peers]
        assert not any(arrival.is_complete() for arrival in arrivals)
    assert looks.count("/proc/self/fd") == 1


def fill(connection: socket.socket) -> None:
    """Write as much as the system takes while nobody reads."""
    connection.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            connection.send(bytes(1 << 20))


def test_of_who_cannot_be_found_nothing_is_waited_for(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for peer in ("ipv4:127.0.0.1:1", "unix:", f"unix:{tmp_path}", "ipv6:%5B::1%5D:1"):
        with closing(Arrival(peer)) as arrival:
            assert arrival.is_complete()
    assert len(os.listdir("/proc/self/fd")) == before
