"""What the memory here is made for: tensors of OpenVINO over it, without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from kfs._fast import contents
from kfs._fast.response import reserve_response, write_response
from kfs._fast.strings import ITEMSIZE, StringArray
from kfs._fast.wire import read_request
from kfs._proto import grpc_predict_v2_pb2 as pb

VALUES = np.linspace(-5, 5, 1000, dtype=np.float32).reshape(10, 100)
ITEMS = [b"", b"\0", b"abc\0\0", b"\xff\xfe x\0y", b"too long to lie inside a string" * 9 + b"\0"]

# Each with a layer that a plugin could be tempted to compute in place.
BODIES = {
    "identity": lambda node: node,
    "relu": ops.relu,
    "add": lambda node: ops.add(node, np.float32(1)),
    "reshape": lambda node: ops.relu(ops.reshape(node, np.array([-1]), False)),
    "softmax": lambda node: ops.softmax(node, 1),
}


def compiled(body: Any, element: ov.Type) -> ov.CompiledModel:
    node = ops.parameter([-1, -1], element)
    return ov.Core().compile_model(ov.Model([body(node)], [node], "model"), "CPU")


def floats_request(*, raw: bool) -> bytes:
    request = pb.ModelInferRequest(inputs=[{"name": "x"}])
    if raw:
        request.raw_input_contents.append(VALUES.tobytes())
    else:
        request.inputs[0].contents.fp32_contents.extend(VALUES.ravel().tolist())
    return request.SerializeToString()


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("body", BODIES)
def test_inference_does_not_write_into_the_request(body: str, raw: bool) -> None:
    """In this process, on the very bytes: views say that they are writable, nobody may believe."""
    data = floats_request(raw=raw)
    before = bytes(bytearray(data))
    request = read_request(data)
    view = contents.raw_view(request, 0) if raw else contents.contents_view(request, 0, "FP32")
    array = np.frombuffer(view, np.float32).reshape(VALUES.shape)
    tensor = ov.Tensor(array, shared_memory=True)
    assert view.owner is data
    assert tensor.data.ctypes.data == array.ctypes.data
    infer = compiled(BODIES[body], ov.Type.f32).create_infer_request()
    for _ in range(5):
        infer.set_input_tensor(tensor)
        infer.infer()
    assert data == before


def test_openvino_writes_its_result_into_the_response() -> None:
    infer = compiled(BODIES["add"], ov.Type.f32).create_infer_request()
    message, [place] = reserve_response("m", "1", "", [("y", "FP32", (10, 100), VALUES.nbytes)])
    result = np.frombuffer(place, np.float32).reshape(VALUES.shape)
    infer.set_input_tensor(ov.Tensor(VALUES, shared_memory=True))
    infer.set_output_tensor(ov.Tensor(result, shared_memory=True))
    infer.infer()
    assert message == write_response("m", "1", "", [("y", "FP32", (10, 100), VALUES + 1)])


def string_tensor(strings: StringArray) -> ov.Tensor:
    memory = np.frombuffer(strings, np.uint8)  # type: ignore[call-overload]
    return ov.Tensor(memory, ov.Shape([1, len(strings)]), ov.Type.string)


@pytest.mark.parametrize("raw", [True, False])
def test_strings_pass_through_openvino_verbatim(raw: bool) -> None:
    request = pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "BYTES"}])
    if raw:
        framed = b"".join(len(item).to_bytes(4, "little") + item for item in ITEMS)
        request.raw_input_contents.append(framed)
    else:
        request.inputs[0].contents.bytes_contents.extend(ITEMS)
    sent = StringArray.from_request(read_request(request.SerializeToString()), 0)
    infer = compiled(BODIES["identity"], ov.Type.string).create_infer_request()
    infer.set_input_tensor(string_tensor(sent))
    infer.infer()
    output = infer.get_output_tensor(0)
    assert output.byte_size == ITEMSIZE * len(ITEMS)
    got = StringArray.empty(len(ITEMS))
    output.copy_to(string_tensor(got))
    assert got.items() == sent.items() == ITEMS
