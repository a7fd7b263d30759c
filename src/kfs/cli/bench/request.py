"""The request that is sent over and over: made from what the server says it takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kfs.cli.inputs import Tensor
from kfs.datatypes import DATATYPES
from kfs.settings import MAX_MESSAGE_NBYTES

if TYPE_CHECKING:
    from kfs._proto import grpc_predict_v2_pb2 as pb

# The name may have colons of its own, as TensorFlow's do.
_SHAPE = re.compile(
    rf"(?:(?P<name>.+?)(?::(?P<datatype>{'|'.join(DATATYPES)}))?:)?(?P<shape>\d+(,\d+)*|)"
)
#: Bytes of each element that is made for a BYTES input.
_ITEM_NBYTES = 16


@dataclass(frozen=True)
class Declared:
    """An input as the server or a flag declares it; a shape that is not fixed has sizes below 0."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def make_tensors(
    metadata: pb.ModelMetadataResponse, shape_options: Sequence[str], given: Iterable[Tensor]
) -> list[Tensor]:
    """A tensor for every input: a given one, or one of made-up values.

    Raises:
        click.UsageError: an input cannot be made, with what to say instead.
    """
    wanted = {
        tensor.name: Declared(tensor.name, tensor.datatype, tuple(tensor.shape))
        for tensor in metadata.inputs
    }
    for option in shape_options:
        declared = _parse_shape(option, wanted)
        wanted[declared.name] = declared
    if not wanted:
        raise click.UsageError(
            f"the server does not say what {metadata.name} takes: say it, "
            "as in --shape INPUT:FP32:1,3,224,224"
        )
    made = {tensor.name: tensor for tensor in given}
    return [made.get(name) or _make(declared) for name, declared in wanted.items()]


def _parse_shape(option: str, known: dict[str, Declared]) -> Declared:
    found = _SHAPE.fullmatch(option)
    if not found:
        raise click.UsageError(
            f"--shape {option}: expected INPUT:SIZE,SIZE,... as in image:1,3,224,224"
        )
    name, datatype = found["name"], found["datatype"]
    if name is None and len(known) == 1:
        (name,) = known
    if name not in known and not (name and datatype):
        raise click.UsageError(
            f"--shape {option}: expected INPUT:SIZE,SIZE,... with one of the inputs "
            f"{', '.join(known)}"
        )
    shape = tuple(int(size) for size in found["shape"].split(",") if size)
    return Declared(name, datatype or known[name].datatype, shape)


def _make(declared: Declared) -> Tensor:
    name, datatype, shape = declared.name, declared.datatype, declared.shape
    if any(size < 0 for size in shape):
        example = ",".join(str(max(size, 1)) for size in shape)
        raise click.UsageError(
            f"the input {name} has the shape {list(shape)}, which is not fixed: say which to "
            f"send, as in --shape {name}:{example}"
        )
    if datatype not in DATATYPES:
        raise click.UsageError(f"the input {name} is {datatype}, for which no values can be made")
    count = math.prod(shape)
    nbytes = count * (DATATYPES[datatype].itemsize or _ITEM_NBYTES)
    if nbytes > MAX_MESSAGE_NBYTES:
        raise click.UsageError(
            f"the input {name} of the shape {list(shape)} has {nbytes} bytes; "
            f"a message holds at most {MAX_MESSAGE_NBYTES}"
        )
    return Tensor(name, datatype, shape, _values(datatype, shape, count))


def _values(datatype: str, shape: tuple[int, ...], count: int) -> Any:
    """The same values at every run. Integers are 0 or 1, so that they are valid as indices."""
    import numpy as np

    random = np.random.default_rng(0)
    if datatype == "BYTES":
        return [random.bytes(_ITEM_NBYTES // 2).hex().encode() for _ in range(count)]
    kind = np.dtype(DATATYPES[datatype].numpy)
    if kind.kind == "f":
        return random.random(shape, np.float32).astype(kind)
    return random.integers(0, 2, shape).astype(kind)
