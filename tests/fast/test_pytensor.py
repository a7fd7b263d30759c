"""The tensor of Python handlers: whose memory it shows, for how long, and to whom."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfs._fast.pytensor import Tensor, from_server

N_EXAMPLES = int(os.environ.get("KFS_HYPOTHESIS_EXAMPLES", "100"))

DATATYPES = {
    "?": "BOOL", "b": "INT8", "B": "UINT8", "h": "INT16", "H": "UINT16", "i": "INT32",
    "I": "UINT32", "l": "INT64", "L": "UINT64", "q": "INT64", "Q": "UINT64", "e": "FP16",
    "f": "FP32", "d": "FP64",
}  # fmt: skip
#: Formats that are no datatype of the protocol stand for themselves.
OWN = {">f4": ">f", "<U3": "3w", "c8": "Zf", "c16": "Zd"}


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Arrays of every kind of value and shape, with and without gaps, forwards and backwards."""
    dtype = np.dtype(draw(st.sampled_from([*DATATYPES, *OWN])))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    steps = [draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in shape]
    # Large enough for the steps to leave just this shape.
    whole = tuple(size * abs(step) for size, step in zip(shape, steps, strict=True))
    data = np.arange(math.prod(whole)) % 2
    array = data.astype(dtype).reshape(whole)[tuple(slice(None, None, step) for step in steps)]
    return np.asarray(array).transpose(draw(st.permutations(range(len(shape)))))


@settings(max_examples=N_EXAMPLES, deadline=None)
@given(arrays())
def test_numpy_reads_what_it_gave(array: Any) -> None:
    tensor = Tensor("x", array)
    found = np.asarray(tensor)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert not found.flags.writeable
    assert found.flags.c_contiguous
    assert tensor.shape == array.shape
    assert tensor.size == array.nbytes
    assert bytes(tensor) == array.tobytes()
    assert (tensor.ptr == array.ctypes.data) == array.flags.c_contiguous or not array.size
    assert tensor.ref_obj is array


@pytest.mark.parametrize("letter", DATATYPES)
def test_datatypes(letter: str) -> None:
    assert Tensor("x", np.zeros(2, letter)).datatype == DATATYPES[letter]


@pytest.mark.parametrize("dtype", OWN)
def test_formats_that_are_no_datatype_stand_for_themselves(dtype: str) -> None:
    assert Tensor("x", np.zeros(2, dtype)).datatype == OWN[dtype]


def test_structures() -> None:
    array = np.zeros((3, 2), [("a", "i4"), ("b", "f8")])
    array["b"] = np.arange(6).reshape(3, 2)
    for part in (array, array[::2], array.T):
        assert np.array_equal(np.asarray(Tensor("x", part)), part)


@pytest.mark.parametrize("dtype", [object, [("a", "i4"), ("b", object)]])
def test_objects_are_no_numbers(dtype: Any) -> None:
    with pytest.raises(TypeError, match="'x': expected a buffer of numbers or bytes"):
        Tensor("x", np.zeros(2, dtype))


def test_a_field_may_have_any_name() -> None:
    array = np.zeros(2, [("O", "i4")])
    assert np.array_equal(np.asarray(Tensor("x", array)), array)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_numbers(kind: Any) -> None:
    tensor = Tensor("x", kind(b"abc"))
    assert (tensor.datatype, tensor.shape, bytes(tensor)) == ("UINT8", (3,), b"abc")


def test_nothing_is_copied() -> None:
    array = np.zeros((2, 3), np.float32)
    tensor = Tensor("x", array)
    over = Tensor("y", tensor)
    array[1, 2] = 7
    assert np.asarray(tensor)[1, 2] == 7
    assert np.asarray(over)[1, 2] == 7
    assert memoryview(over)[1, 2] == 7
    assert over.ptr == tensor.ptr == array.ctypes.data


def test_nobody_writes() -> None:
    array = np.zeros(4, np.float32)
    tensor = Tensor("x", array)
    assert memoryview(tensor).readonly
    assert tensor.data.readonly
    with pytest.raises(TypeError, match="read-only"):
        memoryview(tensor)[0] = 1.0
    with pytest.raises(TypeError, match="not writable"):
        (ctypes.c_char * tensor.size).from_buffer(tensor)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(tensor)[0] = 1
    for name in ("name", "shape", "datatype", "size", "ptr", "ref_obj", "data"):
        with pytest.raises(AttributeError):
            setattr(tensor, name, None)


def test_what_a_client_is_told_does_not_change_the_memory() -> None:
    tensor = Tensor("x", np.arange(6, dtype=np.uint8), shape=[2, 3], datatype="mine")
    assert (tensor.shape, tensor.datatype) == ((2, 3), "mine")
    assert memoryview(tensor).shape == (6,)
    assert memoryview(tensor).format == "B"
    assert Tensor("x", b"", shape=iter([-1, 0])).shape == (-1, 0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("x", ["a", "b"]), TypeError), (("x", "text"), TypeError), (("x", None), TypeError),
        ((None, b"x"), TypeError), ((b"x", b"x"), TypeError), (("x",), TypeError),
        (("x", b"x", 3), TypeError), (("x", b"x", ["a"]), ValueError),
        (("x", b"x", None, 3), TypeError),
    ],
)  # fmt: skip
def test_what_is_no_tensor(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        Tensor(*arguments)


def test_memory_lives_as_long_as_anyone_who_looks_at_it() -> None:
    array = np.arange(1000, dtype=np.int64)
    gone = weakref.ref(array)
    tensor = Tensor("x", array)
    view, over = memoryview(tensor), np.asarray(tensor)
    del array
    gc.collect()
    assert gone() is not None
    del tensor
    gc.collect()
    assert view[999] == over[999] == 999
    view.release()
    assert over[999] == 999
    del over
    gc.collect()
    assert gone() is None


def test_a_copy_keeps_the_object_but_not_for_its_memory() -> None:
    array = np.arange(10, dtype=np.int32)[::2]
    tensor = Tensor("x", array)
    array[0] = 100
    assert np.asarray(tensor).tolist() == [0, 2, 4, 6, 8]


def test_a_buffer_that_is_shown_cannot_move() -> None:
    data = bytearray(b"abc")
    tensor = Tensor("x", data)
    with pytest.raises(BufferError):
        data.extend(b"more")
    del tensor
    data.extend(b"more")
    assert data == b"abcmore"


def test_references_are_given_back() -> None:
    data = b"a" * 100
    before = sys.getrefcount(data)
    for _ in range(100):
        memoryview(Tensor("x", data)).release()
        np.asarray(Tensor("x", data))
        with pytest.raises(TypeError):
            Tensor("x", data, 3)  # type: ignore[arg-type]
    assert sys.getrefcount(data) == before


def test_views_from_many_threads() -> None:
    tensor = Tensor("x", np.arange(1000, dtype=np.float64))
    sums: list[float] = []

    def look() -> None:
        for _ in range(200):
            view = memoryview(tensor)
            sums.append(float(np.asarray(view).sum()))
            view.release()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [499500.0] * 800


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (1, 32, 32, 0, 1), (1,) * 64])
def test_the_server_gives_known_datatypes_their_format_and_shape(shape: tuple[int, ...]) -> None:
    data = np.ones(shape, np.float32).tobytes()
    tensor = from_server("x", data, shape, "FP32")
    assert memoryview(tensor).shape == shape
    assert memoryview(tensor).format == "f"
    if len(shape) <= 32:
        assert np.array_equal(np.array(tensor), np.ones(shape, np.float32))


@pytest.mark.parametrize("datatype", ["BYTES", "BF16", "mine", ""])
def test_the_server_gives_others_as_bytes(datatype: str) -> None:
    tensor = from_server("x", b"abcdef", (7, 9), datatype)
    assert (tensor.shape, tensor.datatype) == ((7, 9), datatype)
    assert (memoryview(tensor).format, memoryview(tensor).shape) == ("B", (6,))


def test_more_dimensions_than_a_view_can_have_are_an_error_and_no_harm() -> None:
    tensor = from_server("x", b"\x01", (1,) * 1000, "UINT8")
    with pytest.raises(ValueError, match="dim"):
        memoryview(tensor)
    assert tensor.shape == (1,) * 1000


@pytest.mark.parametrize(
    ("shape", "datatype"),
    [((3,), "FP32"), ((2, 2), "INT8"), ((1 << 62, 4), "FP64"), ((-1,), "BOOL")],
)
def test_sizes_that_do_not_fit_the_memory(shape: tuple[int, ...], datatype: str) -> None:
    with pytest.raises(ValueError, match="the data has 8"):
        from_server("x", b"12345678", shape, datatype)


def test_a_dimension_of_nothing_excuses_large_ones() -> None:
    tensor = from_server("x", b"", (0, 1 << 62, 1 << 62), "FP64")
    assert (tensor.size, memoryview(tensor).nbytes) == (0, 0)
