"""A model as its operator wants it: layouts, preprocessing, shapes and batch.

Everything is done to OpenVINO's model before it is compiled, so it costs what the device takes
for it and nothing in the server. Layouts come first: shapes are those that clients send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import openvino as ov
from openvino import preprocess as pre

from kfs.errors import ModelLoadError
from kfs.options import UNNAMED, Layout, Shape
from kfs.servables.model.source import TensorNames
from kfs.servables.model.words import words_of
from kfs.settings import ModelSettings
from kfs.signature import Dim, expand_layout

_Value = TypeVar("_Value")
_DEFAULT_LAYOUT = "N..."
_SCALAR = ov.PartialShape([])

_ELEMENTS = {
    "bf16": "bf16", "fp64": "f64", "fp32": "f32", "fp16": "f16",
    "int64": "i64", "int32": "i32", "int16": "i16", "int8": "i8", "int4": "i4",
    "uint64": "u64", "uint32": "u32", "uint16": "u16", "uint8": "u8", "uint4": "u4", "uint1": "u1",
}  # fmt: skip
_COLORS = {
    "RGB": pre.ColorFormat.RGB, "BGR": pre.ColorFormat.BGR, "GRAY": pre.ColorFormat.GRAY,
    "NV12": pre.ColorFormat.NV12_SINGLE_PLANE, "NV12_2": pre.ColorFormat.NV12_TWO_PLANES,
    "I420": pre.ColorFormat.I420_SINGLE_PLANE, "I420_3": pre.ColorFormat.I420_THREE_PLANES,
}  # fmt: skip


_PLANES = ("NV12_2", "I420_3")


def client_name(port: Any, index: int, aliases: Mapping[str, str]) -> str:
    """The name that clients use: the smallest of the port's, or what it is mapped to."""
    names = sorted(port.names, key=str.encode)
    name = names[0] if names else f"out_{index}"
    return next((aliases[name] for name in names if name in aliases), name)


def layout_of(port: Any, rank: int) -> str:
    """The layout stored in the model, else `N...`; a letter per dimension, without brackets."""
    if not rank:
        return "..."
    layout = getattr(port.get_node(), "layout", None)
    names = [] if layout is None else str(layout).strip("[]").split(",")
    # OpenVINO also takes words of which it knows nothing: `[SEQ,N,C]`.
    text = "".join(name if len(name) == 1 or name == "..." else "?" for name in names)
    # It says `...` of a tensor that nothing was said of.
    return _DEFAULT_LAYOUT if text in ("", "...") else text


def prepare(model: ov.Model, settings: ModelSettings, names: TensorNames) -> ov.Model:
    """The model with the options of `settings` applied.

    Raises:
        ModelLoadError: an option names no tensor, or OpenVINO cannot do what it asks for.
    """
    inputs = [client_name(port, i, names.inputs) for i, port in enumerate(model.inputs)]
    outputs = [client_name(port, i, names.outputs) for i, port in enumerate(model.outputs)]
    layouts = _by_name("layout", settings.layouts, inputs, outputs)
    shapes = _by_name("shape", settings.shapes, inputs, ())
    model = _preprocess(model, settings, inputs, outputs, layouts)
    sizes = _wanted_shapes(model, settings, inputs, shapes)
    if sizes:
        try:
            model.reshape(sizes)
        except Exception as error:
            raise ModelLoadError(
                f"OpenVINO cannot give the model these shapes: {_told(inputs, sizes)}: "
                f"{words_of(error)}"
            ) from error
    return model


def _by_name(
    option: str, values: Mapping[str, _Value], inputs: Iterable[str], outputs: Iterable[str]
) -> dict[str, _Value]:
    """The values by the names of tensors; one without a name belongs to the only input."""
    known = [*inputs, *outputs]
    found = dict(values)
    bare = found.pop(UNNAMED, None)
    for name in found:
        if name not in known:
            raise ModelLoadError(f"{option} of {name}: the model has only {', '.join(known)}")
    if bare is None:
        return found
    only = list(inputs)
    if len(only) != 1 and bare != "auto":
        raise ModelLoadError(
            f"{option}: the model has several inputs ({', '.join(only)}), so say which is meant, "
            f'for example {{"{only[0]}": ...}}'
        )
    return {**dict.fromkeys(only, bare), **found}


def _preprocess(
    model: ov.Model,
    settings: ModelSettings,
    inputs: list[str],
    outputs: list[str],
    layouts: Mapping[str, Layout],
) -> ov.Model:
    converts = settings.mean or settings.scale or settings.color_format or settings.precision
    if not layouts and not converts:
        return model
    both = [name for name in layouts if name in inputs and name in outputs]
    if both:
        raise ModelLoadError(f"layout of {both[0]}: an input and an output have this name")
    steps = pre.PrePostProcessor(model)
    for index, name in enumerate(inputs):
        if name in layouts:
            steps.input(index).tensor().set_layout(ov.Layout(layouts[name].client))
            steps.input(index).model().set_layout(ov.Layout(layouts[name].model))
    for index, name in enumerate(outputs):
        if name in layouts:
            steps.output(index).tensor().set_layout(ov.Layout(layouts[name].client))
            steps.output(index).model().set_layout(ov.Layout(layouts[name].model))
    if converts:
        if len(inputs) != 1:
            raise ModelLoadError(
                "mean, scale, color_format and precision are for models with one input; this has "
                + ", ".join(inputs)
            )
        _convert(steps.input(0), settings)
    try:
        return steps.build()
    except Exception as error:
        raise ModelLoadError(
            f"OpenVINO cannot apply layout, mean, scale, color_format or precision: "
            f"{words_of(error)}"
        ) from error


def _convert(info: Any, settings: ModelSettings) -> None:
    """Colour, then datatype, then mean, then scale."""
    if settings.precision:
        info.tensor().set_element_type(getattr(ov.Type, _ELEMENTS[settings.precision.client]))
    if settings.color_format:
        if settings.color_format.client in _PLANES:
            raise ModelLoadError(
                f"color_format {settings.color_format.client}: the planes would be inputs without "
                "names, which no request could send"
            )
        info.tensor().set_color_format(_COLORS[settings.color_format.client])
        info.preprocess().convert_color(_COLORS[settings.color_format.model])
    if settings.precision:
        consumed = getattr(ov.Type, _ELEMENTS[settings.precision.model])
        info.preprocess().convert_element_type(consumed)
    if settings.mean:
        info.preprocess().mean(_one_or_each(settings.mean))
    if settings.scale:
        info.preprocess().scale(_one_or_each(settings.scale))


def _one_or_each(numbers: tuple[float, ...]) -> float | list[float]:
    return numbers[0] if len(numbers) == 1 else list(numbers)


def _wanted_shapes(
    model: ov.Model, settings: ModelSettings, inputs: list[str], shapes: Mapping[str, Shape]
) -> dict[int, ov.PartialShape]:
    wanted: dict[int, ov.PartialShape] = {}
    axes: dict[str, int] = {}
    for index, name in enumerate(inputs):
        shape = shapes.get(name)
        port = model.inputs[index]
        if shape is not None and shape != "auto":
            wanted[index] = ov.PartialShape([_dimension(dim) for dim in shape])
        elif settings.batch is not None and not shapes:
            axes[name] = axis = _batch_axis(port)
            if settings.batch == "auto" and port.partial_shape == _SCALAR:
                raise ModelLoadError(f"batch_size is auto, and input {name} is a scalar")
            if settings.batch != "auto" and axis >= 0:
                dims = list(port.partial_shape)
                dims[axis] = _dimension(settings.batch)
                wanted[index] = ov.PartialShape(dims)
    if axes and max(axes.values()) < 0:
        raise ModelLoadError(
            f"batch_size: no input has a batch dimension (N) in its layout: {', '.join(axes)}"
        )
    return wanted


def _batch_axis(port: Any) -> int:
    """Where the batch is; -1 for nowhere."""
    rank = port.partial_shape.rank
    length = 0 if rank.is_dynamic else rank.get_length()
    return expand_layout(layout_of(port, length), length).find("N")


def _dimension(dim: Dim) -> ov.Dimension:
    return ov.Dimension(dim.low, -1 if dim.high is None else dim.high)


def _told(inputs: list[str], sizes: Mapping[int, ov.PartialShape]) -> str:
    return ", ".join(f"{inputs[index]} {shape}" for index, shape in sizes.items())
