"""How nodes wait for their inputs: input stream handlers, and what bounds tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from graphs.graph_site import (
    Talk,
    add_graph,
    ends,
    handler,
    node,
    python,
    request,
    status_of,
    tensors,
    time_of,
)
from graphs.plug_ins import Gate
from site_of_models import Site
from wire import Stub

from kfs._proto import grpc_predict_v2_pb2 as pb

IMMEDIATE = handler("ImmediateInputStreamHandler")
FIXED_IN_ALL = handler(
    "FixedSizeInputStreamHandler",
    "[mediapipe.FixedSizeInputStreamHandlerOptions.ext] "
    "{ trigger_queue_size: 3 target_queue_size: 2 fixed_min_size: true }",
)
TWO_SETS = handler(
    "SyncSetInputStreamHandler",
    "[mediapipe.SyncSetInputStreamHandlerOptions.ext] "
    '{ sync_set { tag_index: "A:0" tag_index: "B:0" } }',
)
ALIGNED = handler(
    "TimestampAlignInputStreamHandler",
    "[mediapipe.TimestampAlignInputStreamHandlerOptions.ext] "
    '{ timestamp_base_tag_index: "CAMERA" }',
)
MUX = handler("MuxInputStreamHandler")
EARLY_CLOSE = handler("EarlyCloseInputStreamHandler")
BARRIER = handler("BarrierInputStreamHandler")
BACK = 'input_stream_info { tag_index: ":1" back_edge: true } '

GRAPHS = {
    "immediate": ends(["a", "b"], ["out"]) + node("Sum", ["a", "b"], ["out"], IMMEDIATE),
    "fixed": "num_threads: 2\n" + ends(["in"], ["out"])
    + node("Gate", ["in"], ["out"], handler("FixedSizeInputStreamHandler")),
    "fixed_in_all": ends(["a", "b"], ["out"]) + node("Gate", ["a", "b"], ["out"], FIXED_IN_ALL),
    "sets": ends(["a", "b", "c"], ["out"]) + node("Sum", ["A:a", "B:b", "C:c"], ["out"], TWO_SETS),
    "earlyclose": ends(["a", "b"], ["out"]) + node("Sum", ["a", "b"], ["out"], EARLY_CLOSE),
    "barrier": ends(["a", "b"], ["out"]) + node("Sum", ["a", "b"], ["out"], BARRIER),
    "mux": ends(["a", "b", "select"], ["out"]) + node("Sum", ["a", "b", "select"], ["out"], MUX),
    "aligned": ends(["video", "camera"], ["seen", "shot"]) + node(
        "PassThroughCalculator", ["VIDEO:video", "CAMERA:camera"], ["VIDEO:seen", "CAMERA:shot"],
        ALIGNED),
    "cycle": ends(["in"], ["out"])
    + node("Cycle", ["in", "back"], ["out", "back"], BACK + IMMEDIATE),
    "strict": ends(["a", "b"], ["out"]) + node("SumInTime", ["a", "b"], ["out"], IMMEDIATE),
    "passed": ends(["a", "b"], ["out"]) + node("PassThroughCalculator", ["a"], ["c"])
    + node("Sum", ["b", "c"], ["out"]),
}  # fmt: skip

# What selects is the work of a handler: an address, for which numpy has no datatype.
ADDRESS = (
    ends(["OVMS_PY_TENSOR:in"], ["OVMS_PY_TENSOR:out"])
    + python("address", ["IN:in"], ["OUT:select"])
    + node("Sum", ["in", "in", "select"], ["out"], MUX)
)
ADDRESS_HANDLER = """
import ctypes
from pyovms import Tensor
class OvmsPythonModel:
    def execute(self, inputs):
        return [Tensor("select", (ctypes.c_void_p * 1)())]
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    site = Site(tmp_path_factory.mktemp("input_handlers"))
    for name, text in GRAPHS.items():
        add_graph(site, name, text)
    add_graph(site, "address", ADDRESS, address=ADDRESS_HANDLER)
    yield site.start()
    site.stop()


@pytest.fixture
def talk(stub: Stub) -> Iterator[Talk]:
    talk = Talk(stub)
    yield talk
    talk.cancel()


def values(talk: Talk) -> list[dict[str, list[float]]]:
    return [tensors(answer.infer_response) for answer in talk.rest()]


def test_immediate_inputs_wait_for_nothing(talk: Talk) -> None:
    talk.say(request("immediate", at=5, a=[1.0]))
    assert talk.hear_values() == {"out": [101.0]}
    talk.say(request("immediate", at=7, b=[2.0]))
    assert talk.hear_values() == {"out": [102.0]}
    talk.say(request("immediate", at=8, a=[1.0], b=[2.0]))
    assert sum(sum(value["out"]) for value in values(talk)) in (203.0, 304.0)


def test_sync_sets_wait_within_themselves(talk: Talk) -> None:
    talk.say(request("sets", at=1, c=[5.0]))
    assert talk.hear_values() == {"out": [105.0]}
    talk.say(request("sets", at=2, a=[1.0]))
    talk.say(request("sets", at=2, b=[2.0]))
    assert talk.hear_values() == {"out": [203.0]}


def test_a_barrier_takes_the_first_of_each_whatever_their_times(talk: Talk) -> None:
    talk.say(request("barrier", at=1, a=[1.0]))
    talk.say(request("barrier", at=2, a=[2.0]))
    talk.say(request("barrier", at=70, b=[40.0]))
    answer = talk.hear().infer_response
    assert (tensors(answer), time_of(answer)) == ({"out": [241.0]}, 1)
    talk.say(request("barrier", at=80, b=[50.0]))
    answer = talk.hear().infer_response
    assert (tensors(answer), time_of(answer)) == ({"out": [252.0]}, 2)
    talk.say(request("barrier", at=90, b=[60.0]))
    assert talk.rest() == []  # nothing is left for it to go with


def test_a_node_may_close_early(talk: Talk) -> None:
    talk.say(request("earlyclose", at=1, a=[1.0], b=[2.0]))
    assert talk.hear_values() == {"out": [203.0]}
    talk.say(request("earlyclose", at=2, a=[1.0]))
    assert talk.rest() == []  # by default it would run with what there is


def test_a_node_that_keeps_time_tells_that_nothing_will_come(talk: Talk) -> None:
    """Without a packet on `a`, the node behind it need not wait: time has passed there too."""
    talk.say(request("passed", at=1, a=[1.0], b=[2.0]))
    assert talk.hear_values() == {"out": [203.0]}
    talk.say(request("passed", at=2, b=[2.0]))
    talk.say(request("passed", at=3, a=[1.0]))
    assert talk.hear_values() == {"out": [102.0]}


def test_a_fixed_size_drops_the_oldest(talk: Talk) -> None:
    talk.say(request("fixed", at=0, **{"in": [0.0]}))
    assert Gate.waiting.acquire(timeout=30)
    for at in range(1, 10):
        talk.say(request("fixed", at=at, **{"in": [float(at)]}))
    talk.say(request("fixed", x=[1.0]))
    assert talk.hear().error_message  # all before it have been read
    for _ in range(3):
        Gate.opened.release()
    found = [value["out"][0] for value in values(talk)]
    assert found[0] == 0.0
    assert found[-1] == 9.0
    assert len(found) <= 3
    Gate.drain()


def test_a_fixed_size_in_every_input(talk: Talk) -> None:
    talk.say(request("fixed_in_all", at=0, a=[0.0], b=[0.0]))
    assert Gate.waiting.acquire(timeout=30)
    for at in range(1, 10):
        talk.say(request("fixed_in_all", at=at, a=[float(at)], b=[0.0]))
    talk.say(request("fixed_in_all", x=[1.0]))
    assert talk.hear().error_message  # all before it have been read
    for _ in range(3):
        Gate.opened.release()
    assert [value["out"][0] for value in values(talk)] == [0.0, 8.0, 9.0]
    Gate.drain()


def test_a_cycle_goes_on_in_time(talk: Talk) -> None:
    talk.say(request("cycle", at=1, **{"in": [1.0]}))
    answers = [answer.infer_response for answer in talk.rest()]
    assert [tensors(answer) for answer in answers] == [
        {"out": [2.0]},
        {"out": [3.0]},
        {"out": [4.0]},
    ]
    assert [time_of(answer) for answer in answers] == [1, 2, 3]


def test_a_node_that_keeps_time_cannot_go_back_where_inputs_wait_for_nothing(talk: Talk) -> None:
    talk.say(request("strict", at=5, a=[1.0]))
    assert talk.hear_values() == {"out": [101.0]}
    talk.say(request("strict", at=5, b=[1.0]))
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert 'receiving from stream "out". Current minimum expected timestamp is 6' in details


def hear(talk: Talk) -> tuple[dict[str, list[float]], int]:
    answer = talk.hear()
    assert not answer.error_message, answer.error_message
    return tensors(answer.infer_response), time_of(answer.infer_response)


def select(number: int, at: int) -> pb.ModelInferRequest:
    return request("mux", at=at, datatype="INT32", select=np.array([number], np.int32))


def test_the_last_input_selects_another(talk: Talk) -> None:
    talk.say(request("mux", at=1, a=[10.0], b=[20.0]))
    talk.say(select(1, at=1))
    assert hear(talk) == ({"out": [221.0]}, 1)  # that of b, and the selection itself


def test_a_selection_waits_for_its_input_and_for_no_other(talk: Talk) -> None:
    talk.say(select(1, at=3))
    talk.say(request("mux", at=3, a=[10.0]))
    talk.say(request("mux", at=2, b=[20.0]))  # nothing has selected it
    talk.say(request("mux", at=3, b=[30.0]))
    assert hear(talk) == ({"out": [231.0]}, 3)
    talk.say(select(0, at=7))
    talk.say(request("mux", at=8, a=[10.0]))  # so there will be none at 7
    assert hear(talk) == ({"out": [100.0]}, 7)
    talk.say(select(0, at=8))
    assert hear(talk) == ({"out": [210.0]}, 8)
    assert talk.rest() == []


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (select(2, at=1), "2"),
        (select(-1, at=1), "-1"),
        (request("mux", at=1, select=[1.0]), "ndarray"),
        (request("address", **{"in": [1.0]}), "Tensor"),
    ],
)
def test_a_selection_of_nothing_ends_the_stream(
    talk: Talk, message: pb.ModelInferRequest, found: str
) -> None:
    talk.say(message)
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert details.endswith(
        'node "Sum" failed: expected a whole number from 0 to 1 at the last input; found ' + found
    )


def test_times_are_aligned_by_the_first_packets(talk: Talk) -> None:
    for at in (101, 102):  # as long as nothing is there to align, the base goes on alone
        talk.say(request("aligned", at=at, camera=[float(at)]))
        assert hear(talk) == ({"shot": [float(at)]}, at)
    talk.say(request("aligned", at=1, video=[1.0]))
    talk.say(request("aligned", at=103, camera=[103.0]))
    assert [hear(talk), hear(talk)] == [({"shot": [103.0]}, 103), ({"seen": [1.0]}, 103)]
    talk.say(request("aligned", at=104, camera=[104.0]))
    talk.say(request("aligned", at=4, video=[4.0]))  # is 106 by now
    assert hear(talk) == ({"shot": [104.0]}, 104)
    (last,) = talk.rest()
    assert (tensors(last.infer_response), time_of(last.infer_response)) == ({"seen": [4.0]}, 106)


def test_without_the_base_nothing_is_aligned(talk: Talk) -> None:
    talk.say(request("aligned", at=1, video=[1.0]))
    assert talk.rest() == []
