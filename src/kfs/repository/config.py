"""From a config.json, or from flags, to what is wanted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from kfs import options
from kfs.repository.folders import (
    CLOUD_PREFIXES,
    GRAPH_FILE,
    SUBCONFIG,
    find_version_graph,
    resolve_path,
)
from kfs.repository.schema import (
    ByTensor,
    ConfigError,
    ConfigFile,
    GraphConfig,
    ModelConfig,
    Subconfig,
    UnfinishedError,
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
class Wanted:
    """What an operator wants served.

    Attributes:
        models: by name.
        broken: names whose entry cannot be served, and why.
        pipelines: by name.
        libraries: of custom nodes; None where nothing is said of them, so that they stay.
        folder: where relative paths of libraries begin.
        graphs: by name.
        files: other files that were read; a change of one is a change of what is wanted.
        beside: the names of the models that each of them brought.
        unread: those of them that are broken, and why.
    """

    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    pipelines: Mapping[str, PipelineSpec] = field(default_factory=dict)
    libraries: tuple[LibrarySpec, ...] | None = None
    folder: Path = Path()
    graphs: Mapping[str, GraphSettings] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    beside: Mapping[Path, frozenset[str]] = field(default_factory=dict)
    unread: Mapping[Path, str] = field(default_factory=dict)


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


def _wanted(file: ConfigFile, path: Path, defaults: ModelSettings) -> Wanted:
    folder = path.parent
    models: dict[str, ModelSettings] = {}
    broken: dict[str, str] = {}
    graphs = [_graph_settings(graph, folder) for graph in file.mediapipe_config_list]
    for item in file.model_config_list:
        config = item.config
        graph = _as_graph(config, folder)
        if graph is not None:
            graphs.append(graph)
        else:
            _add_model(config, folder, defaults, models, broken)
    beside, unread = _add_submodels(graphs, path, defaults, models, broken)
    pipelines: dict[str, PipelineSpec] = {}
    for pipeline in file.pipeline_config_list:
        if _is_new(pipeline.name, models, broken, pipelines):
            pipelines[pipeline.name] = parse(pipeline.model_dump(exclude_none=True))
    served = _by_name(graphs, models, broken, pipelines)
    files = _files_beside(graphs)
    return Wanted(
        models, broken, pipelines, _libraries(file), folder, served, files, beside, unread
    )


def _libraries(file: ConfigFile) -> tuple[LibrarySpec, ...] | None:
    libraries = file.custom_node_library_config_list
    if libraries is None:
        return None
    return tuple(LibrarySpec(library.name, library.base_path) for library in libraries)


def wanted_of(
    models: Sequence[ModelSettings], graphs: Sequence[GraphSettings], defaults: ModelSettings
) -> Wanted:
    """The same without a config.json: what flags name, and what files beside graphs add."""
    by_name = {model.name: model for model in models}
    broken: dict[str, str] = {}
    beside, unread = _add_submodels(graphs, None, defaults, by_name, broken)
    served = _by_name(graphs, by_name, broken)
    files = _files_beside(graphs)
    return Wanted(by_name, broken, graphs=served, files=files, beside=beside, unread=unread)


def _files_beside(graphs: Iterable[GraphSettings]) -> tuple[Path, ...]:
    return tuple(path for graph in graphs for path in graph.subconfigs)


def _by_name(
    graphs: Iterable[GraphSettings], *taken: Container[str]
) -> Mapping[str, GraphSettings]:
    found: dict[str, GraphSettings] = {}
    for graph in graphs:
        if _is_new(graph.name, found, *taken):
            found[graph.name] = graph
    return found


def _is_new(name: str, *taken: Container[str]) -> bool:
    if any(name in names for names in taken):
        _log.warning("%s is configured more than once; the first is served", name)
        return False
    return True


def _add_model(
    config: ModelConfig, folder: Path, defaults: ModelSettings,
    models: dict[str, ModelSettings], broken: dict[str, str],
) -> None:  # fmt: skip
    if not _is_new(config.name, models, broken):
        return
    try:
        models[config.name] = _settings(config, folder, defaults)
    except ValueError as error:
        broken[config.name] = str(error)


def _graph_settings(config: GraphConfig | ModelConfig, folder: Path) -> GraphSettings:
    base = folder / (config.base_path or config.name)
    subconfigs = [config.subconfig] if config.subconfig else [SUBCONFIG, "config.json"]
    return GraphSettings(
        config.name,
        base,
        base / (config.graph_path or GRAPH_FILE),
        tuple(base / subconfig for subconfig in subconfigs),
    )


def _as_graph(config: ModelConfig, folder: Path) -> GraphSettings | None:
    """An entry of a model that is a graph: its graph file is there."""
    if (config.base_path or "").startswith(CLOUD_PREFIXES):
        return None
    settings = _graph_settings(config, folder)
    if os.path.isfile(settings.path):
        return settings
    return find_version_graph(config.name, settings.base_path)


def _add_submodels(
    graphs: Sequence[GraphSettings], main: Path | None, defaults: ModelSettings,
    models: dict[str, ModelSettings], broken: dict[str, str],
) -> tuple[Mapping[Path, frozenset[str]], Mapping[Path, str]]:  # fmt: skip
    """The models that files beside graphs name; those of the main file and the first go before.

    Returns:
        The names that each file brought; the files that are broken, and why.
    """
    beside: dict[Path, frozenset[str]] = {}
    unread: dict[Path, str] = {}
    for graph in graphs:
        found = next((path for path in graph.subconfigs if os.path.isfile(path)), None)
        if found is None or _are_same(found, main) or found in beside or found in unread:
            continue
        try:
            subconfig = read_file(found, Subconfig)
        except ConfigError as error:
            _log.error("graph %s: the models beside it are not read: %s", graph.name, error)
            unread[found] = str(error)
            continue
        before = {*models, *broken}
        for item in subconfig.model_config_list:
            if _as_graph(item.config, found.parent) is None:
                _add_model(item.config, found.parent, defaults, models, broken)
        beside[found] = frozenset({*models, *broken} - before)
    return beside, unread


def _are_same(path: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)


def _settings(config: ModelConfig, folder: Path, defaults: ModelSettings) -> ModelSettings:
    """
    Raises:
        ValueError: this entry cannot be served; the option and the reason.
    """
    if config.custom_loader_options is not None:
        raise ValueError("custom_loader_options: custom loaders are not served")
    if config.stateful:
        raise ValueError("stateful: OVMS itself dropped stateful models in 2026.3")
    shapes = _lenient("shape", config.name, config.shape)
    batch = _lenient_batch(config)
    if shapes and batch is not None:
        _log.warning("%s: batch_size is ignored, since shape is given", config.name)
        batch = None
    return replace(
        defaults,
        name=config.name,
        base_path=resolve_path(config.base_path, folder),
        nireq=defaults.nireq if config.nireq is None else config.nireq,
        plugin_config=config.plugin_config or defaults.plugin_config,
        target_device=config.target_device or defaults.target_device,
        version_policy=_strict("model_version_policy", config.model_version_policy),
        shapes=shapes,
        batch=batch,
        layouts=_strict("layout", config.layout),
        mean=_strict("mean", config.mean),
        scale=_strict("scale", config.scale),
        color_format=_strict("color_format", config.color_format),
        precision=_strict("precision", config.precision),
        allow_cache=config.allow_cache,
    )


_PARSERS: dict[str, Any] = {
    "layout": lambda value: options.parse_by_tensor(value, options.parse_layout),
    "mean": lambda value: options.parse_numbers(str(value)),
    "scale": lambda value: options.parse_numbers(str(value)),
    "color_format": options.parse_color_format,
    "precision": options.parse_precision,
    "model_version_policy": options.parse_version_policy,
}
_ABSENT: dict[str, Any] = {
    "layout": {}, "mean": (), "scale": (), "model_version_policy": options.VersionPolicy(),
}  # fmt: skip


def _strict(option: str, value: object) -> Any:
    if value is None:
        return _ABSENT.get(option)
    try:
        return _PARSERS[option](value)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _lenient(option: str, model: str, value: ByTensor | None) -> dict[str, options.Shape]:
    """Shapes; a malformed one is left out with a warning, as OVMS does."""
    if value is None:
        return {}
    parts = {options.UNNAMED: value} if isinstance(value, str) else value
    shapes: dict[str, options.Shape] = {}
    for name, text in parts.items():
        try:
            shapes[name] = options.parse_shape(text)
        except ValueError as error:
            _log.warning("%s: %s is ignored: %s", model, option, error)
    return shapes


def _lenient_batch(config: ModelConfig) -> options.Batch | None:
    if config.batch_size is None:
        return None
    try:
        return options.parse_batch(config.batch_size)
    except ValueError as error:
        _log.warning("%s: batch_size is ignored: %s", config.name, error)
        return None
