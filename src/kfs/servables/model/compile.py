"""From a model file to a compiled model and its signature."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import openvino as ov

from kfs.datatypes import from_openvino
from kfs.errors import ModelLoadError
from kfs.servables.model.preparation import client_name, layout_of, prepare
from kfs.servables.model.source import (
    MAPPING_FILE,
    TensorNames,
    find_model_file,
    read_tensor_names,
)
from kfs.servables.model.words import words_of
from kfs.settings import ModelSettings, PluginValue
from kfs.signature import Dim, Signature, TensorSpec

_log = logging.getLogger("kfs.model")

_MAX_SLOTS = 100_000
_MMAP = "ENABLE_MMAP"
_CACHE = "CACHE_DIR"
_PINNING = "ENABLE_CPU_PINNING"


@dataclass(frozen=True)
class ReadModel:
    """A model as it was read; its files are not looked at again."""

    path: Path
    model: Any
    names: TensorNames


@dataclass(frozen=True)
class Compiled:
    """A compiled model, and its tensors in OpenVINO's own order.

    Attributes:
        outputs: what is an output several times is there several times, under one name.
        passed: the indices of outputs that are an input as it is: OpenVINO has one tensor for
            both then.
    """

    model: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    passed: frozenset[int]
    n_slots: int
    n_streams: int

    @property
    def signature(self) -> Signature:
        return Signature.of(self.inputs, tuple({spec.name: spec for spec in self.outputs}.values()))


@cache
def core() -> Any:
    """The one OpenVINO core of the process: it caches what devices and frontends it loaded.

    Files are read, not mapped: of one that is cut short, or gone from a network, a mapping ends
    the process.
    """
    core = ov.Core()
    core.set_property({_MMAP: False})
    _add_tokenizers(core)
    return core


def _add_tokenizers(core: Any) -> None:
    """Make the operations of tokenizers known, where the package openvino-tokenizers is installed.

    Not by importing it, which would bring them into every core that a handler makes.
    """
    package = importlib.util.find_spec("openvino_tokenizers")
    for folder in () if package is None else package.submodule_search_locations or ():
        for library in Path(folder).glob("lib/libopenvino_tokenizers.*"):
            try:
                core.add_extension(str(library))
            except Exception as error:
                _log.warning("%s is left out: %s", library, words_of(error))


def share_cores(n_processes: int) -> None:
    """Let each of so many processes compute on its part of the cores, unless a model says else."""
    n_threads = max((os.cpu_count() or 1) // n_processes, 1)
    core().set_property("CPU", {"INFERENCE_NUM_THREADS": n_threads})


def add_extension(library: Path) -> None:
    """Make the operations of a library known to OpenVINO, for every model after.

    Raises:
        ModelLoadError: OpenVINO does not take it.
    """
    try:
        core().add_extension(str(library))
    except Exception as error:
        raise ModelLoadError(f"cpu_extension {library}: {words_of(error)}") from error


def read_model(settings: ModelSettings, folder: Path) -> ReadModel:
    """Read the model in a version folder, or a single file.

    Raises:
        ModelLoadError: one line that says what is wrong, with OpenVINO's words where it refused.
    """
    path = find_model_file(folder)
    names = read_tensor_names(folder)
    try:
        model = core().read_model(path, config=_reading(settings))
    except Exception as error:
        raise ModelLoadError(f"OpenVINO cannot read {path}: {words_of(error)}") from error
    _warn_of_unknown(names, model, path)
    return ReadModel(path, model, names)


def _warn_of_unknown(names: TensorNames, model: Any, path: Path) -> None:
    """Of a name that no tensor has, the alias is without effect."""
    for kind, ports, aliases in (
        ("input", model.inputs, names.inputs), ("output", model.outputs, names.outputs)
    ):  # fmt: skip
        known = {name for port in ports for name in port.names}
        for name in aliases.keys() - known:
            _log.warning("%s beside %s: the model has no %s %s; it has %s",
                         MAPPING_FILE, path, kind, name, ", ".join(sorted(known)))  # fmt: skip


def compile_model(settings: ModelSettings, read: ReadModel) -> Compiled:
    """Compile a copy of the model, prepared as the settings say.

    Raises:
        ModelLoadError: one line that says what is wrong, with OpenVINO's words where it refused.
    """
    path, names = read.path, read.names
    model = prepare(read.model.clone(), settings, names)
    inputs = _specs(model.inputs, names.inputs, path, "input")
    outputs = _specs(model.outputs, names.outputs, path, "output")
    passed = _passed(model)
    properties = plugin_properties(settings)
    try:
        compiled = _compile(model, settings.target_device, properties)
        optimal = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    except Exception as error:
        raise ModelLoadError(
            f"OpenVINO cannot compile {path} for {settings.target_device} with {properties}: "
            f"{words_of(error)}"
        ) from error
    n_slots = settings.nireq or max(optimal, 1)
    if n_slots > _MAX_SLOTS:
        raise ModelLoadError(f"nireq is {n_slots}; at most {_MAX_SLOTS} are allowed")
    return Compiled(compiled, inputs, outputs, passed, n_slots, _count_streams(compiled))


def _passed(model: Any) -> frozenset[int]:
    """What `Compiled.passed` tells; a compiled model no longer says what an output comes from."""
    sources = [output.get_node().input_value(0).get_node() for output in model.outputs]
    return frozenset(
        index for index, node in enumerate(sources) if node.get_type_name() == "Parameter"
    )


def _count_streams(compiled: Any) -> int:
    """How many inferences the device runs at once; 1 where it does not say."""
    try:
        return int(compiled.get_property("NUM_STREAMS"))
    except Exception:
        return 1


def _compile(model: Any, device: str, properties: Mapping[str, PluginValue]) -> Any:
    """Compile with the cache; a cache that cannot be used is no reason to do without the model."""
    try:
        return core().compile_model(model, device, properties)
    except Exception as error:
        if _CACHE not in properties:
            raise
        uncached = {name: value for name, value in properties.items() if name != _CACHE}
        compiled = core().compile_model(model, device, uncached)
        _log.warning("cache_dir %s cannot be used: %s", properties[_CACHE], words_of(error))
        return compiled


def _reading(settings: ModelSettings) -> dict[str, PluginValue]:
    return {name: value for name, value in settings.plugin_config.items() if name == _MMAP}


def plugin_properties(settings: ModelSettings) -> dict[str, PluginValue]:
    """OpenVINO's properties for compilation: the operator's, else low latency on any core.

    Names that OpenVINO has dropped are understood as OpenVINO Model Server does.

    Raises:
        ModelLoadError: a property that the device does not have.
    """
    properties: dict[str, PluginValue] = {}
    for name, value in settings.plugin_config.items():
        properties.update(_current_property(name, value))
    _check_properties(properties, settings.target_device)
    if "NUM_STREAMS" not in properties and "PERFORMANCE_HINT" not in properties:
        properties["PERFORMANCE_HINT"] = "LATENCY"
    if settings.target_device == "CPU" and _PINNING in _known_properties("CPU"):
        # An inference runs on the thread of its call, which would be moved to the first core for
        # it, whatever else runs there, and be let go again.
        properties.setdefault(_PINNING, False)
    if settings.cache_dir is not None and (settings.allow_cache or not settings.is_auto):
        properties[_CACHE] = str(settings.cache_dir)
    return properties


def _current_property(name: str, value: PluginValue) -> dict[str, PluginValue]:
    """A property by the name and with the type that OpenVINO takes today."""
    text = str(value)
    if name in ("CPU_THROUGHPUT_STREAMS", "GPU_THROUGHPUT_STREAMS"):
        if text == name.replace("STREAMS", "AUTO"):
            return {"PERFORMANCE_HINT": "THROUGHPUT"}
        return {"NUM_STREAMS": text}
    if name == "CPU_THREADS_NUM":
        name = "INFERENCE_NUM_THREADS"
    if name == "NUM_STREAMS":
        return {name: text}
    if name in ("INFERENCE_NUM_THREADS", "AUTO_BATCH_TIMEOUT") and text.isdecimal():
        return {name: int(text)}
    if name == _PINNING and text.lower() in ("true", "false"):
        return {name: text.lower() == "true"}
    return {name: value}


def _check_properties(properties: Mapping[str, PluginValue], device: str) -> None:
    if ":" in device or device in ("AUTO", "MULTI", "HETERO", "BATCH"):
        return  # their properties are those of the devices behind them
    known = _known_properties(device)
    for name in properties:
        if name not in known and name != _MMAP:
            raise ModelLoadError(
                f"plugin_config: {device} has no property {name}; it has {', '.join(sorted(known))}"
            )


@cache  # OpenVINO leaks its answer
def _known_properties(device: str) -> frozenset[str]:
    try:
        return frozenset(str(name) for name in core().get_property(device, "SUPPORTED_PROPERTIES"))
    except Exception as error:
        devices = ", ".join(core().available_devices)
        raise ModelLoadError(
            f"OpenVINO has no device {device} here; it has {devices}: {words_of(error)}"
        ) from error


def _specs(
    ports: Iterable[Any], aliases: Mapping[str, str], path: Path, kind: str
) -> tuple[TensorSpec, ...]:
    specs: list[TensorSpec] = []
    sources: dict[str, Any] = {}
    for index, port in enumerate(ports):
        spec = _spec(port, index, aliases, path, kind)
        source = port if kind == "input" else port.get_node().input_value(0)
        # One tensor may be an output several times, each with all the names of the tensor.
        if sources.setdefault(spec.name, source) != source:
            raise ModelLoadError(f"{path}: several {kind}s are named {spec.name}")
        specs.append(spec)
    return tuple(specs)


def _spec(port: Any, index: int, aliases: Mapping[str, str], path: Path, kind: str) -> TensorSpec:
    if not port.names and kind == "input":
        raise ModelLoadError(f"{path}: input {index} has no name, so no request could send it")
    name = client_name(port, index, aliases)
    shape = tuple(
        Dim(dim.get_min_length(), None if dim.get_max_length() < 0 else dim.get_max_length())
        for dim in _dimensions(port, path, kind, name)
    )
    datatype = from_openvino(port.element_type.get_type_name())
    return TensorSpec(name, datatype, shape, layout_of(port, len(shape)))


def _dimensions(port: Any, path: Path, kind: str, name: str) -> list[Any]:
    if port.partial_shape.rank.is_dynamic:
        raise ModelLoadError(f"{path}: {kind} {name} has no fixed number of dimensions")
    return list(port.partial_shape)


def is_alias_safe(device: str) -> bool:
    """Whether inputs may be bound at addresses of any alignment, over memory of our own.

    True on CPU, where it was tested; other plugins may need aligned or device memory.
    """
    return device == "CPU"
