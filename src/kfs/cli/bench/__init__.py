"""`kfs-fast bench`: the rate and the latencies of any server of the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfs.cli.bench.request import make_tensors
from kfs.cli.client import Connect, server_options
from kfs.cli.console import progress
from kfs.cli.inputs import Tensor, input_options, read_inputs
from kfs.cli.numbers import Real

if TYPE_CHECKING:
    from kfs._proto import grpc_predict_v2_pb2 as pb
    from kfs.cli.bench.load import Load
    from kfs.cli.bench.results import Level, Run

_MAX_CONCURRENCY = 10_000
_PICTURES = (".png", ".svg")


def _parse_concurrency(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        counts = [int(count) for count in value.split(",")]
    except ValueError:
        counts = [0]
    if not all(1 <= count <= _MAX_CONCURRENCY for count in counts):
        raise click.BadParameter(
            f"{value!r}: expected numbers from 1 to {_MAX_CONCURRENCY}, as in 1,4,16"
        )
    return list(dict.fromkeys(counts))


def _check_folder(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    if value and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {value.parent}")
    return value


def _check_picture(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    if value and value.suffix.lower() not in _PICTURES:
        raise click.BadParameter(f"{value}: expected a name that ends in {' or '.join(_PICTURES)}")
    if value and not find_spec("matplotlib"):
        raise click.ClickException(
            "a picture needs matplotlib: pip install matplotlib, or 'kfs-fast[bench]'"
        )
    return _check_folder(context, parameter, value)


_NEW_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)
_SAVED = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Measure how fast a server answers.")
@click.argument("name", required=False)
@click.option("--shape", "shape_options", multiple=True, metavar="INPUT:SIZE,...",
              help="The shape to send, as in image:1,3,224,224; INPUT:DATATYPE:SIZE,... where the "
                   "server does not say what it takes.")  # fmt: skip
@input_options
@click.option("--mode", type=click.Choice(["raw", "contents"]), default="raw", show_default=True,
              help="How tensors travel: as memory, or as typed values.")  # fmt: skip
@click.option("--concurrency", default="1", show_default=True, callback=_parse_concurrency,
              metavar="N,...", help="Connections, each with one call under way, one measurement "
                                    "after the other.")  # fmt: skip
@click.option("--duration", "duration_s", metavar="N", type=Real(0.01, 86400), default=5.0,
              show_default=True, help="Seconds of each measurement.")  # fmt: skip
@click.option("--warmup", "warm_up_s", metavar="N", type=Real(0, 3600), default=1.0,
              show_default=True, help="Seconds of calls before it.")  # fmt: skip
@click.option("--version", metavar="N", default="", help="The version; the default one otherwise.")
@click.option("--json", "json_path", type=_NEW_FILE, callback=_check_folder, metavar="FILE",
              help="Save the results.")  # fmt: skip
@click.option("--plot", "plot_path", type=_NEW_FILE, callback=_check_picture,
              metavar="FILE.png|FILE.svg", help="Draw the latencies.")  # fmt: skip
@click.option("--compare", "saved", nargs=2, type=_SAVED, metavar="A.json B.json",
              help="Measure nothing; put two saved results side by side.")  # fmt: skip
@server_options
def bench(
    *,
    name: str | None,
    shape_options: Sequence[str],
    image_options: Sequence[str],
    array_options: Sequence[str],
    mode: str,
    concurrency: Sequence[int],
    duration_s: float,
    warm_up_s: float,
    version: str,
    json_path: Path | None,
    plot_path: Path | None,
    saved: tuple[Path, Path] | None,
    url: str,
    connect: Connect,
) -> None:
    """Measure how fast the servable NAME answers, at any server of the protocol.

    Separate processes send one request over and over; a connection sends the next when it has
    the answer to the last. What the servable takes is asked from the server, and values are made
    up unless files are given.
    """
    if saved:
        _compare(saved, plot_path)
        return
    if not name:
        raise click.UsageError("name a servable, or give --compare A.json B.json")
    from kfs.cli.bench.load import Load
    from kfs.cli.bench.results import Run, machine, now

    with connect() as client:
        metadata = client.metadata(name, version)
        given = read_inputs(image_options, array_options, metadata)
        tensors = make_tensors(metadata, shape_options, given)
        request = _make_request(name, version, tensors, mode)
        # What is wrong with it is better told now than by thousands of failures.
        client.infer(request)
        server = client.server()
    load = Load(connect, request.SerializeToString(), warm_up_s, duration_s)
    run = Run(
        model=name,
        url=url,
        server=server,
        mode=mode,
        inputs=[f"{tensor.name} {tensor.datatype} {list(tensor.shape)}" for tensor in tensors],
        request_nbytes=len(load.request),
        duration_s=duration_s,
        levels=[_measure(load, count) for count in concurrency],
        when=now(),
        client=machine(),
    )
    _finish(run, json_path, plot_path)


def _make_request(
    name: str, version: str, tensors: Sequence[Tensor], mode: str
) -> pb.ModelInferRequest:
    from kfs._proto import grpc_predict_v2_pb2 as pb

    request = pb.ModelInferRequest(model_name=name, model_version=version)
    for tensor in tensors:
        if mode == "raw":
            tensor.add_raw(request)
        else:
            tensor.add_contents(request)
    return request


def _measure(load: Load, concurrency: int) -> Level:
    """One level, with progress while it is measured and a line when it is."""
    from kfs.cli.bench.load import LoadError, measure
    from kfs.cli.bench.report import clients, milliseconds, rate
    from kfs.cli.bench.results import Level

    def tell(n_calls: int, share: float) -> None:
        show(f"{clients(concurrency)}: {rate(n_calls / (share * load.duration_s))} calls/s", share)

    with progress() as show:
        show(f"{clients(concurrency)}: warming up", 0)
        try:
            tally = measure(load, concurrency, tell)
        except LoadError as error:
            raise click.ClickException(str(error)) from None
    level = Level.of(tally, concurrency, load.duration_s)
    median = f", median {milliseconds(level.latency_us['p50'])} ms" if level.calls else ""
    click.echo(f"{clients(concurrency)}: {rate(level.rate_per_s)} calls/s{median}", err=True)
    return level


def _finish(run: Run, json_path: Path | None, plot_path: Path | None) -> None:
    from kfs.cli.bench.report import show

    show(run)
    try:
        if json_path:
            run.save(json_path)
        if plot_path:
            _draw({run.when: run}, plot_path)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    if not any(level.calls for level in run.levels):
        raise click.ClickException("no call succeeded")


def _compare(saved: tuple[Path, Path], plot_path: Path | None) -> None:
    from kfs.cli.bench.report import compare
    from kfs.cli.bench.results import NoResultsError, Run

    try:
        first, second = ((str(path), Run.load(path)) for path in saved)
    except NoResultsError as error:
        raise click.UsageError(str(error)) from None
    compare(first, second)
    if plot_path:
        _draw({"A": first[1], "B": second[1]}, plot_path)


def _draw(runs: dict[str, Run], path: Path) -> None:
    from kfs.cli.bench.plot import draw_runs

    draw_runs(runs, path)
