"""Inference over gRPC: every datatype on every carrier, and what an answer looks like."""

from __future__ import annotations

import models
import numpy as np
import pytest
import tritonclient.grpc as triton
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.datatypes import DATATYPES

NUMBERS = np.arange(10, dtype=np.float32).reshape(1, 10)


def sample(datatype: str) -> np.ndarray:
    """Six values of a datatype, its extremes among them."""
    dtype = np.dtype(models.NUMERIC[datatype][1])
    if dtype == np.bool_:
        return np.array([[True, False, True], [False, False, True]])
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        return np.array([[0, -1.5, limits.max], [limits.min, limits.tiny, 2.25]], dtype)
    bounds = np.iinfo(dtype)
    return np.array([[0, 1, bounds.max], [bounds.min, 7, 100]], dtype)


def raw_output(response: pb.ModelInferResponse, index: int = 0) -> np.ndarray:
    output = response.outputs[index]
    data = np.frombuffer(response.raw_output_contents[index], models.NUMERIC[output.datatype][1])
    return data.reshape(tuple(output.shape))


@pytest.mark.parametrize("datatype", models.NUMERIC)
def test_raw_contents_of_every_datatype(stub: Stub, datatype: str) -> None:
    values = sample(datatype)
    request = infer_request(
        f"identity_{datatype}", "input", datatype, values.shape, raw=values.tobytes()
    )
    response = stub.ModelInfer(request, timeout=30)
    assert response.outputs[0].datatype == datatype
    assert response.raw_output_contents[0] == values.tobytes()
    assert list(response.outputs[0].shape) == [2, 3]


@pytest.mark.parametrize("datatype", [name for name in models.NUMERIC if name != "FP16"])
def test_typed_contents_of_every_datatype(stub: Stub, datatype: str) -> None:
    values = sample(datatype)
    field = DATATYPES[datatype].field
    request = infer_request(
        f"identity_{datatype}", "input", datatype, values.shape, **{field: values.ravel().tolist()}
    )
    response = stub.ModelInfer(request, timeout=30)
    assert response.raw_output_contents[0] == values.tobytes()
    assert not response.outputs[0].HasField("contents")


@pytest.mark.parametrize("datatype", models.NUMERIC)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_tensors(stub: Stub, datatype: str, shape: tuple[int, int]) -> None:
    for raw in (b"", None):
        request = infer_request(f"identity_{datatype}", "input", datatype, shape, raw=raw)
        response = stub.ModelInfer(request, timeout=30)
        assert tuple(response.outputs[0].shape) == shape
        assert response.raw_output_contents[0] == b""


def test_a_scalar(stub: Stub) -> None:
    request = infer_request("scalar", "input", shape=[], fp32_contents=[3.5])
    response = stub.ModelInfer(request, timeout=30)
    assert list(response.outputs[0].shape) == []
    assert raw_output(response) == np.float32(3.5)


def test_an_answer_names_model_version_and_echoes_the_id(stub: Stub) -> None:
    response = stub.ModelInfer(infer_request("dummy", raw=NUMBERS.tobytes(), id="abc"), timeout=30)
    assert (response.model_name, response.model_version, response.id) == ("dummy", "1", "abc")
    assert not response.parameters
    assert np.array_equal(raw_output(response), NUMBERS + 1)


@pytest.mark.parametrize("version", ["", "0", "1"])
def test_version_zero_or_none_is_the_default(stub: Stub, version: str) -> None:
    response = stub.ModelInfer(infer_request("dummy", raw=NUMBERS.tobytes(), version=version))
    assert response.model_version == "1"


def two_inputs(*wanted: str) -> pb.ModelInferRequest:
    """The inputs in another order than the model's, to see that names count."""
    request = infer_request("add_two", "input2", raw=(NUMBERS * 2).tobytes())
    request.inputs.add(name="input1", datatype="FP32", shape=[1, 10])
    request.raw_input_contents.append(NUMBERS.tobytes())
    for name in wanted:
        request.outputs.add(name=name)
    return request


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ([], ["difference", "sum"]),
        (["sum"], ["sum"]),
        (["sum", "difference"], ["sum", "difference"]),
    ],
)
def test_outputs_are_those_asked_for_in_that_order(
    stub: Stub, wanted: list[str], names: list[str]
) -> None:
    response = stub.ModelInfer(two_inputs(*wanted), timeout=30)
    assert [output.name for output in response.outputs] == names
    expected = {"sum": NUMBERS * 3, "difference": -NUMBERS}
    for index, name in enumerate(names):
        assert np.array_equal(raw_output(response, index), expected[name])


def test_an_input_sent_twice_is_a_missing_one(stub: Stub) -> None:
    request = two_inputs()
    request.inputs[1].name = "input2"
    with pytest.raises(
        Exception, match="Missing input with specific name - Required input: input1"
    ):
        stub.ModelInfer(request, timeout=30)


STRINGS = [b"plain", b"", b"nul\0inside", b"trailing\0\0", b"\xff\xfe not text", b"x" * 300]


@pytest.mark.parametrize("shape", [[6], [2, 3], [1, 6]])
@pytest.mark.parametrize("raw", [True, False])
def test_strings_pass_verbatim(stub: Stub, shape: list[int], raw: bool) -> None:
    model = "strings" if len(shape) == 1 else "strings_2d"
    framed = b"".join(len(item).to_bytes(4, "little") + item for item in STRINGS)
    request = infer_request(model, "input", "BYTES", shape, raw=framed if raw else None)
    if not raw:
        request.inputs[0].contents.bytes_contents.extend(STRINGS)
    response = stub.ModelInfer(request, timeout=30)
    assert list(response.outputs[0].shape) == shape
    assert response.outputs[0].datatype == "BYTES"
    assert response.raw_output_contents[0] == framed


def test_no_strings_at_all(stub: Stub) -> None:
    response = stub.ModelInfer(infer_request("strings", "input", "BYTES", [0]), timeout=30)
    assert list(response.outputs[0].shape) == [0]
    assert response.raw_output_contents[0] == b""


def test_strings_to_a_matrix_of_bytes_become_padded_rows(stub: Stub) -> None:
    request = infer_request(
        "identity_UINT8", "input", "BYTES", [2], bytes_contents=[b"abcd", b"ab"]
    )
    response = stub.ModelInfer(request, timeout=30)
    assert list(response.outputs[0].shape) == [2, 5]
    assert response.raw_output_contents[0] == b"abcd\0ab\0\0\0"


def test_an_output_named_string_comes_back_as_strings(stub: Stub) -> None:
    request = infer_request("u8_string", "input", "BYTES", [2], bytes_contents=[b"abcd", b""])
    response = stub.ModelInfer(request, timeout=30)
    assert response.outputs[0].datatype == "BYTES"
    assert list(response.outputs[0].shape) == [2]
    assert response.raw_output_contents[0] == b"\x04\0\0\0abcd\0\0\0\0"


def test_no_rows_are_no_strings_but_still_strings(stub: Stub) -> None:
    request = infer_request("u8_string", "input", "UINT8", [0, 0], raw=b"")
    response = stub.ModelInfer(request, timeout=30)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [0])
    assert response.raw_output_contents == [b""]


def test_billions_of_rows_without_a_byte_are_no_strings(stub: Stub) -> None:
    request = infer_request("u8_string", "input", "UINT8", [1 << 31, 0], raw=b"")
    response = stub.ModelInfer(request, timeout=30)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == (
        "UINT8", [1 << 31, 0],
    )  # fmt: skip
    assert response.raw_output_contents == [b""]


def test_tritonclient_gets_numpy_arrays_back(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("b", [1, 10], "FP32").set_data_from_numpy(NUMBERS)
    result = client.infer("dummy", [tensor], request_id="7")
    assert np.array_equal(result.as_numpy("a"), NUMBERS + 1)
    assert result.get_response().id == "7"


def test_tritonclient_sends_and_gets_strings(client: triton.InferenceServerClient) -> None:
    strings = np.array([b"ala", b"", b"kota"], dtype=np.object_)
    tensor = triton.InferInput("input", [3], "BYTES").set_data_from_numpy(strings)
    assert client.infer("strings", [tensor]).as_numpy("input").tolist() == strings.tolist()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_answered(
    client: triton.InferenceServerClient, algorithm: str
) -> None:
    tensor = triton.InferInput("b", [1, 10], "FP32").set_data_from_numpy(NUMBERS)
    result = client.infer("dummy", [tensor], compression_algorithm=algorithm)
    assert np.array_equal(result.as_numpy("a"), NUMBERS + 1)


def test_small_and_large_inputs_by_turns(stub: Stub) -> None:
    """Small ones are copied to memory that stays bound, large ones are not."""
    for seed, size in enumerate((2, 10_000, 2, 3, 2)):
        values = np.random.default_rng(seed).random((1, size), np.float32)
        request = infer_request("identity_FP32", "input", shape=[1, size], raw=values.tobytes())
        response = stub.ModelInfer(request, timeout=30)
        assert response.raw_output_contents == [values.tobytes()]


def test_sixteen_megabytes_there_and_back(stub: Stub) -> None:
    values = np.arange(4_000_000, dtype=np.float32).reshape(1, -1)
    request = infer_request("identity_FP32", "input", shape=values.shape, raw=values.tobytes())
    response = stub.ModelInfer(request, timeout=60)
    assert np.array_equal(raw_output(response), values)
