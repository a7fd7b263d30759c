"""The order of nodes, and the demultiplexers that each runs within.

Demultiplexers close in the reverse of the order they opened in, so every node has one path: the
demultiplexers whose shards it runs once for each, outermost first.
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from kfs.servables.pipeline.draft import Draft
from kfs.servables.pipeline.faults import PipelineError, node_fault
from kfs.servables.pipeline.spec import EXIT, NodeSpec

Path = tuple[str, ...]


def find_order(draft: Draft) -> list[str]:
    """Nodes after what they depend on.

    Raises:
        PipelineError: a circle, or a node of which nothing reaches the response.
    """
    suppliers = {
        node.name: tuple(dict.fromkeys(source.node for _, source in node.inputs))
        for node in draft.all
    }
    reached: dict[str, None] = {EXIT: None}
    waiting = [EXIT]
    while waiting:
        for name in suppliers[waiting.pop()]:
            if name not in reached:
                reached[name] = None
                waiting.append(name)
    try:
        order = list(TopologicalSorter({n: suppliers[n] for n in reached}).static_order())
    except CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise node_fault(
            "PIPELINE_CYCLE_FOUND", error.args[1][0],
            f"it depends on itself: {cycle}; take one of these connections away",
        ) from None  # fmt: skip
    for node in draft.all:
        if node.name not in reached:
            raise node_fault(
                "PIPELINE_CONTAINS_UNCONNECTED_NODES", node.name,
                f"nothing of it reaches {EXIT}; use its outputs or take it away",
            )  # fmt: skip
    return order


def find_paths(draft: Draft, order: list[str]) -> tuple[dict[str, Path], Path]:
    """The path of every node, and the demultiplexers that the response gathers.

    Raises:
        PipelineError: demultiplexers and gathering nodes do not lie inside each other.
    """
    paths: dict[str, Path] = {}
    gathered: Path = ()
    for name in order:
        node = draft.nodes[name]
        path = _common_path(draft, node, paths)
        if name == EXIT:
            _check_exit_gathers(draft, path)
            gathered, path = path, ()
        elif node.gather_from is not None:
            if not path or path[-1] != node.gather_from:
                raise _order_fault(
                    name,
                    f"it gathers from {node.gather_from}, but the demultiplexer to gather "
                    f"first is {path[-1] if path else 'none: nothing is demultiplexed here'}",
                )
            path = path[:-1]
        paths[name] = path
    return paths, gathered


def _common_path(draft: Draft, node: NodeSpec, paths: Mapping[str, Path]) -> Path:
    common: Path | None = None
    first = ""
    for _, source in node.inputs:
        path = paths[source.node]
        if draft.nodes[source.node].demultiply is not None:
            path = (*path, source.node)
        if common is None:
            common, first = path, source.node
        elif path != common:
            raise _order_fault(
                node.name,
                f"what comes from {first} is demultiplexed by {_names(common)}, what comes "
                f"from {source.node} by {_names(path)}; all inputs need the same: pass data "
                "through the demultiplexer, or gather it first",
            )
    return common or ()


def _check_exit_gathers(draft: Draft, path: Path) -> None:
    for name in path:
        if name not in draft.exit_gathers:
            gatherer = next(node.name for node in draft.all if node.gather_from == name)
            raise _order_fault(
                EXIT,
                f"shards of {name} arrive that nobody gathered, while {gatherer} gathers from "
                "it elsewhere; gather on every way or on none",
            )
    for name in sorted(draft.exit_gathers - set(path)):
        raise _order_fault(EXIT, f"no shard of demultiplexer {name} arrives to be gathered")


def _order_fault(node: str, text: str) -> PipelineError:
    return node_fault("PIPELINE_WRONG_DEMULTIPLEXER_GATHER_NODES_ORDER", node, text)


def _names(path: tuple[str, ...]) -> str:
    return ", ".join(path) or "nothing"
