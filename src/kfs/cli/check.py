"""`kfs-fast check`: what would be served, without serving it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfs.cli.console import print_table

if TYPE_CHECKING:
    from kfs.repository.storage import Storage
    from kfs.settings import ModelSettings
    from kfs.signature import TensorSpec


@dataclass(frozen=True)
class _Finding:
    """One line of the report."""

    name: str
    version: str
    inputs: str = ""
    outputs: str = ""
    error: str = ""


@click.command()
@click.option("--config_path", metavar="FILE", required=True,
              type=click.Path(dir_okay=False, path_type=Path),
              help="The config.json to look at.")  # fmt: skip
def check(*, config_path: Path) -> None:
    """Validate a config.json and load its models, without serving them.

    Exit code 0 when everything in it can be served, else 1.
    """
    from kfs.repository.config import ConfigError, read_config
    from kfs.settings import ModelSettings

    try:
        wanted = read_config(config_path, ModelSettings("", ""))
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    findings = [_Finding(name, "", error=error) for name, error in wanted.broken.items()]
    for settings in wanted.models.values():
        findings.extend(_try(settings))
    print_table(
        f"What {config_path} would serve",
        ["name", "version", "result", "inputs", "outputs"],
        [[found.name, found.version, found.error or "ok", found.inputs, found.outputs]
         for found in findings],
    )  # fmt: skip
    broken = sum(bool(found.error) for found in findings)
    click.echo(f"{broken} of {len(findings)} cannot be served" if broken else "Everything is fine")
    sys.exit(1 if broken else 0)


def _try(settings: ModelSettings) -> Iterator[_Finding]:
    """Load the versions that the policy chooses, one after the other."""
    from kfs.errors import ModelLoadError
    from kfs.repository.storage import open_storage

    try:
        storage = open_storage(str(settings.base_path))
    except ModelLoadError as error:
        yield _Finding(settings.name, "", error=str(error))
        return
    with closing(storage):
        yield from _try_versions(settings, storage)


def _try_versions(settings: ModelSettings, storage: Storage) -> Iterator[_Finding]:
    from kfs.errors import ModelLoadError
    from kfs.servables.model import Model

    try:
        there = storage.find_versions()
    except ModelLoadError as error:
        yield _Finding(settings.name, "", error=str(error))
        return
    chosen = settings.version_policy.choose(frozenset(there))
    if not chosen:
        yield _Finding(settings.name, "", error=f"no version to serve in {settings.base_path}")
    for version in sorted(chosen):
        try:
            folder = storage.fetch(there[version])
        except ModelLoadError as error:
            yield _Finding(settings.name, str(version), error=str(error))
            continue
        try:
            signature = Model.load(settings, version, folder.path).signature
        except ModelLoadError as error:
            yield _Finding(settings.name, str(version), error=str(error))
        else:
            inputs, outputs = _tensors(signature.inputs), _tensors(signature.outputs)
            yield _Finding(settings.name, str(version), inputs, outputs)
        finally:
            folder.remove()


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    from kfs.signature import format_shape

    return ", ".join(
        f"{spec.name} {spec.datatype.label} {format_shape(spec.shape)}" for spec in specs
    )
