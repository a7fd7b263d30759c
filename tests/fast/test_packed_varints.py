"""Packed varints of every length at every place: what is counted is what is decoded.

The reader counts in words of eight bytes and the decoder works in blocks; memory is made from the
count, so the two have to agree wherever a varint lies, and protobuf has to agree with both.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from kfs._fast import contents
from kfs._fast.wire import read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.datatypes import DATATYPES
from kfs.errors import WireError

EXAMPLES = int(os.environ.get("KFS_HYPOTHESIS_EXAMPLES", "300"))
CARRIERS = {1: "BOOL", 2: "INT32", 3: "INT64", 4: "UINT32", 5: "UINT64"}


def delimited(field: int, data: bytes) -> bytes:
    size = bytearray()
    left = len(data)
    while left >= 0x80:
        size.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([field << 3 | 2, *size, left]) + data


def check(field: int, chunk: bytes) -> None:
    wire = delimited(5, delimited(5, delimited(field, chunk)))
    try:
        message = pb.ModelInferRequest.FromString(wire)
    except DecodeError:
        with pytest.raises(WireError):
            read_request(wire)
        return
    row = DATATYPES[CARRIERS[field]]
    expected = np.array(getattr(message.inputs[0].contents, row.field), row.numpy)
    request = read_request(wire)
    assert contents.count(request, 0, field) == len(expected)
    assert bytes(contents.contents_view(request, 0, row.name)) == expected.tobytes()


@pytest.mark.parametrize("field", CARRIERS)
def test_one_long_varint_at_every_place(field: int) -> None:
    for before in range(18):
        for size in range(1, 14):
            for behind in range(18):
                check(field, b"\x01" * before + b"\xff" * (size - 1) + b"\x01" + b"\x02" * behind)


@pytest.mark.parametrize("size", [8, 9, 10, 11])
def test_one_long_varint_around_the_blocks(size: int) -> None:
    for before in range(50, 150):
        for behind in (0, 1, 7, 8, 15, 16, 64, 80):
            check(3, b"\x01" * before + b"\xff" * (size - 1) + b"\x01" + b"\x02" * behind)


def test_two_chunks_are_counted_apart() -> None:
    for split in range(1, 11):
        run = b"\xff" * 9 + b"\x01"
        wire = delimited(5, delimited(5, delimited(3, run[:split]) + delimited(3, run[split:])))
        if split < 10:
            with pytest.raises(WireError):
                read_request(wire)
        else:
            assert contents.count(read_request(wire), 0, 3) == 1


@pytest.mark.parametrize("field", CARRIERS)
def test_an_empty_chunk_has_no_values(field: int) -> None:
    check(field, b"")
    empty = delimited(field, b"")
    wire = delimited(5, delimited(5, empty + delimited(field, b"\x01") + empty))
    assert contents.count(read_request(wire), 0, field) == 1
    view = contents.contents_view(read_request(wire), 0, CARRIERS[field])
    assert int.from_bytes(view, "little") == 1


varints = st.builds(
    lambda fill, size, last: bytes([fill]) * (size - 1) + bytes([last]),
    st.integers(0x80, 0xFF), st.integers(1, 11), st.integers(0, 0x7F),
)  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(sorted(CARRIERS)), st.lists(varints, max_size=60), st.binary(max_size=2))
def test_any_run(field: int, run: list[bytes], tail: bytes) -> None:
    check(field, b"".join(run) + tail)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(sorted(CARRIERS)),
       st.lists(st.tuples(st.sampled_from([b"\x01", b"\x80\x01", b"\xff" * 9 + b"\x01"]),
                          st.integers(0, 90)), max_size=5))  # fmt: skip
def test_any_run_of_runs(field: int, runs: list[tuple[bytes, int]]) -> None:
    check(field, b"".join(varint * times for varint, times in runs))
