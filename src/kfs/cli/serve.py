"""`kfs-fast serve`: OVMS's flags, each served, or refused by name with the reason."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kfs import __version__
from kfs.cli.console import LOG_LEVELS, set_up_logging, show_any_text
from kfs.cli.cores import bind_no_threads
from kfs.cli.malloc import keep_freed_memory
from kfs.cli.model_options import OF_ONE_MODEL, check_together, model_options
from kfs.cli.numbers import Whole
from kfs.cli.refused import refused_flags
from kfs.cli.signals import end_signals
from kfs.digits import MODEL_NAME, MODEL_PATH, images
from kfs.metrics.families import DEFAULT, check_names
from kfs.repository.folders import find_graph, resolve_path
from kfs.settings import (
    MAX_PIXELS_VARIABLE,
    SHARED_METRICS_VARIABLE,
    GraphSettings,
    ModelSettings,
    ServerSettings,
)

# Python refuses to read very long numbers.
_MAX_DIGITS = 100

#: The sections of --help, and the options in each; what is in none of them comes last.
_SECTIONS = {
    "Model": ("model_name", "model_path", "config_path", "version_policy", "poll_wait_s"),
    "Options of a model": ("shapes", "batch", "layouts", "mean", "scale", "color_format",
                           "precision", "nireq", "max_waiting_calls", "max_image_pixels",
                           "target_device", "plugin_config", "cache_dir", "cpu_extension"),
    "gRPC": ("port", "grpc_bind_address", "n_workers", "grpc_max_threads", "max_streams",
             "grpc_channel_arguments", "drain_s"),
    "HTTP, for probes and metrics": ("rest_port", "rest_bind_address", "metrics_enable",
                                     "metric_names"),
    "Memory": ("kept_memory_mib",),
    "TLS": ("certificate_path", "key_path", "client_ca_path"),
    "Logs": ("log_level", "log_path", "log_format"),
    "Pipelines": ("custom_node_resources_cleaner_interval_seconds",),
}  # fmt: skip


class _ServeCommand(click.Command):
    """A command whose --help has sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = {option.name: option for option in self.get_params(ctx)}
        sections = {
            title: [options.pop(name) for name in names] for title, names in _SECTIONS.items()
        }
        sections["Other"] = list(options.values())
        for title, members in sections.items():
            records = [option.get_help_record(ctx) for option in members]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record])


def _parse_arguments(
    context: click.Context, option: click.Parameter, text: str | None
) -> dict[str, str | int]:
    arguments: dict[str, str | int] = {}
    for pair in (text or "").split(","):
        key, equals, value = pair.partition("=")
        if not equals and pair:
            raise click.BadParameter(f"expected key=value,key=value; found {pair}")
        if key:
            arguments[key.strip()] = _parse_number(value) if _is_number(value) else value
    return arguments


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _parse_number(text: str) -> int:
    """A number as gRPC takes it, an int of C."""
    number = int(text) if len(text) <= _MAX_DIGITS else None
    if number is None or not -(1 << 31) <= number < 1 << 31:
        raise click.BadParameter(f"expected numbers of 32 bits; found {text}")
    return number


def _parse_addresses(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    addresses = tuple(address.strip() for address in text.split(","))
    if not all(addresses):
        raise click.BadParameter(f"expected addresses with commas between; found {text!r}")
    return addresses


def _parse_metrics(
    context: click.Context, option: click.Parameter, text: str | None
) -> frozenset[str] | None:
    if text is None:
        return None
    try:
        return check_names(name.strip() for name in text.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _choose_metrics(
    enable: bool, names: frozenset[str] | None, rest_port: int | None
) -> frozenset[str]:
    if names is not None and not enable:
        raise click.UsageError("--metrics_list needs --metrics_enable")
    if not enable:
        return frozenset()
    if rest_port is None:
        raise click.UsageError("rest_port setting is missing, metrics are enabled on rest port")
    return DEFAULT if names is None else names


@click.command(
    cls=_ServeCommand,
    short_help="Serve models.",
    epilog="Any other flag of OVMS is refused with the reason.",
)
@click.option("--model_name", metavar="NAME", help="The name that clients use for the model.")
@click.option("--model_path", metavar="PATH",
              help="A folder with version folders (1, 2, ...), or one model file.")  # fmt: skip
@click.option("--port", metavar="N", type=Whole(0, 65535), default=9000,
              show_default=True, help="The gRPC port; 0 takes a free one.")  # fmt: skip
@click.option("--grpc_bind_address", metavar="ADDRESS,...", default="0.0.0.0", show_default=True,
              callback=_parse_addresses,
              help="IPv4 or IPv6 addresses or host names to listen on.")  # fmt: skip
@click.option("--rest_port", metavar="N", type=Whole(0, 65535),
              help="An HTTP port for /metrics, /v2/health/live and /v2/health/ready; 0 takes a "
              "free one.")  # fmt: skip
@click.option("--rest_bind_address", metavar="ADDRESS,...", default="0.0.0.0", show_default=True,
              callback=_parse_addresses, help="What that port listens on.")  # fmt: skip
@click.option("--metrics_enable", is_flag=False, flag_value="true", default=False, type=bool,
              metavar="[true|false]", help="Offer metrics for Prometheus.")  # fmt: skip
@click.option("--metrics_list", "metric_names", metavar="NAME,...", callback=_parse_metrics,
              help="These families of metrics instead of the usual ones.")  # fmt: skip
@click.option("--config_path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="A JSON file that lists models and their options; watched for changes.",
              )  # fmt: skip
@click.option("--file_system_poll_wait_seconds", "poll_wait_s", metavar="N",
              type=Whole(0), default=1, show_default=True,
              help="Seconds between looks for changed files and versions; 0 for never.",
              )  # fmt: skip
@click.option("--cpu_extension", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="A library with operations of your own, for OpenVINO.")  # fmt: skip
@model_options
@click.option("--max_image_pixels", metavar="N", type=Whole(1, 1 << 40),
              default=1 << 27, show_default=True, envvar=MAX_PIXELS_VARIABLE, show_envvar=True,
              help="Pixels of an encoded image; larger ones are refused.")  # fmt: skip
@click.option("--grpc_certificate_path", "certificate_path", metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path),
              help="TLS: the server's certificate, PEM. Read again when it changes.")  # fmt: skip
@click.option("--grpc_key_path", "key_path", metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path),
              help="TLS: its private key, PEM.")  # fmt: skip
@click.option("--grpc_ca_path", "client_ca_path", metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path),
              help="TLS: who signs the certificates that clients then need.")  # fmt: skip
@click.option("--log_level", metavar="|".join(LOG_LEVELS), default="INFO", show_default=True,
              type=click.Choice(list(LOG_LEVELS), case_sensitive=False),
              help="What is logged.")  # fmt: skip
@click.option("--log_path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="A file to log to as well.")  # fmt: skip
@click.option("--log_format", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="Lines for people, or an object a line.")  # fmt: skip
@click.option("--drain_seconds", "drain_s", metavar="N", type=Whole(0), default=30,
              show_default=True,
              help="What running calls get to finish when the server stops.")  # fmt: skip
@click.option("--max_streams", metavar="N", type=Whole(1), default=1000,
              show_default=True, help="Streams open at a time; more are refused.")  # fmt: skip
@click.option("--grpc_max_threads", metavar="N", type=Whole(0), default=0,
              help="Calls that run at a time; 0 for 8 per core, at least 64.")  # fmt: skip
@click.option("--kept_memory_mib", metavar="N", type=Whole(0, 2047), default=256,
              show_default=True,
              help="Freed memory to keep for the next messages; 0 leaves it to glibc.")  # fmt: skip
@click.option("--grpc_channel_arguments", metavar="KEY=VALUE,...", callback=_parse_arguments,
              help="Options handed to gRPC as they are.")  # fmt: skip
@click.option("--custom_node_resources_cleaner_interval_seconds", metavar="N",
              type=Whole(0), default=300, show_default=True, expose_value=False,
              help="Taken, and without effect: what a custom node holds is given back as soon as "
              "nothing uses it.")  # fmt: skip
@click.option("--grpc_workers", "--workers", "n_workers", metavar="N", default=1,
              type=Whole(1, 1024), show_default=True,
              help="Server processes on the port, each with its part of the cores.")  # fmt: skip
@click.version_option(__version__, prog_name="kfs-fast")
@refused_flags
def serve(
    *,
    model_name: str | None,
    model_path: str | None,
    config_path: Path | None,
    poll_wait_s: float,
    cpu_extension: Path | None,
    max_image_pixels: int,
    port: int,
    grpc_bind_address: tuple[str, ...],
    log_level: str,
    log_path: Path | None,
    log_format: str,
    rest_port: int | None,
    rest_bind_address: tuple[str, ...],
    metrics_enable: bool,
    metric_names: frozenset[str] | None,
    drain_s: int,
    certificate_path: Path | None,
    key_path: Path | None,
    client_ca_path: Path | None,
    n_workers: int,
    grpc_max_threads: int,
    max_streams: int,
    kept_memory_mib: int,
    grpc_channel_arguments: dict[str, str | int],
    **model_values: Any,
) -> None:
    """Serve models until SIGTERM or SIGINT.

    Without --model_name, --model_path and --config_path, the bundled example is served.
    Options may be written with dashes or underscores.
    """
    log = partial(set_up_logging, log_level.upper(), log_path, as_json=log_format == "json")
    try:
        log()
    except OSError as error:
        raise click.ClickException(f"--log_path {log_path}: {error.strerror}") from None
    check_together(model_values)
    _check_tls(certificate_path, key_path, client_ca_path)
    metrics = _choose_metrics(metrics_enable, metric_names, rest_port)
    if n_workers > 1 and any(host.startswith("unix:") for host in grpc_bind_address):
        raise click.UsageError("--workers needs ports; a unix: socket takes one process")
    if port == rest_port != 0:
        raise click.UsageError(f"--port and --rest_port are both {port}; they have to differ")
    models: tuple[ModelSettings, ...] = ()
    graphs: tuple[GraphSettings, ...] = ()
    if config_path is None:
        models, graphs = _choose_servable(model_name, model_path, port, model_values)
    else:
        _refuse_flags_of_one_model(config_path)
    settings = ServerSettings(
        models=models,
        graphs=graphs,
        config_path=config_path,
        defaults=ModelSettings("", "", **model_values),
        poll_wait_s=poll_wait_s,
        cpu_extension=cpu_extension,
        metrics=metrics,
        port=port,
        rest_port=rest_port,
        rest_bind_address=rest_bind_address,
        grpc_bind_address=grpc_bind_address,
        certificate_path=certificate_path,
        key_path=key_path,
        client_ca_path=client_ca_path,
        n_workers=n_workers,
        grpc_max_threads=grpc_max_threads,
        max_streams=max_streams,
        grpc_channel_arguments=grpc_channel_arguments,
        drain_s=drain_s,
    )
    _set_environment(max_image_pixels)
    bind_no_threads()
    kept_nbytes = kept_memory_mib << 20
    with end_signals() as end:
        # OpenVINO takes its time to import.
        if n_workers > 1:
            from kfs.cli.workers import run_workers

            sys.exit(run_workers(settings, end, partial(_begin_worker, log, kept_nbytes)))
        keep_freed_memory(kept_nbytes)
        from kfs.cli.app import run

        sys.exit(run(settings, end))


def _set_environment(max_image_pixels: int) -> None:
    os.environ[MAX_PIXELS_VARIABLE] = str(max_image_pixels)  # OpenCV looks when it is imported
    # Workers are given a folder of ours; in that of another program nothing is counted. The
    # library still knows the older name, too.
    os.environ.pop(SHARED_METRICS_VARIABLE, None)
    os.environ.pop(SHARED_METRICS_VARIABLE.lower(), None)


def _begin_worker(set_up_logging: Callable[[], None], kept_nbytes: int) -> None:
    show_any_text()
    set_up_logging()
    keep_freed_memory(kept_nbytes)


def _check_tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise click.UsageError("--grpc_certificate_path and --grpc_key_path need each other")
    if client_ca is not None and certificate is None:
        raise click.UsageError("--grpc_ca_path needs --grpc_certificate_path and --grpc_key_path")


def _tell_of_example(name: str, port: int) -> None:
    example = images()[0].path
    click.echo(
        f"No model given: serving the bundled example as {name}. Try:\n"
        f"  kfs-fast infer {name} --image {example} --url localhost:{port or 'PORT'}",
        err=True,  # stdout is the log's, whose lines may have to be JSON
    )


def _given_flags(names: Collection[str]) -> Iterator[str]:
    """Those of the flags that are on the command line."""
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is ParameterSource.COMMANDLINE and option.name in names:
            yield option.opts[0]


def _refuse_flags_of_one_model(config_path: Path) -> None:
    for flag in _given_flags(OF_ONE_MODEL):
        raise click.UsageError(
            f"{flag} and --config_path exclude each other: say it in {config_path}"
        )


def _refuse_flags_of_models(graph: GraphSettings) -> None:
    for flag in _given_flags(set(OF_ONE_MODEL) - {"model_name", "model_path", "plugin_config"}):
        raise click.UsageError(
            f"{flag} is for models, and {graph.path} is a graph: say it in its subconfig.json"
        )


def _choose_servable(
    name: str | None, path: str | None, port: int, values: dict[str, Any]
) -> tuple[tuple[ModelSettings, ...], tuple[GraphSettings, ...]]:
    """The model or the graph that flags name, or the bundled example."""
    name, found = _choose_model(name, path)
    if path is None:
        _tell_of_example(name, port)
    graph = None if path is None else find_graph(name, Path(found))
    if graph is None:
        return (ModelSettings(name, found, **values),), ()
    _refuse_flags_of_models(graph)
    return (), (graph,)


def _choose_model(name: str | None, path: str | None) -> tuple[str, Path | str]:
    if name == "":
        raise click.UsageError("--model_name is empty; it is the name that clients use")
    if name is not None and path is not None:
        try:
            return name, resolve_path(path, Path.cwd())
        except ValueError as error:
            raise click.UsageError(f"--model_path {path}: {error}") from None
    if name is not None:
        raise click.UsageError("--model_name needs --model_path: where is the model?")
    if path is not None:
        raise click.UsageError("--model_path needs --model_name: what are clients to call it?")
    return MODEL_NAME, MODEL_PATH
