"""From what is served to what is wanted: what cannot be had, and what has to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from kfs.options import VersionPolicy
from kfs.repository.config import FileBeside, Wanted
from kfs.repository.versions import GRAPH, MODEL, PIPELINE, Kind
from kfs.servables.pipeline import PipelineSpec
from kfs.settings import ModelSettings

_Spec = TypeVar("_Spec")


@dataclass(frozen=True)
class Changes:
    """Names of models, each in one of these.

    Attributes:
        added: to be loaded.
        replaced: to be loaded again with other options, beside the old one.
        removed: to be retired.
        kept: only their versions are to be looked at.
    """

    added: frozenset[str]
    replaced: frozenset[str]
    removed: frozenset[str]
    kept: frozenset[str]


def compare(before: Mapping[str, ModelSettings], after: Mapping[str, ModelSettings]) -> Changes:
    """The changes from one set of models to another."""
    both = before.keys() & after.keys()
    replaced = frozenset(name for name in both if needs_reload(before[name], after[name]))
    return Changes(
        added=frozenset(after.keys() - before.keys()),
        replaced=replaced,
        removed=frozenset(before.keys() - after.keys()),
        kept=frozenset(both) - replaced,
    )


def needs_reload(before: ModelSettings, after: ModelSettings) -> bool:
    """Whether a model that was loaded with other settings has to be loaded again.

    Another version policy only adds and retires versions; anything else compiles anew.
    """
    policy = VersionPolicy()
    return before != after and (
        replace(before, version_policy=policy) != replace(after, version_policy=policy)
    )


def settle(
    before: Wanted, after: Wanted, taken: Mapping[str, Kind]
) -> tuple[Wanted, dict[str, str]]:
    """What of `after` can be had beside what there was, and why the rest cannot.

    A name stays what it first was, also once it is retired; and a model that a pipeline goes on
    using does not begin to take its shape from requests. Both are so in OpenVINO Model Server. A
    model whose entry is broken goes on as it was, and so do those of a broken file beside a graph.

    Args:
        taken: what each known name stands for.
    """
    errors = {name: f"{name}: {reason}" for name, reason in after.broken.items()}
    models = _not_taken(after.models, MODEL, taken, errors)
    pipelines = _not_taken(after.pipelines, PIPELINE, taken, errors)
    graphs = _not_taken(after.graphs, GRAPH, taken, errors)
    models |= {name: found for name, found in before.models.items() if name in after.broken}
    beside = {path: _recall(file, before.beside.get(path)) for path, file in after.beside.items()}
    for file in beside.values():
        if file.error is not None:
            # What the main file says of a name goes before.
            kept = (file.names & before.models.keys()) - models.keys() - after.graphs.keys()
            models |= {name: before.models[name] for name in kept}
            errors |= {name: f"model {name}: goes on as it was: {file.error}" for name in kept}
    used = _models_of(before.pipelines) & _models_of(after.pipelines)
    for name in used & models.keys() & before.models.keys():
        if models[name].is_auto and not before.models[name].is_auto:
            models[name] = before.models[name]
            errors[name] = (
                f"model {name}: batch_size or shape auto was asked for, but a pipeline uses the "
                "model, so it goes on as it was"
            )
    wanted = replace(after, models=models, pipelines=pipelines, graphs=graphs, beside=beside)
    return wanted, errors


def _not_taken(
    wanted: Mapping[str, _Spec], kind: Kind, taken: Mapping[str, Kind], errors: dict[str, str]
) -> dict[str, _Spec]:
    """Those whose name does not stand for something else; of the others, the errors say so."""
    free = {name: spec for name, spec in wanted.items() if taken.get(name, kind) is kind}
    for name in wanted.keys() - free.keys():
        errors[name] = f"{kind.word} {name}: the name is that of something else, maybe retired"
    return free


def _recall(file: FileBeside, before: FileBeside | None) -> FileBeside:
    """A file beside a graph; one that is broken, with the names that it brought before."""
    return file if file.error is None or before is None else replace(file, names=before.names)


def _models_of(pipelines: Mapping[str, PipelineSpec]) -> set[str]:
    return {node.model for spec in pipelines.values() for node in spec.nodes if node.model}
