"""The schema of config.json and of the files beside graphs, and what is told of their faults.

The schema is that of OpenVINO Model Server, with the options of models that its documents have
and its schema forgot (mean, scale, color_format, precision).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from kfs.files import check_is_file
from kfs.metrics.families import DEFAULT, check_names
from kfs.options import parse_json

_log = logging.getLogger("kfs.repository")
_File = TypeVar("_File", bound="_Closed")

ByTensor = str | dict[str, str]
Name = Annotated[str, Field(min_length=1)]  # the empty one stands for the server in health checks
Count = Annotated[int, Field(ge=0)]
Demultiply = Annotated[int, Field(ge=-1, le=10000)]


class ConfigError(Exception):
    """A config.json that cannot be served at all: the file, the place in it, what was expected."""


class UnfinishedError(ConfigError):
    """A file that is not JSON, perhaps not yet."""


class _Closed(BaseModel):
    """An object without unknown keys, and values of the very types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_null(cls, value: object) -> object:
        """A key may be left out; None is what it is then, and nothing that can be written."""
        if value is None:
            raise ValueError("null is no value of this key; leave the key out")
        return value


class _CustomLoaderOptions(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    loader_name: str


class ModelConfig(_Closed):
    """One model, or a graph. OVMS unloads idle models group by group; nothing is unloaded here."""

    name: Name
    base_path: str | None = None
    batch_size: Count | str | None = None
    shape: ByTensor | None = None
    layout: ByTensor | None = None
    model_version_policy: dict[str, Any] | None = None
    nireq: Count | None = None
    target_device: str | None = None
    plugin_config: dict[str, str | bool | int | float] = Field(default_factory=dict)
    allow_cache: bool = False
    mean: str | float | list[float] | None = None
    scale: str | float | list[float] | None = None
    color_format: str | None = None
    precision: str | None = None
    custom_loader_options: _CustomLoaderOptions | None = None
    graph_path: str | None = None
    subconfig: str | None = None
    group_name: str | None = None
    stateful: bool | None = None
    idle_sequence_cleanup: bool | None = None
    low_latency_transformation: bool | None = None
    max_sequence_number: Count | None = None


class ModelItem(_Closed):
    config: ModelConfig


class Source(_Closed):
    node_name: str
    data_item: str


class NodeOutput(_Closed):
    data_item: str
    alias: str


SourceMap = Annotated[dict[str, Source], Field(min_length=1, max_length=1)]


class Node(_Closed):
    name: str
    type: Literal["DL model", "custom"]
    model_name: str | None = None
    library_name: str | None = None
    version: Annotated[int, Field(ge=1)] | None = None
    inputs: list[SourceMap]
    outputs: list[NodeOutput]
    params: dict[str, str] = Field(default_factory=dict)
    demultiply_count: Demultiply | None = None
    gather_from_node: str | None = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Node:
        needed, other = ("model_name", "library_name")
        if self.type == "custom":
            needed, other = other, needed
        if getattr(self, needed) is None:
            raise ValueError(f"a node of type {self.type} needs {needed}")
        if getattr(self, other) is not None:
            raise ValueError(f"a node of type {self.type} has no {other}")
        return self


class PipelineConfig(_Closed):
    name: Name
    inputs: list[str]
    nodes: list[Node]
    outputs: list[SourceMap]
    demultiply_count: Demultiply | None = None


class LibraryConfig(_Closed):
    name: str
    base_path: str


class GraphConfig(_Closed):
    name: Name
    base_path: str | None = None
    graph_path: str | None = None
    subconfig: str | None = None
    group_name: str | None = None


class CustomLoader(_Closed):
    loader_name: str
    library_path: str
    loader_config_file: str | None = None


class CustomLoaderItem(_Closed):
    config: CustomLoader


class MetricsConfig(_Closed):
    enable: bool = False
    metrics_list: list[str] | None = None

    @field_validator("metrics_list")
    @classmethod
    def _check_names(cls, names: list[str] | None) -> list[str] | None:
        check_names(names or ())
        return names

    @model_validator(mode="after")
    def _check_enabled(self) -> MetricsConfig:
        if self.metrics_list is not None and not self.enable:
            raise ValueError("metrics_list needs enable: true")
        return self

    @property
    def names(self) -> frozenset[str]:
        """The families that are enabled."""
        if not self.enable:
            return frozenset()
        return DEFAULT if self.metrics_list is None else frozenset(self.metrics_list)


class Monitoring(_Closed):
    metrics: MetricsConfig = MetricsConfig()


class ConfigFile(_Closed):
    model_config_list: list[ModelItem]
    mediapipe_config_list: list[GraphConfig] = Field(default_factory=list)
    pipeline_config_list: list[PipelineConfig] = Field(default_factory=list)
    custom_node_library_config_list: list[LibraryConfig] | None = None
    custom_loader_config_list: list[CustomLoaderItem] = Field(default_factory=list)
    monitoring: Monitoring = Monitoring()


class Subconfig(_Closed):
    """A file beside a graph."""

    model_config_list: list[ModelItem]


def read_file(path: Path, kind: type[_File], *, warns: bool = True) -> _File:
    """A file that is one of `kind`.

    Args:
        warns: whether to log what is odd, and no fault.

    Raises:
        UnfinishedError: it is no JSON.
        ConfigError: it cannot be read, or breaks the schema.
    """
    twice: list[str] = []
    try:
        check_is_file(path)
        document = json.loads(
            path.read_text(encoding="utf-8-sig"),
            parse_constant=_refuse_constant,
            object_pairs_hook=partial(_last_of_each, twice=twice),
        )
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UnfinishedError(f"{path} is not JSON: {error}") from None
    try:
        file = kind.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_told(error, document, kind)}") from None
    for key in dict.fromkeys(twice) if warns else ():
        _log.warning("%s: the key %s is more than once in an object; the last counts", path, key)
    return file


def may_name_models(path: Path) -> bool:
    """Whether a config.json beside a graph is one of ours, whole or broken.

    Models of Hugging Face, for instance, have a file of that name, which says how they are built.
    """
    try:
        document = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return True
    # Also a key that is misspelt.
    return not isinstance(document, dict) or any("config_list" in key for key in document)


def _last_of_each(pairs: list[tuple[str, Any]], twice: list[str]) -> dict[str, Any]:
    """An object; its keys that are there more than once are added to `twice`."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice += [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _told(error: ValidationError, document: object, kind: type[BaseModel]) -> str:
    """The deepest fault: its place in the file, what was expected, what was found."""
    # A value that may be of two types has a fault for each; the deeper one is the nearer miss.
    # A key that is not known may be the very one that is missing beside it.
    faults = [(_place(fault, document), fault) for fault in error.errors(include_url=False)]
    place, first = max(
        faults,
        key=lambda told: (told[0].count(".") + told[0].count("["), _is_unknown_key(told[1])),
    )
    if _is_unknown_key(first):
        *parents, key = map(str, first["loc"])
        known = _keys_at(kind, parents)
        near = get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected: {', '.join(known)}"
        return f"{place}: this key is not allowed here; {hint}"
    messages = dict.fromkeys(_message(fault) for other, fault in faults if other == place)
    message = " or ".join(messages).replace("Value error, ", "")
    if first["type"] in ("missing", "value_error"):
        return f"{place}: {message}"
    return f"{place}: {message}; found {_short(first['input'])}"


def _is_unknown_key(fault: ErrorDetails) -> bool:
    return fault["type"] == "extra_forbidden"


def _keys_at(kind: type[BaseModel], parents: Sequence[str]) -> Iterable[str]:
    """The keys that the schema has inside these parents."""
    for part in parents:
        if part in kind.model_fields:
            kind = next(_objects_in(kind.model_fields[part].annotation), kind)
    return kind.model_fields


def _objects_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The objects that a type is made of: `Node` for `list[Node]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _objects_in(argument)


def _message(fault: ErrorDetails) -> str:
    """pydantic's, but in the words of JSON."""
    match fault["type"]:
        case "model_type" | "dict_type":
            return "Input should be an object"
        case "too_short" | "too_long":
            return "Input should be an object with one key"
    return fault["msg"]


def _place(fault: ErrorDetails, document: object) -> str:
    """`model_config_list[0].config.nireq`, without what pydantic adds for the arms of unions."""
    text = ""
    here: Any = document
    *parents, last = fault["loc"] or ("",)
    for part in [*parents, last]:
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if inside:
            here = here[part]
        elif not (fault["type"] == "missing" and part is last):
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "the file"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
