"""Clients that die, handlers that do not return, many streams: what is left, and who suffers."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from conftest import wait_until
from graphs.graph_site import (
    Talk,
    add_graph,
    add_models,
    ask,
    dummy_graph,
    ends,
    looped,
    node,
    one,
    request,
    status_of,
)
from graphs.plug_ins import CountClosed, Generators, Stuck
from h2 import DATA, Connection, begin_call, frame, message
from site_of_models import Site
from site_of_models import ask as ask_model
from wire import Stub

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.metrics.families import FAMILIES
from kfs.settings import ModelSettings

MIB = 1 << 20
N_KILLED = 1000

COUNTED = """
    import numpy as np
    from pyovms import Tensor
    from graphs.plug_ins import Generators

    class OvmsPythonModel:
        def execute(self, inputs):
            Generators.begun.release()
            try:
                while True:
                    yield [Tensor("out", np.array(inputs[0]))]
            finally:
                Generators.ended.release()

        def finalize(self):
            Generators.finalized.set()
"""

STUCK = """
    from graphs.plug_ins import Stuck

    class OvmsPythonModel:
        def execute(self, inputs):
            Stuck.reached.release()
            assert Stuck.released.wait(60)
            return []
"""


PAUSING = """
    from pyovms import Tensor
    from graphs.plug_ins import Stuck

    class OvmsPythonModel:
        def execute(self, inputs):
            Stuck.never.wait(0.02)
            return [Tensor("out", b"x")]
"""

#: What clients are killed in: generators, state, models, and handlers that have not returned.
KILLED = ("endless", "counted", "a_model", "pausing")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("disturbed"))
    add_models(site)
    add_graph(site, "endless", looped("counted"), counted=COUNTED)
    add_graph(site, "counted", ends(["in"], ["out"]) + node("CountClosed", ["in"], ["out"]))
    add_graph(site, "a_model", dummy_graph())
    add_graph(site, "pausing", one("pausing"), pausing=PAUSING)
    add_graph(site, "stuck", one("stuck"), stuck=STUCK)
    add_graph(site, "stuck_calculator", ends(["in"], ["out"])
              + node("WaitForever", ["in"], ["out"]))  # fmt: skip
    add_graph(site, "stuck_and_counted", ends(["in"], ["out"])
              + node("WaitForever", ["in"], ["x"]) + node("CountClosed", ["x"], ["out"])
              )  # fmt: skip
    add_graph(site, "add_one", ends(["in"], ["out"]) + node("AddOne", ["in"], ["out"]))
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def stub(site: Site) -> Stub:
    assert site.channel is not None
    return Stub(site.channel)


def in_a_data_frame(request: pb.ModelInferRequest) -> bytes:
    return frame(DATA, stream=1, payload=message(request.SerializeToString()))


def kill(port: int, number: int) -> None:
    """A client that is gone while its stream is answered, or idle, or within a message."""
    graph = KILLED[number % len(KILLED)]
    data = in_a_data_frame(request(graph, **{"in": [[1.0] * 10]}))
    with Connection(port) as client:
        client.send(begin_call(1, "ModelStreamInfer"), data)
        if graph != "pausing":
            next(found for found in client.frames() if found.kind == DATA)
        if number % 3 == 0:
            client.send(data[: len(data) // 2])
        if number % 5:
            client.reset()


def test_a_thousand_killed_clients_leave_nothing(site: Site, stub: Stub) -> None:
    assert site.server is not None
    process, port = psutil.Process(), site.server.port

    def kill_all(numbers: range) -> None:
        with ThreadPoolExecutor(4) as pool:
            killing = [pool.submit(kill, port, number) for number in numbers]
            while not all(client.done() for client in killing):
                one_of_each_is_answered(stub)
            for client in killing:
                client.result()
        for _ in range(sum(KILLED[number % len(KILLED)] == "endless" for number in numbers)):
            assert Generators.begun.acquire(timeout=30)
            assert Generators.ended.acquire(timeout=30)
        wait_until(lambda: CountClosed.n_open == 0)

    kill_all(range(100))  # what is made when first needed, and kept
    gc.collect()
    n_threads, n_files, nbytes = (
        process.num_threads(), process.num_fds(), process.memory_info().rss,
    )  # fmt: skip
    kill_all(range(N_KILLED))
    wait_until(lambda: process.num_fds() <= n_files)
    gc.collect()
    # Pools grow to the most that were ever open at a time, and gRPC has threads that come and go.
    assert process.num_threads() <= n_threads + 32
    assert process.memory_info().rss - nbytes < 16 * MIB


def test_a_handler_goes_when_its_last_stream_is_killed(site: Site) -> None:
    assert site.server is not None
    data = in_a_data_frame(request("endless", **{"in": [1.0]}))
    with Connection(site.server.port) as client:
        client.send(begin_call(1, "ModelStreamInfer"), data)
        next(found for found in client.frames() if found.kind == DATA)
        wanted = site.graphs.pop("endless")
        site.write()
        site.poll()
        assert not Generators.finalized.is_set()
        client.reset()
    assert Generators.finalized.wait(30)
    site.graphs["endless"] = wanted
    site.write()
    site.poll()


def others_are_answered(stub: Stub) -> None:
    for _ in range(20):
        one_of_each_is_answered(stub)


def one_of_each_is_answered(stub: Stub) -> None:
    assert ask(stub, request("add_one", **{"in": [1.0]})) == {"out": [2.0]}
    assert ask_model(stub, "dummy") == 1
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=30).live
    talk = Talk(stub)
    talk.say(request("add_one", **{"in": [1.0]}))
    assert talk.hear_values() == {"out": [2.0]}
    assert talk.rest() == []


@pytest.mark.parametrize("graph", ["stuck", "stuck_calculator"])
@pytest.mark.parametrize(("n_streams", "n_calls"), [(200, 0), (0, 200)])
def test_handlers_that_do_not_return_stall_nobody_else(
    stub: Stub, graph: str, n_streams: int, n_calls: int
) -> None:
    Stuck.hold()
    talks = [Talk(stub) for _ in range(n_streams)]
    stuck_request = request(graph, **{"in": [1.0]})
    for talk in talks:
        talk.say(stuck_request)
    calls = [stub.ModelInfer.future(stuck_request, timeout=60) for _ in range(n_calls)]  # type: ignore[attr-defined]
    try:
        for _ in range(min(n_streams + n_calls, 40)):
            assert Stuck.reached.acquire(timeout=30)
        others_are_answered(stub)
    finally:
        Stuck.released.set()
    for talk in talks:
        talk.close()
    for talk in talks:
        assert status_of(talk.answers) == ("OK", "")
    for call in calls:
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT  # nothing was sent


def test_more_calls_of_one_graph_than_may_be_under_way_are_refused(tmp_path: Path) -> None:
    Stuck.hold()
    site = Site(tmp_path)
    add_graph(site, "stuck", one("stuck"), stuck=STUCK)
    add_graph(site, "add_one", ends(["in"], ["out"]) + node("AddOne", ["in"], ["out"]))
    few = ModelSettings("", "", max_waiting_calls=10)
    stub = site.start(defaults=few, grpc_max_threads=4, metrics=frozenset(FAMILIES), rest_port=0)
    calls = [stub.ModelInfer.future(request("stuck", **{"in": [1.0]})) for _ in range(30)]  # type: ignore[attr-defined]
    try:
        wait_until(lambda: sum(call.done() for call in calls) == 30 - 12)
        refused = [call for call in calls if call.done()]
        assert {(call.code().name, call.details()) for call in refused} <= {
            ("RESOURCE_EXHAUSTED", "Too many calls - Expected: at most 12 of stuck under way"),
            ("RESOURCE_EXHAUSTED", "Too many calls - Expected: at most 14 under way"),
        }
        assert ask(stub, request("add_one", **{"in": [1.0]})) == {"out": [2.0]}
        assert site.server is not None
        found = re.search(
            rb'kfs_refused_requests_total{name="stuck",version="1"} (\d+)',
            site.server.metrics.expose(),
        )
        assert found is not None
        assert 0 < int(found[1]) <= len(refused)
    finally:
        Stuck.released.set()
        site.stop()


def test_idle_streams_take_a_thread_each_and_little_memory(stub: Stub) -> None:
    process = psutil.Process()

    def open_streams(number: int) -> list[Talk]:
        talks = [Talk(stub) for _ in range(number)]
        for talk in talks:
            talk.say(request("counted", **{"in": np.float32([1.0])}))
        for talk in talks:
            talk.hear()
        return talks

    talks = open_streams(250)  # more than the server has had: threads are kept
    n_threads, nbytes = process.num_threads(), process.memory_info().rss
    talks += open_streams(250)
    # The client, in this process too, has a thread for each stream as well.
    assert process.num_threads() - n_threads <= 250 * 2 + 100
    assert process.memory_info().rss - nbytes < 250 * 300_000
    others_are_answered(stub)
    for talk in talks:
        talk.cancel()
    wait_until(lambda: CountClosed.n_open == 0)


def test_streams_that_wait_for_a_thread_of_their_graph_can_leave(site: Site, stub: Stub) -> None:
    """More streams than the graph has threads, all of which are taken."""
    assert site.server is not None
    Stuck.hold()
    talks = [Talk(stub) for _ in range(140)]
    for talk in talks:
        talk.say(request("stuck_and_counted", **{"in": [1.0]}))
    try:
        wait_until(lambda: CountClosed.n_open == len(talks))
        for _ in range(128):
            assert Stuck.reached.acquire(timeout=30)
        for talk in talks:
            talk.cancel()
        n_stuck = 128

        def only_stuck_ones_are_left() -> bool:
            # A reset may look like a half-close for a moment: the stream's own thread goes on then.
            nonlocal n_stuck
            n_stuck += Stuck.reached.acquire(blocking=False)
            return CountClosed.n_open == n_stuck

        wait_until(only_stuck_ones_are_left)
    finally:
        Stuck.released.set()
    wait_until(lambda: CountClosed.n_open == 0)
