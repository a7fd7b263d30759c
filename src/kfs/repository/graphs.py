"""Graphs of a repository: loaded after all they may use, and again when their files change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kfs.metrics.registry import Metrics
from kfs.metrics.servables import GraphMetrics
from kfs.repository.catalog import GRAPH, Catalog
from kfs.servables.graph import Graph, GraphError
from kfs.settings import GraphSettings


def digest(path: Path) -> bytes:
    """What is in a file, or why it cannot be read, in 32 bytes."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        data = str(error).encode(errors="replace")
    return hashlib.sha256(data).digest()


class Graphs:
    """Keeps the graphs of a catalog true to their files.

    The servables that a graph uses are looked up at every inference, so it does not change with
    them. An open stream goes on with the graph it began with.
    """

    def __init__(self, catalog: Catalog, metrics: Metrics, max_calls: int | None) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._max_calls = max_calls
        self._settings: Mapping[str, GraphSettings] = {}
        #: What each graph was made of: its settings, and what its file held.
        self._made_of: dict[str, tuple[GraphSettings, bytes]] = {}

    def apply(self, settings: Mapping[str, GraphSettings]) -> list[str]:
        """Load what is new, changed or not available, retire what is gone.

        Returns:
            The names whose availability may have changed.
        """
        gone = [name for name in self._settings if name not in settings]
        self._settings = settings
        for name in gone:
            self._catalog.retire(name)
        # What failed may fail no more: the files of Python nodes are not looked at, for instance.
        self._made_of = {
            name: parts for name, parts in self._made_of.items() if self._catalog.available(name)
        }
        return gone + self.refresh()

    def refresh(self) -> list[str]:
        """Load again whatever has a file that changed; gives their names."""
        changed = []
        for name, settings in self._settings.items():
            made_of = (settings, digest(settings.path))
            before = self._made_of.get(name)
            if before != made_of and not (before and _is_hidden(settings.path)):
                self._made_of[name] = made_of
                self._load(settings)
                changed.append(name)
        return changed

    def _load(self, settings: GraphSettings) -> None:
        name = settings.name
        metrics = GraphMetrics(self._metrics, name)
        entry = self._catalog.begin(name, 1, GRAPH, metrics)
        try:
            graph = Graph.load(name, settings.path, self._catalog, metrics, settings.base_path)
        except GraphError as error:
            self._catalog.set_error(name, str(error))
            self._catalog.fail(name, entry, str(error))
            return
        graph.max_calls = self._max_calls
        self._catalog.publish(name, entry, graph)
        self._catalog.set_error(name, None)


def _is_hidden(path: Path) -> bool:
    """Whether what is there cannot be told, for want of a descriptor for instance."""
    try:
        path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return False
