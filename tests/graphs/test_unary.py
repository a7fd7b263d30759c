"""ModelInfer on graphs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from graphs.graph_site import (
    add_graph,
    add_models,
    ask,
    dummy_graph,
    ends,
    inference,
    node,
    request,
    session,
    time_of,
)
from graphs.plug_ins import CountClosed
from site_of_models import Site, refusal
from wire import Stub, in_shared_memory, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb

ONES = np.ones((1, 10), np.float32)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("unary"))
    add_models(site)
    add_graph(site, "dummy_graph", dummy_graph())
    add = inference("add", {"INPUT1": "in1", "INPUT2": "in2"}, {"SUM": "out"}, INPUT1="input1",
                    INPUT2="input2", SUM="sum")  # fmt: skip
    add_graph(site, "my/graph", ends(["in1", "in2"], ["out"]) + session("add") + add)
    chain = (
        ends(["in"], ["out", "middle"])
        + inference("dummy", {"B": "middle"}, {"A": "end"}, B="b", A="a")
        + inference("dummy", {"B": "in"}, {"A": "middle"}, B="b", A="a")
        + session("dummy")
        + node("PassThroughCalculator", ["X:end"], ["X:out"])
    )
    add_graph(site, "chain", chain)
    add_graph(site, "no_session", dummy_graph().replace(session("dummy"), ""))
    add_graph(site, "missing_model", dummy_graph().replace("dummy", "nowhere"))
    add_graph(site, "pass", ends(["REQUEST:in"], ["RESPONSE:out"])
              + node("PassRequest", ["REQUEST:in"], ["RESPONSE:out"]))  # fmt: skip
    add_graph(site, "negative", ends(["in"], ["out"]) + node("ErrorOnNegative", ["in"], ["out"]))
    add_graph(site, "half_open", ends(["in"], ["out"]) + node("CountClosed", ["in"], ["a"])
              + node("FailInOpen", ["a"], ["b"]) + node("CountClosed", ["b"], ["out"])
              )  # fmt: skip
    add_graph(site, "crash", ends(["in"], ["out"]) + node("Crash", ["in"], ["out"]))
    add_graph(site, "closed", ends(["in"], ["out"]) + node("FailInOpen", ["in"], ["out"]))
    add_graph(site, "silent", ends(["in"], ["out"]) + node("Silent", ["in"], ["out"]))
    add_graph(site, "unproduced", ends(["in"], ["out"]) + node("AddOne", ["in"], ["other"]))
    add_graph(site, "side", ends(["in"], ["out"]) + node(
        "AddSidePacket", ["in"], ["out"], 'input_side_packet: "VALUE:val"'))  # fmt: skip
    add_graph(site, "convert", ends(["in"], ["out"]) + node(
        "Convert", ["in"], ["out"], 'input_side_packet: "TYPE:type"'))  # fmt: skip
    add_graph(site, "sides", ends(["in"], ["s", "i", "b"]) + node(
        "Side", ["in"], ["STRING:s", "INT64:i", "BOOL:b"],
        'input_side_packet: "STRING:text" input_side_packet: "INT64:number" '
        'input_side_packet: "BOOL:flag"'))  # fmt: skip
    add_graph(site, "skips", ends(["a", "b"], ["out"])
              + node("Silent", ["a"], ["c"]) + node("AddOne", ["b"], ["d"])
              + node("Sum", ["c", "d"], ["out"]))  # fmt: skip
    add_graph(site, "queued", "# OVMS_GRAPH_QUEUE_MAX_SIZE: 2\n" + dummy_graph())
    for kind, tag in (("image", "IMAGE"), ("mp", "TENSOR"), ("tf", "TFTENSOR"), ("ov", "OVTENSOR"),
                      ("py", "OVMS_PY_TENSOR")):  # fmt: skip
        add_graph(site, kind, ends([f"{tag}:in"], [f"{tag}:out"])
                  + node("PassThroughCalculator", ["in"], ["out"]))  # fmt: skip
    add_graph(site, "mismatch", ends(["IMAGE:in"], ["out"]) + node("AddOne", ["in"], ["out"]))
    add_graph(site, "mismatch_behind", ends(["IMAGE:in"], ["out"])
              + node("PassThroughCalculator", ["in"], ["same"])
              + node("AddOne", ["same"], ["out"]))  # fmt: skip
    add_graph(site, "cycle", ends(["in"], ["out"]) + node(
        "Cycle", ["in", "back"], ["out", "back"], 'input_stream_info { tag_index: ":1" '
        'back_edge: true } input_stream_handler { input_stream_handler: '
        '"ImmediateInputStreamHandler" }'))  # fmt: skip
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def stub(site: Site) -> Stub:
    assert site.channel is not None
    return Stub(site.channel)


def test_a_model(stub: Stub) -> None:
    response = stub.ModelInfer(request("dummy_graph", id="my_id", **{"in": ONES}), timeout=30)
    assert (response.model_name, response.model_version) == ("dummy_graph", "1")
    assert response.id == "my_id"
    assert time_of(response) > 10**15
    tensor = response.outputs[0]
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("out", "FP32", [1, 10])
    assert response.raw_output_contents[0] == (ONES + 1).tobytes()


def test_typed_contents_and_a_given_timestamp(stub: Stub) -> None:
    message = infer_request("dummy_graph", "in", fp32_contents=[2.0] * 10)
    message.parameters["OVMS_MP_TIMESTAMP"].int64_param = 7
    response = stub.ModelInfer(message, timeout=30)
    assert time_of(response) == 7
    assert response.raw_output_contents[0] == (ONES * 3).tobytes()


def test_two_inputs_and_a_name_with_a_slash(stub: Stub) -> None:
    first = np.array([[3, 7, 1, 6, 4, 2, 0, 5, 9, 8]], np.float32)
    assert ask(stub, request("my/graph", in1=first, in2=ONES))["out"] == (first + 1)[0].tolist()


def test_a_chain_written_in_any_order_and_an_output_in_its_middle(stub: Stub) -> None:
    assert ask(stub, request("chain", **{"in": ONES})) == {"out": [3.0] * 10, "middle": [2.0] * 10}


def test_only_the_outputs_that_are_asked_for(stub: Stub) -> None:
    message = request("chain", **{"in": ONES})
    message.outputs.add(name="middle")
    assert ask(stub, message) == {"middle": [2.0] * 10}
    message.outputs.add(name="nothing")
    assert refusal(lambda: ask(stub, message)) == (
        "INVALID_ARGUMENT",
        "Missing output with specific name - Requested output: nothing; Available outputs: out, "
        "middle",
    )


def test_a_whole_request_to_a_whole_response(stub: Stub) -> None:
    response = stub.ModelInfer(request("pass", id="3", **{"in": ONES}), timeout=30)
    assert (response.model_name, response.model_version, response.id) == ("pass", "1", "3")
    assert response.outputs[0].name == "out"
    assert response.raw_output_contents[0] == ONES.tobytes()
    assert time_of(response) > 0


def test_a_cycle_stops_when_every_output_is_there(stub: Stub) -> None:
    assert ask(stub, request("cycle", **{"in": [1.0]})) == {"out": [2.0]}


def test_only_nodes_that_were_opened_are_closed(stub: Stub) -> None:
    code, details = refusal(lambda: ask(stub, request("half_open", **{"in": [1.0]})))
    assert code == "INVALID_ARGUMENT"
    assert details.endswith('Calculator::Open() for node "FailInOpen" failed: Negative')
    assert CountClosed.n_open == 0


def test_a_join_runs_with_what_there_is_when_nothing_more_comes(stub: Stub) -> None:
    assert ask(stub, request("skips", a=[1.0], b=[5.0])) == {"out": [106.0]}


def test_side_packets_are_parameters_of_the_request(stub: Stub) -> None:
    assert ask(stub, request("side", sides={"val": 3}, **{"in": [1.0]})) == {"out": [4.0]}
    sides = {"text": "hello", "number": 1 << 40, "flag": True, "unknown": "x"}
    response = stub.ModelInfer(request("sides", sides=sides, **{"in": [1.0]}), timeout=30)
    assert [(tensor.name, tensor.datatype) for tensor in response.outputs] == [
        ("s", "UINT8"), ("i", "INT64"), ("b", "BOOL"),
    ]  # fmt: skip
    assert response.raw_output_contents[0] == b"hello"
    assert np.frombuffer(response.raw_output_contents[1], np.int64) == 1 << 40
    assert response.raw_output_contents[2] == b"\x01"


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (request("side", **{"in": [1.0]}), "FAILED_PRECONDITION",
         "Failed to start mediapipe graph - INVALID_ARGUMENT: ValidateRequiredSidePackets failed "
         'to validate: \nSide packet "val" is required but was not provided.'),
        (request("sides", sides={"text": 1, "number": 1, "flag": True}, **{"in": [1.0]}),
         "FAILED_PRECONDITION", "Failed to start mediapipe graph - INVALID_ARGUMENT: "
         'ValidateRequiredSidePackets failed to validate: \nSide packet "text": expected '
         "std::string; found int"),
        (request("sides", sides={"text": "", "number": True, "flag": True}, **{"in": [1.0]}),
         "FAILED_PRECONDITION", "Failed to start mediapipe graph - INVALID_ARGUMENT: "
         'ValidateRequiredSidePackets failed to validate: \nSide packet "number": expected int64; '
         "found bool"),
        (request("side", sides={"py": 1}, **{"in": [1.0]}), "FAILED_PRECONDITION",
         "Failed to initialize mediapipe graph - Incoming input side packet: py is special "
         "reserved name and cannot be used"),
        (request("side", sides={"val": 0.5}, **{"in": [1.0]}), "INVALID_ARGUMENT",
         "Invalid request parameter - Expected: string_param, int64_param or bool_param; Actual: "
         "double_param; parameter name: val"),
        (request("queued", sides={"x": 1}, **{"in": ONES}), "FAILED_PRECONDITION",
         "Failed to initialize mediapipe graph - Input side packets are not supported for graphs "
         "with queue enabled"),
        (request("missing_model", **{"in": ONES}), "FAILED_PRECONDITION",
         "Mediapipe graph precondition failed - FAILED_PRECONDITION: CalculatorGraph::Run() "),
        (request("negative", **{"in": [-1.0]}), "INVALID_ARGUMENT",
         "Mediapipe execution failed. MP status - INVALID_ARGUMENT: CalculatorGraph::Run() failed:"
         ' \nCalculator::Process() for node "ErrorOnNegative" failed: Error'),
        (request("crash", **{"in": [1.0]}), "INVALID_ARGUMENT",
         "Mediapipe execution failed. MP status - INTERNAL: CalculatorGraph::Run() failed: \n"
         'Calculator::Process() for node "Crash" failed: Unexpected error'),
        (request("closed", **{"in": [1.0]}), "INVALID_ARGUMENT",
         "Mediapipe execution failed. MP status - INTERNAL: CalculatorGraph::Run() failed: \n"
         'Calculator::Open() for node "FailInOpen" failed: Negative'),
        (request("silent", **{"in": [1.0]}), "INVALID_ARGUMENT",
         "Mediapipe execution failed. MP status - Unknown error during mediapipe execution"),
        (request("unproduced", **{"in": [1.0]}), "FAILED_PRECONDITION",
         "Failed to add mediapipe graph output stream"),
        (request("mismatch", datatype="UINT8", **{"in": np.zeros((2, 2, 3), np.uint8)}),
         "FAILED_PRECONDITION", "Failed to add packet to mediapipe graph input stream - "),
        (request("mismatch", datatype="FP64", **{"in": np.zeros((2, 2, 3), np.uint8)}),
         "INVALID_ARGUMENT", "Inputs inside buffer does not match expected format."),
        (request("side", x=[1.0]), "FAILED_PRECONDITION",
         "Failed to start mediapipe graph - INVALID_ARGUMENT: ValidateRequiredSidePackets"),
        (request("no_session", sides={"dummy": "dummy"}, **{"in": ONES}), "FAILED_PRECONDITION",
         "Failed to start mediapipe graph - INVALID_ARGUMENT: ValidateRequiredSidePackets failed "
         'to validate: \nSide packet "dummy": expected session; found str'),
        (request("missing_model", x=ONES), "FAILED_PRECONDITION",
         "Mediapipe graph precondition failed - FAILED_PRECONDITION: CalculatorGraph::Run() "),
        (request("missing_model", at="now", **{"in": ONES}), "FAILED_PRECONDITION",
         "Mediapipe graph precondition failed - FAILED_PRECONDITION: CalculatorGraph::Run() "),
        (request("mismatch_behind", datatype="UINT8", **{"in": np.zeros((2, 2, 3), np.uint8)}),
         "FAILED_PRECONDITION", "Failed to add packet to mediapipe graph input stream - stream "
         '"in" carries mediapipe::ImageFrame, but node AddOne takes ov::Tensor'),
        (request("dummy_graph", x=ONES), "INVALID_ARGUMENT", "Unexpected input - x is unexpected"),
        (request("dummy_graph"), "INVALID_ARGUMENT",
         "Invalid number of inputs - Not all input packets created"),
        (request("my/graph", in1=ONES), "INVALID_ARGUMENT",
         "Invalid number of inputs - Not all input packets created"),
        (request("dummy_graph", **{"in": np.ones((20, 10), np.float32)}), "INVALID_ARGUMENT",
         "Mediapipe execution failed. MP status - INTERNAL: CalculatorGraph::Run() failed: \n"
         'Calculator::Process() for node "OpenVINOInferenceCalculator" failed: dummy: Invalid'),
        (request("dummy_graph", datatype="unknown", **{"in": ONES}), "INVALID_ARGUMENT",
         "Invalid content size of tensor proto - "),
        (request("dummy_graph", at="now", **{"in": ONES}), "INVALID_ARGUMENT",
         "Malformed packet timestamp - Invalid timestamp format in request parameter "
         "OVMS_MP_TIMESTAMP. Should be int64"),
        (request("dummy_graph", at=(1 << 63) - 1, **{"in": ONES}), "INVALID_ARGUMENT",
         "Malformed packet timestamp - Timestamp::Done()"),
        (infer_request("dummy_graph", "in"), "INVALID_ARGUMENT",
         "Invalid number of values in tensor proto container - Expected: 10 values; Actual: 0 "
         "values; input name: in"),
        (in_shared_memory("dummy_graph", "in"), "INVALID_ARGUMENT",
         "Invalid number of values in tensor proto container - Expected: 10 values; Actual: 0 "
         "values; input name: in; Shared memory is not supported: send tensors in the messages"),
        (infer_request("dummy_graph", "in", shape=[-1, 10], raw=b""), "INVALID_ARGUMENT",
         "Invalid input shape - Negative dimension size is not acceptable: (-1,10); "
         "input name: in"),
        (infer_request("dummy_graph", "in", raw=b"123"), "INVALID_ARGUMENT",
         "Invalid content size of tensor proto - Expected: 40 bytes; Actual: 3 bytes; "
         "input name: in"),
        (infer_request("dummy_graph", "in", raw=b"123", version="x"), "INVALID_ARGUMENT",
         "invalid model version format in request"),
        (infer_request("image", "in", "UINT8", [2, 2], raw=b"1234"), "INVALID_ARGUMENT",
         "Invalid input shape - Invalid Mediapipe Image input shape size. Expected: 3; Actual: 2"),
        (infer_request("image", "in", "UINT8", [2, 0, 3], raw=b""), "INVALID_ARGUMENT",
         "Invalid input shape - Invalid Mediapipe Image input width. Expected greater than 0; "
         "Actual: 0; Expected layout - HWC."),
        (infer_request("image", "in", "UINT8", [1, 1, 2], raw=b"12"), "INVALID_ARGUMENT",
         "Inputs inside buffer does not match expected format."),
        *((infer_request("image", "in", datatype, [1, 1, channels], raw=b"12345678"),
           "INVALID_ARGUMENT", "Inputs inside buffer does not match expected format.")
          for datatype, channels in (("UINT16", 2), ("FP32", 3), ("INT32", 1), ("FP64", 1),
                                     ("BOOL", 1), ("BYTES", 1), ("UINT8", 5))),
        *((infer_request("image", "in", "UINT8", shape, raw=b""), "INVALID_ARGUMENT",
           f"Invalid input shape - Invalid Mediapipe Image input {what}. Expected greater than 0; "
           "Actual: ") for shape, what in (([0, 2, 3], "height"), ([-1, 2, 3], "height"),
                                           ([2, 2, 0], "number of channels"))),
        (infer_request("image", "in", "UINT8", [2, 2, 3], raw=b"123"), "INVALID_ARGUMENT",
         "Invalid content size of tensor proto - Invalid Mediapipe Image input buffer size. "
         "Actual: 3; Expected: 12"),
        (infer_request("ov", "in", "BYTES", [1], raw=b"\0\0\0\0"), "INVALID_ARGUMENT",
         "Invalid content size of tensor proto - "),
        (infer_request("ov", "in", "FP16", [1], fp32_contents=[1.0]), "INVALID_ARGUMENT",
         "Invalid number of values in tensor proto container - "),
        (infer_request("tf", "in", "mine", [1], raw=b"1"), "INVALID_ARGUMENT",
         "Invalid input precision - Not supported precision for Tensorflow tensor "
         "deserialization: mine"),
        (infer_request("tf", "in", "FP32", [-1], raw=b""), "INVALID_ARGUMENT",
         "Invalid input shape - Negative dimension size is not acceptable: (-1)"),
        (infer_request("mp", "in", "FP32", [-1], raw=b""), "INVALID_ARGUMENT",
         "Invalid input shape - Negative or zero dimension size is not acceptable: (-1)"),
        (infer_request("py", "in", "FP32", [-1], raw=b""), "INVALID_ARGUMENT",
         "Invalid input shape - Negative dimension size is not acceptable: (-1)"),
        (infer_request("image", "in", "UINT8", [1, 1, 1], uint_contents=[1]), "INVALID_ARGUMENT",
         "Mediapipe execution failed. MP status"),
        (infer_request("mp", "in", "INT64", [1], raw=b"12345678"), "INVALID_ARGUMENT",
         "Invalid input precision - Not supported precision for Mediapipe tensor "
         "deserialization: INT64"),
        (infer_request("mp", "in", "FP32", [0], raw=b""), "INVALID_ARGUMENT",
         "Invalid input shape - Negative or zero dimension size is not acceptable: (0)"),
        (infer_request("tf", "in", "FP32", [2], raw=b"1234"), "INVALID_ARGUMENT",
         "Invalid content size of tensor proto - Mediapipe deserialization content size mismatch; "
         "allocated TF Tensor: 8 bytes vs KServe buffer: 4 bytes"),
        (infer_request("py", "in", "FP32", [2], raw=b"1234"), "INVALID_ARGUMENT",
         "Invalid content size of tensor proto - Invalid Python tensor buffer size. Actual: 4; "
         "Expected: 8"),
        (infer_request("py", "in", "mine", [2], fp32_contents=[1.0, 2.0]), "INVALID_ARGUMENT",
         "Invalid input precision - Provided datatype is invalid, custom datatypes are allowed "
         "only when raw_input_contents is used."),
    ],
)  # fmt: skip
def test_errors(stub: Stub, message: pb.ModelInferRequest, code: str, text: str) -> None:
    found = refusal(lambda: stub.ModelInfer(message, timeout=30))
    assert found[0] == code, found
    assert found[1].startswith(text), found[1]


@pytest.mark.parametrize("graph", ["ov", "tf", "py"])
@pytest.mark.parametrize("shape", [[1 << 62, 4], [0, 1 << 62, 1 << 62], [1 << 32] * 3])
def test_sizes_that_nothing_can_have(stub: Stub, graph: str, shape: list[int]) -> None:
    message = infer_request(graph, "in", "FP32", shape, raw=b"")
    code, details = refusal(lambda: stub.ModelInfer(message, timeout=30))
    assert code == "INVALID_ARGUMENT"
    assert "Provided shape and datatype declare too large buffer." in details


@pytest.mark.parametrize("graph", ["ov", "tf", "mp", "py"])
def test_more_dimensions_than_an_array_has(stub: Stub, graph: str) -> None:
    most = infer_request(graph, "in", "FP32", [1] * 64, raw=b"1234")
    assert list(stub.ModelInfer(most, timeout=30).outputs[0].shape) == [1] * 64
    message = infer_request(graph, "in", "FP32", [1] * 65, raw=b"1234")
    assert refusal(lambda: stub.ModelInfer(message, timeout=30)) == (
        "INVALID_ARGUMENT",
        "Invalid number of shape dimensions - Expected: at most 64 dimensions; Actual: 65; "
        "input name: in",
    )


def test_an_input_that_is_there_twice(stub: Stub) -> None:
    message = request("dummy_graph", **{"in": ONES})
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(ONES.tobytes())
    code, details = refusal(lambda: stub.ModelInfer(message, timeout=30))
    assert code == "INVALID_ARGUMENT"
    assert "Packet timestamp mismatch" in details


def test_inputs_that_do_not_belong_to_raw_contents(stub: Stub) -> None:
    message = request("my/graph", in1=ONES, in2=ONES)
    del message.raw_input_contents[1]
    code, details = refusal(lambda: stub.ModelInfer(message, timeout=30))
    assert code == "INVALID_ARGUMENT"
    assert details.endswith("Size of raw_input_contents: 1 is different than number of inputs: 2")


@pytest.mark.parametrize(
    ("datatype", "shape", "sent_as"),
    [
        ("UINT8", (4, 3, 3), "UINT8"), ("INT8", (4, 3, 3), "UINT8"), ("UINT8", (1, 1, 4), "UINT8"),
        ("INT16", (4, 3, 1), "UINT16"), ("FP16", (4, 3, 3), "UINT16"),
        ("UINT8", (4, 3, 1), "UINT8"), ("INT8", (5, 2, 4), "UINT8"),
        ("UINT16", (4, 3, 1), "UINT16"), ("UINT16", (4, 3, 3), "UINT16"),
        ("INT16", (4, 3, 4), "UINT16"), ("FP16", (2, 2, 4), "UINT16"),
        ("FP32", (4, 3, 1), "FP32"), ("FP32", (4, 3, 2), "FP32"), ("FP32", (4, 3, 4), "FP32"),
    ],
)  # fmt: skip
def test_images(stub: Stub, datatype: str, shape: tuple[int, ...], sent_as: str) -> None:
    itemsize = {"UINT8": 1, "INT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "FP32": 4}[datatype]
    raw = bytes(range(int(np.prod(shape)) * itemsize))
    response = stub.ModelInfer(infer_request("image", "in", datatype, shape, raw=raw), timeout=30)
    assert response.outputs[0].datatype == sent_as
    assert tuple(response.outputs[0].shape) == shape
    assert response.raw_output_contents[0] == raw


@pytest.mark.parametrize(
    ("graph", "datatype", "shape"),
    [
        ("ov", "FP16", [2, 3]), ("ov", "UINT64", []), ("ov", "FP64", [0, 3]), ("mp", "BOOL", [4]),
        ("tf", "INT64", [2]), ("tf", "UINT32", [0]), ("py", "FP32", [2, 2]), ("py", "INT64", [3]),
        ("py", "mine", [7, 9]), ("py", "BYTES", [1]), ("py", "BF16", [1]), ("py", "BOOL", []),
    ],
)  # fmt: skip
def test_every_kind_of_tensor_passes(
    stub: Stub, graph: str, datatype: str, shape: list[int]
) -> None:
    itemsize = {"FP16": 2, "UINT64": 8, "FP64": 8, "INT64": 8, "FP32": 4, "UINT32": 4}
    raw = bytes(int(np.prod(shape)) * itemsize.get(datatype, 1))
    response = stub.ModelInfer(infer_request(graph, "in", datatype, shape, raw=raw), timeout=30)
    tensor = response.outputs[0]
    # What a Python tensor is called goes with it.
    assert tensor.name == ("in" if graph == "py" else "out")
    assert (tensor.datatype, list(tensor.shape)) == (datatype, shape)
    assert response.raw_output_contents[0] == raw


@pytest.mark.parametrize("dtype", ["object", "datetime64[s]"])
def test_an_array_that_no_message_can_hold(stub: Stub, dtype: str) -> None:
    message = request("convert", sides={"type": dtype}, **{"in": [1.0]})
    code, details = refusal(lambda: stub.ModelInfer(message, timeout=30))
    assert code == "INVALID_ARGUMENT"
    found = f'stream "out": expected ov::Tensor; found numpy.ndarray of {dtype}'
    assert details.endswith(found)


def test_typed_bytes_become_elements_with_their_lengths(stub: Stub) -> None:
    message = infer_request("py", "in", "BYTES", [2], bytes_contents=[b"ab", b""])
    response = stub.ModelInfer(message, timeout=30)
    assert response.raw_output_contents[0] == b"\x02\0\0\0ab\0\0\0\0"


def test_metadata_and_readiness(stub: Stub) -> None:
    found = stub.ModelMetadata(pb.ModelMetadataRequest(name="my/graph", version="x"), timeout=30)
    assert (list(found.versions), found.platform) == (["1"], "OpenVINO")
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [
        ("in1", "INVALID", []), ("in2", "INVALID", []),
    ]  # fmt: skip
    assert [t.name for t in found.outputs] == ["out"]
    assert stub.ModelReady(pb.ModelReadyRequest(name="missing_model"), timeout=30).ready


@pytest.mark.parametrize("datatype", ["FP32", "FP16"])  # no contents hold FP16: it has no values
@pytest.mark.parametrize("graph", ["ov", "tf", "py"])
def test_contents_of_no_values_make_an_empty_tensor(stub: Stub, graph: str, datatype: str) -> None:
    response = stub.ModelInfer(infer_request(graph, "in", datatype, [0, 3]), timeout=30)
    assert list(response.outputs[0].shape) == [0, 3]
    assert response.raw_output_contents[0] == b""
