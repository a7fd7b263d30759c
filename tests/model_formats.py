"""One model in every format but IR: `b` FP32 [-1,10] -> `a` = b + 1.

Written byte by byte, since the frameworks that write these formats are large: all but one are
protobuf messages, which are easily made from their fields by number. The numbers are those of
onnx.proto, graph.proto and saved_model.proto of TensorFlow, framework.proto of PaddlePaddle, and
schema.fbs of TensorFlow Lite.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import flatbuffers

WIDTH = 10
ONES = struct.pack(f"<{WIDTH}f", *[1.0] * WIDTH)
_DT_FLOAT = 1


def onnx(folder: Path) -> Path:
    """`folder/model.onnx`."""
    float_ = 1
    one = (
        _field(1, WIDTH)  # dims
        + _field(2, float_)
        + _field(8, "one")
        + _field(9, ONES)  # raw_data
    )
    add = _field(1, "b") + _field(1, "one") + _field(2, "a") + _field(4, "Add")

    def value_info(name: str) -> bytes:
        batch, width = _field(2, "batch"), _field(1, WIDTH)  # dim_param, dim_value
        tensor = _field(1, float_) + _field(2, _field(1, batch) + _field(1, width))
        return _field(1, name) + _field(2, _field(1, tensor))

    graph = (
        _field(1, add)
        + _field(2, "graph")
        + _field(5, one)  # initializer
        + _field(11, value_info("b"))
        + _field(12, value_info("a"))
    )
    ir_version, opset = 8, _field(1, "") + _field(2, 13)
    return _write(
        folder / "model.onnx", _field(1, ir_version) + _field(7, graph) + _field(8, opset)
    )


def frozen_graph(folder: Path) -> Path:
    """`folder/model.pb`, a GraphDef of TensorFlow."""
    return _write(folder / "model.pb", _graph_def())


def saved_model(folder: Path) -> Path:
    """`folder/saved_model.pb`, with a serving signature."""

    def tensor_info(name: str) -> bytes:
        return _field(1, f"{name}:0") + _field(2, _DT_FLOAT) + _field(3, _tensor_shape(-1, WIDTH))

    signature = (
        _field(1, _entry("b", tensor_info("b")))
        + _field(2, _entry("a", tensor_info("a")))
        + _field(3, "tensorflow/serving/predict")
    )
    meta_graph = (
        _field(1, _field(4, "serve"))  # meta_info_def.tags
        + _field(2, _graph_def())
        + _field(5, _entry("serving_default", signature))
    )
    return _write(folder / "saved_model.pb", _field(1, 1) + _field(2, meta_graph))


def tflite(folder: Path) -> Path:
    """`folder/model.tflite`."""
    builder = flatbuffers.Builder()
    no_data = _table(builder, {})
    ones = _table(builder, {0: builder.CreateByteVector(ONES)})
    buffers = _vector(builder, [no_data, ones])
    batch_of_one, any_batch = [1, WIDTH], [-1, WIDTH]

    def tensor(name: str, buffer: int, shape: list[int], signature: list[int]) -> int:
        fields = {
            0: _numbers(builder, shape),
            3: builder.CreateString(name),
            7: _numbers(builder, signature),
        }
        return _table(builder, fields, integers={2: buffer})

    tensors = _vector(
        builder,
        [
            tensor("b", 0, batch_of_one, any_batch),
            tensor("one", 1, [WIDTH], [WIDTH]),
            tensor("a", 0, batch_of_one, any_batch),
        ],
    )
    add_options = 11
    add = _table(
        builder,
        {1: _numbers(builder, [0, 1]), 2: _numbers(builder, [2]), 4: _table(builder, {})},
        bytes_={3: add_options},
    )
    graph = _table(
        builder,
        {
            0: tensors,
            1: _numbers(builder, [0]),
            2: _numbers(builder, [2]),
            3: _vector(builder, [add]),
        },
    )
    add_code = _table(builder, {})  # 0, the first operator, is ADD
    version = 3
    model = _table(
        builder,
        {1: _vector(builder, [add_code]), 2: _vector(builder, [graph]), 4: buffers},
        integers={0: version},
    )
    builder.Finish(model, b"TFL3")
    return _write(folder / "model.tflite", bytes(builder.Output()))


def paddle(folder: Path) -> Path:
    """`folder/model.pdmodel`, with its parameters in `folder/model.pdiparams`."""
    fp32, lod_tensor, feed_minibatch, fetch_list = 5, 7, 9, 10
    ones = _field(1, fp32) + _field(2, WIDTH)
    rows = _field(1, fp32) + _field(2, -1) + _field(2, WIDTH)

    def variable(name: str, kind: int, tensor: bytes = b"", *, persistable: bool = False) -> bytes:
        details = _field(3, _field(1, tensor)) if tensor else b""
        return _field(1, name) + _field(2, _field(1, kind) + details) + _field(3, int(persistable))

    def operation(
        kind: str, inputs: dict[str, str], outputs: dict[str, str], *attributes: bytes
    ) -> bytes:
        return (
            b"".join(_field(1, _field(1, key) + _field(2, name)) for key, name in inputs.items())
            + b"".join(_field(2, _field(1, key) + _field(2, name)) for key, name in outputs.items())
            + _field(3, kind)
            + b"".join(_field(4, attribute) for attribute in attributes)
        )

    def integer(name: str, value: int) -> bytes:
        return _field(1, name) + _field(2, 0) + _field(3, value)

    block = (
        _field(1, 0)  # its index
        + _field(2, -1)  # its parent: none
        + _field(3, variable("feed", feed_minibatch, persistable=True))
        + _field(3, variable("fetch", fetch_list, persistable=True))
        + _field(3, variable("b", lod_tensor, rows))
        + _field(3, variable("one", lod_tensor, ones, persistable=True))
        + _field(3, variable("a", lod_tensor, rows))
        + _field(4, operation("feed", {"X": "feed"}, {"Out": "b"}, integer("col", 0)))
        + _field(
            4,
            operation("elementwise_add", {"X": "b", "Y": "one"}, {"Out": "a"}, integer("axis", -1)),
        )
        + _field(4, operation("fetch", {"X": "a"}, {"Out": "fetch"}, integer("col", 0)))
    )
    version = _field(1, 2_000_000)
    # A parameter: version and levels of detail, none; version and description; the values.
    parameter = struct.pack("<IQIi", 0, 0, 0, len(ones)) + ones + ONES
    _write(folder / "model.pdiparams", parameter)
    return _write(folder / "model.pdmodel", _field(1, block) + _field(4, version))


def _tensor_shape(*sizes: int) -> bytes:
    return b"".join(_field(2, _field(1, size)) for size in sizes)


def _graph_def() -> bytes:
    float_ = _field(6, _DT_FLOAT)
    one = _field(1, _DT_FLOAT) + _field(2, _tensor_shape(WIDTH)) + _field(4, ONES)

    def node(name: str, kind: str, inputs: list[str], attributes: Mapping[str, bytes]) -> bytes:
        return _field(
            1,
            _field(1, name)
            + _field(2, kind)
            + b"".join(_field(3, each) for each in inputs)
            + b"".join(_field(5, _entry(key, value)) for key, value in attributes.items()),
        )

    return (
        node(
            "b", "Placeholder", [], {"dtype": float_, "shape": _field(7, _tensor_shape(-1, WIDTH))}
        )
        + node("one", "Const", [], {"dtype": float_, "value": _field(8, one)})
        + node("a", "AddV2", ["b", "one"], {"T": float_})
        + _field(4, _field(1, 1087))  # versions.producer
    )


def _field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protobuf message: a number, or the bytes of a string or a message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _entry(key: str, value: bytes) -> bytes:
    return _field(1, key) + _field(2, value)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _table(
    builder: flatbuffers.Builder,
    references: Mapping[int, int],
    integers: Mapping[int, int] | None = None,
    bytes_: Mapping[int, int] | None = None,
) -> int:
    """A table of a flatbuffer, its fields by number."""
    integers, bytes_ = integers or {}, bytes_ or {}
    builder.StartObject(1 + max([*references, *integers, *bytes_], default=0))
    for number, reference in references.items():
        builder.PrependUOffsetTRelativeSlot(number, reference, 0)
    for number, value in integers.items():
        builder.PrependUint32Slot(number, value, 0)
    for number, value in bytes_.items():
        builder.PrependUint8Slot(number, value, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, references: list[int]) -> int:
    builder.StartVector(4, len(references), 4)
    for reference in reversed(references):
        builder.PrependUOffsetTRelative(reference)
    return int(builder.EndVector())


def _numbers(builder: flatbuffers.Builder, numbers: list[int]) -> int:
    builder.StartVector(4, len(numbers), 4)
    for number in reversed(numbers):
        builder.PrependInt32(number)
    return int(builder.EndVector())


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
