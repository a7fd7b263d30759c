"""More calls than can be answered: some wait, for a bounded time and number, others are refused."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from conftest import loopback, wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wire import SERVICE, Stub, infer_request

from kfs.cli.app import Server
from kfs.repository.catalog import available_servable
from kfs.servables.base import CallContext
from kfs.servables.model import Model, slots
from kfs.server.transport import _Sink
from kfs.settings import ModelSettings, ServerSettings

ONES = np.ones((1, 10), np.float32)
REQUEST = infer_request("dummy", raw=ONES.tobytes())

ServeOne = Callable[..., AbstractContextManager[tuple[Server, Stub]]]


@pytest.fixture
def serve_one(repository: Path) -> ServeOne:
    """A server of `dummy` with one slot, and a client of it."""

    @contextmanager
    def serve(max_waiting: int, **settings: int) -> Iterator[tuple[Server, Stub]]:
        model = ModelSettings("dummy", repository / "dummy", nireq=1, max_waiting_calls=max_waiting)
        wanted: ServerSettings = replace(loopback(model), defaults=model, **settings)  # type: ignore[arg-type]
        with (
            Server(wanted) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            yield server, Stub(channel)

    return serve


@contextmanager
def slot_taken(server: Server) -> Iterator[Model]:
    """The only slot is in use meanwhile."""
    model = available_servable(server.catalog.find("dummy", ""), "dummy")
    assert isinstance(model, Model)
    with CallContext() as holder:
        model.infer({"b": ONES}, holder)
        yield model


def n_waiting(model: Model) -> int:
    return model._program.slots.n_waiting


def status(call: grpc.Future) -> tuple[str, str]:
    error = call.exception(timeout=60)
    assert error is not None
    return error.code().name, error.details()


def test_calls_beyond_those_that_may_wait_are_refused(serve_one: ServeOne) -> None:
    with serve_one(max_waiting=2) as (server, stub):
        with slot_taken(server) as model:
            calls = [stub.ModelInfer.future(REQUEST, timeout=60) for _ in range(10)]
            wait_until(lambda: sum(call.done() for call in calls) == 8)
            for call in calls:
                if call.done():
                    assert status(call) == (
                        "RESOURCE_EXHAUSTED",
                        "Too many calls are waiting - Expected: at most 2 for one of 1 infer "
                        "requests",
                    )
            assert n_waiting(model) == 2
        answered = [call for call in calls if call.exception(timeout=60) is None]
        assert len(answered) == 2
        assert n_waiting(model) == 0
        assert stub.ModelInfer(REQUEST, timeout=60).model_name == "dummy"


def test_a_call_that_expires_or_is_cancelled_leaves_its_place_to_others(
    serve_one: ServeOne,
) -> None:
    with serve_one(max_waiting=1) as (server, stub), slot_taken(server) as model:
        expires = stub.ModelInfer.future(REQUEST, timeout=0.1)
        assert status(expires)[0] == "DEADLINE_EXCEEDED"
        wait_until(lambda: n_waiting(model) == 0)
        cancelled = stub.ModelInfer.future(REQUEST, timeout=60)
        wait_until(lambda: n_waiting(model) == 1)
        cancelled.cancel()
        wait_until(lambda: n_waiting(model) == 0)
        waits = stub.ModelInfer.future(REQUEST, timeout=60)
        wait_until(lambda: n_waiting(model) == 1)
        waits.cancel()


def test_who_came_first_is_served_first_however_long_it_takes(
    serve_one: ServeOne, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_LOOK_S", 0.01)  # each looks after its client many times
    order: list[int] = []

    def take(model: Model, number: int) -> None:
        with CallContext() as call:
            model._program.slots.take(call)
            order.append(number)

    with (
        ThreadPoolExecutor(20) as pool,
        serve_one(max_waiting=20) as (server, _),
        slot_taken(server) as model,
    ):
        for number in range(20):
            pool.submit(take, model, number)
            wait_until(lambda number=number: n_waiting(model) == number + 1)  # type: ignore[misc]
    assert order == list(range(20))


def test_where_none_may_wait_a_free_slot_is_still_taken(serve_one: ServeOne) -> None:
    with serve_one(max_waiting=0) as (server, stub):
        assert stub.ModelInfer(REQUEST, timeout=60).model_name == "dummy"
        with slot_taken(server):
            assert status(stub.ModelInfer.future(REQUEST))[0] == "RESOURCE_EXHAUSTED"


def test_a_stream_is_told_in_band_and_goes_on(serve_one: ServeOne) -> None:
    requests: queue.SimpleQueue[object] = queue.SimpleQueue()
    with serve_one(max_waiting=0) as (server, stub):
        answers = stub.stream(iter(requests.get, None))
        requests.put(REQUEST)
        assert next(answers).infer_response.model_name == "dummy"
        with slot_taken(server):
            requests.put(REQUEST)
            assert next(answers).error_message.startswith("Too many calls are waiting")
        requests.put(REQUEST)
        assert next(answers).infer_response.model_name == "dummy"
        requests.put(None)
        assert not list(answers)


def test_whoever_has_heard_the_end_of_a_stream_may_begin_another(
    serve_one: ServeOne, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, is_answered = _Sink.close, threading.Event()

    def close_and_go_on_late(sink: _Sink) -> None:
        close(sink)
        is_answered.wait(10)

    monkeypatch.setattr(_Sink, "close", close_and_go_on_late)
    with serve_one(max_waiting=1, max_streams=1) as (_, stub):
        for _ in range(2):
            (answer,) = stub.stream([REQUEST])
            assert answer.infer_response.model_name == "dummy"
        is_answered.set()


def test_all_calls_together_are_bounded_too(serve_one: ServeOne) -> None:
    with serve_one(max_waiting=3, grpc_max_threads=1, max_streams=1) as (server, stub):
        with slot_taken(server) as model:
            calls = [stub.ModelInfer.future(REQUEST, timeout=60) for _ in range(40)]
            wait_until(lambda: n_waiting(model) == 3 and sum(c.done() for c in calls) == 37)
            refused = [call for call in calls if call.done()]
            assert {status(call)[0] for call in refused} == {"RESOURCE_EXHAUSTED"}
        assert all(call.exception(timeout=60) is None for call in calls if call not in refused)


def test_questions_are_answered_while_every_thread_waits(serve_one: ServeOne) -> None:
    with serve_one(max_waiting=10, grpc_max_threads=1) as (server, stub), slot_taken(server):
        calls = [stub.ModelInfer.future(REQUEST, timeout=60) for _ in range(5)]
        assert stub.ServerLive(b"", timeout=10).live
        assert stub.ModelReady(b"\x0a\x05dummy", timeout=10).ready
        health = health_pb2_grpc.HealthStub(stub.channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service="dummy"), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive"])
def test_calls_whose_message_never_comes_keep_nobody_else_waiting(
    serve_one: ServeOne, method: str
) -> None:
    with serve_one(max_waiting=50, grpc_max_threads=2) as (_, stub):
        half_open = stub.channel.stream_unary(SERVICE + method)
        never: queue.SimpleQueue[None] = queue.SimpleQueue()
        calls = [half_open.future(iter(never.get, None), timeout=60) for _ in range(40)]
        for _ in range(3):
            assert stub.ModelInfer(REQUEST, timeout=10).model_name == "dummy"
            assert stub.ServerLive(b"", timeout=10).live
        for call in calls:
            assert not call.done()
            call.cancel()
            never.put(None)
        assert stub.ModelInfer(REQUEST, timeout=60).model_name == "dummy"


def test_calls_that_wait_for_one_model_leave_threads_to_others(repository: Path) -> None:
    served = [ModelSettings(name, repository / name, nireq=1) for name in ("dummy", "dynamic")]
    settings = replace(loopback(*served), grpc_max_threads=2)
    with (
        Server(settings) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = Stub(channel)
        with slot_taken(server) as model:
            calls = [stub.ModelInfer.future(REQUEST, timeout=60) for _ in range(20)]
            wait_until(lambda: n_waiting(model) > 2)  # a channel may send later calls first
            other = infer_request("dynamic", raw=ONES.tobytes())
            assert stub.ModelInfer(other, timeout=10).model_name == "dynamic"
        for call in calls:
            assert call.result(timeout=60).model_name == "dummy"


@pytest.mark.parametrize(
    "method",
    [
        "ModelConfig",
        "ModelStatistics",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "TraceSetting",
    ],
)
def test_a_method_that_is_not_served_is_answered_without_a_text(stub: Stub, method: str) -> None:
    """Triton's perf_analyzer gives up over any text."""
    call = stub.channel.unary_unary(SERVICE + method)
    assert status(call.future(b"", timeout=30)) == ("UNIMPLEMENTED", "")


def test_a_stream_on_a_method_that_is_not_served_is_refused_before_its_first_message(
    stub: Stub,
) -> None:
    never: queue.SimpleQueue[None] = queue.SimpleQueue()
    call = stub.channel.stream_stream("/no.such.Service/Method")
    with pytest.raises(grpc.RpcError) as caught:
        next(call(iter(never.get, None), timeout=30))
    never.put(None)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_tritonclient_reads_it_as_not_implemented(client: triton.InferenceServerClient) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        client.get_model_config("dummy")
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    assert caught.value.message() == ""


def test_tritonclient_reads_why_there_is_no_shared_memory(
    client: triton.InferenceServerClient,
) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        client.register_system_shared_memory("region", "/region", 40)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    assert "Shared memory is not supported" in str(caught.value.message())
