"""HTTP/2 frames by hand, for clients that no library would be: they stop, lie and flood."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
CANCEL = struct.pack(">I", 8)
INITIAL_WINDOW_SIZE = 4
MAX_WINDOW = (1 << 31) - 1


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        return self.kind == RST_STREAM or (
            self.kind in (HEADERS, DATA) and bool(self.flags & END_STREAM)
        )


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def setting(name: int, value: int) -> bytes:
    return struct.pack(">HI", name, value)


def header(name: str, value: str) -> bytes:
    """A header literally, in no table (HPACK)."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def call_headers(method: str, service: str = "inference.GRPCInferenceService") -> bytes:
    """What begins a call of a method, of the inference service unless told otherwise."""
    return b"".join(
        header(name, value)
        for name, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/{service}/{method}"),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        )
    )


def begin_call(stream: int, method: str = "ModelInfer") -> bytes:
    return frame(HEADERS, END_HEADERS, stream, call_headers(method))


def message(data: bytes, *, promised: int | None = None) -> bytes:
    """A gRPC message, which may promise more bytes than it has."""
    return struct.pack(">BI", 0, len(data) if promised is None else promised) + data


class Connection:
    """A connection with its preface sent; a context manager that closes it."""

    def __init__(self, port: int, *settings: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.send(PREFACE, frame(SETTINGS, payload=b"".join(settings)))

    def send(self, *frames: bytes) -> None:
        """Send; whether the other side has closed meanwhile does not matter."""
        try:
            self.socket.sendall(b"".join(frames))
        except OSError:
            return

    def frames(self) -> Iterator[Frame]:
        """What comes, until the other side closes."""
        with self.socket.makefile("rb") as file:
            while len(head := file.read(9)) == 9:
                length = int.from_bytes(head[:3], "big")
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                yield Frame(kind, flags, stream, file.read(length))

    def wait_for_end(self, stream: int) -> Frame:
        """The frame that ends a stream."""
        return next(
            found for found in self.frames() if found.stream == stream and found.ends_stream
        )

    def reset(self) -> None:
        """Break the connection off without a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()


class SlowReader(Connection):
    """A connection that takes much at a time by HTTP/2's windows, and little by TCP's."""

    def __init__(self, port: int) -> None:
        super().__init__(port, setting(INITIAL_WINDOW_SIZE, MAX_WINDOW))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.send(frame(WINDOW_UPDATE, payload=struct.pack(">I", MAX_WINDOW - 0xFFFF)))

    def last_answer(self, ask: Callable[[], None], stopped: threading.Event) -> int:
        """The bytes of the last answer on the first stream, of a server which stops.

        More is sent meanwhile, to a connection that gRPC would have closed.

        Args:
            ask: what makes the server answer; called when it takes no other streams any more.
            stopped: set when the server has stopped.
        """
        is_asked, n_bytes = False, 0
        for found in self.frames():
            if found.kind == PING and not found.flags & ACK:
                self.send(frame(PING, ACK, payload=found.payload))
            elif found.kind == GOAWAY and found.payload[:4] == struct.pack(">I", 1):
                is_asked = True
                ask()
            elif found.kind == DATA and is_asked:
                if not n_bytes:
                    assert not stopped.wait(0.5), "the server waits for its client"
                    self.send(frame(PING, payload=bytes(8)))
                n_bytes += len(found.payload)
        return n_bytes
