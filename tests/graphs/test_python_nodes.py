"""Python handlers in graphs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from conftest import wait_until
from graphs.graph_site import (
    LOOP,
    Talk,
    add_graph,
    add_models,
    ask,
    ends,
    inference,
    looped,
    node,
    one,
    python,
    request,
    session,
    status_of,
    tensors,
    time_of,
)
from graphs.handlers import BESIDE, INCREMENT, NOTES
from site_of_models import Site, refusal
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb

GENERATE = """
    import numpy as np
    from pyovms import Tensor

    class OvmsPythonModel:
        def initialize(self, kwargs):
            self.outputs = [name for name in kwargs["output_names"] if name != "loopback"]

        def execute(self, inputs):
            for step in range(3):
                yield [
                    Tensor(self.outputs[position], np.array(tensor) + np.float32(step + 1))
                    for position, tensor in enumerate(inputs)
                ]
"""

FOREVER = """
    import numpy as np
    from pathlib import Path
    from pyovms import Tensor

    class OvmsPythonModel:
        def initialize(self, kwargs):
            self.folder = Path(kwargs["base_path"])

        def execute(self, inputs):
            try:
                while True:
                    yield [Tensor("out", np.array(inputs[0]))]
            finally:
                (self.folder / "ended").touch()
"""

BREAKS = """
    import numpy as np
    from pyovms import Tensor

    class OvmsPythonModel:
        def execute(self, inputs):
            yield [Tensor("out", np.float32([1]))]
            yield [Tensor("out", np.float32([2]))]
            if np.array(inputs[0])[0] > 0:
                raise ValueError("no third")
            yield Tensor("out", np.float32([3]))
"""

OWN_STATE = """
    from pyovms import Tensor

    class OvmsPythonModel:
        def initialize(self, kwargs):
            self.name = kwargs["node_name"]
            self.output = kwargs["output_names"][0]

        def execute(self, inputs):
            return [Tensor(self.output, bytes(inputs[0]) + self.name.encode())]
"""

RETURNS = """
    import numpy as np
    from pyovms import Tensor

    class Many(list):
        pass

    class OvmsPythonModel:
        def execute(self, inputs):
            what = bytes(inputs[0])[4:].decode()
            return {
                "nothing": None,
                "tuple": (Tensor("out", b"x"),),
                "array": [np.zeros(1)],
                "stranger": [Tensor("stranger", b"x")],
                "twice": [Tensor("out", b"x"), Tensor("out", b"y")],
                "loopback": [Tensor("loopback", b"x")],
                "large": [Tensor("out", b"x", shape=[1 << 63])],
                "no_text": [Tensor("out", b"x", datatype="\\udc80")],
                "empty": [],
                "subclass": Many([Tensor("out", b"x")]),
                "own": [Tensor("out", np.zeros(6, np.uint8), shape=[2, 3], datatype="mine")],
                "int64": [Tensor("out", np.arange(3))],
                "string": [Tensor("out", np.array("nine char"))],
            }[what]
"""

EXIT = """
    import asyncio

    class OvmsPythonModel:
        def execute(self, inputs):
            raise {what}
"""

#: What ends more than a function, where nobody expects it.
ENDS = {"exit": "SystemExit(3)", "cancelled": "asyncio.CancelledError", "int": "KeyboardInterrupt"}


def around_a_model() -> str:
    names = "tag_to_output_tensor_names { key: 'OVMS_PY_TENSOR' value: 'middle' }"
    options = (
        "node_options: { [type.googleapis.com/mediapipe.PyTensorOvTensorConverterCalculatorOptions]"
        f": {{ {names} }} }}"
    )
    converter = "PyTensorOvTensorConverterCalculator"
    return (
        ends(["OVMS_PY_TENSOR:in"], ["OVMS_PY_TENSOR:out"])
        + session("dummy")
        + python("before", ["A:in"], ["B:prepared"])
        + node(converter, ["OVMS_PY_TENSOR:prepared"], ["OVTENSOR:x"])
        + inference("dummy", {"B": "x"}, {"A": "y"}, B="b", A="a")
        + node(converter, ["OVTENSOR:y"], ["OVMS_PY_TENSOR:z"], options)
        + python("after", ["A:z"], ["B:out"])
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("python"))
    add_models(site)
    add_graph(site, "increment", one("increment"), increment=INCREMENT)
    add_graph(site, "around", around_a_model(), before=INCREMENT, after=INCREMENT)
    add_graph(site, "returns", one("returns"), returns=RETURNS)
    add_graph(site, "returns_to_itself", looped("returns"), returns=RETURNS)
    for name, what in ENDS.items():
        add_graph(site, name, one(name), **{name: EXIT.format(what=what)})
    inputs, outputs = ["OVMS_PY_TENSOR:b", "OVMS_PY_TENSOR_A:a"], ["OVMS_PY_TENSOR:out"]
    notes = python("notes", ["Z:b", "A:a"], ["OUT:out"])
    add_graph(site, "notes", ends(inputs, outputs) + notes, notes=NOTES, beside=BESIDE)
    summed = node("Sum", ["in"], ["sum"]) + python("increment", ["IN:sum"], ["OUT:out"])
    add_graph(site, "untyped", ends(["in"], ["OVMS_PY_TENSOR:out"]) + summed, increment=INCREMENT)
    add_graph(site, "generate", looped("generate"), generate=GENERATE)
    add_graph(site, "returns_in_a_loop", looped("increment"), increment=INCREMENT)
    add_graph(site, "forever", looped("forever"), forever=FOREVER)
    add_graph(site, "left", looped("forever"), forever=FOREVER)
    add_graph(site, "no_loop", one("generate"), generate=GENERATE)
    add_graph(site, "breaks", looped("breaks"), breaks=BREAKS)
    same = python("first", ["IN:in"], ["OUT:middle"]) + python("second", ["IN:middle"], ["OUT:out"])
    same = same.replace('"first.py"', '"same.py"').replace('"second.py"', '"same.py"')
    add_graph(site, "same", ends(["OVMS_PY_TENSOR:in"], ["OVMS_PY_TENSOR:out"]) + same,
              same=OWN_STATE)  # fmt: skip
    two = python("generate", ["A:in1", "B:in2", "LOOPBACK:loopback"],
                 ["A:out1", "B:out2", "LOOPBACK:loopback"], LOOP)  # fmt: skip
    both = ends(
        ["OVMS_PY_TENSOR:in1", "OVMS_PY_TENSOR2:in2"],
        ["OVMS_PY_TENSOR:out1", "OVMS_PY_TENSOR2:out2"],
    )
    add_graph(site, "generate_two", both + two, generate=GENERATE)
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def stub(site: Site) -> Stub:
    assert site.channel is not None
    return Stub(site.channel)


def test_a_handler(stub: Stub) -> None:
    values = [[1.0, 20, 3, 1, 20, 3, 1, 20, 3, -5]]
    assert ask(stub, request("increment", **{"in": values}))["out"] == [
        2, 21, 4, 2, 21, 4, 2, 21, 4, -4,
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [[], [1, 32, 32, 0, 1], [2, 3]])
def test_shapes(stub: Stub, shape: list[int]) -> None:
    raw = np.full(shape, 6, np.float32).tobytes()
    response = stub.ModelInfer(infer_request("increment", "in", shape=shape, raw=raw), timeout=30)
    assert list(response.outputs[0].shape) == shape
    assert response.raw_output_contents[0] == np.full(shape, 7, np.float32).tobytes()


def test_a_handler_that_raises_is_used_again(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    ints = request("increment", datatype="INT32", **{"in": np.zeros(3, np.int32)})
    code, details = refusal(lambda: stub.ModelInfer(ints, timeout=30))
    assert code == "INVALID_ARGUMENT"
    assert details == (
        "Mediapipe execution failed. MP status - INTERNAL: CalculatorGraph::Run() failed: \n"
        'Calculator::Process() for node "increment" failed: Error occurred during graph execution'
    )
    assert "only FP32" in caplog.text
    assert ask(stub, request("increment", **{"in": [1.0]})) == {"out": [2.0]}


@pytest.mark.parametrize("graph", ENDS)
def test_a_handler_ends_neither_the_server_nor_a_thread_of_it(stub: Stub, graph: str) -> None:
    message = request(graph, **{"in": [1.0]})
    code, _ = refusal(lambda: ask(stub, message))
    assert code == "INVALID_ARGUMENT"
    talk = Talk(stub)
    talk.say(message)
    assert status_of(talk.answers)[0] == "INVALID_ARGUMENT"


def test_handlers_around_a_model(stub: Stub) -> None:
    assert ask(stub, request("around", **{"in": [[1.0] * 10]})) == {"out": [4.0] * 10}


def test_what_a_handler_is_told_and_given(site: Site, stub: Stub) -> None:
    told = json.loads((site.root / "notes" / "kwargs.json").read_text())
    assert told == {
        "node_name": "notes",
        "input_names": ["b", "a"],
        "output_names": ["out"],
        "base_path": str(site.root / "notes"),
    }
    response = stub.ModelInfer(request("notes", b=[1.0], a=[2.0]), timeout=30)
    assert response.raw_output_contents[0] == b"abab"  # by tag, not as in the file
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("UINT8", [4])


def to_return(what: str) -> pb.ModelInferRequest:
    return infer_request("returns", "in", "BYTES", [1], bytes_contents=[what.encode()])


def returned(stub: Stub, what: str) -> pb.ModelInferResponse:
    return stub.ModelInfer(to_return(what), timeout=30)


@pytest.mark.parametrize(
    "what", ["nothing", "tuple", "array", "stranger", "unknown", "large", "no_text"]
)
def test_what_a_handler_must_not_return(stub: Stub, what: str) -> None:
    code, details = refusal(lambda: returned(stub, what))
    assert code == "INVALID_ARGUMENT"
    assert details.endswith("Error occurred during graph execution")
    assert status_of(stub.stream([to_return(what)])) == (code, details)


def test_a_handler_does_not_feed_its_loopback(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    message = to_return("loopback")
    message.model_name = "returns_to_itself"
    code, details = refusal(lambda: stub.ModelInfer(message, timeout=30))
    assert code == "INVALID_ARGUMENT"
    assert details.endswith("Error occurred during graph execution")
    assert "gave the tensor 'loopback'; the node's outputs are out" in caplog.text


def test_a_handler_is_given_nothing_but_tensors(stub: Stub) -> None:
    code, details = refusal(lambda: ask(stub, request("untyped", **{"in": [1.0]})))
    assert code == "INVALID_ARGUMENT"
    assert "expected pyovms.Tensor at every input; found numpy.ndarray" in details


def test_two_tensors_of_one_name(stub: Stub) -> None:
    code, details = refusal(lambda: returned(stub, "twice"))
    assert code == "INVALID_ARGUMENT"
    assert "Packet timestamp mismatch" in details


def test_what_a_handler_may_return(stub: Stub) -> None:
    assert returned(stub, "subclass").raw_output_contents[0] == b"x"
    own = returned(stub, "own").outputs[0]
    assert (own.datatype, list(own.shape)) == ("mine", [2, 3])
    int64 = returned(stub, "int64")
    assert (int64.outputs[0].datatype, len(int64.raw_output_contents[0])) == ("INT64", 24)
    assert returned(stub, "string").outputs[0].datatype == "9w"
    code, details = refusal(lambda: returned(stub, "empty"))
    assert (code, "Unknown error during mediapipe execution" in details) == (
        "INVALID_ARGUMENT", True,
    )  # fmt: skip


def test_a_generator_answers_until_it_ends_also_after_half_close(stub: Stub) -> None:
    talk = Talk(stub)
    talk.say(request("generate", at=64, **{"in": [3.5]}))
    answers = [answer.infer_response for answer in talk.rest()]
    assert [tensors(answer)["out"] for answer in answers] == [[4.5], [5.5], [6.5]]
    assert [time_of(answer) for answer in answers] == [64, 65, 66]
    assert all(not answer.id for answer in answers)


def test_a_generator_is_run_for_each_request_of_a_stream(stub: Stub) -> None:
    talk = Talk(stub)
    found = []
    for value in (1.0, 10.0):
        talk.say(request("generate", **{"in": [value]}))
        found += [talk.hear_values()["out"] for _ in range(3)]
    assert found == [[2.0], [3.0], [4.0], [11.0], [12.0], [13.0]]
    assert talk.rest() == []


def test_a_generator_with_two_inputs(stub: Stub) -> None:
    talk = Talk(stub)
    talk.say(request("generate_two", in1=[3.5], in2=[13.5]))
    answers = [tensors(answer.infer_response) for answer in talk.rest()]
    assert answers == [
        {"out1": [4.5]}, {"out2": [14.5]}, {"out1": [5.5]}, {"out2": [15.5]},
        {"out1": [6.5]}, {"out2": [16.5]},
    ]  # fmt: skip


def test_inputs_that_come_in_different_requests_at_one_time(stub: Stub) -> None:
    talk = Talk(stub)
    talk.say(request("generate_two", at=64, in1=[3.5]))
    talk.say(request("generate_two", at=64, in2=[7.2]))
    times = [time_of(answer.infer_response) for answer in talk.rest()]
    assert times == [64, 64, 65, 65, 66, 66]


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_what_a_generator_gave_before_it_failed_is_sent(stub: Stub, value: float) -> None:
    talk = Talk(stub)
    talk.say(request("breaks", **{"in": [value]}))
    assert [talk.hear_values()["out"], talk.hear_values()["out"]] == [[1.0], [2.0]]
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert details.endswith("Error occurred during graph execution")


def test_nodes_with_the_same_file_have_objects_of_their_own(stub: Stub) -> None:
    message = infer_request("same", "in", "mine", [1], raw=b">")
    assert stub.ModelInfer(message, timeout=30).raw_output_contents[0] == b">firstsecond"


def test_data_that_comes_too_early_for_a_generator_ends_the_stream(stub: Stub) -> None:
    talk = Talk(stub)
    talk.say(request("forever", at=10, **{"in": [1.0]}))
    for _ in range(100):
        talk.hear()
    talk.say(request("forever", at=20, **{"in": [1.0]}))
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert "RESOURCE_EXHAUSTED: CalculatorGraph::Run() failed:" in details
    assert "Node is already processing data. Create new stream for another request." in details


def test_a_client_that_leaves_ends_a_generator(site: Site, stub: Stub) -> None:
    ended = site.root / "left" / "ended"
    talk = Talk(stub)
    talk.say(request("left", **{"in": [1.0]}))
    talk.hear()
    assert not ended.exists()
    talk.cancel()
    wait_until(ended.exists)


def test_a_generator_without_a_loop_is_an_error(stub: Stub) -> None:
    talk = Talk(stub)
    talk.say(request("no_loop", **{"in": [1.0]}))
    code, details = status_of(talk.answers)
    assert code == "INVALID_ARGUMENT"
    assert "Execute yielded, but LOOPBACK is not defined in the node" in details


def test_a_unary_call_gets_the_first_value(stub: Stub) -> None:
    assert ask(stub, request("generate", **{"in": [1.0]})) == {"out": [2.0]}
    assert ask(stub, request("forever", **{"in": [1.0]})) == {"out": [1.0]}


def test_a_handler_in_a_loop_may_return(stub: Stub) -> None:
    assert ask(stub, request("returns_in_a_loop", **{"in": [1.0]})) == {"out": [2.0]}
