"""From what a configuration says to an ordered plan: every mistake is found here.

A pure function of the specification and the signatures of what it uses. Every node has one path:
the demultiplexers it runs within. Where there are several, all are static, so the sessions of a
node are a full grid over the sizes of its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from kfs.servables.pipeline.draft import Draft, Interface, runs
from kfs.servables.pipeline.faults import PipelineError
from kfs.servables.pipeline.metadata import find_signature
from kfs.servables.pipeline.order import Path, find_order, find_paths
from kfs.servables.pipeline.spec import ENTRY, EXIT, NodeSpec, PipelineSpec, Source
from kfs.servables.pipeline.wiring import check_wiring
from kfs.signature import Signature


@dataclass(frozen=True)
class Feed:
    """One input of a step, and where it comes from."""

    name: str
    source: Source


@dataclass(frozen=True)
class Step:
    """One node, ready to run: the request first, the response last.

    Attributes:
        path: the demultiplexers whose shards it runs once for each, outermost first.
        feeds: its inputs.
        outputs: aliases that someone uses, and the model's or library's names for them.
        gathered: aliases of which some user takes all shards at once.
        consumers: the names of the steps that wait for it.
    """

    name: str
    node: NodeSpec
    path: Path
    feeds: tuple[Feed, ...]
    outputs: Mapping[str, str]
    gathered: frozenset[str]
    dependencies: tuple[str, ...]
    consumers: tuple[str, ...]
    signature: Signature

    @property
    def output_path(self) -> Path:
        """The path of what consumes its outputs shard by shard."""
        return self.path if self.node.demultiply is None else (*self.path, self.name)


@dataclass(frozen=True)
class Plan:
    """Steps in an order in which each comes after what it depends on."""

    signature: Signature
    steps: Mapping[str, Step]

    @property
    def demultiplexes_entry(self) -> bool:
        return self.steps[ENTRY].node.demultiply is not None

    @property
    def gathers_exit(self) -> bool:
        """Whether the response gathers shards; then it does so for all outputs."""
        return any(self.steps[name].path for name in self.steps[EXIT].dependencies)

    @cached_property
    def is_parallel(self) -> bool:
        """Whether anything of it may run side by side."""
        steps = list(self.steps.values())
        return any(len(set(step.consumers) - {EXIT}) > 1 or step.path for step in steps) or (
            sum(not step.dependencies for step in steps) > 1
        )


def make_plan(spec: PipelineSpec, interfaces: Mapping[str, Interface | PipelineError]) -> Plan:
    """Check and order a pipeline.

    Args:
        interfaces: of every node by its name; or why there is none.

    Raises:
        PipelineError: the first mistake; it names the node and what would be right.
    """
    draft = Draft(spec, interfaces)
    check_wiring(draft)
    order = find_order(draft)
    paths, gathered = find_paths(draft, order)
    signature = find_signature(draft, gathered)
    return Plan(signature, {name: _step(draft, name, paths) for name in order})


def _step(draft: Draft, name: str, paths: Mapping[str, Path]) -> Step:
    node = draft.nodes[name]
    used: dict[str, str] = {}
    gathered = set()
    for other in draft.all:
        for _, source in other.inputs:
            if source.node == name:
                used[source.item] = node.outputs[source.item]
                if len(paths[other.name]) < len(paths[name]):
                    gathered.add(source.item)
    feeds = tuple(Feed(target, source) for target, source in node.inputs)
    consumers = tuple(
        other.name for other in draft.all if any(source.node == name for _, source in other.inputs)
    )
    dependencies = tuple(dict.fromkeys(feed.source.node for feed in feeds))
    nothing = Signature((), ())
    signature = draft.interface(node).signature if runs(node) else nothing
    return Step(
        name,
        node,
        paths[name],
        feeds,
        used,
        frozenset(gathered),
        dependencies,
        consumers,
        signature,
    )
