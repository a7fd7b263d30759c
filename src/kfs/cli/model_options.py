"""Flags that say how a model is to be served; what config.json says of each of its models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from kfs import options
from kfs.cli.numbers import Whole
from kfs.options import parse_by_tensor
from kfs.settings import PluginValue

_Command = TypeVar("_Command", bound=Callable[..., Any])
#: OVMS keeps compiled models here when the folder exists.
_DEFAULT_CACHE = Path("/opt/cache")

#: The property that may be an object: properties of the devices behind AUTO, HETERO or MULTI.
_NESTED = "DEVICE_PROPERTIES"

Parser = Callable[[str], Any]


def _parsed(parse: Parser, absent: Any = None) -> Callable[..., Any]:
    """A callback of click that turns a ValueError into the usual complaint."""

    def callback(context: click.Context, option: click.Parameter, text: str | None) -> Any:
        if text is None:
            return absent
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def _parse_plugin_config(text: str) -> dict[str, PluginValue]:
    example = """an object such as '{"NUM_STREAMS": "2", "PERFORMANCE_HINT": "THROUGHPUT"}'"""
    try:
        config = options.parse_json(text)
    except ValueError as error:
        raise ValueError(f"expected {example}; this is not JSON: {error}") from None
    if not isinstance(config, dict) or not all(
        isinstance(value, (str, bool, int, float))
        or (name == _NESTED and isinstance(value, dict) and _are_objects(value.values()))
        for name, value in config.items()
    ):
        raise ValueError(f"expected {example}, its values strings, numbers or booleans; "
                         f"found {text}")  # fmt: skip
    return config


def _are_objects(values: Iterable[object]) -> bool:
    return all(isinstance(value, dict) for value in values)


def _parse_version_policy(text: str) -> options.VersionPolicy:
    try:
        document = options.parse_json(text)
    except ValueError:
        document = text  # which is no policy either, and refused with what one looks like
    return options.parse_version_policy(document)


_OPTIONS = (
    click.option("--model_version_policy", "version_policy", metavar="JSON",
                 callback=_parsed(_parse_version_policy, options.VersionPolicy()),
                 help='Which versions are served: {"latest": {"num_versions": 2}}, {"all": {}} or '
                      '{"specific": {"versions": [1, 3]}}. The latest one is the default.'),
    click.option("--shape", "shapes", metavar="SHAPE|JSON",
                 callback=_parsed(lambda text: parse_by_tensor(text, options.parse_shape), {}),
                 help="Shapes of inputs: (1,3,-1,200:400), auto, or a JSON object by input."),
    click.option("--batch_size", "batch", metavar="N|A:B|auto",
                 callback=_parsed(options.parse_batch),
                 help="Batch of every input: a number, a range, -1, or auto."),
    click.option("--layout", "layouts", metavar="LAYOUT|JSON",
                 callback=_parsed(lambda text: parse_by_tensor(text, options.parse_layout), {}),
                 help="NHWC:NCHW where clients send the first and the model has the second; or "
                      "one name; or a JSON object by input or output."),
    click.option("--mean", metavar="X|[A,B,C]", callback=_parsed(options.parse_numbers, ()),
                 help="Subtracted from the input. Needs --layout."),
    click.option("--scale", metavar="X|[A,B,C]", callback=_parsed(options.parse_numbers, ()),
                 help="Divides the input. Needs --layout."),
    click.option("--color_format", metavar="MODEL:CLIENT",
                 callback=_parsed(options.parse_color_format),
                 help="Colours that the model wants and clients send: BGR:RGB."),
    click.option("--precision", metavar="CLIENT:MODEL",
                 callback=_parsed(options.parse_precision),
                 help="Datatypes that clients send and the model wants: uint8:fp32."),
    click.option("--nireq", metavar="N", type=Whole(0, 100_000), default=0,
                 help="Inferences at a time; 0 lets the device choose."),
    click.option("--max_waiting_calls", metavar="N", type=Whole(0), default=1000,
                 show_default=True,
                 help="Calls that wait for an inference of a model; more are refused."),
    click.option("--target_device", metavar="DEVICE", default="CPU", show_default=True,
                 help="An OpenVINO device."),
    click.option("--plugin_config", metavar="JSON", callback=_parsed(_parse_plugin_config, {}),
                 help="OpenVINO properties as a JSON object. Low latency is the default."),
    click.option("--cache_dir", metavar="FOLDER",
                 type=click.Path(file_okay=False, path_type=Path),
                 help="A folder that keeps compiled models; /opt/cache if it exists."),
)  # fmt: skip

#: Flags that belong to one model, so not to a config.json, which says them for each.
OF_ONE_MODEL = ("model_name", "model_path", "version_policy", "shapes", "batch", "layouts", "mean",
                "scale", "color_format", "precision", "plugin_config")  # fmt: skip


def model_options(command: _Command) -> _Command:
    """Give a command the flags of a model."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_together(values: dict[str, Any]) -> None:
    """Complain of flags that need each other; fill in the cache folder.

    Raises:
        click.UsageError: --mean or --scale without --layout.
    """
    for name in ("mean", "scale"):
        if values[name] and not values["layouts"]:
            raise click.UsageError(f"--{name} needs --layout: where are the channels?")
    if values["shapes"] and values["batch"] is not None:
        click.echo("--batch_size is ignored, since --shape is given", err=True)
        values["batch"] = None
    values["target_device"] = values["target_device"] or "CPU"
    if values["cache_dir"] is None and _DEFAULT_CACHE.is_dir():
        values["cache_dir"] = _DEFAULT_CACHE
