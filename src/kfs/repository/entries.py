"""From one entry of a configuration to the settings of a model or a graph."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfs import options
from kfs.repository.folders import (
    CLOUD_PREFIXES,
    GRAPH_FILE,
    SUBCONFIG,
    find_version_graph,
    resolve_path,
)
from kfs.repository.schema import GraphConfig, ModelConfig
from kfs.settings import GraphSettings, ModelSettings

_log = logging.getLogger("kfs.repository")


def graph_settings(config: GraphConfig | ModelConfig, folder: Path) -> GraphSettings:
    base = folder / (config.base_path or config.name)
    subconfigs = [config.subconfig] if config.subconfig else [SUBCONFIG, "config.json"]
    return GraphSettings(
        config.name,
        base,
        base / (config.graph_path or GRAPH_FILE),
        tuple(base / subconfig for subconfig in subconfigs),
    )


def as_graph(config: ModelConfig, folder: Path) -> GraphSettings | None:
    """An entry of a model that is a graph: its graph file is there."""
    if (config.base_path or "").startswith(CLOUD_PREFIXES):
        return None
    settings = graph_settings(config, folder)
    if os.path.isfile(settings.path):
        return settings
    return find_version_graph(config.name, settings.base_path)


def model_settings(config: ModelConfig, folder: Path, defaults: ModelSettings) -> ModelSettings:
    """
    Raises:
        ValueError: this entry cannot be served; the option and the reason.
    """
    if config.custom_loader_options is not None:
        raise ValueError("custom_loader_options: custom loaders are not served")
    if config.stateful:
        raise ValueError("stateful: OVMS itself dropped stateful models in 2026.3")
    shapes = _shapes(config)
    batch = _batch(config)
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


def _shapes(config: ModelConfig) -> dict[str, options.Shape]:
    """By tensor; a malformed one is left out with a warning, as OVMS does."""
    if config.shape is None:
        return {}
    parts = {options.UNNAMED: config.shape} if isinstance(config.shape, str) else config.shape
    shapes: dict[str, options.Shape] = {}
    for name, text in parts.items():
        try:
            shapes[name] = options.parse_shape(text)
        except ValueError as error:
            _log.warning("%s: shape is ignored: %s", config.name, error)
    return shapes


def _batch(config: ModelConfig) -> options.Batch | None:
    if config.batch_size is None:
        return None
    try:
        return options.parse_batch(config.batch_size)
    except ValueError as error:
        _log.warning("%s: batch_size is ignored: %s", config.name, error)
        return None
