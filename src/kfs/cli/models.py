"""`kfs-fast models`: what a running server serves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from kfs.cli.client import Client, Connect, server_options
from kfs.cli.console import print_table


@click.command(short_help="List what a server serves.")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@server_options
def models(*, names: Sequence[str], as_json: bool, url: str, connect: Connect) -> None:
    """List servables, or the named ones: readiness, versions, tensors and errors.

    Exit code 1 when one that was named is not ready.
    """
    with connect() as client:
        index = client.index()
        wanted = names or sorted(index) or client.servables()
        rows = [_describe(client, name) for name in wanted]
    for row in rows:
        row["states"] = {model.version: model.state for model in index.get(row["name"], [])}
        reasons = [_reason(model) for model in index.get(row["name"], []) if model.reason]
        row["error"] = "; ".join(dict.fromkeys(reasons)) or row["error"]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        _print(url, rows)
    if names and not all(row["ready"] for row in rows):
        sys.exit(1)


def _print(url: str, rows: Sequence[dict[str, Any]]) -> None:
    print_table(
        f"Servables of {url}",
        ["name", "ready", "versions", "inputs", "outputs", "error"],
        [
            [row["name"], "yes" if row["ready"] else "no", _versions(row),
             ", ".join(row["inputs"]), ", ".join(row["outputs"]), row["error"]]
            for row in rows
        ],
    )  # fmt: skip


def _reason(model: Any) -> str:
    """Why a version is not served, or why a name goes on as it was."""
    is_of_version = model.version and model.state != "READY"
    return f"version {model.version}: {model.reason}" if is_of_version else model.reason


def _versions(row: dict[str, Any]) -> str:
    """`1, 2 (loading)`: versions, with the state of those that are not ready."""
    states = row["states"] or dict.fromkeys(row["versions"], "READY")
    return ", ".join(
        version if state == "READY" else f"{version} ({state.lower()})"
        for version, state in states.items()
        if version
    )


def _describe(client: Client, name: str) -> dict[str, Any]:
    import grpc

    row: dict[str, Any] = {
        "name": name, "ready": False, "versions": [], "inputs": [], "outputs": [], "error": "",
    }  # fmt: skip
    try:
        row["ready"] = client.is_ready(name)
        metadata = client.metadata(name)
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE) or (
            "Model" not in str(error.details())
        ):
            raise
        row["error"] = error.details()
        return row
    row["versions"] = list(metadata.versions)
    row["inputs"] = _tensors(metadata.inputs)
    row["outputs"] = _tensors(metadata.outputs)
    return row


def _tensors(tensors: Iterable[Any]) -> list[str]:
    return [f"{tensor.name} {tensor.datatype} {list(tensor.shape)}" for tensor in tensors]
