"""Clients that mean no good: after each, the server answers, and holds no more than before."""

from __future__ import annotations

import itertools
import json
import resource
import shutil
import signal
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import h2
import numpy as np
import psutil
import pytest
from conftest import loopback, wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from h2 import Connection, begin_call, frame, message, setting
from server_process import ServerProcess, server_process
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli.app import Server
from kfs.server import health
from kfs.settings import ModelSettings

MIB = 1 << 20

#: Few, so that all of them are there before the first test looks.
N_THREADS = 8
N_STREAMS = 8
#: gRPC has threads of its own, which come and go.
SPARE_THREADS = 6
#: What malloc and gRPC keep for later.
SPARE_NBYTES = 64 * MIB

ONES = np.ones((1, 10), np.float32)
VALID = infer_request("dummy", raw=ONES.tobytes()).SerializeToString()


class Victim:
    """A server process, and what it holds."""

    def __init__(self, process: psutil.Process, port: int) -> None:
        self.process = process
        self.port = port

    def answers(self) -> bool:
        """Whether a client that comes now gets what it asks for."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            answer = Stub(channel).ModelInfer(VALID, timeout=30)
        found = np.frombuffer(answer.raw_output_contents[0], np.float32)
        return bool((found == ONES + 1).all())

    def n_threads(self) -> int:
        return int(self.process.num_threads())

    def n_files(self) -> int:
        return int(self.process.num_fds())

    def nbytes(self) -> int:
        return int(self.process.memory_info().rss)

    def warm_up(self) -> None:
        """Make it start every thread that it will ever have."""
        with (
            grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel,
            ThreadPoolExecutor(2 * N_THREADS) as pool,
        ):
            stub = Stub(channel)
            for _ in range(5):
                calls = [pool.submit(stub.ModelInfer, VALID, timeout=30) for _ in range(200)]
                streams = [pool.submit(list, stub.stream([VALID] * 9)) for _ in range(N_STREAMS)]
                lives = [pool.submit(stub.ServerLive, b"", timeout=30) for _ in range(50)]
                for done in (*calls, *streams, *lives):
                    done.result()


@pytest.fixture(scope="module")
def process(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("victim")
    names = ("dummy", "image_u8", "strings", "identity_FP32", "identity_UINT8")
    configs = [{"config": {"name": n, "base_path": str(repository / n), "nireq": 2}} for n in names]
    (folder / "config.json").write_text(json.dumps({"model_config_list": configs}))
    flags = {
        "config_path": folder / "config.json",
        "grpc_max_threads": N_THREADS,
        "max_streams": N_STREAMS,
        "max_image_pixels": 100_000_000,
    }
    with server_process(folder / "log", **flags) as served:
        served.wait_until_ready()
        yield served
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(timeout=60) == 0, "it still stops as it should"
        assert "Traceback" not in served.log.read_text()


@pytest.fixture(scope="module")
def warm(process: ServerProcess) -> Victim:
    victim = Victim(psutil.Process(process.process.pid), process.port)
    victim.warm_up()
    return victim


@pytest.fixture
def victim(warm: Victim) -> Iterator[Victim]:
    """The server; after the test it answers, and holds no more than before."""
    wait_until(lambda: answers_again(warm))  # it may still be reading what the test before has sent
    files, threads, nbytes = warm.n_files(), warm.n_threads(), warm.nbytes()
    yield warm
    wait_until(lambda: answers_again(warm))
    wait_until(lambda: warm.n_files() <= files)
    wait_until(lambda: warm.n_threads() <= threads + SPARE_THREADS)
    wait_until(lambda: warm.nbytes() <= nbytes + SPARE_NBYTES)


def answers_again(warm: Victim) -> bool:
    """Calls of those who have just gone may still be counted among those that wait."""
    try:
        return warm.answers()
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False


@pytest.fixture
def stub(victim: Victim) -> Iterator[Stub]:
    with grpc.insecure_channel(f"127.0.0.1:{victim.port}") as channel:
        yield Stub(channel)


def refusal(stub: Stub, request: object) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=30)
    return caught.value.code().name, caught.value.details()


def test_frames_made_by_hand_are_taken(victim: Victim) -> None:
    """What the others send is wrong only where they mean it to be."""
    with Connection(victim.port) as connection:
        connection.send(begin_call(1), frame(h2.DATA, h2.END_STREAM, 1, message(VALID)))
        found = list(itertools.takewhile(lambda found: not found.ends_stream, connection.frames()))
    answer = b"".join(found.payload for found in found if found.kind == h2.DATA)
    expected = pb.ModelInferResponse.FromString(answer[5:])
    assert expected.raw_output_contents[0] == (ONES + 1).tobytes()


# Connections


def tls_hello() -> bytes:
    return b"\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03" + bytes(190)


NOT_HTTP2 = {
    "nothing": b"",
    "zeros": bytes(100_000),
    "http 1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": tls_hello(),
    "half a preface": h2.PREFACE[:10],
    "no settings": h2.PREFACE + bytes(range(256)) * 100,
}


@pytest.mark.parametrize("kind", NOT_HTTP2)
def test_what_is_no_http2_is_dropped(victim: Victim, kind: str) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", victim.port), timeout=20) as sock:
            sock.sendall(NOT_HTTP2[kind])


@pytest.fixture
def many_files() -> Iterator[None]:
    """Descriptors for thousands of connections, as far as this process may have them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_thousands_of_connections_that_do_nothing(victim: Victim, many_files: None) -> None:
    with ExitStack() as stack:
        for number in range(3000):
            if number % 2:
                stack.enter_context(Connection(victim.port))
            else:  # not even a preface
                stack.enter_context(socket.create_connection(("127.0.0.1", victim.port), 20))
        assert victim.answers()


def test_more_connections_than_descriptors(repository: Path, tmp_path: Path) -> None:
    """Whoever comes then has to wait for others to go, and is served after that."""
    flags = {"model_name": "dummy", "model_path": repository / "dummy"}
    with server_process(tmp_path / "log", ulimit=("-n", 100), **flags) as server:
        server.wait_until_ready()
        victim = Victim(psutil.Process(server.process.pid), server.port)
        with ExitStack() as stack:
            for _ in range(200):
                address = ("127.0.0.1", victim.port)
                stack.enter_context(socket.create_connection(address, 20))
            wait_until(lambda: victim.n_files() >= 99)
        assert victim.answers()


FLOODS: dict[str, Callable[[int], bytes]] = {
    "settings": lambda n: frame(h2.SETTINGS),
    "pings": lambda n: frame(h2.PING, payload=bytes(8)),
    "unknown frames": lambda n: frame(99, 0xFF, n, bytes(100)),
    "empty data": lambda n: frame(h2.DATA, 0, 1),
    "window updates": lambda n: frame(h2.WINDOW_UPDATE, payload=struct.pack(">I", 1)),
    "calls that are reset at once": lambda n: (
        begin_call(2 * n + 1) + frame(h2.RST_STREAM, 0, 2 * n + 1, h2.CANCEL)
    ),
    "calls that never send": lambda n: begin_call(2 * n + 1),
    "headers that never end": lambda n: frame(
        h2.CONTINUATION if n else h2.HEADERS, 0, 1, h2.header("x", "y" * 100) * 9
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_floods_of_frames(victim: Victim, kind: str) -> None:
    with Connection(victim.port) as connection:
        for number in range(2000):
            connection.send(FLOODS[kind](number))


# Messages that do not come, or not whole


@pytest.mark.parametrize("promised", [1 << 20, (1 << 30) - 1])
def test_memory_is_not_made_for_what_is_only_promised(victim: Victim, promised: int) -> None:
    before = victim.nbytes()
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(Connection(victim.port))
            connection.send(begin_call(1), frame(h2.DATA, 0, 1, message(VALID, promised=promised)))
        with Connection(victim.port) as connection:
            connection.send(
                begin_call(1, "ServerLive"), frame(h2.DATA, h2.END_STREAM, 1, message(b""))
            )
            connection.wait_for_end(1)
        assert victim.nbytes() < before + SPARE_NBYTES


def test_a_message_that_promises_more_than_is_taken_is_refused_at_once(victim: Victim) -> None:
    with Connection(victim.port) as connection:
        too_large = message(VALID, promised=(1 << 32) - 1)
        connection.send(begin_call(1), frame(h2.DATA, 0, 1, too_large))
        connection.wait_for_end(1)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer", "ServerLive"])
def test_calls_that_break_off_in_the_middle_of_a_message(victim: Victim, method: str) -> None:
    part = frame(h2.DATA, 0, 1, message(VALID, promised=10_000))
    for number in range(100):
        connection = Connection(victim.port)
        connection.send(begin_call(1, method), part)
        if number % 2:
            connection.send(frame(h2.RST_STREAM, 0, 1, h2.CANCEL))
            connection.socket.close()
        else:
            connection.reset()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_calls_that_stay_half_open_give_back_their_threads_when_their_client_goes(
    victim: Victim, method: str
) -> None:
    with ExitStack() as stack:
        for _ in range(3 * N_THREADS):
            connection = stack.enter_context(Connection(victim.port))
            connection.send(begin_call(1, method))
        with Connection(victim.port) as connection:  # questions have threads of their own
            connection.send(
                begin_call(1, "ServerLive"), frame(h2.DATA, h2.END_STREAM, 1, message(b""))
            )
            connection.wait_for_end(1)


def test_a_client_with_more_half_open_calls_than_are_allowed_keeps_nobody_out(
    victim: Victim,
) -> None:
    with Connection(victim.port) as connection:
        for stream in range(1, 2 * 2000, 2):
            connection.send(begin_call(stream))
        for _ in range(20):  # each a second after one of them has come
            wait_until(lambda: answers_again(victim))


def test_the_calls_of_one_connection_can_be_bounded(repository: Path, tmp_path: Path) -> None:
    flags = {
        "model_name": "dummy",
        "model_path": repository / "dummy",
        "grpc_channel_arguments": "grpc.max_concurrent_streams=100",
    }
    with server_process(tmp_path / "log", **flags) as served:
        served.wait_until_ready()
        victim = Victim(psutil.Process(served.process.pid), served.port)
        with Connection(served.port) as connection:
            for stream in range(1, 2 * 2000, 2):
                connection.send(begin_call(stream))
            connection.wait_for_end(2 * 2000 - 1)  # refused, and so read
            assert all(victim.answers() for _ in range(20))


def test_compressed_messages_can_be_refused(repository: Path) -> None:
    dummy = ModelSettings(name="dummy", base_path=repository / "dummy")
    arguments = {"grpc.compression_enabled_algorithms_bitset": 1}
    settings = replace(loopback(dummy), grpc_channel_arguments=arguments)
    with (
        Server(settings) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert call(VALID, timeout=30)
        with pytest.raises(grpc.RpcError) as refused:
            call(VALID, timeout=30, compression=grpc.Compression.Gzip)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


# Answers that nobody reads


def large(nbytes: int) -> bytes:
    ones = np.ones((1, nbytes // 4), np.float32)
    return infer_request(
        "identity_FP32", "input", shape=ones.shape, raw=ones.tobytes()
    ).SerializeToString()


def data_frames(stream: int, data: bytes, size: int = 16384) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield frame(h2.DATA, 0, stream, data[at : at + size])


def test_a_stream_whose_client_does_not_read_is_read_no_further(victim: Victim) -> None:
    before = victim.nbytes()
    request = large(MIB)
    n_sent = itertools.count()
    limit = 512
    with grpc.insecure_channel(f"127.0.0.1:{victim.port}") as channel:
        answers = Stub(channel).stream(request for _ in range(limit) if next(n_sent) < limit)
        wait_until_it_rests(lambda: victim.process.cpu_times().user)
        assert next(n_sent) < limit / 4, "it took everything"
        assert victim.nbytes() < before + 2 * SPARE_NBYTES
        assert victim.answers()
        answers.cancel()  # type: ignore[attr-defined]


def wait_until_it_rests(measure: Callable[[], float]) -> None:
    """Wait until nothing changes for a while."""
    seen = [measure()]

    def rests() -> bool:
        seen.append(measure())
        return len(seen) > 300 and seen[-1] == seen[-300]

    wait_until(rests)


def test_a_stream_that_sends_beyond_its_window_is_held_back_or_ended(victim: Victim) -> None:
    """Answers that it does not take keep the server from reading on, and from giving it more."""
    some = b"".join(data_frames(1, message(VALID) * (MIB // len(message(VALID)))))
    with Connection(victim.port, setting(h2.INITIAL_WINDOW_SIZE, 0)) as connection:
        connection.send(begin_call(1, "ModelStreamInfer"))
        connection.socket.settimeout(3)
        with suppress(OSError, StopIteration):  # nobody reads it, or the connection was ended
            for _ in range(64):
                connection.socket.sendall(some)
            connection.wait_for_end(1)


def test_unary_answers_that_are_not_read_go_with_their_connection(victim: Victim) -> None:
    request = message(large(65_000 - 100))  # within the window of a new connection
    for _ in range(50):
        with Connection(victim.port, setting(h2.INITIAL_WINDOW_SIZE, 0)) as connection:
            connection.send(begin_call(1), *data_frames(1, request), frame(h2.DATA, 1, 1))


def test_a_watch_that_is_not_read_keeps_nobody_waiting(repository: Path, tmp_path: Path) -> None:
    """Neither who asks for the health, nor who reloads a model, nor the end."""
    base = tmp_path / "m"
    shutil.copytree(repository / "dummy", base)
    flags = {"model_name": "m", "model_path": base, "drain_seconds": 1}
    begin = frame(h2.HEADERS, h2.END_HEADERS, 1, h2.call_headers("Watch", health.SERVICE))
    with server_process(tmp_path / "log", **flags) as served:
        served.wait_until_ready()
        with (
            Connection(served.port, setting(h2.INITIAL_WINDOW_SIZE, 0)) as connection,
            grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel,
        ):
            asking = health_pb2.HealthCheckRequest(service="m")
            request = frame(h2.DATA, h2.END_STREAM, 1, message(asking.SerializeToString()))
            connection.send(begin, request)
            begun = (found for found in connection.frames() if found.kind == h2.HEADERS)
            assert next(begun).stream == 1  # its status comes next, and is not let out
            stub = health_pb2_grpc.HealthStub(channel)
            assert stub.Check(asking, timeout=10).status == health.SERVING
            shutil.rmtree(base)
            wait_until(lambda: stub.Check(asking, timeout=10).status == health.NOT_SERVING)
            served.process.terminate()
            assert served.process.wait(20) == 0


# Requests that promise terabytes


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def raw_request(model: str, datatype: str, shape: list[int], raw: bytes = b"1234") -> object:
    name = "b" if model == "dummy" else "input"
    return infer_request(model, name, datatype, shape, raw=raw)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def black_png(size: int) -> bytes:
    """A square of black pixels in colour, deflated to about a thousandth."""
    rows = zlib.compressobj(1)
    row = bytes(1 + 3 * size)
    data = b"".join(rows.compress(row) for _ in range(size)) + rows.flush()
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def strings_of(model: str, strings: list[bytes]) -> object:
    request = infer_request(model, "input", "BYTES", [len(strings)])
    request.inputs[0].contents.bytes_contents.extend(strings)
    return request


PROMISES: dict[str, tuple[Callable[[], object], str]] = {
    "a shape of exabytes": (
        lambda: raw_request("identity_FP32", "FP32", [1 << 31, 1 << 29]),
        "Expected: 4611686018427387904 bytes; Actual: 4 bytes",
    ),
    "a shape beyond 64 bits": (
        lambda: raw_request("identity_FP32", "FP32", [1 << 62, 1 << 62]),
        "Shape dimensions overflow",
    ),
    "a negative shape": (
        lambda: raw_request("identity_FP32", "FP32", [-1, -4]),
        "Negative or zero dimension size is not acceptable",
    ),
    "a million dimensions": (
        lambda: raw_request("identity_FP32", "FP32", [1] * 1_000_000),
        "Invalid number of shape dimensions",
    ),
    "inputs by the million": (
        lambda: b"\x2a\0" * (10 * MIB),
        "inputs at byte 2097153: more than 1048576 inputs",
    ),
    "strings by the trillion": (
        lambda: raw_request("strings", "BYTES", [1 << 40], bytes(4)),
        "Expected: 1099511627776 values; Actual: 1 values",
    ),
    "a string of 4 GiB": (
        lambda: raw_request("strings", "BYTES", [1], b"\xff\xff\xff\xff" + b"x"),
        "5 bytes that do not end with an element",
    ),
    "images without a byte": (
        lambda: raw_request("image_u8", "BYTES", [8 * MIB], bytes(32 * MIB)),
        "Expected: at most 1048576 images; Actual: 8388608",
    ),
    "rows padded to a terabyte": (
        lambda: strings_of("identity_UINT8", [b"x" * MIB] + [b""] * MIB),
        "String input exceeds the size limit",
    ),
    "a packed field of an exabyte": (
        lambda: b"\x2a" + varint(1 << 60) + b"\0" * 9,
        "inputs at byte 10: a length of more than 2 GiB",
    ),
    "raw contents of 2 GiB": (
        lambda: VALID + b"\x3a" + varint(1 << 31) + b"\0" * 9,
        "a length of more than 2 GiB",
    ),
    "groups within groups": (
        lambda: b"\x5b" * 1_000_000,
        "groups nested deeper than 100",
    ),
    "an image of too many pixels": (
        lambda: strings_of("image_u8", [black_png(12_000)]),
        "Expected: an image, of at most 100000000 pixels; Actual: image 0 cannot be decoded",
    ),
    "images that are gigabytes together": (
        lambda: strings_of("image_u8", [black_png(4_000)] * 25),
        "Expected: images of at most 1073741824 bytes in all, decoded to U8; Actual: 1200000000",
    ),
}


@pytest.mark.parametrize("kind", PROMISES)
def test_a_request_that_promises_too_much_is_refused_without_memory(
    victim: Victim, stub: Stub, kind: str
) -> None:
    make, text = PROMISES[kind]
    request = make()
    with ThreadPoolExecutor(1) as pool:
        highest = before = victim.nbytes()
        answer = pool.submit(refusal, stub, request)
        while not answer.done():
            highest = max(highest, victim.nbytes())
    code, details = answer.result()
    assert code == "INVALID_ARGUMENT"
    assert text in details
    assert highest < before + 4 * SPARE_NBYTES
