"""A plan as a tree: its nodes in order, those that run for each shard under their demultiplexer."""

from __future__ import annotations

from kfs.servables.outline import Outline, format_tensor, outline_tensors
from kfs.servables.pipeline.plan import Plan, Step
from kfs.servables.pipeline.spec import DYNAMIC, ENTRY, EXIT
from kfs.signature import format_shape


def outline_plan(name: str, plan: Plan) -> Outline:
    return Outline(f"pipeline {name}", _within(plan, ()))


def _within(plan: Plan, path: tuple[str, ...]) -> tuple[Outline, ...]:
    """The steps whose sessions are those of `path`, with what they demultiplex under them."""
    steps = [step for step in plan.steps.values() if step.path == path]
    return tuple(Outline(_title(step), (*_tensors(plan, step), *_shards(plan, step)))
                 for step in steps)  # fmt: skip


def _shards(plan: Plan, step: Step) -> tuple[Outline, ...]:
    count = step.node.demultiply
    if count is None:
        return ()
    title = "for each shard" if count == DYNAMIC else f"for each of {count} shards"
    return (Outline(title, _within(plan, step.output_path)),)


def _title(step: Step) -> str:
    node = step.node
    if node.name in (ENTRY, EXIT):
        return node.name
    text = f"{node.name}: library {node.library}" if node.model is None else (
        f"{node.name}: model {node.model}"
    )  # fmt: skip
    if node.version is not None:
        text += f", version {node.version}"
    text += "".join(f", {key}={value}" for key, value in node.params.items())
    return text if node.gather_from is None else f"{text}, gathers from {node.gather_from}"


def _tensors(plan: Plan, step: Step) -> tuple[Outline, ...]:
    if step.name == ENTRY:
        return outline_tensors(plan.signature.inputs)
    specs = plan.signature.outputs if step.name == EXIT else step.signature.inputs
    sources = {feed.name: feed.source for feed in step.feeds}
    given = {spec.name: spec for spec in step.signature.outputs}
    return (
        *(Outline(f"{format_tensor(spec)} <- {sources[spec.name]}") for spec in specs),
        *(
            Outline(f"-> {alias}: {given[item].datatype.label} {format_shape(given[item].shape)}")
            for alias, item in step.outputs.items()
            if step.name != EXIT
        ),
    )
