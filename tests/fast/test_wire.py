"""The wire reader against protobuf's own parser: the same values, the same accept or refuse."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from oracle import PROTOBUF_MAJOR, check_agreement, check_framing

from kfs._fast import contents
from kfs._fast.wire import check_strings, read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.errors import WireError

EXAMPLES = int(os.environ.get("KFS_HYPOTHESIS_EXAMPLES", "300"))
thorough = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
UINT32 = st.integers(0, (1 << 32) - 1)
UINT64 = st.integers(0, (1 << 64) - 1)
TEXT = st.text(max_size=8)

parameters = st.dictionaries(
    TEXT,
    st.one_of(
        st.builds(pb.InferParameter),
        st.builds(pb.InferParameter, bool_param=st.booleans()),
        st.builds(pb.InferParameter, int64_param=INT64),
        st.builds(pb.InferParameter, string_param=TEXT),
        st.builds(pb.InferParameter, double_param=st.floats(allow_nan=False)),
        st.builds(pb.InferParameter, uint64_param=UINT64),
    ),
    max_size=3,
)
tensor_contents = st.builds(
    pb.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=20),
    int_contents=st.lists(INT32, max_size=20),
    int64_contents=st.lists(INT64, max_size=20),
    uint_contents=st.lists(UINT32, max_size=20),
    uint64_contents=st.lists(UINT64, max_size=20),
    fp32_contents=st.lists(st.floats(width=32), max_size=20),
    fp64_contents=st.lists(st.floats(), max_size=20),
    bytes_contents=st.lists(st.binary(max_size=10), max_size=5),
)
inputs = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=TEXT, datatype=TEXT, shape=st.lists(INT64, max_size=5), parameters=parameters,
    contents=st.none() | tensor_contents,
)  # fmt: skip
requests = st.builds(
    pb.ModelInferRequest,
    model_name=TEXT, model_version=TEXT, id=TEXT, parameters=parameters,
    inputs=st.lists(inputs, max_size=3),
    outputs=st.lists(
        st.builds(
            pb.ModelInferRequest.InferRequestedOutputTensor, name=TEXT, parameters=parameters
        ),
        max_size=3,
    ),
    raw_input_contents=st.lists(st.binary(max_size=30), max_size=3),
)  # fmt: skip


@thorough
@given(requests)
def test_what_protobuf_writes_is_read_back(message: pb.ModelInferRequest) -> None:
    check_agreement(message.SerializeToString())


@settings(thorough, max_examples=max(EXAMPLES // 5, 20))
@given(requests)
def test_every_truncation(message: pb.ModelInferRequest) -> None:
    data = message.SerializeToString()
    for end in range(len(data)):
        check_agreement(data[:end])


@thorough
@given(requests, st.data())
def test_mutations(message: pb.ModelInferRequest, data: st.DataObject) -> None:
    wire = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(wire)))
        junk = data.draw(st.binary(max_size=3))
        wire[at : at + data.draw(st.integers(0, 3))] = junk
    check_agreement(bytes(wire))


@settings(thorough, max_examples=max(EXAMPLES // 3, 20))
@given(st.lists(requests.map(lambda m: m.SerializeToString()), min_size=2, max_size=3))
def test_messages_one_after_the_other_are_merged(parts: list[bytes]) -> None:
    check_agreement(b"".join(parts))


questions = st.builds(pb.ModelReadyRequest, name=TEXT, version=TEXT).map(
    pb.ModelReadyRequest.SerializeToString
)


@thorough
@given(st.builds(bytes.__add__, questions, st.binary(max_size=20)))
def test_strings_are_refused_where_protobuf_refuses_them(data: bytes) -> None:
    refused = []
    for read in (
        pb.ModelReadyRequest.FromString,
        lambda data: check_strings(data, {1: "name", 2: "version"}),
    ):
        try:
            read(data)
        except (DecodeError, WireError):
            refused.append(read)
    assert len(refused) in (0, 2)


@thorough
@given(st.binary(max_size=40))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    check_agreement(data)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def in_contents(data: bytes) -> bytes:
    return delimited(5, delimited(5, data))


def nested_groups(depth: int) -> bytes:
    return b"\x5b" * depth + b"\x5c" * depth


NUMBERS = st.sampled_from(
    [0, 1, 2, 127, 128, 300, (1 << 31) - 1, 1 << 31, (1 << 32) + 5, 1 << 63, (1 << 64) - 1]
)
FIELDS = st.integers(1, 9)
LEAVES = st.one_of(
    st.binary(max_size=4),
    st.sampled_from([b"\0" * 8, b"\xc3\xa9", b"\xed\xa0\x80", b"\xff"]),
    st.lists(NUMBERS.map(varint), max_size=5).map(b"".join),
)


def nested_fields(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    def group(field: int, data: bytes) -> bytes:
        return varint(field << 3 | 3) + data + varint(field << 3 | 4)

    return st.lists(
        st.one_of(
            st.builds(delimited, FIELDS, children),
            st.builds(delimited, st.sampled_from([4, 5]), children),
            st.builds(group, FIELDS, children),
            st.builds(lambda field, value: varint(field << 3) + varint(value), FIELDS, NUMBERS),
            st.builds(lambda field: varint(field << 3 | 1) + b"\x01" * 8, FIELDS),
            st.builds(lambda field: varint(field << 3 | 5) + b"\x01" * 4, FIELDS),
        ),
        max_size=4,
    ).map(b"".join)


@thorough
@given(nested_fields(nested_fields(nested_fields(nested_fields(LEAVES)))))
def test_fields_of_any_number_and_wire_type(data: bytes) -> None:
    """A wire that no client would write, which mutations of their messages seldom become."""
    check_agreement(data)


LEGAL_OR_NOT = {
    "unpacked floats": in_contents(b"\x35" + struct.pack("<f", 1.5) + b"\x35\0\0\0\x80"),
    "packed in two chunks": in_contents(delimited(3, b"\x01\x02") + delimited(3, b"\x03")),
    "packed and unpacked": in_contents(delimited(2, b"\x01\x02") + b"\x10\x05"),
    "two chunks of floats": in_contents(delimited(6, b"\0" * 8) + delimited(6, b"\1" * 4)),
    "bools of two bytes": in_contents(delimited(1, b"\x80\x01\x02\x00\x80\x00")),
    "int32 with high bits": in_contents(delimited(2, varint((1 << 40) + 5))),
    "uint32 with high bits": in_contents(delimited(4, varint((1 << 35) + 7))),
    "packed floats of 7 bytes": in_contents(delimited(6, b"\0" * 7)),
    "packed varints cut off": in_contents(delimited(3, b"\x01\x80")),
    "packed varint of 10 bytes": in_contents(delimited(3, b"\xff" * 9 + b"\x7f")),
    "packed varint of 11 bytes": in_contents(delimited(3, b"\xff" * 10 + b"\x01")),
    "long run before short ones": in_contents(delimited(3, b"\x01" * 16 + b"\x80" * 12 + b"\x01")),
    "long varint that ends after a word": in_contents(
        delimited(3, b"\xff" * 16 + b"\x01" + b"\x05" * 3)
    ),
    "longest varint that ends after a word": in_contents(
        delimited(3, b"\x01" * 7 + b"\xff" * 9 + b"\x01" + b"\x05" * 3)
    ),
    "bytes contents as varint": in_contents(b"\x40\x05"),
    "shape unpacked": delimited(5, b"\x18\x02\x18\x03" + delimited(3, b"\x04")),
    "shape as fixed64": delimited(5, b"\x19" + b"\0" * 8),
    "contents twice": delimited(5, delimited(5, delimited(6, b"\0" * 4)) * 2),
    "empty contents": in_contents(b""),
    "name as varint": b"\x08\x05",
    "name twice": delimited(1, b"a") + delimited(1, b"b"),
    "name not UTF-8": delimited(1, b"\xff"),
    "name with a surrogate": delimited(1, b"\xed\xa0\x80"),
    "name overlong": delimited(1, b"\xc0\x80"),
    "version not UTF-8": delimited(2, b"\xc3"),
    "parameter key not UTF-8": delimited(4, delimited(1, b"\xff")),
    "string parameter not UTF-8": delimited(4, delimited(2, delimited(3, b"\xff"))),
    "parameter without key": delimited(4, delimited(2, b"\x10\x05")),
    "parameter without value": delimited(4, delimited(1, b"k")),
    "parameter chosen twice": delimited(4, delimited(2, b"\x08\x01") + delimited(2, b"\x10\x05")),
    "parameter merged with nothing": delimited(4, delimited(2, b"\x08\x01") + delimited(2, b"")),
    "parameter with an unknown field": delimited(4, delimited(1, b"k") + b"\x40\x01"),
    "parameter with its key as a number": delimited(4, b"\x08\x01"),
    "parameter with its value as a number": delimited(4, delimited(1, b"k") + b"\x10\x01"),
    "unknown field in a parameter's value": delimited(
        4, delimited(1, b"k") + delimited(2, b"\x40\x01")
    ),
    "known and unknown parameters of one key": delimited(4, delimited(2, b"\x08\x01"))
    + delimited(4, b"\x40\x01" + delimited(2, b"\x10\x05")),
    "parameter of an output not UTF-8": delimited(6, delimited(2, delimited(1, b"\xff"))),
    "unknown fields": b"\x78\x05" + b"\x79" + b"\0" * 8 + b"\x7d" + b"\0" * 4 + delimited(15, b"x"),
    "unknown field with a large number": varint((1 << 29) - 1 << 3) + b"\x01",
    "tag over 32 bits": varint(1 << 35) + b"\x01",
    "tag in too many bytes": b"\x8a\x80\x80\x80\x80\x00\x01a",
    "tag overlong": b"\x8a\x80\x80\x80\x00\x01a",
    "length overlong": b"\x0a\x81\x80\x80\x80\x00a",
    "length in too many bytes": b"\x0a\x81\x80\x80\x80\x80\x00a",
    "length of 2 GiB": b"\x0a\xff\xff\xff\xff\x07",
    "length of 4 GiB": b"\x0a\xff\xff\xff\xff\x0f",
    "length of 2^64-1": b"\x0a" + b"\xff" * 9 + b"\x01",
    "field number 0": b"\x00\x01",
    "field number 0, delimited": b"\x02\x00",
    "wire type 6": b"\x0e",
    "wire type 7": b"\x7f",
    "group": b"\x5b\x08\x01\x5c",
    "group with a group": b"\x5b\x63\x64\x5c",
    "group without end": b"\x5b\x08\x01",
    "group with another end": b"\x5b\x64",
    "lone end": b"\x5c",
    "lone end in a tensor": delimited(5, b"\x5c"),
    "group with field zero": b"\x5b\x00\x01\x5c",
    "group as a known field": b"\x0b\x0c",
    "groups 99 deep": nested_groups(99),
    "groups 100 deep": nested_groups(100),
    "groups 101 deep": nested_groups(101),
    "groups 99 deep in a tensor": delimited(5, nested_groups(99)),
    "groups 100 deep in a tensor": delimited(5, nested_groups(100)),
    "groups 98 deep in contents": in_contents(nested_groups(98)),
    "groups 99 deep in contents": in_contents(nested_groups(99)),
    "groups 98 deep in a parameter": delimited(4, delimited(2, nested_groups(98))),
    "groups 99 deep in a parameter": delimited(4, delimited(2, nested_groups(99))),
    "groups 97 deep in a tensor's parameter": delimited(
        5, delimited(4, delimited(2, nested_groups(97)))
    ),
    "groups 98 deep in a tensor's parameter": delimited(
        5, delimited(4, delimited(2, nested_groups(98)))
    ),
}


@pytest.mark.parametrize("case", LEGAL_OR_NOT)
def test_odd_wires(case: str) -> None:
    if case == "length in too many bytes" and PROTOBUF_MAJOR >= 7:
        pytest.skip(
            "protobuf takes lengths of up to ten bytes before version 7; so does the reader"
        )
    check_agreement(LEGAL_OR_NOT[case])


@pytest.mark.parametrize(
    ("data", "path", "offset"),
    [
        (b"\x0a\x05ab", "model_name", 2),
        (delimited(1, b"ok") + delimited(2, b"v\xff"), "model_version", 7),
        (delimited(5, b"") + delimited(5, b"\x0a\x09"), "inputs[1].name", 6),
        (in_contents(delimited(6, b"\0" * 7)), "inputs[0].contents.fp32_contents", 6),
        (in_contents(delimited(3, b"\x01\x80")), "inputs[0].contents.int64_contents", 8),
        (delimited(6, delimited(1, b"\xff")), "outputs[0].name", 4),
    ],
)
def test_a_fault_has_a_path_and_an_offset(data: bytes, path: str, offset: int) -> None:
    with pytest.raises(WireError) as caught:
        read_request(data)
    assert (caught.value.path, caught.value.offset) == (path, offset)


@thorough
@given(st.integers(0, 63), st.booleans(), st.integers(0, 400), st.integers(0, 1 << 32))
def test_long_runs_of_integers(bits: int, signed: bool, count: int, seed: int) -> None:
    """Long enough for the blocks that the decoder works in, and for what is left behind them."""
    random = np.random.default_rng(seed)
    values = random.integers(-(1 << bits) if signed else 0, 1 << bits, count, endpoint=False)
    message = pb.ModelInferRequest(inputs=[{}])
    message.inputs[0].contents.int64_contents.extend(values.tolist())
    narrow = np.clip(values, -(1 << 31), (1 << 31) - 1)
    message.inputs[0].contents.int_contents.extend(narrow.tolist())
    message.inputs[0].contents.uint_contents.extend((narrow % (1 << 32)).tolist())
    check_agreement(message.SerializeToString())


@thorough
@given(st.lists(st.binary(max_size=9), max_size=6), st.binary(max_size=3))
def test_raw_framing(items: list[bytes], tail: bytes) -> None:
    framed = b"".join(struct.pack("<I", len(item)) + item for item in items) + tail
    data = pb.ModelInferRequest(inputs=[{}], raw_input_contents=[framed]).SerializeToString()
    request = read_request(data)
    assert (contents.raw_item_count(request, 0) == -1) == bool(tail)
    check_framing(request, 0, framed)


MANY = 1 << 20


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes, or a message."""
    size, head = len(data), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + data


@pytest.mark.parametrize(
    ("part", "within", "path"),
    [
        (b"\x22\0", (), "parameters"),
        (b"\x2a\0", (), "inputs"),
        (b"\x32\0", (), "outputs"),
        (b"\x3a\0", (), "raw_input_contents"),
        (b"\x22\0", (5,), "inputs[0].parameters"),
        (b"\x18\1", (5,), "inputs[0].shape"),
        (b"\1", (5, 3), "inputs[0].shape"),
        (b"\x12\0", (6,), "outputs[0].parameters"),
    ],
)
def test_parts_by_the_million_are_refused(part: bytes, within: tuple[int, ...], path: str) -> None:
    def message(count: int) -> bytes:
        data = part * count
        for number in reversed(within):
            data = _field(number, data)
        return data

    read_request(message(MANY - 1))
    with pytest.raises(WireError, match="more than 1048576 inputs, outputs") as caught:
        read_request(message(MANY + 1))
    assert caught.value.path == path


@pytest.mark.parametrize(
    "value", [b"\x42\0", b"\x10\1", b"\x12\0"], ids=["element", "number", "empty run"]
)
def test_values_on_their_own_are_bounded(value: bytes) -> None:
    with pytest.raises(WireError, match="more than 33554432 elements of BYTES") as caught:
        read_request(_field(5, _field(5, value * (32 * MANY + 1))))
    assert caught.value.path.startswith("inputs[0].contents.")
