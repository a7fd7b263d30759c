"""ModelStreamInfer on graphs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from conftest import wait_until
from graphs.graph_site import (
    Talk,
    add_graph,
    add_models,
    ask,
    dummy_graph,
    ends,
    node,
    request,
    status_of,
    tensors,
    time_of,
)
from graphs.plug_ins import CountClosed, Gate
from site_of_models import Site, refusal
from wire import Stub

from kfs._fast.strings import StringArray
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.pyovms import Tensor
from kfs.servables.graph import run
from kfs.servables.graph.packets import ImageFrame, held_nbytes
from kfs.tensors.arrays import StringTensor

FIRST = "; partial deserialization of first request"
LATER = "; partial deserialization of subsequent requests"
MAX = (1 << 63) - 4
MIN = -(1 << 63) + 3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("stream"))
    add_models(site)
    add_graph(site, "dummy_graph", dummy_graph())
    add_graph(site, "add_one", ends(["in"], ["out"]) + node("AddOne", ["in"], ["out"]))
    ten = "".join(node("AddOne", [f"s{n}"], [f"s{n + 1}"]) for n in range(10))
    add_graph(site, "ten", ends(["s0"], ["s10"]) + ten)
    add_graph(site, "sum", ends(["a", "b"], ["out"]) + node("Sum", ["a", "b"], ["out"]))
    add_graph(site, "beside", ends(["a", "b", "c"], ["out", "done"])
              + node("AddOne", ["c"], ["done"]) + node("Sum", ["a", "b"], ["out"]))  # fmt: skip
    add_graph(site, "wide", ends(["a", "b"], ["out"]) + node("Widen", ["a"], ["wide"])
              + node("Sum", ["wide", "b"], ["out"]))  # fmt: skip
    three = ["in1", "in2", "in3"], ["out1", "out2", "out3"]
    add_graph(site, "three", ends(*three) + node("AddOne", *three))
    add_graph(site, "negative", ends(["in"], ["out"]) + node("ErrorOnNegative", ["in"], ["out"]))
    add_graph(site, "exit", ends(["in"], ["out"]) + node("Exit", ["in"], ["out"]))
    add_graph(site, "closed", ends(["in"], ["out"]) + node("FailInOpen", ["in"], ["out"]))
    add_graph(site, "unborn", ends(["in"], ["out"]) + node("FailInInit", ["in"], ["out"]))
    add_graph(site, "unproduced", ends(["in"], ["out"]) + node("AddOne", ["in"], ["other"]))
    add_graph(site, "missing_model", dummy_graph().replace("dummy", "nowhere"))
    add_graph(site, "side", ends(["in"], ["out"]) + node(
        "AddSidePacket", ["in"], ["out"], 'input_side_packet: "VALUE:val"'))  # fmt: skip
    add_graph(site, "counted", ends(["in"], ["out"]) + node("CountClosed", ["in"], ["out"]))
    add_graph(site, "last", ends(["in"], ["out"]) + node("Last", ["in"], ["out"]))
    add_graph(site, "gate", "num_threads: 1 max_queue_size: 2\n" + ends(["in"], ["out"])
              + node("Gate", ["in"], ["out"]))  # fmt: skip
    add_graph(site, "unbounded", "max_queue_size: -1\n" + ends(["in"], ["out"])
              + node("Gate", ["in"], ["out"]))  # fmt: skip
    add_graph(site, "request", ends(["REQUEST:in"], ["RESPONSE:out"])
              + node("PassRequest", ["REQUEST:in"], ["RESPONSE:out"]))  # fmt: skip
    add_graph(site, "echo", ends(["in"], ["in", "out"]) + node("AddOne", ["in"], ["out"]))
    add_graph(site, "retyped", ends(["in"], ["OVMS_PY_TENSOR:in", "out"])
              + node("AddOne", ["in"], ["out"]))  # fmt: skip
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def stub(site: Site) -> Stub:
    assert site.channel is not None
    return Stub(site.channel)


@pytest.fixture
def talk(stub: Stub) -> Iterator[Talk]:
    talk = Talk(stub)
    yield talk
    talk.cancel()


def values(talk: Talk) -> list[dict[str, list[float]]]:
    return [tensors(answer.infer_response) for answer in talk.rest()]


def test_an_output_that_is_an_input_too_is_sent(talk: Talk, stub: Stub) -> None:
    for at, value in enumerate((1.0, 5.0)):
        talk.say(request("echo", at=at, **{"in": [value]}))
        told = talk.hear_values() | talk.hear_values()  # in any order
        assert told == {"in": [value], "out": [value + 1]}
    assert talk.rest() == []
    assert ask(stub, request("echo", **{"in": [1.0]})) == {"in": [1.0], "out": [2.0]}


def test_outputs_of_the_first_request_count_for_the_whole_stream(talk: Talk) -> None:
    first = request("three", in1=[1.0], in2=[2.0], in3=[3.0])
    for name in ("out3", "out1"):
        first.outputs.add(name=name)
    talk.say(first)
    second = request("three", in1=[5.0], in2=[6.0], in3=[7.0])
    second.outputs.add(name="out2")
    talk.say(second)
    assert values(talk) == [{"out1": [2.0]}, {"out3": [4.0]}, {"out1": [6.0]}, {"out3": [8.0]}]


def test_outputs_that_are_not_there_are_told_in_band(talk: Talk) -> None:
    for suffix in (FIRST, LATER):
        wrong = request("three", in1=[1.0], in2=[2.0], in3=[3.0])
        wrong.outputs.add(name="out4")
        talk.say(wrong)
        told = talk.hear().error_message
        assert "Requested output: out4; Available outputs: out1, out2, out3" in told
        assert told.endswith(suffix)
    talk.say(request("three", in1=[1.0], in2=[2.0], in3=[3.0]))
    assert values(talk) == [{"out1": [2.0]}, {"out2": [3.0]}, {"out3": [4.0]}]


def test_an_input_that_is_no_packet_of_the_output_it_is_too(talk: Talk) -> None:
    talk.say(request("retyped", **{"in": [1.0]}))
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert 'stream "in": expected pyovms.Tensor; found numpy.ndarray' in details


@pytest.mark.parametrize("graph", ["add_one", "ten"])
def test_every_message_is_answered_with_times_that_increase(talk: Talk, graph: str) -> None:
    name, output, plus = ("in", "out", 1) if graph == "add_one" else ("s0", "s10", 10)
    given = [3.5, 7.25, 102.5]
    for value in given:
        talk.say(request(graph, id="7", **{name: [value]}))
    answers = [answer.infer_response for answer in talk.rest()]
    assert [tensors(answer) for answer in answers] == [{output: [value + plus]} for value in given]
    times = [time_of(answer) for answer in answers]
    assert times == sorted(set(times))
    assert all((a.id, a.model_name, a.model_version) == ("", graph, "1") for a in answers)


def test_a_model_in_a_stream(talk: Talk) -> None:
    for value in range(20):
        talk.say(request("dummy_graph", **{"in": np.full((1, 10), value, np.float32)}))
        assert talk.hear_values() == {"out": [value + 1.0] * 10}


def test_a_whole_request_in_a_stream(talk: Talk) -> None:
    talk.say(request("request", id="9", at=5, **{"in": [1.0]}))
    answer = talk.hear().infer_response
    assert (tensors(answer), answer.id, time_of(answer)) == ({"out": [1.0]}, "", 5)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("not an int", "Invalid timestamp format in request parameter OVMS_MP_TIMESTAMP. Should "
         "be int64"),
        (-(1 << 63), "Timestamp::Unset()"), (-(1 << 63) + 1, "Timestamp::Unstarted()"),
        (-(1 << 63) + 2, "Timestamp::PreStream()"), ((1 << 63) - 3, "Timestamp::PostStream()"),
        ((1 << 63) - 2, "Timestamp::OneOverPostStream()"), ((1 << 63) - 1, "Timestamp::Done()"),
    ],
)  # fmt: skip
def test_times_that_are_not_allowed_are_told_and_the_stream_goes_on(
    talk: Talk, at: object, text: str
) -> None:
    talk.say(request("add_one", at=at, **{"in": [3.5]}))
    assert talk.hear().error_message == f"Malformed packet timestamp - {text}{FIRST}"
    talk.say(request("add_one", at=at, **{"in": [3.5]}))
    assert talk.hear().error_message == f"Malformed packet timestamp - {text}{LATER}"
    talk.say(request("add_one", **{"in": [3.5]}))
    assert talk.hear_values() == {"out": [4.5]}
    assert talk.rest() == []


def test_no_time_is_left_after_the_last(talk: Talk) -> None:
    talk.say(request("add_one", at=MAX, **{"in": [1.0]}))
    assert talk.hear_values() == {"out": [2.0]}
    talk.say(request("add_one"))  # brings nothing
    talk.say(request("add_one", **{"in": [1.0]}))
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert f'"in". Maximum timestamp is {MAX} but received {MAX + 2}. ' in details


@pytest.mark.parametrize("at", [MIN, 0, MAX])
def test_times_that_are_allowed(talk: Talk, at: int) -> None:
    talk.say(request("add_one", at=at, **{"in": [3.5]}))
    answer = talk.hear().infer_response
    assert (tensors(answer), time_of(answer)) == ({"out": [4.5]}, at)


def test_going_back_in_time_ends_the_stream(talk: Talk) -> None:
    talk.say(request("add_one", at=3, **{"in": [1.0]}))
    talk.hear()
    talk.say(request("add_one", at=2, **{"in": [1.0]}))
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert 'Packet timestamp mismatch on a calculator receiving from stream "in".' in details
    assert "Current minimum expected timestamp is 4 but received 2." in details


def test_a_time_may_be_used_again_when_nothing_was_pushed_at_it(talk: Talk) -> None:
    talk.say(request("add_one", at=1, **{"in": [1.0]}))
    talk.hear()
    talk.say(request("add_one", at=2, x=[1.0]))
    message = talk.hear().error_message
    assert message.startswith("Unexpected input - x is unexpected")
    assert message.endswith(LATER)
    talk.say(request("add_one", at=2, **{"in": [2.0]}))
    assert talk.hear_values() == {"out": [3.0]}


def test_inputs_in_different_requests_wait_for_each_other(talk: Talk) -> None:
    talk.say(request("sum", at=1, a=[1.0]))
    talk.say(request("sum", at=1, b=[2.0]))
    assert talk.hear_values() == {"out": [203.0]}
    talk.say(request("sum", at=2, a=[1.0]))
    talk.say(request("sum", at=3, b=[2.0]))
    assert values(talk) == [{"out": [101.0]}, {"out": [102.0]}]


def test_parts_of_the_inputs(talk: Talk) -> None:
    talk.say(request("three", in1=[1.0], in3=[3.0]))
    assert values(talk) == [{"out1": [2.0]}, {"out3": [4.0]}]


def test_a_broken_input_leaves_those_before_it(talk: Talk) -> None:
    message = request("three", in1=[1.0], in2=[2.0], in3=[3.0])
    message.inputs[1].shape[0] = 7
    talk.say(message)
    error = talk.hear().error_message
    assert error.startswith("Invalid content size of tensor proto - Expected: 28 bytes")
    assert error.endswith(FIRST)
    assert values(talk) == [{"out1": [2.0]}]


def test_a_request_without_inputs_does_nothing(talk: Talk) -> None:
    talk.say(request("add_one"))
    talk.say(request("add_one", **{"in": [1.0]}))
    assert talk.hear_values() == {"out": [2.0]}
    assert talk.rest() == []


def test_another_servable_and_another_version(talk: Talk) -> None:
    talk.say(request("add_one", **{"in": [1.0]}))
    talk.hear()
    talk.say(request("other", **{"in": [1.0]}))
    error = talk.hear().error_message
    assert error.startswith("Subsequent request with incorrect servable name")
    assert error.endswith("; validate subsequent requests")
    message = request("add_one", **{"in": [1.0]})
    message.model_version = "2"
    talk.say(message)
    error = talk.hear().error_message
    assert error.startswith("Subsequent request with incorrect servable version")
    assert error.endswith("; validate subsequent requests")
    for version in ("0", "1", ""):
        message.model_version = version
        talk.say(message)
        assert talk.hear_values() == {"out": [2.0]}


def test_the_version_of_the_first_request_does_not_matter(talk: Talk) -> None:
    message = request("add_one", **{"in": [1.0]})
    message.model_version = "what"
    talk.say(message)
    assert talk.hear_values() == {"out": [2.0]}


def test_malformed_messages_are_told(stub: Stub) -> None:
    good = request("add_one", **{"in": [1.0]}).SerializeToString()
    answers = list(stub.stream([b"\xff", good, b"\xff", good]))
    assert answers[0].error_message.startswith("Malformed message")
    assert sorted(bool(answer.error_message) for answer in answers) == [False, False, True, True]


def test_side_packets_are_those_of_the_first_request(talk: Talk) -> None:
    talk.say(request("side", sides={"val": 3}, **{"in": [1.0]}))
    assert talk.hear_values() == {"out": [4.0]}
    talk.say(request("side", sides={"val": 50}, **{"in": [1.0]}))
    assert talk.hear_values() == {"out": [4.0]}


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (request("side", **{"in": [1.0]}), "FAILED_PRECONDITION", "Failed to start mediapipe"),
        (request("side", sides={"py": 3}), "FAILED_PRECONDITION", "Failed to initialize mediapipe"),
        (request("closed", **{"in": [1.0]}), "INVALID_ARGUMENT", "Mediapipe execution failed."),
        (request("unborn", **{"in": [1.0]}), "INVALID_ARGUMENT", "Mediapipe execution failed."),
        (request("unproduced", **{"in": [1.0]}), "INTERNAL", "Internal server error"),
        (request("missing_model", **{"in": [1.0]}), "FAILED_PRECONDITION",
         "Mediapipe graph precondition failed"),
        (request("unknown", **{"in": [1.0]}), "NOT_FOUND",
         "Model with requested name is not found - unknown"),
    ],
)  # fmt: skip
def test_streams_that_cannot_begin(
    talk: Talk, message: pb.ModelInferRequest, code: str, text: str
) -> None:
    talk.say(message)
    found = status_of(talk.answers)
    assert found[0] == code
    assert found[1].startswith(text)


def test_a_failure_ends_the_stream_at_once(talk: Talk) -> None:
    talk.say(request("negative", **{"in": [1.0]}))
    assert talk.hear_values() == {"out": [1.0]}
    talk.say(request("negative", **{"in": [-1.0]}))
    code, details = status_of(talk.answers)  # the client says nothing more
    assert code == "INVALID_ARGUMENT"
    assert details.endswith('Calculator::Process() for node "ErrorOnNegative" failed: Error')


def test_a_calculator_that_exits_ends_its_stream_alone(talk: Talk, stub: Stub) -> None:
    talk.say(request("exit", **{"in": [1.0]}))
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert details.endswith('node "Exit" failed: Unexpected error')
    assert ask(stub, request("add_one", **{"in": [1.0]})) == {"out": [2.0]}


def test_a_stream_that_is_closed_before_its_first_message(stub: Stub) -> None:
    assert list(stub.stream([])) == []


def test_what_a_node_sends_at_the_end(talk: Talk) -> None:
    for at in (1, 2, 3):
        talk.say(request("last", at=at, **{"in": [float(at)]}))
    (answer,) = talk.rest()
    assert (tensors(answer.infer_response), time_of(answer.infer_response)) == ({"out": [3.0]}, 3)


def test_full_queues_stop_the_client_and_lose_nothing(stub: Stub, talk: Talk) -> None:
    n_messages = 50
    taken = threading.Semaphore(0)

    def messages() -> Iterator[pb.ModelInferRequest]:
        for value in range(n_messages):
            taken.release()
            yield request("gate", at=value, **{"in": [float(value)]})

    answers = stub.stream(messages())
    assert Gate.waiting.acquire(timeout=30)
    # One is being processed and two are queued; a few more are on their way.
    assert ask(stub, request("add_one", **{"in": [1.0]})) == {"out": [2.0]}
    for _ in range(n_messages):
        Gate.opened.release()
    found = [tensors(answer.infer_response)["out"][0] for answer in answers]
    assert found == list(range(n_messages))
    Gate.drain()


def test_what_is_read_ahead_has_a_bound(talk: Talk) -> None:
    """The last message would be answered in-band, had it been read."""
    for at in range(30):
        talk.say(request("gate", at=at, **{"in": [float(at)]}))
    talk.say(request("gate", x=[1.0]))
    assert Gate.waiting.acquire(timeout=30)
    for _ in range(30):
        Gate.opened.release()
    answers = [talk.hear() for _ in range(31)]
    (told,) = [position for position, answer in enumerate(answers) if answer.error_message]
    assert told >= 25  # one is in the node, two wait, and one is in the hand of the reader
    Gate.drain()


def say_a(talk: Talk, times: range) -> None:
    for at in times:
        talk.say(request("sum", at=at, a=[1.0]))


def test_a_stream_whose_other_input_never_comes_ends_before_it_takes_all_memory(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_SURPLUS_NBYTES", 10_000)
    say_a(talk, range(200))
    assert status_of(talk.answers) == (
        "RESOURCE_EXHAUSTED",
        'Too many packets are waiting - node "Sum" has 118 of stream "a", and waits for those of '
        "other inputs; beyond the max_queue_size of 100, they may take 10000 bytes",
    )


def test_a_packet_that_waits_counts_as_the_message_that_it_keeps(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_SURPLUS_NBYTES", 100_000)
    done = np.zeros(2500, np.float32)  # which is answered, in the message with what waits
    for at in range(150):
        talk.say(request("beside", at=at, a=[1.0], c=done))
    talk.close()
    code, details = status_of(talk.answers)
    assert code == "RESOURCE_EXHAUSTED"
    assert 'node "Sum" has 11' in details


def test_a_packet_that_waits_counts_as_what_a_node_made_of_it(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_SURPLUS_NBYTES", 100_000)
    for at in range(150):
        talk.say(request("wide", at=at, a=[1.0]))
    talk.close()
    code, details = status_of(talk.answers)
    assert code == "RESOURCE_EXHAUSTED"
    assert 'node "Sum" has 12' in details
    assert 'stream "wide"' in details


KILOBYTE = np.zeros(1000, np.uint8)
STRINGS = StringTensor(StringArray.of([bytes(996)]), (1,))


@pytest.mark.parametrize(
    "value",
    [
        KILOBYTE,
        KILOBYTE[:1],
        np.broadcast_to(KILOBYTE, (1 << 30, 1000)),
        [KILOBYTE[:400], (KILOBYTE[:300], KILOBYTE[:300])],
        ImageFrame("GRAY8", KILOBYTE.reshape(10, 100, 1)),
        Tensor("x", KILOBYTE),
        STRINGS,
        pb.ModelInferRequest(raw_input_contents=[KILOBYTE.tobytes()]),
        pb.ModelInferResponse(raw_output_contents=[KILOBYTE.tobytes()]),
    ],
    ids=["array", "part", "rows", "list", "image", "Tensor", "strings", "request", "response"],
)
def test_a_packet_that_waits_counts_as_the_memory_that_it_keeps(value: object) -> None:
    nothing = held_nbytes([None])
    assert 1000 <= held_nbytes([value]) - nothing <= 1003
    assert held_nbytes([value, value]) == held_nbytes([value]) + nothing, "which is there once"


def test_an_input_may_lag_behind_by_more_than_a_queue(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_SURPLUS_NBYTES", 50_000)
    say_a(talk, range(150))
    for at in range(300):
        talk.say(request("sum", at=at, b=[2.0]))
        say_a(talk, range(150 + at, 151 + at))
    assert values(talk) == [{"out": [203.0]}] * 300 + [{"out": [101.0]}] * 150


def test_a_queue_without_a_bound(talk: Talk) -> None:
    for at in range(300):
        talk.say(request("unbounded", at=at, **{"in": [float(at)]}))
    talk.say(request("unbounded", x=[1.0]))
    assert talk.hear().error_message  # all before it have been read, and none has been answered
    for _ in range(300):
        Gate.opened.release()
    assert [talk.hear_values()["out"][0] for _ in range(300)] == list(range(300))
    Gate.drain()


def test_an_input_twice_in_one_message_ends_the_stream(talk: Talk) -> None:
    message = request("add_one", at=1, **{"in": [1.0]})
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])
    talk.say(message)
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert "Current minimum expected timestamp is 2 but received 1." in details


def test_times_of_the_server_follow_those_of_the_client(talk: Talk) -> None:
    ahead = 1 << 60
    talk.say(request("add_one", at=ahead, **{"in": [1.0]}))
    for _ in range(3):
        talk.say(request("add_one", **{"in": [1.0]}))
    times = [time_of(answer.infer_response) for answer in talk.rest()]
    assert times == [ahead, ahead + 1, ahead + 2, ahead + 3]


def test_a_client_that_leaves_closes_its_nodes(stub: Stub) -> None:
    talks = [Talk(stub) for _ in range(20)]
    for number, talk in enumerate(talks):
        talk.say(request("counted", **{"in": [float(number)]}))
        talk.hear()
    assert CountClosed.n_open == 20
    for number, talk in enumerate(talks):
        if number % 2:
            talk.cancel()
        else:
            talk.close()
    wait_until(lambda: CountClosed.n_open == 0)


def test_hundreds_of_idle_streams_leave_room_for_others(stub: Stub) -> None:
    talks = [Talk(stub) for _ in range(300)]
    for talk in talks:
        talk.say(request("counted", **{"in": [1.0]}))
    for talk in talks:
        talk.hear()
    assert ask(stub, request("add_one", **{"in": [1.0]})) == {"out": [2.0]}
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=30).live
    talks[0].say(request("counted", **{"in": [8.0]}))
    assert talks[0].hear_values() == {"out": [8.0]}
    for talk in talks:
        talk.cancel()
    wait_until(lambda: CountClosed.n_open == 0)


def test_a_model_of_the_server_named_in_no_graph_streams_too(stub: Stub) -> None:
    answers = list(stub.stream([request("dummy", b=np.ones((1, 10), np.float32))] * 2))
    assert [tensors(answer.infer_response) for answer in answers] == [{"a": [2.0] * 10}] * 2
    assert refusal(lambda: list(stub.stream([request("nothing", b=[1.0])])))[0] == "NOT_FOUND"
