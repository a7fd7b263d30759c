"""`kfs-fast check`: what would be served, without serving it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfs.cli.console import print_outline, print_table

if TYPE_CHECKING:
    from kfs.repository.catalog import Catalog
    from kfs.repository.config import Wanted
    from kfs.repository.versions import Entry
    from kfs.servables.base import Servable


@dataclass(frozen=True)
class _Finding:
    """One line of the report: a version that would be served, or why a name would not be."""

    name: str
    version: str = ""
    error: str = ""
    servable: Servable | None = None


@click.command(short_help="Look for faults in a config.json.")
@click.option("--config_path", metavar="FILE", required=True,
              type=click.Path(dir_okay=False, path_type=Path),
              help="The config.json to look at.")  # fmt: skip
@click.option("--cpu_extension", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="A library with operations of your own, for OpenVINO.")  # fmt: skip
def check(*, config_path: Path, cpu_extension: Path | None) -> None:
    """Validate a config.json and load all that it names, without serving it.

    Exit code 0 when everything in it can be served, else 1.
    """
    from kfs.errors import ModelLoadError
    from kfs.repository.catalog import Catalog
    from kfs.repository.config import read_config
    from kfs.repository.repository import Repository
    from kfs.repository.schema import ConfigError
    from kfs.servables.model import add_extension
    from kfs.settings import ModelSettings

    try:
        if cpu_extension is not None:
            add_extension(cpu_extension)
        wanted = read_config(config_path, ModelSettings("", ""))
    except (ConfigError, ModelLoadError) as error:
        raise click.ClickException(str(error)) from None
    catalog = Catalog()
    repository = Repository(catalog, lambda: wanted, config_path, lambda name, serving: None)
    with closing(repository):
        repository.load()
        findings = [*_look(catalog), *_look_beside(wanted)]
        _report(config_path, findings)
    broken = len({found.name for found in findings if found.error})
    names = len({found.name for found in findings})
    click.echo(f"{broken} of {names} cannot be served" if broken else "Everything is fine")
    sys.exit(1 if broken else 0)


def _look(catalog: Catalog) -> Iterator[_Finding]:
    for name, entry in catalog.snapshot.items():
        yield from _look_at(name, entry, catalog)


def _look_beside(wanted: Wanted) -> Iterator[_Finding]:
    """The files beside graphs that are broken."""
    for path, file in wanted.beside.items():
        if file.error is not None:
            yield _Finding(str(path), error=file.error.removeprefix(f"{path}: "))


def _look_at(name: str, entry: Entry, catalog: Catalog) -> Iterator[_Finding]:
    versions = sorted(entry.versions.values(), key=lambda version: version.version)
    failed = [version.error for version in versions if version.error is not None]
    if not failed and (entry.error is not None or not versions):
        error = entry.error or "no version to serve"
        yield _Finding(name, error=error.removeprefix(f"{name}: "))
    for version in versions:
        text = str(version.version) if version.kind.has_versions else ""
        error = version.error or _lack(version.servable, catalog)
        yield _Finding(name, text, error, version.servable)


def _lack(servable: Servable | None, catalog: Catalog) -> str:
    """What its requests will ask for in vain; empty for nothing."""
    from kfs.errors import ServingError
    from kfs.servables.base import CallContext
    from kfs.servables.graph import Graph

    for name, version in () if servable is None else servable.needs():
        try:
            with catalog.lease(name, version, CallContext()) as needed:
                is_graph = isinstance(needed, Graph)
        except ServingError as error:
            return f"its requests need {name}: {error}"
        if is_graph:
            return f"its requests need {name}, which is a graph; expected a model or a pipeline"
    return ""


def _report(config_path: Path, findings: list[_Finding]) -> None:
    print_table(
        f"What {config_path} would serve",
        ["name", "version", "inputs", "outputs", "result"],
        [[found.name, found.version, *_tensors(found.servable), found.error or "ok"]
         for found in findings],
    )  # fmt: skip
    for found in findings:
        outline = None if found.servable is None else found.servable.outline()
        if outline is not None:
            click.echo()
            print_outline(outline)


def _tensors(servable: Servable | None) -> tuple[str, str]:
    from kfs.servables.outline import format_tensor

    if servable is None:
        return "", ""
    signature = servable.signature
    return (
        ", ".join(map(format_tensor, signature.inputs)),
        ", ".join(map(format_tensor, signature.outputs)),
    )
