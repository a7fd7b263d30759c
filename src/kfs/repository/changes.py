"""From what is served to what is wanted: what cannot be had, and what has to be done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from kfs.options import VersionPolicy
from kfs.repository.catalog import GRAPH, MODEL, PIPELINE, Kind
from kfs.repository.config import Wanted
from kfs.servables.pipeline import PipelineSpec
from kfs.settings import ModelSettings


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

    def choose(names: Collection[str], kind: Kind, what: str) -> set[str]:
        refused = {name for name in names if taken.get(name, kind) is not kind}
        for name in refused:
            errors[name] = f"{what} {name}: the name is that of something else, maybe retired"
        return set(names) - refused

    models = choose(after.models, MODEL, "model")
    pipelines = choose(after.pipelines, PIPELINE, "pipeline")
    graphs = choose(after.graphs, GRAPH, "graph")
    used = _models_of(before.pipelines) & _models_of(after.pipelines)
    settled = {name: found for name, found in after.models.items() if name in models}
    settled |= {name: found for name, found in before.models.items() if name in after.broken}
    unread = {path: before.beside[path] for path in after.unread if path in before.beside}
    for path, names in unread.items():
        # What the main file says of a name goes before.
        for name in (names & before.models.keys()) - settled.keys() - after.graphs.keys():
            settled[name] = before.models[name]
            errors[name] = f"model {name}: goes on as it was: {after.unread[path]}"
    for name in used & settled.keys() & before.models.keys():
        if settled[name].is_auto and not before.models[name].is_auto:
            settled[name] = before.models[name]
            errors[name] = (
                f"model {name}: batch_size or shape auto was asked for, but a pipeline uses the "
                "model, so it goes on as it was"
            )
    wanted = replace(
        after,
        models=settled,
        beside={**after.beside, **unread},
        pipelines={name: found for name, found in after.pipelines.items() if name in pipelines},
        graphs={name: found for name, found in after.graphs.items() if name in graphs},
    )
    return wanted, errors


def _models_of(pipelines: Mapping[str, PipelineSpec]) -> set[str]:
    return {node.model for spec in pipelines.values() for node in spec.nodes if node.model}
