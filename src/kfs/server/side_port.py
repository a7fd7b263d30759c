"""The HTTP port beside gRPC: health for probes, and metrics. There is no inference on it."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from waitress.server import TcpWSGIServer, create_server
from waitress.trigger import trigger
from waitress.wasyncore import close_all

from kfs.metrics.registry import CONTENT_TYPE
from kfs.server.transport import ListenError

_log = logging.getLogger("kfs.server")

# Probes and a scraper or two.
_N_THREADS = 2
_MAX_CONNECTIONS = 200
_IDLE_S = 30
_MAX_REQUEST_NBYTES = 16_384
_ONLY_GET = b'{"error": "Only GET; inference and the rest of the API are on the gRPC port"}'

# What the system says when it has no room for a connection, and how long to leave it alone then.
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REST_S = 0.1
# At the limit, connections are taken and not taken in turn.
_TELL_EVERY_S = 60.0

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class SidePort:
    """An HTTP server on a thread of its own.

    Args:
        is_ready: whether the server is to get traffic.
        expose: the metrics as text; None when they are not offered.
    """

    def __init__(
        self, is_ready: Callable[[], bool], expose: Callable[[], bytes] | None = None
    ) -> None:
        self._is_ready = is_ready
        self._expose = expose
        self._sockets: Any = {}
        self._server: Any = None
        self._waker: Any = None
        self._thread: threading.Thread | None = None

    def start(self, hosts: Iterable[str], port: int) -> int:
        """Listen on every address.

        Returns:
            The port; another than asked for only if that is 0.

        Raises:
            ListenError: an address cannot be bound.
        """
        for host in hosts:
            # Port 0 takes a free one; the other addresses then get the same.
            port = self._listen(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        for listening in self._listening():
            listening.accept = Accept(listening.accept)
        self._waker = trigger(self._sockets)
        self._thread = threading.Thread(target=self._server.run, name="side-port", daemon=True)
        self._thread.start()
        return port

    def _listen(self, address: str) -> int:
        try:
            self._server = create_server(
                self._answer,
                self._sockets,
                listen=address,
                threads=_N_THREADS,
                connection_limit=_MAX_CONNECTIONS,
                channel_timeout=_IDLE_S,
                max_request_header_size=_MAX_REQUEST_NBYTES,
                max_request_body_size=_MAX_REQUEST_NBYTES,
                ident="kfs-fast",
            )
        except (OSError, ValueError):
            self._close()
            raise ListenError(
                f"cannot listen on {address} for HTTP: is the port in use, or the address not "
                "of this machine?"
            ) from None
        return int(self._listening()[-1].effective_port)

    def _listening(self) -> list[Any]:
        """A name may stand for several addresses, each with a socket."""
        return [part for part in self._sockets.values() if isinstance(part, TcpWSGIServer)]

    def stop(self) -> None:
        if self._thread is not None:
            self._waker.pull_trigger(self._close)  # on the thread that uses the sockets
            self._thread.join()
            self._thread = None

    def _close(self) -> None:
        close_all(self._sockets, ignore_all=True)

    def _answer(self, request: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        """One request, as WSGI has it (PEP 3333)."""
        status, kind, body = self._look_up(request["REQUEST_METHOD"], request["PATH_INFO"])
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def _look_up(self, method: str, path: str) -> tuple[str, str, bytes]:
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", "application/json", _ONLY_GET
        if path == "/metrics" and self._expose is not None:
            return "200 OK", CONTENT_TYPE, self._expose()
        if path == "/v2/health/live":
            return "200 OK", "application/json", b'{"live": true}'
        if path == "/v2/health/ready":
            if self._is_ready():
                return "200 OK", "application/json", b'{"ready": true}'
            return "503 Service Unavailable", "application/json", b'{"ready": false}'
        return "404 Not Found", "application/json", b'{"error": "Invalid request URL"}'


class Accept:
    """Takes a connection where there is room for one; it would be tried at once again otherwise."""

    def __init__(self, accept: Callable[[], Any]) -> None:
        self._accept = accept
        self._tell_from_s = time.monotonic()

    def __call__(self) -> Any:
        try:
            return self._accept()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            if time.monotonic() >= self._tell_from_s:
                _log.warning("The HTTP port takes no connection: %s", error.strerror)
                self._tell_from_s = time.monotonic() + _TELL_EVERY_S
            time.sleep(_REST_S)
            return None
