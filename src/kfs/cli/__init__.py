"""The command line: `kfs-fast serve | check | demo | infer | models | bench`."""

from __future__ import annotations

import os
import sys

import click

from kfs import __version__
from kfs.cli.bench import bench
from kfs.cli.check import check
from kfs.cli.console import show_any_text
from kfs.cli.demo import demo
from kfs.cli.infer import infer
from kfs.cli.models import models
from kfs.cli.serve import serve

#: sysexits.h: the command was used wrongly.
EX_USAGE = 64

# Dashes and underscores are the same in every option.
_SETTINGS = {
    "token_normalize_func": lambda token: token.replace("-", "_"),
    "help_option_names": ["--help", "-h"],
    "max_content_width": 100,
}


@click.group(context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="kfs-fast")
def cli() -> None:
    """A KServe v2 gRPC inference server for OpenVINO models."""


for command in (serve, check, demo, infer, models, bench):
    cli.add_command(command)


def main() -> None:
    """The console script: exit code 0, 64 when used wrongly, 1 when something failed."""
    _open_standard_streams()
    show_any_text()
    click.UsageError.exit_code = EX_USAGE
    cli.main(prog_name="kfs-fast")


def _open_standard_streams() -> None:
    """Let what was closed when the process began lead nowhere, for child processes as well.

    Otherwise the next file or connection gets its number, and what a library prints.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, mode)  # noqa: SIM115  # stays open
            os.set_inheritable(nowhere.fileno(), True)
            setattr(sys, name, nowhere)
