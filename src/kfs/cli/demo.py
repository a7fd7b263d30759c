"""`kfs-fast demo`: the whole way, from image files over gRPC to answers."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import click

from kfs.cli.client import Client, connect
from kfs.cli.console import print_table, set_up_logging
from kfs.digits import INPUT, MODEL_NAME, MODEL_PATH, DigitImage, images
from kfs.settings import ModelSettings, ServerSettings

if TYPE_CHECKING:
    from kfs._proto import grpc_predict_v2_pb2 as pb


@click.command(short_help="Let the bundled network read digits.")
def demo() -> None:
    """Start a server, let it read handwritten digits, and stop it."""
    from kfs.cli.app import Server, StartError
    from kfs.errors import ModelLoadError

    set_up_logging("WARNING")
    settings = ServerSettings(
        models=(ModelSettings(MODEL_NAME, MODEL_PATH),), port=0, grpc_bind_address=("127.0.0.1",)
    )
    try:
        with Server(settings) as server:
            url = f"127.0.0.1:{server.port}"
            click.echo(f"Serving {MODEL_NAME} on {url}; sending PNG files as BYTES")
            with connect(url, timeout_s=30) as client:
                _classify(client, images())
    except (StartError, ModelLoadError) as error:
        raise click.ClickException(str(error)) from None


def _classify(client: Client, digits: list[DigitImage]) -> None:
    client.infer(_request(digits[0]))  # the first call also opens the connection
    rows, latencies_ms, n_correct = [], [], 0
    for digit in digits:
        request = _request(digit)
        begin = time.perf_counter()
        response = client.infer(request)
        latencies_ms.append((time.perf_counter() - begin) * 1000)
        prediction, confidence = _best(response.raw_output_contents[0])
        n_correct += prediction == digit.truth
        mark = "" if prediction == digit.truth else "  wrong"
        rows.append([digit.path.name, str(digit.truth), f"{prediction}{mark}",
                     f"{confidence:.1%}", f"{latencies_ms[-1]:.2f} ms"])  # fmt: skip
    print_table(
        "Handwritten digits", ["image", "truth", "prediction", "confidence", "latency"], rows
    )
    click.echo(
        f"{n_correct} of {len(digits)} correct, median latency "
        f"{statistics.median(latencies_ms):.2f} ms"
    )


def _request(digit: DigitImage) -> pb.ModelInferRequest:
    from kfs._proto import grpc_predict_v2_pb2 as pb

    request = pb.ModelInferRequest(model_name=MODEL_NAME)
    tensor = request.inputs.add(name=INPUT, datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(digit.path.read_bytes())
    return request


def _best(probabilities: bytes) -> tuple[int, float]:
    """The most probable digit and its probability, from ten FP32 values."""
    import numpy as np

    values = np.frombuffer(probabilities, "<f4")
    return int(values.argmax()), float(values.max())
