"""The table of tensor datatypes: what each is called, and where its values travel.

Source of the names and carriers: the KServe v2 protocol, "Tensor Data Types".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Datatype:
    """One row: a datatype of the v2 protocol and its names elsewhere.

    Attributes:
        name: the name on the wire (`FP32`).
        field: its field of InferTensorContents; empty when only raw contents can carry it.
        field_number: the number of that field; 0 when there is none.
        itemsize: bytes per element; 0 for BYTES, whose elements vary.
        numpy: the numpy type string, little-endian; `O` for BYTES.
        openvino: OpenVINO's name of the element type.
        label: the spelling used in error texts.
    """

    name: str
    field: str
    field_number: int
    itemsize: int
    numpy: str
    openvino: str
    label: str


_ROWS = (
    Datatype("BOOL", "bool_contents", 1, 1, "|b1", "boolean", "BOOL"),
    Datatype("INT8", "int_contents", 2, 1, "|i1", "i8", "I8"),
    Datatype("INT16", "int_contents", 2, 2, "<i2", "i16", "I16"),
    Datatype("INT32", "int_contents", 2, 4, "<i4", "i32", "I32"),
    Datatype("INT64", "int64_contents", 3, 8, "<i8", "i64", "I64"),
    Datatype("UINT8", "uint_contents", 4, 1, "|u1", "u8", "U8"),
    Datatype("UINT16", "uint_contents", 4, 2, "<u2", "u16", "U16"),
    Datatype("UINT32", "uint_contents", 4, 4, "<u4", "u32", "U32"),
    Datatype("UINT64", "uint64_contents", 5, 8, "<u8", "u64", "U64"),
    Datatype("FP16", "", 0, 2, "<f2", "f16", "FP16"),
    Datatype("FP32", "fp32_contents", 6, 4, "<f4", "f32", "FP32"),
    Datatype("FP64", "fp64_contents", 7, 8, "<f8", "f64", "FP64"),
    Datatype("BYTES", "bytes_contents", 8, 0, "|O", "string", "STRING"),
)

#: Every datatype that can be served, by its name on the wire.
DATATYPES: dict[str, Datatype] = {row.name: row for row in _ROWS}

#: The same rows by OpenVINO's name of the element type.
BY_OPENVINO: dict[str, Datatype] = {row.openvino: row for row in _ROWS}

#: Goes from one model to the next, but not to clients: numpy has only two bytes for it.
BF16 = Datatype("BF16", "", 0, 2, "|V2", "bf16", "BF16")
_INVALID = ("INVALID", "", 0, 0, "")
_NAMED = {
    "bf16": BF16,
    "i4": Datatype(*_INVALID, "i4", "I4"),
    "u4": Datatype(*_INVALID, "u4", "U4"),
    "u1": Datatype(*_INVALID, "u1", "U1"),
}
UNSUPPORTED = Datatype("INVALID", "", 0, 0, "", "", "UNDEFINED")

#: The rows of what goes from one servable to the next, by the numpy type string.
BY_NUMPY: dict[str, Datatype] = {row.numpy: row for row in (*_ROWS, BF16)}


def from_openvino(name: str) -> Datatype:
    """The row for an OpenVINO element type; BF16 and the types without a row are not served."""
    return BY_OPENVINO.get(name) or _NAMED.get(name, UNSUPPORTED)
