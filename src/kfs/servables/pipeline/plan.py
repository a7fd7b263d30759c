"""From what a configuration says to an ordered plan: every mistake is found here.

A pure function of the specification and the signatures of what it uses. Two facts keep the plan
simple. Demultiplexers close in the reverse of the order they opened in, so every node has one
path: the demultiplexers it runs within. And where there are several, all are static, so the
sessions of a node are a full grid over the sizes of its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from kfs.datatypes import DATATYPES, UNSUPPORTED
from kfs.servables.pipeline.faults import PipelineError, node_fault
from kfs.servables.pipeline.shapes import (
    Shape,
    count_dim,
    demultiplexed,
    intersect,
    overlap,
    shapes_meet,
)
from kfs.servables.pipeline.spec import DYNAMIC, ENTRY, EXIT, NodeSpec, PipelineSpec, Source
from kfs.signature import Dim, Signature, TensorSpec, format_shape

_BYTES = DATATYPES["BYTES"]
# A demultiplexed tensor needs its shards' batch and one dimension more.
_MIN_RANK = 3


@dataclass(frozen=True)
class Interface:
    """What a node's model or library says of itself.

    Attributes:
        is_auto: a model that is reshaped by its requests, which no pipeline can use.
    """

    signature: Signature
    is_auto: bool = False


@dataclass(frozen=True)
class Feed:
    """One input of a step: which tensor, and how many levels of sessions it gathers."""

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
    path: tuple[str, ...]
    feeds: tuple[Feed, ...]
    outputs: Mapping[str, str]
    gathered: frozenset[str]
    dependencies: tuple[str, ...]
    consumers: tuple[str, ...]
    signature: Signature

    @property
    def output_path(self) -> tuple[str, ...]:
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
    return _Planner(spec, interfaces).plan()


class _Planner:
    def __init__(
        self, spec: PipelineSpec, interfaces: Mapping[str, Interface | PipelineError]
    ) -> None:
        self._spec = spec
        self._interfaces = interfaces
        entry = NodeSpec(
            ENTRY, outputs={name: name for name in spec.inputs}, demultiply=spec.demultiply
        )
        gathered = {node.gather_from for node in spec.nodes}
        self._all = (entry, *spec.nodes, NodeSpec(EXIT, inputs=spec.outputs))
        self._nodes = {node.name: node for node in self._all}
        #: Demultiplexers that nobody else gathers, so the response does.
        self._exit_gathers = {
            node.name
            for node in self._all
            if node.demultiply is not None and node.name not in gathered
        }

    def plan(self) -> Plan:
        self._check_counts()
        for node in self._all:
            self._check_node(node)
        order = self._order()
        paths = self._paths(order)
        inputs = self._pipeline_inputs()
        outputs = [self._pipeline_output(label, source, paths[EXIT + ":"])
                   for label, source in self._spec.outputs]  # fmt: skip
        signature = Signature.of(inputs, outputs)
        steps = {name: self._step(name, paths) for name in order}
        return Plan(signature, steps)

    # Nodes, one by one.

    def _check_counts(self) -> None:
        demultiplexers = [node for node in self._all if node.demultiply is not None]
        dynamic = [node.name for node in demultiplexers if node.demultiply == DYNAMIC]
        if dynamic and len(demultiplexers) > 1:
            names = ", ".join(node.name for node in demultiplexers)
            raise node_fault(
                "NOT_IMPLEMENTED", dynamic[0],
                "a dynamic demultiply_count needs to be the only demultiplexer of its pipeline; "
                f"here are {names}: give each a fixed count",
            )  # fmt: skip

    def _check_node(self, node: NodeSpec) -> None:
        if sum(other.name == node.name for other in self._all) > 1:
            raise node_fault(
                "PIPELINE_NODE_NAME_DUPLICATE", node.name,
                f"several nodes have this name; {ENTRY} and {EXIT} are names of every pipeline's "
                "own nodes",
            )  # fmt: skip
        if self._runs(node):
            interface = self._interface(node)
            if interface.is_auto:
                raise node_fault(
                    "FORBIDDEN_MODEL_DYNAMIC_PARAMETER", node.name,
                    f"model {node.model} has batch_size or shape auto, which a pipeline cannot "
                    "use; -1 and ranges can be used",
                )  # fmt: skip
            self._check_demultiplexer(node)
        self._check_gathers(node)
        for name, source in node.inputs:
            self._check_edge(node, name, source)
        self._check_all_fed(node)

    @staticmethod
    def _runs(node: NodeSpec) -> bool:
        return node.name not in (ENTRY, EXIT)

    def _interface(self, node: NodeSpec) -> Interface:
        interface = self._interfaces[node.name]
        if isinstance(interface, PipelineError):
            raise interface
        return interface

    def _check_demultiplexer(self, node: NodeSpec) -> None:
        if node.demultiply is None:
            return
        signature = self._interface(node).signature
        strings = [spec.name for spec in signature.inputs if spec.datatype is _BYTES]
        if node.model is not None and strings:
            raise node_fault(
                "PIPELINE_STRING_DEMUILTIPLICATION_UNSUPPORTED", node.name,
                f"its model takes strings ({strings[0]}) and so cannot demultiplex",
            )  # fmt: skip
        for spec in signature.outputs:
            _check_shards(node.name, f"output {spec.name}", spec.shape, node.demultiply)

    def _check_gathers(self, node: NodeSpec) -> None:
        if node.gather_from is None:
            return
        demultiplexer = self._nodes.get(node.gather_from)
        if demultiplexer is None:
            raise node_fault(
                "PIPELINE_NODE_GATHER_FROM_NOT_EXISTING_NODE", node.name,
                f"gather_from_node is {node.gather_from}, and there is no such node; "
                f"{self._demultiplexers()}",
            )  # fmt: skip
        if demultiplexer.demultiply is None:
            raise node_fault(
                "PIPELINE_NODE_GATHER_FROM_NOT_DEMULTIPLEXER", node.name,
                f"gather_from_node is {node.gather_from}, which has no demultiply_count; "
                f"{self._demultiplexers()}",
            )  # fmt: skip

    def _demultiplexers(self) -> str:
        names = [node.name for node in self._all if node.demultiply is not None]
        return f"demultiplexers here: {', '.join(names) or 'none'}"

    # Edges.

    def _check_edge(self, node: NodeSpec, name: str, source: Source) -> None:
        supplier = self._supplier(node, name, source)
        if self._runs(supplier):
            self._interface(supplier)
        if self._runs(node):
            self._check_target(node, name)
        elif sum(label == name for label, _ in node.inputs) > 1:
            raise node_fault(
                "PIPELINE_TRIED_TO_SET_THE_SAME_INPUT_TWICE", EXIT,
                f"output {name} is there twice; each needs a name of its own",
            )  # fmt: skip
        self._check_alias(node, name, source, supplier)
        if not self._runs(node):
            self._check_pass_through(name, source)
        elif supplier.name == ENTRY:
            self._check_entry_strings(node, name)
        else:
            self._check_metadata(node, name, source, supplier)

    def _supplier(self, node: NodeSpec, name: str, source: Source) -> NodeSpec:
        supplier = self._nodes.get(source.node)
        if supplier is None:
            raise node_fault(
                "PIPELINE_NODE_REFERING_TO_MISSING_NODE", node.name,
                f"input {name} comes from node {source.node}, and there is none; nodes are "
                f"{', '.join(n.name for n in self._all if n.name != EXIT)}",
            )  # fmt: skip
        if supplier.name == EXIT:
            raise node_fault(
                "PIPELINE_EXIT_USED_AS_NODE_DEPENDENCY", node.name,
                f"input {name} comes from {EXIT}, which ends the pipeline; {ENTRY} begins it",
            )  # fmt: skip
        return supplier

    def _check_target(self, node: NodeSpec, name: str) -> None:
        known = [spec.name for spec in self._interface(node).signature.inputs]
        what = _what(node)
        if name not in known:
            raise node_fault(
                "PIPELINE_CONNECTION_TO_MISSING_MODEL_INPUT", node.name,
                f"{what} has no input {name}; its inputs are {', '.join(known) or 'none'}",
            )  # fmt: skip
        if sum(other == name for other, _ in node.inputs) > 1:
            raise node_fault(
                "PIPELINE_MODEL_INPUT_CONNECTED_TO_MULTIPLE_DATA_SOURCES", node.name,
                f"input {name} is fed twice; one source is right",
            )  # fmt: skip

    def _check_alias(self, node: NodeSpec, name: str, source: Source, supplier: NodeSpec) -> None:
        if source.item not in supplier.outputs:
            raise node_fault(
                "PIPELINE_NODE_REFERING_TO_MISSING_DATA_SOURCE", node.name,
                f"input {name} takes {source.item} of {supplier.name}, which offers "
                f"{', '.join(supplier.outputs) or 'nothing'}",
            )  # fmt: skip
        if not self._runs(supplier):
            return
        known = [spec.name for spec in self._interface(supplier).signature.outputs]
        wanted = supplier.outputs[source.item]
        if wanted not in known:
            raise node_fault(
                "PIPELINE_NODE_REFERING_TO_MISSING_MODEL_OUTPUT", supplier.name,
                f"{source.item} stands for output {wanted}, which {_what(supplier)} does not "
                f"have; its outputs are {', '.join(known) or 'none'}",
            )  # fmt: skip

    def _check_pass_through(self, label: str, source: Source) -> None:
        if source.node == ENTRY and self._spec.demultiply is not None:
            raise node_fault(
                "PIPELINE_NODE_REFERING_TO_MISSING_DATA_SOURCE", EXIT,
                f"output {label} is the request's {source.item}, which a pipeline that "
                "demultiplexes its request cannot return",
            )  # fmt: skip

    def _check_entry_strings(self, node: NodeSpec, name: str) -> None:
        if self._spec.demultiply is not None and self._input(node, name).datatype is _BYTES:
            raise node_fault(
                "PIPELINE_STRING_DEMUILTIPLICATION_UNSUPPORTED", node.name,
                f"input {name} takes strings, which a pipeline that demultiplexes its request "
                "cannot give",
            )  # fmt: skip

    def _check_metadata(
        self, node: NodeSpec, name: str, source: Source, supplier: NodeSpec
    ) -> None:
        given, taken = self._output(supplier, source.item), self._input(node, name)
        offered, accepted = given.shape, taken.shape
        if supplier.demultiply is not None:
            _check_shards(supplier.name, f"output {given.name}", offered, supplier.demultiply)
            offered = offered[1:]
        if node.gather_from is not None:
            count = self._nodes[node.gather_from].demultiply
            assert count is not None  # _check_gathers came before
            _check_shards(node.name, f"input {name}, which gathers,", accepted, count)
            accepted = accepted[1:]
        if not shapes_meet(offered, accepted):
            raise node_fault(
                "INVALID_SHAPE", node.name,
                f"input {name} accepts {format_shape(accepted)}, but {source} is "
                f"{format_shape(offered)}" + _counted(supplier, node),
            )  # fmt: skip
        if given.datatype != taken.datatype:
            raise node_fault(
                "INVALID_PRECISION", node.name,
                f"input {name} accepts {taken.datatype.label}, but {source} is "
                f"{given.datatype.label}",
            )  # fmt: skip
        if given.datatype is _BYTES:
            raise node_fault(
                "NOT_IMPLEMENTED", node.name,
                f"input {name} takes the strings of {source}; strings may only come from "
                f"{ENTRY} and go to {EXIT}",
            )  # fmt: skip

    def _check_all_fed(self, node: NodeSpec) -> None:
        if not self._runs(node):
            return
        fed = {name for name, _ in node.inputs}
        hungry = [s.name for s in self._interface(node).signature.inputs if s.name not in fed]
        if hungry:
            raise node_fault(
                "PIPELINE_NOT_ALL_INPUTS_CONNECTED", node.name,
                f"{_what(node)} needs {', '.join(hungry)} too; every input needs a source",
            )  # fmt: skip

    def _input(self, node: NodeSpec, name: str) -> TensorSpec:
        inputs = self._interface(node).signature.inputs
        return next(spec for spec in inputs if spec.name == name)

    def _output(self, node: NodeSpec, alias: str) -> TensorSpec:
        outputs = self._interface(node).signature.outputs
        return next(spec for spec in outputs if spec.name == node.outputs[alias])

    # The graph.

    def _order(self) -> list[str]:
        """Nodes after what they depend on."""
        suppliers = {
            node.name: tuple(dict.fromkeys(source.node for _, source in node.inputs))
            for node in self._all
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
        for node in self._all:
            if node.name not in reached:
                raise node_fault(
                    "PIPELINE_CONTAINS_UNCONNECTED_NODES", node.name,
                    f"nothing of it reaches {EXIT}; use its outputs or take it away",
                )  # fmt: skip
        return order

    def _paths(self, order: list[str]) -> dict[str, tuple[str, ...]]:
        """The path of every node; that of the response before it gathers under `response:`."""
        paths: dict[str, tuple[str, ...]] = {}
        for name in order:
            node = self._nodes[name]
            path = self._common_path(node, paths)
            if name == EXIT:
                self._check_exit_gathers(path)
                paths[EXIT + ":"], path = path, ()
            elif node.gather_from is not None:
                if not path or path[-1] != node.gather_from:
                    raise _order_fault(
                        name,
                        f"it gathers from {node.gather_from}, but the demultiplexer to gather "
                        f"first is {path[-1] if path else 'none: nothing is demultiplexed here'}",
                    )
                path = path[:-1]
            paths[name] = path
        return paths

    def _common_path(self, node: NodeSpec, paths: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        common: tuple[str, ...] | None = None
        first = ""
        for _, source in node.inputs:
            path = paths[source.node]
            if self._nodes[source.node].demultiply is not None:
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

    def _check_exit_gathers(self, path: tuple[str, ...]) -> None:
        for name in path:
            if name not in self._exit_gathers:
                gatherer = next(node.name for node in self._all if node.gather_from == name)
                raise _order_fault(
                    EXIT,
                    f"shards of {name} arrive that nobody gathered, while {gatherer} gathers from "
                    "it elsewhere; gather on every way or on none",
                )
        for name in sorted(self._exit_gathers - set(path)):
            raise _order_fault(EXIT, f"no shard of demultiplexer {name} arrives to be gathered")

    # What the pipeline says of itself.

    def _pipeline_inputs(self) -> list[TensorSpec]:
        wanted: dict[str, TensorSpec] = {}
        for node in self._all:
            for name, source in node.inputs:
                if source.node == ENTRY:
                    self._want(wanted, node, name, source.item)
        if self._spec.demultiply is None:
            return list(wanted.values())
        return [demultiplexed(spec, self._spec.demultiply) for spec in wanted.values()]

    def _want(self, wanted: dict[str, TensorSpec], node: NodeSpec, name: str, item: str) -> None:
        spec = TensorSpec(item, UNSUPPORTED, (), "...")
        if self._runs(node):
            target = self._input(node, name)
            shape = target.shape if node.gather_from != ENTRY else target.shape[1:]
            spec = TensorSpec(item, target.datatype, shape, target.layout)
        before = wanted.get(item)
        both = spec if before is None else intersect(before, spec)
        if both is None:
            assert before is not None
            raise node_fault(
                "PIPELINE_INPUTS_AMBIGUOUS_METADATA", node.name,
                f"input {name} takes the request's {item} as {_kind(spec)}, another node as "
                f"{_kind(before)}; nothing fits both",
            )  # fmt: skip
        wanted[item] = both

    def _pipeline_output(self, label: str, source: Source, gathered: tuple[str, ...]) -> TensorSpec:
        supplier = self._nodes[source.node]
        if supplier.name == ENTRY:
            return TensorSpec(label, UNSUPPORTED, (), "...")
        spec = self._output(supplier, source.item)
        shape = spec.shape if supplier.demultiply is None else spec.shape[1:]
        sizes = tuple(self._gathered_dim(self._nodes[name]) for name in gathered)
        return TensorSpec(
            label, spec.datatype, (*sizes, *shape), "..." if gathered else spec.layout
        )

    def _gathered_dim(self, node: NodeSpec) -> Dim:
        assert node.demultiply is not None
        if node.demultiply == DYNAMIC and node.library is not None:
            return self._interface(node).signature.outputs[0].shape[0]
        return count_dim(node.demultiply)

    def _step(self, name: str, paths: Mapping[str, tuple[str, ...]]) -> Step:
        node = self._nodes[name]
        used: dict[str, str] = {}
        gathered = set()
        for other in self._all:
            for _, source in other.inputs:
                if source.node == name:
                    used[source.item] = node.outputs[source.item]
                    if len(paths[other.name]) < len(paths[name]):
                        gathered.add(source.item)
        feeds = tuple(Feed(target, source) for target, source in node.inputs)
        consumers = tuple(
            other.name
            for other in self._all
            if any(source.node == name for _, source in other.inputs)
        )
        dependencies = tuple(dict.fromkeys(feed.source.node for feed in feeds))
        nothing = Signature((), ())
        signature = self._interface(node).signature if self._runs(node) else nothing
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


def _check_shards(node: str, what: str, shape: Shape, count: int) -> None:
    """A tensor that shards are made of, or that is made of shards."""
    if len(shape) < _MIN_RANK:
        raise node_fault(
            "PIPELINE_NOT_ENOUGH_SHAPE_DIMENSIONS_TO_DEMULTIPLY", node,
            f"{what} is {format_shape(shape)}; demultiplexing needs at least {_MIN_RANK} "
            "dimensions, the first of which counts the shards",
        )  # fmt: skip
    if overlap(shape[0], count_dim(count)) is None:
        raise node_fault(
            "PIPELINE_DEMULTIPLY_COUNT_DOES_NOT_MATCH_TENSOR_SHARD_COUNT", node,
            f"{what} is {format_shape(shape)}, but demultiply_count is {count}; the first "
            "dimension has to allow the count",
        )  # fmt: skip


def _order_fault(node: str, text: str) -> PipelineError:
    return node_fault("PIPELINE_WRONG_DEMULTIPLEXER_GATHER_NODES_ORDER", node, text)


def _what(node: NodeSpec) -> str:
    return f"model {node.model}" if node.library is None else f"library {node.library}"


def _names(path: tuple[str, ...]) -> str:
    return ", ".join(path) or "nothing"


def _kind(spec: TensorSpec) -> str:
    return f"{spec.datatype.label} {format_shape(spec.shape)} {spec.layout}"


def _counted(supplier: NodeSpec, node: NodeSpec) -> str:
    """What was done to the shapes before they were compared."""
    notes = []
    if supplier.demultiply is not None:
        notes.append("shards")
    if node.gather_from is not None:
        notes.append("before gathering")
    return f" ({', '.join(notes)})" if notes else ""
