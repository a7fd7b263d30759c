"""Graphs of a repository: loaded after all they may use, and again when their files change."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kfs.files import NoFileError, check_is_file
from kfs.metrics.servables import GraphMetrics
from kfs.repository.dependents import Dependents
from kfs.repository.versions import GRAPH
from kfs.servables.graph import Graph
from kfs.settings import GraphSettings


def digest(path: Path) -> bytes:
    """What is in a file, or why it cannot be read, in 32 bytes."""
    try:
        check_is_file(path)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        data = str(error).encode(errors="replace")
    return hashlib.sha256(data).digest()


class Graphs(Dependents[GraphSettings, GraphMetrics]):
    """Keeps the graphs of a catalog true to their files.

    The servables that a graph uses are looked up at every inference, so it does not change with
    them. An open stream goes on with the graph it began with.
    """

    _kind = GRAPH

    def _parts(self, settings: GraphSettings, before: object) -> object:
        parts = (settings, digest(settings.path))
        return before if before not in (None, parts) and _is_hidden(settings.path) else parts

    def _metrics_of(self, name: str) -> GraphMetrics:
        return GraphMetrics(self._metrics, name)

    def _make(self, settings: GraphSettings, metrics: GraphMetrics) -> Graph:
        return Graph.load(settings.name, settings.path, self._catalog, metrics, settings.base_path)


def _is_hidden(path: Path) -> bool:
    """Whether what is there cannot be told, for want of a descriptor for instance."""
    try:
        check_is_file(path)
        path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, NoFileError, ValueError):
        return False
    except OSError:
        return True
    return False
