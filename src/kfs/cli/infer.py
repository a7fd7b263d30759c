"""`kfs-fast infer`: one request from files, one readable answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfs.cli.client import Connect, server_options
from kfs.datatypes import DATATYPES

if TYPE_CHECKING:
    import numpy.typing as npt

    from kfs._proto import grpc_predict_v2_pb2 as pb

    Array = npt.NDArray[Any]

_MAX_VALUES_SHOWN = 32


@click.command()
@click.argument("name")
@click.option("--image", "image_options", multiple=True, metavar="FILE|INPUT=FILE",
              help="An encoded image; several make a batch.")  # fmt: skip
@click.option("--input", "array_options", multiple=True, metavar="INPUT=FILE.npy",
              help="A tensor saved by numpy.")  # fmt: skip
@click.option("--output", "outputs", multiple=True, help="An output to ask for; all otherwise.")
@click.option("--version", default="", help="The version; the default one otherwise.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@server_options
def infer(
    *,
    name: str,
    image_options: Sequence[str],
    array_options: Sequence[str],
    outputs: Sequence[str],
    version: str,
    as_json: bool,
    url: str,
    connect: Connect,
) -> None:
    """Send files to the servable NAME and print what it answers."""
    from kfs._proto import grpc_predict_v2_pb2 as pb

    if not image_options and not array_options:
        raise click.UsageError("nothing to send: give --image FILE or --input NAME=FILE.npy")
    with connect() as client:
        metadata = client.metadata(name, version)
        request = pb.ModelInferRequest(model_name=name, model_version=version)
        for tensor, files in _group_images(image_options, metadata).items():
            _add_images(request, tensor, files)
        for option in array_options:
            _add_array(request, option, metadata)
        for output in outputs:
            request.outputs.add(name=output)
        response = client.infer(request)
    arrays = _read_outputs(response)
    click.echo(_as_json(response, arrays) if as_json else _as_text(response, arrays))


def _group_images(
    options: Sequence[str], metadata: pb.ModelMetadataResponse
) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    names = [tensor.name for tensor in metadata.inputs]
    for option in options:
        name, equals, file = option.partition("=")
        if not equals or name not in names:
            if len(names) != 1:
                raise click.UsageError(
                    f"{metadata.name} has the inputs {', '.join(names)}; say which one: "
                    f"--image {names[0]}={option}"
                )
            name, file = names[0], option
        groups.setdefault(name, []).append(_existing(file))
    return groups


def _existing(file: str) -> Path:
    path = Path(file)
    if not path.is_file():
        raise click.UsageError(f"no such file: {file}")
    return path


def _add_images(request: pb.ModelInferRequest, tensor: str, files: Sequence[Path]) -> None:
    request.inputs.add(name=tensor, datatype="BYTES", shape=[len(files)])
    request.raw_input_contents.append(_frame([path.read_bytes() for path in files]))


def _frame(items: Sequence[bytes]) -> bytes:
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def _add_array(
    request: pb.ModelInferRequest, option: str, metadata: pb.ModelMetadataResponse
) -> None:
    name, equals, file = option.partition("=")
    declared = {tensor.name: tensor.datatype for tensor in metadata.inputs}
    if not equals or name not in declared:
        raise click.UsageError(
            f"--input {option}: expected NAME=FILE.npy with one of the inputs {', '.join(declared)}"
        )
    if any(tensor.name == name for tensor in request.inputs):
        raise click.UsageError(f"the input {name} is given twice")
    array = _load(file)
    request.raw_input_contents.append(_encode(array, name, declared[name], file))
    request.inputs.add(name=name, datatype=declared[name], shape=array.shape)


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


def _encode(array: Array, name: str, datatype: str, file: str) -> bytes:
    """The array as raw contents; refused unless it holds what the input takes."""
    import numpy as np

    found = f"{file} holds {array.dtype}; the input {name} takes {datatype}"
    if datatype not in DATATYPES:
        raise click.UsageError(f"{found}, which no .npy file can hold")
    if datatype == "BYTES":
        if array.dtype.kind not in "SU":
            raise click.UsageError(f"{found}, numpy's S (bytes) or U (text)")
        items = [item.encode() if isinstance(item, str) else item for item in array.ravel()]
        return _frame(items)
    expected = np.dtype(DATATYPES[datatype].numpy)
    if array.dtype.newbyteorder("<") != expected:
        raise click.UsageError(f"{found}, numpy's {expected}")
    return array.astype(expected).tobytes()


def _read_outputs(response: pb.ModelInferResponse) -> dict[str, tuple[str, Array]]:
    """Every output's datatype and values, from raw contents or from the typed ones."""
    arrays = {}
    for index, output in enumerate(response.outputs):
        if output.datatype not in DATATYPES:
            raise click.ClickException(
                f"the output {output.name} is {output.datatype}, which cannot be shown; "
                "ask for others with --output"
            )
        try:
            if response.raw_output_contents:
                array = _from_raw(output.datatype, response.raw_output_contents[index])
            else:
                array = _from_contents(output)
            arrays[output.name] = (output.datatype, array.reshape(tuple(output.shape)))
        except (ValueError, IndexError):
            raise click.ClickException(
                f"the values of the output {output.name} do not fill its shape "
                f"{list(output.shape)}: the server's answer is broken"
            ) from None
    return arrays


def _from_contents(output: pb.ModelInferResponse.InferOutputTensor) -> Array:
    import numpy as np

    row = DATATYPES[output.datatype]
    values = list(getattr(output.contents, row.field)) if row.field else []
    return np.array(values, row.numpy)


def _from_raw(datatype: str, data: bytes) -> Array:
    import numpy as np

    if datatype != "BYTES":
        return np.frombuffer(data, DATATYPES[datatype].numpy)
    items, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        items.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return np.array(items, np.object_)


def _as_text(response: pb.ModelInferResponse, arrays: dict[str, tuple[str, Array]]) -> str:
    import numpy as np

    lines = [f"{response.model_name}, version {response.model_version}"]
    for name, (datatype, array) in arrays.items():
        lines.append(f"{name} {datatype} {list(array.shape)}")
        with np.printoptions(threshold=_MAX_VALUES_SHOWN, precision=4, suppress=True):
            lines += [f"  {line}" for line in str(array).splitlines()]
        if array.ndim == 2 and array.dtype.kind == "f" and array.shape[1] > 1 and len(array):
            best = [f"{row.argmax()} ({row.max():.4g})" for row in array[:_MAX_VALUES_SHOWN]]
            lines.append(f"  highest in each row: {', '.join(best)}")
    return "\n".join(lines)


def _as_json(response: pb.ModelInferResponse, arrays: dict[str, tuple[str, Array]]) -> str:
    outputs = [
        {"name": name, "datatype": datatype, "shape": list(array.shape), "data": _plain(array)}
        for name, (datatype, array) in arrays.items()
    ]
    answer = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "outputs": outputs,
    }
    return json.dumps(answer)


def _plain(array: Array) -> list[Any]:
    """Values in one flat list; BYTES as text, with what is no UTF-8 escaped."""
    values: list[Any] = array.ravel().tolist()
    return [
        value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
        for value in values
    ]
