"""Pipelines of a repository: loaded after the models they use, and again when those change."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kfs.metrics.registry import Metrics
from kfs.metrics.servables import RequestMetrics
from kfs.repository.catalog import PIPELINE, Catalog, Entry
from kfs.servables.pipeline import (
    Library,
    LibrarySpec,
    Pipeline,
    PipelineError,
    PipelineSpec,
    open_library,
)

_log = logging.getLogger("kfs.repository")


class Pipelines:
    """Keeps the pipelines of a catalog true to their specs and to the models they use."""

    def __init__(self, catalog: Catalog, metrics: Metrics, max_calls: int | None) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._max_calls = max_calls
        self._specs: Mapping[str, PipelineSpec] = {}
        self._libraries: dict[LibrarySpec, Library] = {}
        #: What opening each gave.
        self._by_name: dict[str, Library | PipelineError] = {}
        #: What each pipeline was made of: its spec, its libraries, and the servables of its models.
        self._made_of: dict[str, tuple[object, ...]] = {}

    def apply(
        self,
        specs: Mapping[str, PipelineSpec],
        libraries: Iterable[LibrarySpec] | None,
        folder: Path,
    ) -> list[str]:
        """Load what is new, changed or not available, retire what is gone.

        Args:
            libraries: all that nodes may use from now on; None for those of before.
            folder: where relative paths of libraries begin.

        Returns:
            The names whose availability may have changed.
        """
        if libraries is not None:
            self._open(libraries, folder)
        gone = [name for name in self._specs if name not in specs]
        self._specs = specs
        for name in gone:
            self._catalog.retire(name)
        # What failed may fail no more: of what a library finds, for instance, nothing is known.
        self._made_of = {
            name: parts for name, parts in self._made_of.items() if self._catalog.available(name)
        }
        return gone + self.refresh()

    def refresh(self) -> list[str]:
        """Load again whatever uses something that changed; gives their names."""
        changed = []
        for name, spec in self._specs.items():
            made_of = self._parts(spec)
            if self._made_of.get(name) != made_of:
                self._made_of[name] = made_of
                self._load(spec)
                changed.append(name)
        return changed

    def _open(self, libraries: Iterable[LibrarySpec], folder: Path) -> None:
        """Libraries stay open once they are: code in them may still run."""
        self._by_name = {}
        for spec in libraries:
            if spec.name in self._by_name:
                _log.warning("Library %s is configured more than once; the last counts", spec.name)
            try:
                if spec not in self._libraries:
                    self._libraries[spec] = open_library(spec, folder)
                self._by_name[spec.name] = self._libraries[spec]
            except PipelineError as error:
                self._by_name.setdefault(spec.name, error)
                _log.error("%s", error)
            except Exception as error:  # pipelines without it are loaded all the same
                reason = f"library {spec.name}: {type(error).__name__}: {error}"
                self._by_name.setdefault(
                    spec.name, PipelineError("NODE_LIBRARY_LOAD_FAILED_OPEN", reason)
                )
                _log.exception("Unexpected error while library %s was opened", spec.name)

    def _parts(self, spec: PipelineSpec) -> tuple[object, ...]:
        return (spec, *self._used_libraries(spec), *self._used_models(spec))

    def _used_libraries(self, spec: PipelineSpec) -> Iterator[Library | PipelineError | None]:
        for node in spec.nodes:
            if node.library is not None:
                yield self._by_name.get(node.library)

    def _used_models(self, spec: PipelineSpec) -> Iterator[object]:
        for node in spec.nodes:
            if node.model is not None:
                entry = self._catalog.snapshot.get(node.model, Entry())
                used = entry.versions.get(node.version) if node.version else entry.default()
                yield None if used is None or not used.is_available else used.servable

    def _load(self, spec: PipelineSpec) -> None:
        metrics = RequestMetrics(self._metrics, spec.name, 1)
        entry = self._catalog.begin(spec.name, 1, PIPELINE, metrics)
        try:
            pipeline = Pipeline.load(spec, self._catalog, self._by_name)
        except Exception as error:
            reason = str(error)
            if not isinstance(error, PipelineError):  # the others are loaded all the same
                reason = f"pipeline {spec.name}: {type(error).__name__}: {error}"
                _log.exception("Unexpected error while pipeline %s was loaded", spec.name)
            self._catalog.set_error(spec.name, reason)
            self._catalog.fail(spec.name, entry, reason)
            return
        pipeline.metrics = metrics
        pipeline.max_calls = self._max_calls
        self._catalog.publish(spec.name, entry, pipeline)
        self._catalog.set_error(spec.name, None)
