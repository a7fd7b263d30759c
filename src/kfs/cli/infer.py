"""`kfs-fast infer`: one request from files, one readable answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kfs.cli.client import Connect, server_options
from kfs.cli.inputs import input_options, read_inputs
from kfs.datatypes import DATATYPES

if TYPE_CHECKING:
    import numpy.typing as npt

    from kfs._proto import grpc_predict_v2_pb2 as pb

    Array = npt.NDArray[Any]

_MAX_VALUES_SHOWN = 32


@click.command(short_help="Send files and print the answer.")
@click.argument("name")
@input_options
@click.option("--output", "outputs", metavar="NAME", multiple=True,
              help="An output to ask for; all otherwise.")  # fmt: skip
@click.option("--version", metavar="N", default="", help="The version; the default one otherwise.")
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
        for tensor in read_inputs(image_options, array_options, metadata):
            tensor.add_raw(request)
        for output in outputs:
            request.outputs.add(name=output)
        response = client.infer(request)
    arrays = _read_outputs(response)
    click.echo(_as_json(response, arrays) if as_json else _as_text(response, arrays))


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
