"""Who keeps memory alive, and for how long."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import numpy as np
import psutil
import pytest

from kfs._fast import contents
from kfs._fast.memory import TensorView
from kfs._fast.response import reserve_response, write_response
from kfs._fast.strings import Rows, StringArray
from kfs._fast.wire import InputTensor, Request, read_request
from kfs._proto import grpc_predict_v2_pb2 as pb

VALUES = np.arange(1000, dtype=np.float32)


def wire(**fields: Any) -> bytes:
    request = pb.ModelInferRequest(model_name="m", inputs=[{"name": "b", "datatype": "FP32"}])
    for field, values in fields.items():
        getattr(request.inputs[0].contents, field).extend(values)
    if not fields:
        request.raw_input_contents.append(VALUES.tobytes())
    return request.SerializeToString()


@pytest.mark.parametrize("kind", [TensorView, Request, InputTensor, StringArray])
def test_nobody_makes_these_by_hand(kind: type) -> None:
    with pytest.raises(TypeError):
        kind()


def test_a_view_keeps_the_message_alive_exactly_as_long_as_itself() -> None:
    data = wire()
    before = sys.getrefcount(data)
    request = read_request(data)
    view = contents.raw_view(request, 0)
    array = np.frombuffer(view, np.float32)
    assert view.owner is data
    dead = weakref.ref(view)
    del request, view
    gc.collect()
    assert dead() is not None
    assert np.array_equal(array, VALUES)
    del array
    assert dead() is None
    assert sys.getrefcount(data) == before


def test_raw_data_and_packed_floats_are_not_copied() -> None:
    for data in (wire(), wire(fp32_contents=VALUES)):
        request = read_request(data)
        view = (
            contents.raw_view(request, 0)
            if request.n_raw
            else contents.contents_view(request, 0, "FP32")
        )
        assert view.owner is data
        assert bytes(view) == VALUES.tobytes()


def test_flags_are_aliased_only_when_they_are_flags() -> None:
    request = read_request(wire(bool_contents=[True, False]))
    assert contents.contents_view(request, 0, "BOOL").owner is request.data
    odd = read_request(b"\x2a\x07\x2a\x05\x0a\x03\x01\x80\x02")
    view = contents.contents_view(odd, 0, "BOOL")
    assert view.owner is not odd.data
    assert bytes(view) == b"\x01\x01"


def test_faults_leave_nothing_behind() -> None:
    data = wire(int_contents=[1, 2, 300])
    before = sys.getrefcount(data)
    for _ in range(100):
        request = read_request(data)
        with pytest.raises(ValueError, match="300 at index 2"):
            contents.contents_view(request, 0, "INT8")
        with pytest.raises(IndexError):
            contents.raw_view(request, 0)
        with pytest.raises(BufferError):
            bytearray(b"x") and write_response(
                "m", "1", "", [("a", "FP32", (2,), memoryview(b"abcd")[::2])]
            )
    del request
    gc.collect()
    assert sys.getrefcount(data) == before


def test_a_written_output_is_let_go() -> None:
    array = VALUES.copy()
    before = sys.getrefcount(array)
    write_response("m", "1", "", [("a", "FP32", (1000,), array)])
    assert sys.getrefcount(array) == before


def test_rows_let_their_matrix_go() -> None:
    matrix, line = np.zeros((2, 3), np.uint8), np.zeros(3, np.uint8)
    before = sys.getrefcount(matrix), sys.getrefcount(line)
    Rows(matrix)
    with pytest.raises(ValueError, match="rows"):
        Rows(line)
    assert (sys.getrefcount(matrix), sys.getrefcount(line)) == before


def test_strings_let_go_what_they_were_made_of() -> None:
    item = bytearray(b"abc")
    strings = StringArray.of([item])
    item.clear()  # raises while a view of it exists
    assert strings.items() == [b"abc"]


def test_what_no_memory_could_hold_is_refused() -> None:
    request = read_request(wire(bytes_contents=[b"abc"] * 4))
    with pytest.raises(OverflowError):
        contents.padded_rows(request, 0, 1 << 62)
    with pytest.raises(MemoryError):
        StringArray.empty(1 << 60)


def test_reserved_places_are_inside_the_message() -> None:
    message, (first, second) = reserve_response(
        "m", "1", "id", [("a", "FP32", (1000,), 4000), ("b", "UINT8", (3,), 3)]
    )
    np.frombuffer(first, np.float32)[:] = VALUES
    np.frombuffer(second, np.uint8)[:] = (1, 2, 3)
    expected = write_response(
        "m", "1", "id", [("a", "FP32", (1000,), VALUES), ("b", "UINT8", (3,), b"\1\2\3")]
    )
    assert message == expected


def test_ten_thousand_requests_do_not_grow_the_process() -> None:
    raw = pb.ModelInferRequest.FromString(wire())
    raw.raw_input_contents.extend([b""] * 500)  # so many that where they lie takes memory too
    samples = [
        raw.SerializeToString(), wire(fp32_contents=VALUES), wire(bytes_contents=[b"abc"] * 500)
    ]  # fmt: skip

    def work(times: int) -> None:
        for number in range(times):
            request = read_request(samples[number % 3])
            if request.n_raw:
                data: Any = contents.raw_view(request, 0)
            elif number % 3 == 1:
                data = contents.contents_view(request, 0, "FP32")
            else:
                data = StringArray.from_request(request, 0)
            write_response("m", "1", "id", [("a", "FP32", (1000,), data)])

    process = psutil.Process()
    work(2000)
    before = process.memory_info().rss
    work(10_000)
    assert process.memory_info().rss - before < 4 << 20
