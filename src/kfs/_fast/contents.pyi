"""Tensor data of a request: aliased where the wire already is the tensor, else decoded once.

`index` counts the inputs of the request; raw contents belong to the input of the same index.
"""

from kfs._fast.memory import TensorView
from kfs._fast.wire import Request

def raw_view(request: Request, index: int) -> TensorView:
    """`raw_input_contents[index]`, inside the request's own bytes.

    Raises:
        IndexError: there is no such entry.
    """

def count(request: Request, index: int, field_number: int) -> int:
    """How many values `contents` of an input has in a field; 0 when it is absent."""

def contents_view(request: Request, index: int, datatype: str) -> TensorView:
    """The values of the field that carries `datatype`, as dense little-endian memory.

    Floats and flags that came in one packed run are inside the request's own bytes; anything
    else is decoded into memory of its own.

    Raises:
        ValueRangeError: a value does not fit INT8, INT16, UINT8 or UINT16.
        ValueError: the datatype is BYTES.
    """

def raw_item_count(request: Request, index: int) -> int:
    """The number of elements in a raw BYTES tensor; -1 when lengths and payloads do not add up."""

def bytes_items(request: Request, index: int) -> list[TensorView]:
    """The elements of a BYTES tensor, each inside the request's own bytes.

    The framing of raw contents must be whole: see `raw_item_count`.
    """

def bytes_lengths_max(request: Request, index: int) -> int:
    """The length in bytes of the longest element of a BYTES tensor; 0 when there is none."""

def padded_rows(request: Request, index: int, width: int) -> TensorView:
    """One row of `width` bytes per element: its bytes, then zeros, at least one.

    Raises:
        ValueError: an element and its zero do not fit, or the raw framing is broken.
    """
