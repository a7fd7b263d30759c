"""Checks of nodes one by one, and of every connection between two."""

from __future__ import annotations

from kfs.datatypes import BY_NUMPY, DATATYPES
from kfs.servables.pipeline.draft import Draft, runs
from kfs.servables.pipeline.faults import node_fault
from kfs.servables.pipeline.shapes import Shape, count_dim, overlap, shapes_meet
from kfs.servables.pipeline.spec import DYNAMIC, ENTRY, EXIT, NodeSpec, Source
from kfs.signature import format_shape

_BYTES = DATATYPES["BYTES"]
# A demultiplexed tensor needs its shards' batch and one dimension more.
_MIN_RANK = 3


def check_wiring(draft: Draft) -> None:
    """
    Raises:
        PipelineError: the first mistake: the request, the nodes in file order, the response.
    """
    checks = _Checks(draft)
    checks.check_counts()
    for node in draft.all:
        checks.check_node(node)


class _Checks:
    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    def check_counts(self) -> None:
        demultiplexers = [node for node in self._draft.all if node.demultiply is not None]
        dynamic = [node.name for node in demultiplexers if node.demultiply == DYNAMIC]
        if dynamic and len(demultiplexers) > 1:
            names = ", ".join(node.name for node in demultiplexers)
            raise node_fault(
                "NOT_IMPLEMENTED", dynamic[0],
                "a dynamic demultiply_count needs to be the only demultiplexer of its pipeline; "
                f"here are {names}: give each a fixed count",
            )  # fmt: skip

    def check_node(self, node: NodeSpec) -> None:
        if sum(other.name == node.name for other in self._draft.all) > 1:
            raise node_fault(
                "PIPELINE_NODE_NAME_DUPLICATE", node.name,
                f"several nodes have this name; {ENTRY} and {EXIT} are names of every pipeline's "
                "own nodes",
            )  # fmt: skip
        if runs(node):
            interface = self._draft.interface(node)
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

    def _check_demultiplexer(self, node: NodeSpec) -> None:
        if node.demultiply is None:
            return
        signature = self._draft.interface(node).signature
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
        demultiplexer = self._draft.nodes.get(node.gather_from)
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
        names = [node.name for node in self._draft.all if node.demultiply is not None]
        return f"demultiplexers here: {', '.join(names) or 'none'}"

    # Edges.

    def _check_edge(self, node: NodeSpec, name: str, source: Source) -> None:
        supplier = self._supplier(node, name, source)
        if runs(supplier):
            self._draft.interface(supplier)
        if runs(node):
            self._check_target(node, name)
        elif sum(label == name for label, _ in node.inputs) > 1:
            raise node_fault(
                "PIPELINE_TRIED_TO_SET_THE_SAME_INPUT_TWICE", EXIT,
                f"output {name} is there twice; each needs a name of its own",
            )  # fmt: skip
        self._check_alias(node, name, source, supplier)
        self._check_carried(node, name, source, supplier)
        if not runs(node):
            self._check_pass_through(name, source)
        elif supplier.name == ENTRY:
            self._check_entry_strings(node, name)
        else:
            self._check_metadata(node, name, source, supplier)

    def _supplier(self, node: NodeSpec, name: str, source: Source) -> NodeSpec:
        supplier = self._draft.nodes.get(source.node)
        if supplier is None:
            raise node_fault(
                "PIPELINE_NODE_REFERING_TO_MISSING_NODE", node.name,
                f"input {name} comes from node {source.node}, and there is none; nodes are "
                f"{', '.join(n.name for n in self._draft.all if n.name != EXIT)}",
            )  # fmt: skip
        if supplier.name == EXIT:
            raise node_fault(
                "PIPELINE_EXIT_USED_AS_NODE_DEPENDENCY", node.name,
                f"input {name} comes from {EXIT}, which ends the pipeline; {ENTRY} begins it",
            )  # fmt: skip
        return supplier

    def _check_target(self, node: NodeSpec, name: str) -> None:
        known = [spec.name for spec in self._draft.interface(node).signature.inputs]
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
        if not runs(supplier):
            return
        known = [spec.name for spec in self._draft.interface(supplier).signature.outputs]
        wanted = supplier.outputs[source.item]
        if wanted not in known:
            raise node_fault(
                "PIPELINE_NODE_REFERING_TO_MISSING_MODEL_OUTPUT", supplier.name,
                f"{source.item} stands for output {wanted}, which {_what(supplier)} does not "
                f"have; its outputs are {', '.join(known) or 'none'}",
            )  # fmt: skip

    def _check_carried(self, node: NodeSpec, name: str, source: Source, supplier: NodeSpec) -> None:
        if (
            supplier.model is not None
            and not self._draft.output(supplier, source.item).datatype.numpy
        ):
            raise node_fault(
                "NOT_IMPLEMENTED", node.name,
                f"input {name} takes {source}, whose precision no pipeline can carry; it can "
                f"carry {', '.join(row.label for row in BY_NUMPY.values())}",
            )  # fmt: skip

    def _check_pass_through(self, label: str, source: Source) -> None:
        if source.node == ENTRY and self._draft.spec.demultiply is not None:
            raise node_fault(
                "PIPELINE_NODE_REFERING_TO_MISSING_DATA_SOURCE", EXIT,
                f"output {label} is the request's {source.item}, which a pipeline that "
                "demultiplexes its request cannot return",
            )  # fmt: skip

    def _check_entry_strings(self, node: NodeSpec, name: str) -> None:
        if (
            self._draft.spec.demultiply is not None
            and self._draft.input(node, name).datatype is _BYTES
        ):
            raise node_fault(
                "PIPELINE_STRING_DEMUILTIPLICATION_UNSUPPORTED", node.name,
                f"input {name} takes strings, which a pipeline that demultiplexes its request "
                "cannot give",
            )  # fmt: skip

    def _check_metadata(
        self, node: NodeSpec, name: str, source: Source, supplier: NodeSpec
    ) -> None:
        given, taken = self._draft.output(supplier, source.item), self._draft.input(node, name)
        offered, accepted = given.shape, taken.shape
        if supplier.demultiply is not None:
            _check_shards(supplier.name, f"output {given.name}", offered, supplier.demultiply)
            offered = offered[1:]
        if node.gather_from is not None:
            count = self._draft.nodes[node.gather_from].demultiply
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
        if not runs(node):
            return
        fed = {name for name, _ in node.inputs}
        hungry = [s.name for s in self._draft.interface(node).signature.inputs if s.name not in fed]
        if hungry:
            raise node_fault(
                "PIPELINE_NOT_ALL_INPUTS_CONNECTED", node.name,
                f"{_what(node)} needs {', '.join(hungry)} too; every input needs a source",
            )  # fmt: skip


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


def _what(node: NodeSpec) -> str:
    return f"model {node.model}" if node.library is None else f"library {node.library}"


def _counted(supplier: NodeSpec, node: NodeSpec) -> str:
    """What was done to the shapes before they were compared."""
    notes = []
    if supplier.demultiply is not None:
        notes.append("shards")
    if node.gather_from is not None:
        notes.append("before gathering")
    return f" ({', '.join(notes)})" if notes else ""
