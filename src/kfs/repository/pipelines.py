"""Pipelines of a repository: loaded after the models they use, and again when those change."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from kfs.metrics.registry import Metrics
from kfs.metrics.servables import RequestMetrics
from kfs.repository.catalog import Catalog
from kfs.repository.dependents import Dependents
from kfs.repository.versions import PIPELINE, Entry
from kfs.servables.pipeline import (
    Library,
    LibrarySpec,
    Pipeline,
    PipelineError,
    PipelineSpec,
    open_library,
)

_log = logging.getLogger("kfs.repository")


class Pipelines(Dependents[PipelineSpec, RequestMetrics]):
    """Keeps the pipelines of a catalog true to their specs and to the models they use."""

    _kind = PIPELINE

    def __init__(self, catalog: Catalog, metrics: Metrics, max_calls: int | None) -> None:
        super().__init__(catalog, metrics, max_calls)
        self._libraries: dict[LibrarySpec, Library] = {}
        #: What opening each gave.
        self._by_name: dict[str, Library | PipelineError] = {}

    def use(self, libraries: Iterable[LibrarySpec], folder: Path) -> None:
        """Open what nodes may use from now on, instead of what they could before.

        Libraries stay open once they are: code in them may still run.

        Args:
            folder: where relative paths begin.
        """
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

    def _parts(self, spec: PipelineSpec, before: object) -> object:
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
                # Not its servable, which would be held when it is retired, to the very end.
                yield None if used is None or not used.is_available else used

    def _metrics_of(self, name: str) -> RequestMetrics:
        return RequestMetrics(self._metrics, name, 1)

    def _make(self, spec: PipelineSpec, metrics: RequestMetrics) -> Pipeline:
        pipeline = Pipeline.load(spec, self._catalog, self._by_name)
        pipeline.metrics = metrics
        return pipeline
