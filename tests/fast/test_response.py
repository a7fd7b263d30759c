"""The response writer against protobuf: what it writes, protobuf reads."""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfs._fast.response import reserve_response, write_error, write_response
from kfs._fast.strings import Rows, StringArray
from kfs._fast.wire import Parameter
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.errors import Code, ServingError
from kfs.settings import MAX_MESSAGE_NBYTES

thorough = settings(
    max_examples=int(os.environ.get("KFS_HYPOTHESIS_EXAMPLES", "300")), deadline=None
)

outputs = st.lists(
    st.tuples(
        st.text(max_size=5),
        st.sampled_from(["FP32", "BYTES", ""]),
        st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=4),
        st.one_of(
            st.binary(max_size=200),
            st.lists(st.binary(max_size=40), max_size=5).map(StringArray.of),
        ),
    ),
    max_size=4,
)
parameters = st.dictionaries(
    st.text(max_size=4),
    st.one_of(
        st.booleans().map(lambda value: Parameter("bool_param", value)),
        st.integers(-(1 << 63), (1 << 63) - 1).map(lambda value: Parameter("int64_param", value)),
        st.integers(0, (1 << 64) - 1).map(lambda value: Parameter("uint64_param", value)),
        st.text(max_size=5).map(lambda value: Parameter("string_param", value)),
        st.floats(allow_nan=False).map(lambda value: Parameter("double_param", value)),
    ),
    max_size=3,
)


def as_bytes(data: Any) -> bytes:
    if isinstance(data, StringArray):
        data = data.items()
    return framed(data) if isinstance(data, list) else bytes(data)


def framed(items: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


@thorough
@given(st.text(max_size=5), st.text(max_size=3), st.text(max_size=5), outputs, parameters,
       st.booleans())  # fmt: skip
def test_protobuf_reads_what_was_meant(
    name: str, version: str, id: str, outputs: list[Any], parameters: Any, stream: bool
) -> None:
    expected = pb.ModelInferResponse(model_name=name, model_version=version, id=id)
    for key, (kind, value) in parameters.items():
        setattr(expected.parameters[key], kind, value)
    for output, datatype, shape, data in outputs:
        expected.outputs.add(name=output, datatype=datatype, shape=shape)
        expected.raw_output_contents.append(as_bytes(data))
    written = write_response(name, version, id, outputs, parameters, stream=stream)
    if stream:
        assert pb.ModelStreamInferResponse.FromString(written).infer_response == expected
    else:
        assert pb.ModelInferResponse.FromString(written) == expected


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (300, 300)])
@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i8", "f2", "f4", "f8"])
def test_arrays(shape: tuple[int, ...], dtype: str) -> None:
    array = np.ones(shape, dtype)
    written = write_response("m", "1", "", [("a", "X", shape, array)])
    response = pb.ModelInferResponse.FromString(written)
    assert response.raw_output_contents[0] == array.tobytes()
    assert list(response.outputs[0].shape) == list(shape)


class Wavering:
    """A dimension that is another one whenever it is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __int__(self) -> int:
        self.asked += 1
        return 1 if self.asked == 1 else -1

    __index__ = __int__


def test_a_dimension_is_asked_for_once() -> None:
    shape: Any = (Wavering(),)
    written = write_response("m", "1", "", [("a", "X", shape, b"abc")])
    response = pb.ModelInferResponse.FromString(written)
    assert list(response.outputs[0].shape) == [1]
    assert response.raw_output_contents == [b"abc"]


@given(st.text(max_size=20))
def test_errors(text: str) -> None:
    assert pb.ModelStreamInferResponse.FromString(write_error(text)).error_message == text


def test_strings_keep_every_byte() -> None:
    items = [b"", b"\0", b"a\0\0", b"x" * 1000]
    strings = StringArray.of(items)
    assert strings.items() == items
    assert len(strings) == 4
    assert strings.framed_nbytes == sum(4 + len(item) for item in items)
    assert StringArray.empty(3).items() == [b"", b"", b""]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (5, 7), (300, 300)])
def test_each_row_is_an_element_up_to_its_first_zero(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(1).integers(0, 5, shape, np.uint8)
    written = write_response("m", "1", "", [("a", "BYTES", shape[:1], Rows(matrix))])
    [data] = pb.ModelInferResponse.FromString(written).raw_output_contents
    assert data == framed([row.tobytes().partition(b"\0")[0] for row in matrix])


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((1 << 40, 0), np.uint8),  # rows that take no memory, but time
        np.zeros(3, np.uint8),
        np.zeros((2, 2), np.float32),
    ],
)
def test_rows_are_those_of_a_matrix_of_bytes(matrix: Any) -> None:
    with pytest.raises(ValueError, match="rows"):
        Rows(matrix)


@pytest.mark.parametrize("stream", [True, False])
def test_a_response_larger_than_a_message_is_refused_before_it_is_made(stream: bool) -> None:
    half = np.empty(MAX_MESSAGE_NBYTES // 2, np.uint8)  # none of it is touched
    shape = half.shape
    with pytest.raises(ServingError) as caught:
        write_response("m", "1", "", [("a", "X", shape, half), ("b", "X", shape, half)],
                       stream=stream)  # fmt: skip
    assert caught.value.status.code is Code.RESOURCE_EXHAUSTED
    assert str(caught.value).startswith(
        "Response is too large - Expected: at most 1073741824 bytes; Actual: 10737418"
    )


def test_places_that_add_up_to_nothing_in_64_bits_are_refused() -> None:
    outputs = [(name, "X", (), 1 << 63) for name in "ab"]
    with pytest.raises(ServingError, match="Response is too large"):
        reserve_response("m", "1", "", outputs)
