"""Tensors to send: from image files, from numpy's files, as raw or as typed contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfs.datatypes import DATATYPES

if TYPE_CHECKING:
    import numpy.typing as npt

    from kfs._proto import grpc_predict_v2_pb2 as pb

    Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """An input of a request.

    Attributes:
        name: the input.
        datatype: as on the wire; one of `DATATYPES`.
        shape: its dimensions.
        values: the elements; for BYTES a list of them in row-major order.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Array | list[bytes]

    def add_raw(self, request: pb.ModelInferRequest) -> None:
        """Put it into the request as raw contents."""
        request.inputs.add(name=self.name, datatype=self.datatype, shape=self.shape)
        values = self.values
        request.raw_input_contents.append(
            _frame(values) if isinstance(values, list) else values.tobytes()
        )

    def add_contents(self, request: pb.ModelInferRequest) -> None:
        """Put it into the request as typed contents.

        Raises:
            click.UsageError: the protocol has no typed contents for the datatype.
        """
        field = DATATYPES[self.datatype].field
        if not field:
            raise click.UsageError(
                f"the input {self.name} is {self.datatype}, which only raw contents can carry"
            )
        tensor = request.inputs.add(name=self.name, datatype=self.datatype, shape=self.shape)
        values = self.values
        items = values if isinstance(values, list) else values.ravel().tolist()
        getattr(tensor.contents, field).extend(items)


def input_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags for files to send: `image_options` and `array_options`."""
    command = click.option(
        "--input", "array_options", multiple=True, metavar="INPUT=FILE.npy",
        help="A tensor saved by numpy.",
    )(command)  # fmt: skip
    return click.option(
        "--image", "image_options", multiple=True, metavar="FILE|INPUT=FILE",
        help="An encoded image; several make a batch.",
    )(command)  # fmt: skip


def read_inputs(
    image_options: Sequence[str],
    array_options: Sequence[str],
    metadata: pb.ModelMetadataResponse,
) -> list[Tensor]:
    """The tensors that the flags name, images first.

    Raises:
        click.UsageError: a file or an input is not there, or one does not fit the other.
    """
    tensors = list(_read_images(image_options, metadata))
    for option in array_options:
        tensor = _read_array(option, metadata)
        if any(tensor.name == other.name for other in tensors):
            raise click.UsageError(f"the input {tensor.name} is given twice")
        tensors.append(tensor)
    return tensors


def _read_images(options: Sequence[str], metadata: pb.ModelMetadataResponse) -> Iterator[Tensor]:
    groups: dict[str, list[bytes]] = {}
    names = [tensor.name for tensor in metadata.inputs]
    for option in options:
        name, equals, file = option.partition("=")
        if not equals or name not in names:
            if len(names) != 1:
                raise click.UsageError(
                    f"{metadata.name} has the inputs {', '.join(names)}; say which one: "
                    f"--image {names[0] if names else 'INPUT'}={option}"
                )
            name, file = names[0], option
        groups.setdefault(name, []).append(_existing(file).read_bytes())
    for name, files in groups.items():
        yield Tensor(name, "BYTES", (len(files),), files)


def _existing(file: str) -> Path:
    path = Path(file)
    if not path.is_file():
        raise click.UsageError(f"no such file: {file}")
    return path


def _frame(items: Sequence[bytes]) -> bytes:
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def _read_array(option: str, metadata: pb.ModelMetadataResponse) -> Tensor:
    name, equals, file = option.partition("=")
    declared = {tensor.name: tensor.datatype for tensor in metadata.inputs}
    if not equals or name not in declared:
        raise click.UsageError(
            f"--input {option}: expected NAME=FILE.npy with one of the inputs {', '.join(declared)}"
        )
    array = _load(file)
    return Tensor(name, declared[name], array.shape, _check(array, name, declared[name], file))


def _load(file: str) -> Array:
    import zipfile

    import numpy as np

    try:
        array = np.load(_existing(file), allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile):
        array = None
    if not isinstance(array, np.ndarray):
        raise click.UsageError(
            f"{file} is no .npy file of numbers, bytes (numpy's S) or text (numpy's U)"
        )
    return array


def _check(array: Array, name: str, datatype: str, file: str) -> Array | list[bytes]:
    """The array's values; refused unless it holds what the input takes."""
    import numpy as np

    found = f"{file} holds {array.dtype}; the input {name} takes {datatype}"
    if datatype not in DATATYPES:
        raise click.UsageError(f"{found}, which no .npy file can hold")
    if datatype == "BYTES":
        if array.dtype.kind not in "SU":
            raise click.UsageError(f"{found}, numpy's S (bytes) or U (text)")
        return [item.encode() if isinstance(item, str) else item for item in array.ravel()]
    expected = np.dtype(DATATYPES[datatype].numpy)
    if array.dtype.newbyteorder("<") != expected:
        raise click.UsageError(f"{found}, numpy's {expected}")
    return array.astype(expected)
