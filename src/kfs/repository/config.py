"""From a config.json, or from flags, to what is wanted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kfs.repository.entries import as_graph, graph_settings, model_settings
from kfs.repository.schema import (
    ConfigError,
    ConfigFile,
    ModelConfig,
    Subconfig,
    UnfinishedError,
    may_name_models,
    read_file,
)
from kfs.servables.pipeline.spec import LibrarySpec, PipelineSpec, parse
from kfs.settings import GraphSettings, ModelSettings

_log = logging.getLogger("kfs.repository")
_Read = TypeVar("_Read")

# How long, and how often, a file that is not JSON is looked at again at the start.
_WRITER_WAIT_S = 1.0
_LOOK_S = 0.01


@dataclass(frozen=True)
class FileBeside:
    """A file beside a graph that names models.

    Attributes:
        names: those of the models that it brought; of a broken one, what it brought before.
        error: why it is broken; None while it is not.
    """

    names: frozenset[str] = frozenset()
    error: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What an operator wants served.

    Attributes:
        models: by name.
        broken: names whose entry cannot be served, and why.
        pipelines: by name.
        libraries: of custom nodes; None where nothing is said of them, so that they stay.
        folder: where relative paths of libraries begin.
        graphs: by name.
        files: other files that are looked for; a change of one is a change of what is wanted.
        beside: those of them that were found.
    """

    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    pipelines: Mapping[str, PipelineSpec] = field(default_factory=dict)
    libraries: tuple[LibrarySpec, ...] | None = None
    folder: Path = Path()
    graphs: Mapping[str, GraphSettings] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    beside: Mapping[Path, FileBeside] = field(default_factory=dict)


def read_config(path: Path, defaults: ModelSettings) -> Wanted:
    """Read, validate and resolve a config.json.

    Args:
        path: the file; relative paths in it start at its folder.
        defaults: what the command line says of every model (nireq, device, cache folder).

    Raises:
        ConfigError: the file cannot be read, is no JSON, or breaks the schema.
    """
    file = read_file(path, ConfigFile)
    return _wanted(file, path, defaults)


def read_metrics(path: Path) -> frozenset[str]:
    """The families of metrics that a config.json enables; looked at once, at the start.

    Raises:
        ConfigError: as `read_config`.
    """
    return read_file(path, ConfigFile, warns=False).monitoring.metrics.names


def once_written(read: Callable[[], _Read]) -> _Read:
    """What `read` reads at the start, when whoever may be writing the file has finished.

    Raises:
        ConfigError: the file was not finished within a second, or it is broken.
    """
    end = time.monotonic() + _WRITER_WAIT_S
    is_told = False
    while True:
        try:
            return read()
        except UnfinishedError as error:
            if time.monotonic() >= end:
                raise
            if not is_told:
                _log.warning("%s; looking again, in case it is being written", error)
                is_told = True
        time.sleep(_LOOK_S)


class _Draft:
    """What is wanted, as it is put together: who comes first has a name."""

    def __init__(self, defaults: ModelSettings, models: Iterable[ModelSettings] = ()) -> None:
        self._defaults = defaults
        self.models = {model.name: model for model in models}
        self.broken: dict[str, str] = {}
        self.pipelines: dict[str, PipelineSpec] = {}
        self.graphs: dict[str, GraphSettings] = {}
        self.beside: dict[Path, FileBeside] = {}

    def is_new(self, name: str) -> bool:
        if any(name in taken for taken in (self.models, self.broken, self.pipelines, self.graphs)):
            _log.warning("%s is configured more than once; the first is served", name)
            return False
        return True

    def add_model(self, config: ModelConfig, folder: Path) -> None:
        if not self.is_new(config.name):
            return
        try:
            self.models[config.name] = model_settings(config, folder, self._defaults)
        except ValueError as error:
            self.broken[config.name] = str(error)

    def add_models_beside(self, graph: GraphSettings, main: Path | None) -> None:
        """The models that a file beside a graph names, unless that is the main file."""
        found = next((path for path in graph.subconfigs if os.path.isfile(path)), None)
        if found is None or _are_same(found, main) or found in self.beside:
            return
        # The second name is one that other programs have, too.
        if found in graph.subconfigs[1:] and not may_name_models(found):
            _log.info("graph %s: %s is not about models, and left alone", graph.name, found)
            return
        try:
            subconfig = read_file(found, Subconfig)
        except ConfigError as error:
            _log.error("graph %s: the models beside it are not read: %s", graph.name, error)
            self.beside[found] = FileBeside(error=str(error))
            return
        before = {*self.models, *self.broken}
        for item in subconfig.model_config_list:
            if as_graph(item.config, found.parent) is None:
                self.add_model(item.config, found.parent)
        self.beside[found] = FileBeside(frozenset({*self.models, *self.broken} - before))

    def finish(
        self,
        graphs: Sequence[GraphSettings],
        libraries: tuple[LibrarySpec, ...] | None = None,
        folder: Path = Path(),
    ) -> Wanted:
        """All of it; whatever else has the name of a graph goes before the graph."""
        for graph in graphs:
            if self.is_new(graph.name):
                self.graphs[graph.name] = graph
        files = tuple(path for graph in graphs for path in graph.subconfigs)
        return Wanted(
            self.models,
            self.broken,
            self.pipelines,
            libraries,
            folder,
            self.graphs,
            files,
            self.beside,
        )


def _wanted(file: ConfigFile, path: Path, defaults: ModelSettings) -> Wanted:
    folder = path.absolute().parent
    draft = _Draft(defaults)
    graphs = [graph_settings(graph, folder) for graph in file.mediapipe_config_list]
    for item in file.model_config_list:
        graph = as_graph(item.config, folder)
        if graph is None:
            draft.add_model(item.config, folder)
        else:
            graphs.append(graph)
    for graph in graphs:
        draft.add_models_beside(graph, path)
    for pipeline in file.pipeline_config_list:
        if draft.is_new(pipeline.name):
            draft.pipelines[pipeline.name] = parse(pipeline.model_dump(exclude_none=True))
    return draft.finish(graphs, _libraries(file), folder)


def _libraries(file: ConfigFile) -> tuple[LibrarySpec, ...] | None:
    libraries = file.custom_node_library_config_list
    if libraries is None:
        return None
    return tuple(LibrarySpec(library.name, library.base_path) for library in libraries)


def wanted_of(
    models: Sequence[ModelSettings], graphs: Sequence[GraphSettings], defaults: ModelSettings
) -> Wanted:
    """The same without a config.json: what flags name, and what files beside graphs add."""
    draft = _Draft(defaults, models)
    for graph in graphs:
        draft.add_models_beside(graph, None)
    return draft.finish(graphs)


def _are_same(path: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)
