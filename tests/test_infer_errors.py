"""What a client reads when a request is wrong: the code, what was expected, what was found."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from wire import Stub, in_shared_memory, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.servables.model.slots import Slot

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
TEN = np.arange(10, dtype=np.float32).tobytes()
BOTH_CARRIERS = (
    "Passing buffers both in ModelInferRequest::InferInputTensor::contents and in "
    "ModelInferRequest::raw_input_contents is not allowed - "
)


def error_of(stub: Stub, request: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=30)
    return caught.value.code(), caught.value.details()


def two_raw() -> pb.ModelInferRequest:
    request = infer_request("dummy", raw=TEN)
    request.raw_input_contents.append(TEN)
    return request


def raw_and_contents() -> pb.ModelInferRequest:
    request = infer_request("dummy", raw=TEN)
    request.inputs[0].contents.SetInParent()
    return request


GOLDEN = {
    "shared memory": (
        in_shared_memory("dummy"),
        INVALID,
        "Invalid number of values in tensor proto container - Expected: 10 values; Actual: 0 "
        "values; input name: b; Shared memory is not supported: send tensors in the messages",
    ),
    "no inputs": (
        pb.ModelInferRequest(model_name="dummy"),
        INVALID,
        "Invalid number of inputs - Expected: 1; Actual: 0",
    ),
    "unknown input": (
        infer_request("dummy", "x", raw=TEN),
        INVALID,
        "Missing input with specific name - Required input: b; Actual: x",
    ),
    "wrong datatype": (
        infer_request("dummy", datatype="INT32", raw=TEN),
        INVALID,
        "Invalid input precision - Expected: FP32; Actual: INT32; input name: b",
    ),
    "datatype in lower case": (
        infer_request("dummy", datatype="fp32", raw=TEN),
        INVALID,
        "Invalid input precision - Expected: FP32; Actual: fp32; input name: b",
    ),
    "wrong rank": (
        infer_request("dummy", shape=[10], raw=TEN),
        INVALID,
        "Invalid number of shape dimensions - Expected: (1,10); Actual: (10); input name: b",
    ),
    "wrong batch": (
        infer_request("dummy", shape=[2, 10], raw=TEN),
        INVALID,
        "Invalid input batch size - Expected: 1; Actual: 2; input name: b",
    ),
    "wrong batch and wrong shape": (
        infer_request("dummy", shape=[2, 11], raw=TEN),
        INVALID,
        "Invalid input batch size - Expected: 1; Actual: 2; input name: b",
    ),
    "wrong shape": (
        infer_request("dummy", shape=[1, 11], raw=TEN),
        INVALID,
        "Invalid input shape - Expected: (1,10); Actual: (1,11); input name: b",
    ),
    "batch out of range": (
        infer_request("dynamic", shape=[6, 10], raw=TEN),
        INVALID,
        "Invalid input batch size - Expected: [1~5]; Actual: 6; input name: b",
    ),
    "negative dimension": (
        infer_request("dummy", shape=[-1, 10], raw=TEN),
        INVALID,
        "Invalid input shape - Negative or zero dimension size is not acceptable: (-1,10); "
        "input name: b",
    ),
    "too few raw bytes": (
        infer_request("dummy", raw=TEN[:36]),
        INVALID,
        "Invalid content size of tensor proto - Expected: 40 bytes; Actual: 36 bytes; "
        "input name: b",
    ),
    "too many raw bytes": (
        infer_request("dummy", raw=TEN + b"\0"),
        INVALID,
        "Invalid content size of tensor proto - Expected: 40 bytes; Actual: 41 bytes; "
        "input name: b",
    ),
    "nine values": (
        infer_request("dummy", fp32_contents=[1.0] * 9),
        INVALID,
        "Invalid number of values in tensor proto container - Expected: 10 values; "
        "Actual: 9 values; input name: b",
    ),
    "no data": (
        infer_request("dummy"),
        INVALID,
        "Invalid number of values in tensor proto container - Expected: 10 values; "
        "Actual: 0 values; input name: b",
    ),
    "values in another field": (
        infer_request("dummy", fp64_contents=[1.0] * 10),
        INVALID,
        "Invalid number of values in tensor proto container - Expected: 10 values; "
        "Actual: 0 values; input name: b",
    ),
    "half floats have no contents field": (
        infer_request("identity_FP16", "input", "FP16", [1, 2], fp32_contents=[1, 2]),
        INVALID,
        "Invalid number of values in tensor proto container - Expected: 2 values; "
        "Actual: 0 values; input name: input",
    ),
    "overflowing shape": (
        infer_request("identity_FP32", "input", shape=[1 << 40, 1 << 40], raw=TEN),
        INVALID,
        "Invalid content size of tensor proto - Shape dimensions overflow; input name: input",
    ),
    "shape of more bytes than there are addresses": (
        infer_request("identity_FP32", "input", shape=[1 << 31, 1 << 31], raw=TEN),
        INVALID,
        "Invalid content size of tensor proto - Shape too large; input name: input",
    ),
    "more than there are addresses beside a zero": (
        infer_request("identity_FP32", "input", shape=[1 << 62, 0], raw=b""),
        INVALID,
        "Invalid content size of tensor proto - Shape too large; input name: input",
    ),
    "terabytes promised": (
        infer_request("identity_FP32", "input", shape=[1 << 20, 1 << 20], raw=TEN),
        INVALID,
        "Invalid content size of tensor proto - Expected: 4398046511104 bytes; Actual: 40 bytes; "
        "input name: input",
    ),
    "two raw buffers for one input": (
        two_raw(),
        INVALID,
        BOTH_CARRIERS + "Size of raw_input_contents: 2 is different than number of inputs: 1",
    ),
    "raw and contents": (
        raw_and_contents(),
        INVALID,
        BOTH_CARRIERS + "Passing buffers both in InferInputTensor contents and in "
        "raw_input_contents is not allowed. Detected buffer in InferInputTensor contents for "
        "input: b",
    ),
    "BYTES to an input of numbers": (
        infer_request("dummy", datatype="BYTES", shape=[1], bytes_contents=[b"x"]),
        INVALID,
        "Input does not accept BYTES - Expected: FP32 (1,10); Actual: BYTES, which only inputs "
        "for strings or encoded images take; input name: b",
    ),
    "BYTES without whole elements": (
        infer_request("strings", "input", "BYTES", [1], raw=b"\x05\0\0\0abc"),
        INVALID,
        "Inputs inside buffer does not match expected format. - Expected: elements that each "
        "follow their length in 4 bytes, little-endian; Actual: 7 bytes that do not end with an "
        "element; input name: input",
    ),
    "one string too few": (
        infer_request("strings", "input", "BYTES", [2], bytes_contents=[b"a"]),
        INVALID,
        "Invalid number of values in tensor proto container - Expected: 2 values; "
        "Actual: 1 values; input name: input",
    ),
    "numbers to an input of strings": (
        infer_request("strings", "input", "FP32", [10], raw=TEN),
        INVALID,
        "Invalid input precision - Expected: STRING; Actual: FP32; input name: input",
    ),
    "strings too long for the legacy form": (
        infer_request("u8_narrow", "input", "BYTES", [2], bytes_contents=[b"abcd", b"e"]),
        INVALID,
        "Invalid input shape - Expected batch size: 2; got: 2; Expected max null terminated "
        "string length: 4; got: 5; input name: input",
    ),
    "more legacy strings than rows": (
        infer_request("u8_narrow", "input", "BYTES", [3], bytes_contents=[b"a", b"b", b"cdef"]),
        INVALID,
        "Invalid input batch size - Expected: 2; Actual: 3; input name: input",
    ),
    "no legacy string": (
        infer_request("u8_string", "input", "BYTES", [0]),
        INVALID,
        "Invalid input batch size - Expected: 0 elements, at least 1; Actual: 0; input name: input",
    ),
    "more images than the batch, to an input of channels first": (
        infer_request("image_nchw", "input", "BYTES", [2], bytes_contents=[b"x", b"y"]),
        INVALID,
        "Invalid input batch size - Expected: 1; Actual: 2; input name: input",
    ),
    "an image without a byte": (
        infer_request("image", "input", "BYTES", [1], bytes_contents=[b""]),
        INVALID,
        "Bytes contents is empty - Expected: an encoded image; Actual: image 0 has no bytes; "
        "input name: input",
    ),
    "an image without a byte in raw contents": (
        infer_request("image", "input", "BYTES", [1], raw=bytes(4)),
        INVALID,
        "Image parsing failed - Expected: an image, of at most 134217728 pixels; Actual: image 0 "
        "cannot be decoded; input name: input",
    ),
    "legacy strings of two dimensions": (
        infer_request("u8_narrow", "input", "BYTES", [2, 1], bytes_contents=[b"a", b"e"]),
        INVALID,
        "Invalid number of shape dimensions - Expected number of input shape dimensions: 1; "
        "Actual: 2; input name: input",
    ),
    "unknown output": (
        pb.ModelInferRequest(
            model_name="dummy",
            inputs=[
                pb.ModelInferRequest.InferInputTensor(name="b", datatype="FP32", shape=[1, 10])
            ],
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="nope")],
            raw_input_contents=[TEN],
        ),
        INVALID,
        "Missing output with specific name - Requested output: nope; Available outputs: a",
    ),
    "unknown model": (
        infer_request("nope", raw=TEN),
        NOT_FOUND,
        "Model with requested name is not found - nope",
    ),
    "unknown version": (
        infer_request("dummy", raw=TEN, version="5"),
        NOT_FOUND,
        "Model with requested version is not found - dummy: version 5",
    ),
    "negative version": (
        infer_request("dummy", raw=TEN, version="-1"),
        NOT_FOUND,
        "Model with requested version is not found - dummy: version -1",
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_a_wrong_request_is_told_what_is_wrong(stub: Stub, case: str) -> None:
    request, code, details = GOLDEN[case]
    assert error_of(stub, request) == (code, details)


def test_an_output_of_another_shape_than_declared(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slot, "infer", lambda *_: [np.zeros((3, 10), np.float32)])
    assert error_of(stub, infer_request("dummy", raw=TEN)) == (
        grpc.StatusCode.INTERNAL,
        "Internal server error - output a has the shape (3,10), declared is (1,10)",
    )


def test_more_strings_than_are_taken(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfs.servables.binding._MAX_NATIVE_STRINGS", 2)
    for count in 2, 3:
        request = infer_request("strings", "input", "BYTES", [count], raw=bytes(4 * count))
        if count == 2:
            assert stub.ModelInfer(request, timeout=30).raw_output_contents == [bytes(8)]
        else:
            assert error_of(stub, request) == (
                INVALID,
                "String input exceeds the size limit - Expected: at most 2 elements; Actual: 3; "
                "input name: input",
            )


@pytest.mark.parametrize(
    "version", ["x", "01", "-0", "+1", "1.0", " 1", "-", "1 ", "٣", "9223372036854775808", "9" * 50]
)
@pytest.mark.parametrize("model", ["dummy", "nope"])
def test_a_version_that_is_no_number_is_refused_before_the_name_is_looked_up(
    stub: Stub, model: str, version: str
) -> None:
    code, details = error_of(stub, infer_request(model, raw=TEN, version=version))
    assert code is INVALID
    assert details.startswith("invalid model version format in request - ")


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("INT8", [0, 128]),
        ("INT8", [-129, 0]),
        ("INT16", [0, 32768]),
        ("UINT8", [256, 0]),
        ("UINT16", [0, 65536]),
    ],
)
def test_values_that_do_not_fit_a_narrow_datatype_are_refused(
    stub: Stub, datatype: str, values: list[int]
) -> None:
    field = "uint_contents" if datatype.startswith("U") else "int_contents"
    request = infer_request(f"identity_{datatype}", "input", datatype, [1, 2], **{field: values})
    code, details = error_of(stub, request)
    worst = max(values, key=abs)
    assert code is INVALID
    assert details == (
        f"Invalid value in tensor proto container - Expected: values of {datatype}; Actual: "
        f"{worst} at index {values.index(worst)}; input name: input"
    )


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"\x0a\x05ab", "model_name"),
        (b"\x0a\x02\xff\xfe", "model_name"),
        (b"\x00\x01", ""),
        (b"\x2c", ""),
        (infer_request("dummy", raw=TEN).SerializeToString()[:-1], "raw_input_contents"),
    ],
)
def test_a_malformed_message_is_told_path_and_offset(stub: Stub, data: bytes, path: str) -> None:
    code, details = error_of(stub, data)
    assert code is INVALID
    assert details.startswith("Malformed message - ")
    assert path in details
    assert " at byte " in details


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"\x0a\x05ab", "name at byte 2: the message ends inside a value"),
        (b"\x0a\x02\xff\xfe", "name at byte 2: a string that is not UTF-8"),
        (b"\x0a\x01b\x12\x02\xc3", "version at byte 5: the message ends inside a value"),
        (b"\x0a\x01b\x1c", "message at byte 4: a group that does not end where it should"),
    ],
)
def test_malformed_messages_of_other_methods_are_told_likewise(
    stub: Stub, data: bytes, place: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelReady(data, timeout=30)
    assert caught.value.code() is INVALID
    assert caught.value.details() == f"Malformed message - ModelReadyRequest: {place}"


def test_a_huge_name_does_not_hide_the_status(stub: Stub) -> None:
    code, details = error_of(stub, infer_request("\N{SNOWMAN}" * 100_000, raw=TEN))
    assert code is NOT_FOUND
    assert details.endswith("...")


def test_the_server_still_answers_after_errors(stub: Stub) -> None:
    for request, _, _ in GOLDEN.values():
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(request, timeout=30)
    assert stub.ModelInfer(infer_request("dummy", raw=TEN), timeout=30).model_name == "dummy"
