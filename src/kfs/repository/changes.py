"""What has to be done to get from what is served to what is wanted: a pure comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kfs.options import VersionPolicy
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
    replaced = frozenset(name for name in both if _needs_reload(before[name], after[name]))
    return Changes(
        added=frozenset(after.keys() - before.keys()),
        replaced=replaced,
        removed=frozenset(before.keys() - after.keys()),
        kept=frozenset(both) - replaced,
    )


def _needs_reload(before: ModelSettings, after: ModelSettings) -> bool:
    """Another version policy only adds and retires versions; anything else compiles anew."""
    policy = VersionPolicy()
    return replace(before, version_policy=policy) != replace(after, version_policy=policy)
