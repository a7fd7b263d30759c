"""What is made of other servables: loaded after them, and again when what it is made of changes."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from kfs.errors import ModelLoadError
from kfs.metrics.registry import Metrics
from kfs.metrics.servables import ServableMetrics
from kfs.repository.catalog import Catalog
from kfs.repository.versions import Kind
from kfs.servables.base import Servable

_log = logging.getLogger("kfs.repository")

_Spec = TypeVar("_Spec")
_Counts = TypeVar("_Counts", bound=ServableMetrics)


class Dependents(ABC, Generic[_Spec, _Counts]):
    """Keeps the pipelines or the graphs of a catalog true to what is wanted of them.

    Args:
        metrics: where everything is counted.
        max_calls: how many calls of each may be under way, streams aside; None for any number.
    """

    #: Which of the two they are.
    _kind: ClassVar[Kind]

    def __init__(self, catalog: Catalog, metrics: Metrics, max_calls: int | None) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._max_calls = max_calls
        self._specs: Mapping[str, _Spec] = {}
        #: What each was made of when it was loaded last.
        self._made_of: dict[str, object] = {}

    def apply(self, specs: Mapping[str, _Spec]) -> list[str]:
        """Load what is new, changed or not available, retire what is gone.

        Returns:
            The names whose availability may have changed.
        """
        gone = [name for name in self._specs if name not in specs]
        self._specs = specs
        for name in gone:
            self._catalog.retire(name)
        # What failed may fail no more: not all that it is made of is looked at.
        self._made_of = {
            name: parts for name, parts in self._made_of.items() if self._catalog.available(name)
        }
        return gone + self.refresh()

    def refresh(self) -> list[str]:
        """Load again whatever is made of something that changed; gives their names."""
        changed = []
        for name, spec in self._specs.items():
            before = self._made_of.get(name)
            made_of = self._parts(spec, before)
            if before != made_of:
                self._made_of[name] = made_of
                self._load(name, spec)
                changed.append(name)
        return changed

    def _load(self, name: str, spec: _Spec) -> None:
        metrics = self._metrics_of(name)
        entry = self._catalog.begin(name, 1, self._kind, metrics)
        try:
            servable = self._make(spec, metrics)
        except Exception as error:
            reason = str(error)
            if not isinstance(error, ModelLoadError):  # the others are loaded all the same
                reason = f"{self._kind.word} {name}: {type(error).__name__}: {error}"
                _log.exception("Unexpected error while %s %s was loaded", self._kind.word, name)
            self._catalog.set_error(name, reason)
            self._catalog.fail(name, entry, reason)
            return
        servable.max_calls = self._max_calls
        self._catalog.publish(name, entry, servable)
        self._catalog.set_error(name, None)

    @abstractmethod
    def _parts(self, spec: _Spec, before: object) -> object:
        """What one is made of, its spec among it; `before` when that cannot be told now."""

    @abstractmethod
    def _metrics_of(self, name: str) -> _Counts: ...

    @abstractmethod
    def _make(self, spec: _Spec, metrics: _Counts) -> Servable:
        """
        Raises:
            ModelLoadError: it cannot be served.
        """
