"""protobuf's own parser as the oracle: what the wire reader has to make of any bytes.

What is wrong is an AssertionError: atheris takes no notice of failures of pytest, which are no
`Exception`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf import __version__ as protobuf_version
from google.protobuf.message import DecodeError

from kfs._fast import contents
from kfs._fast.wire import Parameter, Request, read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.datatypes import DATATYPES
from kfs.errors import ValueRangeError, WireError

PROTOBUF_MAJOR = int(protobuf_version.split(".")[0])


def check_agreement(data: bytes) -> None:
    """Both accept and read the same, or both refuse."""
    try:
        expected = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        assert is_refused(data), "protobuf refuses it"
        return
    try:
        request = read_request(data)
    except WireError as error:
        # In a group, protobuf 7 passes over fields of number zero, which nothing may have; those
        # before it refuse them, as the reader does.
        if PROTOBUF_MAJOR < 7 or error.reason != "a tag that is no field number":
            raise
        return
    check_values(request, expected)


def is_refused(data: bytes) -> bool:
    try:
        read_request(data)
    except WireError:
        return True
    return False


def check_values(request: Request, expected: pb.ModelInferRequest) -> None:
    assert request.model_name == expected.model_name
    assert request.model_version == expected.model_version
    assert request.id == expected.id
    check_parameters(request.parameters, expected.parameters)
    assert list(request.outputs) == [output.name for output in expected.outputs]
    assert request.n_raw == len(expected.raw_input_contents)
    for index, raw in enumerate(expected.raw_input_contents):
        assert bytes(contents.raw_view(request, index)) == raw
        check_framing(request, index, raw)
    assert len(request.inputs) == len(expected.inputs)
    for index, tensor in enumerate(expected.inputs):
        found = request.inputs[index]
        assert (found.name, found.datatype) == (tensor.name, tensor.datatype)
        assert list(found.shape) == list(tensor.shape)
        assert found.has_contents == tensor.HasField("contents")
        check_parameters(found.parameters, tensor.parameters)
        check_contents(request, index, tensor.contents)


def check_framing(request: Request, index: int, raw: bytes) -> None:
    """Raw contents as the elements of a BYTES tensor, each after its length."""
    items = framed_items(raw)
    if items is None:
        assert contents.raw_item_count(request, index) == -1
        return
    assert contents.raw_item_count(request, index) == len(items)
    assert [bytes(view) for view in contents.bytes_items(request, index)] == items
    longest = max(map(len, items), default=0)
    assert contents.bytes_lengths_max(request, index) == longest
    rows = bytes(contents.padded_rows(request, index, longest + 1))
    assert rows == b"".join(item.ljust(longest + 1, b"\0") for item in items)


def framed_items(raw: bytes) -> list[bytes] | None:
    items = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        if len(raw) < 4 + length:
            return None
        items.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return items


def check_parameters(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for key, parameter in expected.items():
        kind = parameter.WhichOneof("parameter_choice") or ""
        value = getattr(parameter, kind) if kind else None
        if value != value:
            assert found[key].kind == kind
            assert found[key].value != found[key].value
        else:
            assert found[key] == Parameter(kind, value)


def check_contents(request: Request, index: int, expected: pb.InferTensorContents) -> None:
    for datatype in DATATYPES.values():
        if not datatype.field:
            continue
        values = getattr(expected, datatype.field)
        assert contents.count(request, index, datatype.field_number) == len(values)
        if datatype.name == "BYTES":
            if not request.n_raw:
                assert [bytes(v) for v in contents.bytes_items(request, index)] == list(values)
            continue
        check_numbers(request, index, datatype.name, list(values))


def check_numbers(request: Request, index: int, name: str, values: list[Any]) -> None:
    dtype = np.dtype(DATATYPES[name].numpy)
    if dtype.kind in "iu" and any(
        not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max for value in values
    ):
        first = next(i for i, v in enumerate(values)
                     if not np.iinfo(dtype).min <= v <= np.iinfo(dtype).max)  # fmt: skip
        assert fault(request, index, name) == (first, values[first])
        return
    view = contents.contents_view(request, index, name)
    if dtype.kind == "f":  # compared as numbers: protobuf may not keep the payload of a NaN
        assert np.array_equal(np.frombuffer(view, dtype), np.array(values, dtype), equal_nan=True)
    else:
        assert bytes(view) == np.array(values, dtype).tobytes()


def fault(request: Request, index: int, name: str) -> tuple[int, int] | None:
    """The first value that does not fit, and where it is."""
    try:
        contents.contents_view(request, index, name)
    except ValueRangeError as error:
        return error.index, error.value
    return None
