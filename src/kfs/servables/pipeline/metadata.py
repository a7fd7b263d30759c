"""What a pipeline says of itself, out of what its nodes take and give."""

from __future__ import annotations

from dataclasses import replace

from kfs.datatypes import UNSUPPORTED
from kfs.servables.pipeline.draft import Draft, runs
from kfs.servables.pipeline.faults import node_fault
from kfs.servables.pipeline.shapes import count_dim, demultiplexed, intersect, shard_of
from kfs.servables.pipeline.spec import DYNAMIC, ENTRY, NodeSpec, Source
from kfs.signature import Dim, Signature, TensorSpec, format_shape


def find_signature(draft: Draft, gathered: tuple[str, ...]) -> Signature:
    """
    Args:
        gathered: the demultiplexers that the response gathers, outermost first.

    Raises:
        PipelineError: nodes want one input of the request in ways that exclude each other.
    """
    outputs = [_output(draft, label, source, gathered) for label, source in draft.spec.outputs]
    return Signature.of(_inputs(draft), outputs)


def _inputs(draft: Draft) -> list[TensorSpec]:
    wanted: dict[str, TensorSpec] = {}
    for node in draft.all:
        for name, source in node.inputs:
            if source.node != ENTRY:
                continue
            if runs(node):
                _want(draft, wanted, node, name, source.item)
            else:  # the response, which comes last, takes anything
                wanted.setdefault(source.item, _unspecified(source.item))
    if draft.spec.demultiply is None:
        return list(wanted.values())
    return [demultiplexed(spec, draft.spec.demultiply) for spec in wanted.values()]


def _want(
    draft: Draft, wanted: dict[str, TensorSpec], node: NodeSpec, name: str, item: str
) -> None:
    target = draft.input(node, name)
    taken = target if node.gather_from != ENTRY else shard_of(target)
    spec = replace(taken, name=item)
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


def _output(draft: Draft, label: str, source: Source, gathered: tuple[str, ...]) -> TensorSpec:
    supplier = draft.nodes[source.node]
    if supplier.name == ENTRY:
        return _unspecified(label)
    spec = draft.output(supplier, source.item)
    shape = spec.shape if supplier.demultiply is None else spec.shape[1:]
    sizes = tuple(_gathered_dim(draft, draft.nodes[name]) for name in gathered)
    return TensorSpec(label, spec.datatype, (*sizes, *shape), "..." if gathered else spec.layout)


def _gathered_dim(draft: Draft, node: NodeSpec) -> Dim:
    assert node.demultiply is not None
    if node.demultiply == DYNAMIC and node.library is not None:
        return draft.interface(node).signature.outputs[0].shape[0]
    return count_dim(node.demultiply)


def _unspecified(name: str) -> TensorSpec:
    """What goes through from the request to the response."""
    return TensorSpec(name, UNSUPPORTED, (), "...")


def _kind(spec: TensorSpec) -> str:
    return f"{spec.datatype.label} {format_shape(spec.shape)} {spec.layout}"
