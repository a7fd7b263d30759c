"""ModelStreamInfer on a model: each message is one inference, answered in order."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import h2
import models
import numpy as np
import pytest
import tritonclient.grpc as triton
from conftest import ServeModels, wait_until
from openvino import opset13 as op
from wire import Stub, infer_request

from kfs import errors
from kfs.servables.base import Servable
from kfs.server.infer import InferHandler
from kfs.settings import ModelSettings


def numbered(number: int, **changes: object) -> object:
    values = np.full((1, 10), number, np.float32)
    arguments = {"raw": values.tobytes(), "id": str(number), **changes}
    return infer_request("dummy", **arguments)


def test_answers_come_in_order(stub: Stub) -> None:
    answers = list(stub.stream(numbered(number) for number in range(50)))
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(50)]
    for number, answer in enumerate(answers):
        data = np.frombuffer(answer.infer_response.raw_output_contents[0], np.float32)
        assert np.array_equal(data, np.full(10, number + 1))
        assert not answer.error_message


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (numbered(1, shape=[1, 11]), "Invalid input shape - Expected: (1,10); Actual: (1,11)"),
        (numbered(1, raw=b"1234"), "Invalid content size of tensor proto - Expected: 40 bytes"),
        (numbered(1, version="2"), "Subsequent request with incorrect servable version"),
        (numbered(1, version="x"), "Subsequent request with incorrect servable version"),
        (infer_request("strings"), "Subsequent request with incorrect servable name"),
        (b"\x0a\x05ab", "Malformed message - model_name at byte 2"),
    ],
)
def test_a_bad_message_is_answered_in_band_and_the_stream_goes_on(
    stub: Stub, bad: object, text: str
) -> None:
    first, error, last = stub.stream([numbered(0), bad, numbered(2)])
    assert first.infer_response.id == "0"
    assert error.error_message.startswith(text)
    assert not error.HasField("infer_response")
    assert last.infer_response.id == "2"


def test_a_stream_on_nothing_that_is_served_ends_with_a_status(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.stream([infer_request("nope")]))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_stream_without_messages_ends_well(stub: Stub) -> None:
    assert list(stub.stream([])) == []


def test_each_answer_comes_before_the_next_request(stub: Stub) -> None:
    requests: queue.SimpleQueue[object | None] = queue.SimpleQueue()

    def sent() -> Iterator[object]:
        while (request := requests.get()) is not None:
            yield request

    answers = stub.stream(sent())
    for number in range(5):
        requests.put(numbered(number))
        assert next(answers).infer_response.id == str(number)
    requests.put(None)
    assert list(answers) == []


def test_who_sets_the_clock_ends_no_stream(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: queue.SimpleQueue[object] = queue.SimpleQueue()
    answers = stub.stream(iter(requests.get, None))
    requests.put(numbered(0))
    assert next(answers).infer_response.id == "0"
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 3600)
    requests.put(numbered(1))
    assert next(answers).infer_response.id == "1"
    requests.put(None)
    assert list(answers) == []


def test_tritonclient_streams(client: triton.InferenceServerClient) -> None:
    answers: queue.SimpleQueue[tuple[object, object]] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    tensor = triton.InferInput("b", [1, 10], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 10), np.float32))
    for number in range(3):
        client.async_stream_infer("dummy", [tensor], request_id=str(number))
    for number in range(3):
        result, error = answers.get(timeout=30)
        assert error is None
        assert result.get_response().id == str(number)
    client.stop_stream()


def test_many_streams_that_are_dropped_leave_the_server_serving(stub: Stub) -> None:
    for _ in range(100):
        call = stub.stream(iter([numbered(0), numbered(1)]))
        next(call)
        call.cancel()
    (answer,) = stub.stream([numbered(3)])
    assert answer.infer_response.id == "3"


def exits(*_: object, **__: object) -> None:
    raise SystemExit(3)


def test_what_wants_to_exit_is_answered_in_band(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Servable, "respond", exits)
    answers = list(stub.stream([numbered(0), numbered(1)]))
    assert [answer.error_message for answer in answers] == [errors.INTERNAL_ERROR.text] * 2


def test_a_stream_has_an_end_whatever_is_raised(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InferHandler, "stream", exits)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.stream([numbered(0)]))
    assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_the_last_answer_arrives_however_slowly_it_is_read_when_the_server_stops(
    serve: ServeModels, tmp_path: Path
) -> None:
    """Though the client sends more meanwhile, to a connection that gRPC would have closed."""
    b = models.parameter("b", (1, 1), "f32")
    models.save(tmp_path / "1", [b], {"a": op.add(b, op.constant(np.ones(400_000, np.float32)))})
    server = serve(ModelSettings("large", tmp_path))
    wrong, right = (
        h2.message(infer_request("large", shape=shape, raw=bytes(4)).SerializeToString())
        for shape in ((1, 2), (1, 1))
    )
    stopped = threading.Event()

    def stop() -> None:
        server.stop()
        stopped.set()

    with h2.SlowReader(server.port) as client:
        client.send(h2.begin_call(1, "ModelStreamInfer"), h2.frame(h2.DATA, 0, 1, wrong))
        wait_until(lambda: bool(server.catalog.find("large", "").leases))
        threading.Thread(target=stop).start()
        last = h2.frame(h2.DATA, h2.END_STREAM, 1, right)
        assert client.last_answer(lambda: client.send(last), stopped) > 1_600_000
    assert stopped.wait(30)
