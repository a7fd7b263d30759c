"""Bytes to tensors and back: ours, and protobuf with numpy as one writes it who knows both.

    pytest bench/codec --benchmark-json codec.json && python bench/report.py --codec codec.json

Every case runs twice in one process, so their ratio holds on any machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kfs._fast import contents
from kfs._fast.response import write_response
from kfs._fast.strings import StringArray
from kfs._fast.wire import read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.datatypes import DATATYPES
from kfs.tensors.arrays import array_over

SIZES = {"64B": 64, "4KB": 4096, "600KB": 602_112, "16MB": 16_000_000}
WHO = ["ours", "protobuf"]
RANDOM = np.random.default_rng(0)


def values(datatype: str, nbytes: int) -> Any:
    dtype = np.dtype(DATATYPES[datatype].numpy)
    count = nbytes // dtype.itemsize
    if dtype.kind == "f":
        return RANDOM.standard_normal(count).astype(dtype)
    if dtype.kind == "b":
        return RANDOM.integers(0, 2, count).astype(dtype)
    return RANDOM.integers(0, min(np.iinfo(dtype).max, 50_000), count).astype(dtype)


def request(datatype: str, array: Any, *, raw: bool) -> bytes:
    message = pb.ModelInferRequest(model_name="model", id="1")
    tensor = message.inputs.add(name="input", datatype=datatype, shape=array.shape)
    if raw:
        message.raw_input_contents.append(array.tobytes())
    else:
        getattr(tensor.contents, DATATYPES[datatype].field).extend(array.tolist())
    return message.SerializeToString()


def read_ours(data: bytes, datatype: str, *, raw: bool) -> Any:
    message = read_request(data)
    view = contents.raw_view(message, 0) if raw else contents.contents_view(message, 0, datatype)
    return array_over(view, DATATYPES[datatype], message.inputs[0].shape)


def read_protobuf(data: bytes, datatype: str, *, raw: bool) -> Any:
    message = pb.ModelInferRequest.FromString(data)
    tensor = message.inputs[0]
    dtype = DATATYPES[datatype].numpy
    if raw:
        return np.frombuffer(message.raw_input_contents[0], dtype).reshape(tuple(tensor.shape))
    field = getattr(tensor.contents, DATATYPES[datatype].field)
    return np.array(field, dtype).reshape(tuple(tensor.shape))


READERS: dict[str, Callable[..., Any]] = {"ours": read_ours, "protobuf": read_protobuf}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("datatype", ["FP32", "INT64", "UINT8", "FP16", "BOOL"])
def test_read_raw(benchmark: Any, datatype: str, size: str, who: str) -> None:
    array = values(datatype, SIZES[size])
    data = request(datatype, array, raw=True)
    found = benchmark(READERS[who], data, datatype, raw=True)
    assert np.array_equal(found, array)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64", "INT32", "UINT8", "BOOL"])
def test_read_contents(benchmark: Any, datatype: str, size: str, who: str) -> None:
    if size == "16MB" and DATATYPES[datatype].itemsize == 1:
        pytest.skip("sixteen million values of a byte each take protobuf seconds")
    array = values(datatype, SIZES[size])
    data = request(datatype, array, raw=False)
    found = benchmark(READERS[who], data, datatype, raw=False)
    assert np.array_equal(found, array)


def write_ours(array: Any) -> bytes:
    return write_response("model", "1", "1", [("output", "FP32", array.shape, array)])


def write_protobuf(array: Any) -> bytes:
    message = pb.ModelInferResponse(model_name="model", model_version="1", id="1")
    message.outputs.add(name="output", datatype="FP32", shape=array.shape)
    message.raw_output_contents.append(array.tobytes())
    return message.SerializeToString()


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("size", SIZES)
def test_write(benchmark: Any, size: str, who: str) -> None:
    array = values("FP32", SIZES[size])
    written = benchmark({"ours": write_ours, "protobuf": write_protobuf}[who], array)
    assert pb.ModelInferResponse.FromString(written).raw_output_contents[0] == array.tobytes()


def strings_ours(data: bytes) -> bytes:
    strings = StringArray.from_request(read_request(data), 0)
    return write_response("model", "1", "", [("output", "BYTES", (len(strings),), strings)])


def strings_protobuf(data: bytes) -> bytes:
    items = list(pb.ModelInferRequest.FromString(data).inputs[0].contents.bytes_contents)
    message = pb.ModelInferResponse(model_name="model", model_version="1")
    message.outputs.add(name="output", datatype="BYTES", shape=[len(items)])
    framed = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    message.raw_output_contents.append(framed)
    return message.SerializeToString()


@pytest.mark.parametrize("who", WHO)
def test_ten_thousand_strings_there_and_back(benchmark: Any, who: str) -> None:
    message = pb.ModelInferRequest(model_name="model")
    tensor = message.inputs.add(name="input", datatype="BYTES", shape=[10_000])
    tensor.contents.bytes_contents.extend(b"word%d" % number for number in range(10_000))
    data = message.SerializeToString()
    done = benchmark({"ours": strings_ours, "protobuf": strings_protobuf}[who], data)
    assert done == strings_protobuf(data)
