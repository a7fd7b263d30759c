"""What a call that nobody waits for any more leaves behind: nothing, and its slot is free."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import models
import numpy as np
import pytest
from conftest import ServeModels, catalog_of, slow_request, wait_until
from wire import Stub, infer_request

from kfs import errors
from kfs._fast.memory import TensorView
from kfs._fast.wire import Request, read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli.app import Server
from kfs.errors import ServingError, Status
from kfs.repository.catalog import Catalog, available_servable
from kfs.servables.base import CallContext, Servable
from kfs.servables.model import Model
from kfs.server.infer import InferHandler
from kfs.settings import ModelSettings

VALUES = np.arange(10, dtype=np.float32)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Models with one slot each."""
    root = tmp_path_factory.mktemp("one_slot")
    models.identity(root / "numbers" / "1", "FP32", [-1])
    models.identity(root / "strings" / "1", "BYTES", [-1])
    return catalog_of(
        *(ModelSettings(name, root / name, nireq=1) for name in ("numbers", "strings"))
    )


REQUESTS = {
    "raw": infer_request("numbers", "input", shape=[10], raw=VALUES.tobytes(), id="raw"),
    "contents": infer_request("numbers", "input", shape=[10], fp32_contents=VALUES, id="contents"),
    "strings": infer_request("strings", "input", "BYTES", [2], bytes_contents=[b"a", b"b" * 99]),
}


def cancelled_at_the_second_look() -> CallContext:
    looks = iter([True, False])
    return CallContext(is_active=lambda: next(looks))


def soon_expired() -> CallContext:
    return CallContext(deadline=time.monotonic() + 0.02)


def status_of(handler: InferHandler, data: bytes, call: CallContext) -> Status | None:
    """How a call ends; the error and its traceback, which hold much, are gone by then."""
    try:
        handler.infer(data, call)
    except ServingError as error:
        return error.status
    return None


def take_slot(servable: Servable, request: pb.ModelInferRequest, call: CallContext) -> None:
    """The only slot is the call's until it is closed."""
    servable.infer(servable.bind(read_request(request.SerializeToString())), call)


@pytest.mark.parametrize(
    ("new_call", "status"),
    [
        (cancelled_at_the_second_look, errors.CANCELLED),
        (soon_expired, errors.DEADLINE_EXCEEDED),
    ],
)
@pytest.mark.parametrize("kind", REQUESTS)
def test_a_call_that_ends_while_it_waits_for_a_slot_lets_its_request_go(
    catalog: Catalog, kind: str, new_call: Callable[[], CallContext], status: Status
) -> None:
    handler = InferHandler(catalog)
    data = REQUESTS[kind].SerializeToString()
    entry = catalog.find(REQUESTS[kind].model_name, "")
    servable = available_servable(entry, "")
    before = sys.getrefcount(data)
    with CallContext() as holder:
        take_slot(servable, REQUESTS[kind], holder)
        for _ in range(3):
            assert status_of(handler, data, new_call()) is status
            assert sys.getrefcount(data) == before
            assert not entry.leases
    assert status_of(handler, data, CallContext()) is None
    assert sys.getrefcount(data) == before


def test_a_slot_that_comes_just_when_its_call_ends_is_passed_on(catalog: Catalog) -> None:
    servable = available_servable(catalog.find("numbers", ""), "")
    with ExitStack() as first:
        take_slot(servable, REQUESTS["raw"], first.enter_context(CallContext()))

        def leave() -> bool:
            first.close()
            return False

        with pytest.raises(ServingError, match="cancelled"), CallContext(leave) as call:
            take_slot(servable, REQUESTS["raw"], call)
    with CallContext(deadline=time.monotonic() + 5) as call:
        take_slot(servable, REQUESTS["raw"], call)


def holders(id: str) -> list[object]:
    """What is still there of a request with that id, and of the views into its bytes."""
    mark = id.encode()
    return [
        each
        for each in gc.get_objects()
        if (isinstance(each, Request) and each.id == id)
        or (isinstance(each, TensorView) and isinstance(each.owner, bytes) and mark in each.owner)
    ]


def is_slot_taken(server: Server) -> bool:
    servable = server.catalog.find("slow", "").servable
    assert isinstance(servable, Model)
    return not servable._program.slots._idle


@pytest.fixture
def slow_server(serve: ServeModels, slow: Path) -> Server:
    return serve(ModelSettings("slow", slow, nireq=1))


@pytest.fixture
def slow_stub(slow_server: Server) -> Iterator[Stub]:
    with grpc.insecure_channel(f"127.0.0.1:{slow_server.port}") as channel:
        yield Stub(channel)


def test_a_client_that_cancels_during_inference_leaves_nothing_behind(
    slow_server: Server, slow_stub: Stub
) -> None:
    entry = slow_server.catalog.find("slow", "")
    call = slow_stub.ModelInfer.future(slow_request("cancelled-at-work"), timeout=60)
    wait_until(lambda: is_slot_taken(slow_server))
    call.cancel()
    assert holders("cancelled-at-work"), "inference was over before it could be cancelled"
    wait_until(lambda: not entry.leases)
    assert not is_slot_taken(slow_server)
    wait_until(lambda: not holders("cancelled-at-work"))
    assert slow_stub.ModelInfer(slow_request(), timeout=60).model_name == "slow"


@pytest.mark.parametrize("ending", ["cancelled", "expired"])
def test_a_client_that_leaves_while_its_call_waits_for_a_slot_leaves_nothing_behind(
    slow_server: Server, slow_stub: Stub, ending: str
) -> None:
    entry = slow_server.catalog.find("slow", "")
    servable = available_servable(entry, "")
    id = f"{ending}-in-the-queue"
    with CallContext() as holder:
        take_slot(servable, slow_request(), holder)
        timeout_s = 60 if ending == "cancelled" else 2
        call = slow_stub.ModelInfer.future(slow_request(id), timeout=timeout_s)
        wait_until(lambda: bool(holders(id)))
        if ending == "cancelled":
            call.cancel()
        wait_until(lambda: not entry.leases)
        wait_until(lambda: not holders(id))
        assert is_slot_taken(slow_server)
    assert call.done()
    assert slow_stub.ModelInfer(slow_request(), timeout=60).model_name == "slow"


def test_a_deadline_that_passes_during_inference_leaves_nothing_behind(
    slow_server: Server, slow_stub: Stub
) -> None:
    entry = slow_server.catalog.find("slow", "")
    usual_s = 60.0
    for _ in range(3):
        began = time.monotonic()
        slow_stub.ModelInfer(slow_request(), timeout=60)
        usual_s = min(usual_s, time.monotonic() - began)
    with pytest.raises(grpc.RpcError) as caught:
        slow_stub.ModelInfer(slow_request("expired-at-work"), timeout=usual_s / 4)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: not entry.leases)
    assert not is_slot_taken(slow_server)
    wait_until(lambda: not holders("expired-at-work"))
    assert slow_stub.ModelInfer(slow_request(), timeout=60).model_name == "slow"
