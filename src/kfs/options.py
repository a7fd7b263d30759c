"""Model options as operators write them, on the command line and in config.json, to values.

The grammar is that of OpenVINO Model Server. Every function raises ValueError with what was
expected and what was found.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from kfs.signature import ANY, Dim

Auto = Literal["auto"]
Shape = tuple[Dim, ...] | Auto
Batch = Dim | Auto

#: The key of an option that was given without the name of a tensor.
UNNAMED = ""

PRECISIONS = ("bf16", "fp64", "fp32", "fp16", "int64", "int32", "int16", "int8", "int4",
              "uint64", "uint32", "uint16", "uint8", "uint4", "uint1")  # fmt: skip
COLOR_FORMATS = ("RGB", "BGR", "GRAY", "NV12", "NV12_2", "I420", "I420_3")

_Value = TypeVar("_Value")
#: Dimensions are 64-bit integers, on the wire as in OpenVINO.
_MAX_SIZE = (1 << 63) - 1
_SHAPE = re.compile(r"\(\s*(.*?)\s*,?\s*\)", re.DOTALL)
_LAYOUT = re.compile(r"[NCHWD?]*(?:\.\.\.)?[NCHWD?]*")


@dataclass(frozen=True)
class Layout:
    """What clients send or get, and what the model has; a transpose between when they differ."""

    client: str
    model: str


@dataclass(frozen=True)
class Conversion:
    """What clients send, and what the model is given."""

    client: str
    model: str


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions that are there are served.

    Attributes:
        latest: how many of the highest; None for no limit.
        specific: only these numbers; None for any.
    """

    latest: int | None = 1
    specific: frozenset[int] | None = None

    def choose(self, there: frozenset[int]) -> frozenset[int]:
        """The versions to serve out of those that are there and can be loaded."""
        wanted = there if self.specific is None else there & self.specific
        return frozenset(sorted(wanted, reverse=True)[: self.latest])


def parse_dim(text: str) -> Dim:
    """`-1`, a size, or a range `low:high`."""
    low, colon, high = (part.strip() for part in text.partition(":"))
    if any(part.isdecimal() and int(part) > _MAX_SIZE for part in (low, high)):
        raise ValueError(f"expected sizes of at most {_MAX_SIZE}; found {text!r}")
    if text.strip() == "-1":
        return ANY
    if low.isdecimal() and not colon and int(low) > 0:
        return Dim(int(low), int(low))
    if low.isdecimal() and high.isdecimal() and int(low) < int(high):
        return Dim(int(low), int(high))
    raise ValueError(f"expected a size above 0, -1, or a range such as 1:8; found {text!r}")


def parse_shape(text: str) -> Shape:
    """`auto`, or sizes in brackets: `(1,3,-1,200:400)`."""
    if text.strip().lower() == "auto":
        return "auto"
    match = _SHAPE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"expected auto or a shape such as (1,3,224,224); found {text!r}")
    return tuple(parse_dim(part) for part in match[1].split(",")) if match[1] else ()


def parse_batch(text: str | int) -> Batch | None:
    """`auto`, a number, a range, or -1; None for 0, which leaves the model's own."""
    told = str(text).strip()
    if told.lower() == "auto":
        return "auto"
    return None if told == "0" else parse_dim(told)


def parse_layout(text: str) -> Layout:
    """`NHWC`, or `NHWC:NCHW` where clients send the first and the model has the second."""
    client, colon, model = (part.strip().upper() for part in text.partition(":"))
    layout = Layout(client, model if colon else client)
    for part in (layout.client, layout.model):
        letters = [letter for letter in part if letter.isalpha()]
        if not part or not _LAYOUT.fullmatch(part) or len(letters) != len(set(letters)):
            raise ValueError(
                "expected a layout of the letters N, C, H, W, D (each at most once), ? and ..., "
                f"such as NHWC or NHWC:NCHW; found {text!r}"
            )
    return layout


def parse_numbers(text: str) -> tuple[float, ...]:
    """One number, or one for each channel: `123.5`, `[1,2,3]`, `(1,2,3)`."""
    told = text.strip()
    inner = told[1:-1] if told[:1] + told[-1:] in ("[]", "()") else told
    try:
        numbers = tuple(float(part) for part in inner.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected a number, or [a,b,c]; found {text!r}")
    return numbers


def parse_color_format(text: str) -> Conversion:
    """`T:S`: the model is given T, clients send S; one name says both."""
    model, colon, client = (part.strip().upper() for part in text.partition(":"))
    return _conversion(text, client if colon else model, model, COLOR_FORMATS, "BGR:RGB")


def parse_precision(text: str) -> Conversion:
    """`T:S`: clients send T, the model consumes S; one name says both."""
    client, colon, model = (part.strip().lower() for part in text.partition(":"))
    return _conversion(text, client, model if colon else client, PRECISIONS, "uint8:fp32")


def _conversion(
    text: str, client: str, model: str, known: tuple[str, ...], example: str
) -> Conversion:
    if client not in known or model not in known:
        raise ValueError(f"expected two of {', '.join(known)}, such as {example}; found {text!r}")
    return Conversion(client, model)


def parse_json(text: str) -> Any:
    """
    Raises:
        ValueError: the text is not JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def parse_by_tensor(
    value: str | Mapping[str, str], parse: Callable[[str], _Value]
) -> dict[str, _Value]:
    """One value for the only tensor, or an object of values by the names of tensors."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            document = parse_json(value)
        except ValueError as error:
            raise ValueError(
                f"expected a JSON object of strings; this is no JSON: {error}"
            ) from None
        if not all(isinstance(part, str) for part in document.values()):
            raise ValueError(f"expected a JSON object of strings; found {value}")
        value = document
    if isinstance(value, str):
        return {UNNAMED: parse(value)}
    parsed: dict[str, _Value] = {}
    for name, part in value.items():
        try:
            parsed[name] = parse(part)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return parsed


def parse_version_policy(document: object) -> VersionPolicy:
    """`{"latest": {"num_versions": 2}}`, `{"all": {}}` or `{"specific": {"versions": [1, 3]}}`."""
    match document:
        case {"latest": {**rest}, **others} if not others and set(rest) <= {"num_versions"}:
            count = rest.get("num_versions", 1)
            if isinstance(count, int) and _is_positive(count):
                return VersionPolicy(latest=count)
        case {"all": {**rest}, **others} if not others and not rest:
            return VersionPolicy(latest=None)
        case {"specific": {"versions": [*versions], **rest}, **others} if not others and not rest:
            if versions and all(map(_is_positive, versions)):
                return VersionPolicy(latest=None, specific=frozenset(versions))
    raise ValueError(
        'expected {"latest": {"num_versions": N}}, {"all": {}} or {"specific": {"versions": '
        f"[N, ...]}}}}, with numbers from 1; found {json.dumps(document)}"
    )


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
