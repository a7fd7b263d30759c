"""A pipeline as its configuration says it, before anything is checked against models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENTRY = "request"
EXIT = "response"

#: A demultiplexer whose number of shards is known only when it has run.
DYNAMIC = -1


@dataclass(frozen=True)
class Source:
    """Where a tensor comes from: an output of a node, by the alias that node gave it."""

    node: str
    item: str

    def __str__(self) -> str:
        return f"{self.node}.{self.item}"


@dataclass(frozen=True)
class NodeSpec:
    """One node.

    Attributes:
        model: the model it runs; None for a custom node.
        library: the library it runs; None for a model.
        version: the model's version; None for its default.
        inputs: name of an input of the model or library, and its source; in file order.
        outputs: alias, and the output of the model or library it stands for.
        demultiply: number of shards, `DYNAMIC`, or None for a node that does not demultiplex.
        gather_from: the demultiplexer whose shards it gathers.
    """

    name: str
    model: str | None = None
    library: str | None = None
    version: int | None = None
    inputs: tuple[tuple[str, Source], ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    demultiply: int | None = None
    gather_from: str | None = None


@dataclass(frozen=True)
class PipelineSpec:
    """A pipeline.

    Attributes:
        inputs: the names clients send.
        outputs: the names clients receive, and their sources; in file order.
        demultiply: as of a node, for the request itself.
    """

    name: str
    inputs: tuple[str, ...]
    nodes: tuple[NodeSpec, ...]
    outputs: tuple[tuple[str, Source], ...]
    demultiply: int | None = None


@dataclass(frozen=True)
class LibrarySpec:
    """A custom node library: a shared object, or a Python file (`.py`)."""

    name: str
    base_path: str


def parse(entry: Mapping[str, Any]) -> PipelineSpec:
    """One object of `pipeline_config_list`, which the schema has been checked of."""
    return PipelineSpec(
        name=entry["name"],
        inputs=tuple(dict.fromkeys(entry["inputs"])),
        nodes=tuple(_parse_node(node) for node in entry["nodes"]),
        outputs=_parse_sources(entry["outputs"]),
        demultiply=_parse_count(entry),
    )


def parse_library(entry: Mapping[str, Any]) -> LibrarySpec:
    """One object of `custom_node_library_config_list`."""
    return LibrarySpec(entry["name"], entry["base_path"])


def _parse_node(entry: Mapping[str, Any]) -> NodeSpec:
    is_model = entry["type"] == "DL model"
    return NodeSpec(
        name=entry["name"],
        model=entry["model_name"] if is_model else None,
        library=None if is_model else entry["library_name"],
        version=entry.get("version") if is_model else None,
        inputs=_parse_sources(entry["inputs"]),
        outputs={output["alias"]: output["data_item"] for output in entry["outputs"]},
        params=dict(entry.get("params") or {}),
        demultiply=_parse_count(entry),
        gather_from=entry.get("gather_from_node"),
    )


def _parse_sources(entries: list[Mapping[str, Any]]) -> tuple[tuple[str, Source], ...]:
    return tuple(
        (name, Source(source["node_name"], source["data_item"]))
        for entry in entries
        for name, source in entry.items()
    )


def _parse_count(entry: Mapping[str, Any]) -> int | None:
    count = entry.get("demultiply_count")
    # OVMS took 0 for dynamic before it took -1, and still does.
    return DYNAMIC if count == 0 else count
