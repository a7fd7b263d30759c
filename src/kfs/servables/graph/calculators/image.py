"""Calculators between images and tensors: ImageTransformation and OpenVINOConverter."""

from __future__ import annotations

import numpy as np

from kfs._proto import calculator_graph_pb2 as pb
from kfs.errors import Code
from kfs.servables.graph.calculator import (
    ANY,
    IMAGE,
    OV_TENSORS,
    Calculator,
    CalculatorError,
    Contract,
    NodeContext,
    options_of,
)
from kfs.servables.graph.packets import ImageFrame
from kfs.servables.graph.spec import GraphError, NodeSpec
from kfs.tensors.arrays import Array
from kfs.tensors.transform import Scale, resize

_TRANSFORM = pb.ImageTransformationCalculatorOptions
_CONVERT = pb.OpenVINOConverterCalculatorOptions

_SCALES = {
    pb.ScaleMode.DEFAULT: Scale.STRETCH,
    pb.ScaleMode.STRETCH: Scale.STRETCH,
    pb.ScaleMode.FIT: Scale.FIT,
    pb.ScaleMode.FILL_AND_CROP: Scale.CROP,
}
#: Quarter turns, counterclockwise.
_TURNS = {
    pb.RotationMode.UNKNOWN: 0,
    pb.RotationMode.ROTATION_0: 0,
    pb.RotationMode.ROTATION_90: 1,
    pb.RotationMode.ROTATION_180: 2,
    pb.RotationMode.ROTATION_270: 3,
}


def _check_tags(node: NodeSpec, inputs: set[str], outputs: set[str], needed: str) -> None:
    given = {port.tag for port in node.inputs}, {port.tag for port in node.outputs}
    if needed not in given[0]:
        raise GraphError(f"expected an input_stream with the tag {needed}")
    for what, tags, known in (("input", given[0], inputs), ("output", given[1], outputs)):
        unknown = tags - known
        if unknown:
            raise GraphError(
                f"{what} {', '.join(sorted(unknown))} is not served; served are "
                f"{', '.join(sorted(known))}"
            )


class ImageTransformationCalculator(Calculator):
    """Resizes, turns and flips an IMAGE, in this order.

    OUTPUT_DIMENSIONS, a pair of width and height, goes before the size in the options.
    LETTERBOX_PADDING tells the borders left, top, right and bottom as parts of the size.
    """

    @classmethod
    def contract(cls, contract: Contract) -> None:
        node = contract.node
        _check_tags(node, {"IMAGE", "OUTPUT_DIMENSIONS"}, {"IMAGE", "LETTERBOX_PADDING"}, "IMAGE")
        for ports, types in ((node.inputs, contract.inputs), (node.outputs, contract.outputs)):
            types.update({port: IMAGE if port.tag == "IMAGE" else ANY for port in ports})
        contract.is_offset_zero = True

    def process(self, context: NodeContext) -> None:
        frame: ImageFrame | None = context.input("IMAGE")
        if frame is None:
            return
        options = options_of(context.node, _TRANSFORM)
        turns = _TURNS[options.rotation_mode]
        height, width = _size(frame, context, turns)
        border = None
        if options.constant_padding:
            color = options.padding_color
            border = (color.red, color.green, color.blue)
        try:
            pixels, padding = resize(
                frame.pixels, height, width, _SCALES[options.scale_mode], border,
                nearest=options.interpolation_mode == _TRANSFORM.NEAREST,
            )  # fmt: skip
        except ValueError as error:
            raise CalculatorError(str(error), Code.INVALID_ARGUMENT) from None
        pixels = np.rot90(pixels, turns)
        if options.flip_vertically:
            pixels = pixels[::-1]
        if options.flip_horizontally:
            pixels = pixels[:, ::-1]
        context.send(ImageFrame(frame.format, np.ascontiguousarray(pixels)), "IMAGE")
        if any(port.tag == "LETTERBOX_PADDING" for port in context.node.outputs):
            context.send(padding, "LETTERBOX_PADDING")


def _size(frame: ImageFrame, context: NodeContext, turns: int) -> tuple[int, int]:
    """Height and width before the image is turned."""
    options = options_of(context.node, _TRANSFORM)
    wanted = context.input("OUTPUT_DIMENSIONS")
    width, height = wanted if wanted is not None else (options.output_width, options.output_height)
    if width <= 0 or height <= 0:
        return frame.pixels.shape[0], frame.pixels.shape[1]
    return (width, height) if turns % 2 else (height, width)


class OpenVINOConverterCalculator(Calculator):
    """An IMAGE to TENSORS, a list of one tensor [1,H,W,C].

    With enable_normalization its values are FP32 in a range; otherwise they stay what they are.
    """

    @classmethod
    def contract(cls, contract: Contract) -> None:
        node, options = contract.node, options_of(contract.node, _CONVERT)
        _check_tags(node, {"IMAGE"}, {"TENSORS"}, "IMAGE")
        if options.max_num_channels not in (1, 3, 4):
            raise GraphError(
                f"expected max_num_channels of 1, 3 or 4; found {options.max_num_channels}"
            )
        contract.inputs[node.inputs[0]] = IMAGE
        contract.outputs[node.outputs[0]] = OV_TENSORS
        contract.is_offset_zero = True

    def process(self, context: NodeContext) -> None:
        frame: ImageFrame | None = context.input("IMAGE")
        if frame is None:
            return
        options = options_of(context.node, _CONVERT)
        pixels = frame.pixels
        if pixels.dtype not in (np.uint8, np.uint16, np.float32):
            raise CalculatorError(
                f"expected an image of UINT8, UINT16 or FP32; found {pixels.dtype}"
            )
        pixels = pixels[:, :, : options.max_num_channels]
        if options.flip_vertically:
            pixels = pixels[::-1]
        if options.enable_normalization:
            pixels = _normalized(pixels, options)
        context.send([np.ascontiguousarray(pixels)[np.newaxis]], "TENSORS")


def _normalized(pixels: Array, options: pb.OpenVINOConverterCalculatorOptions) -> Array:
    """From 0..255 to the range of the options."""
    values = pixels.astype(np.float32)
    if options.use_custom_normalization:
        custom: Array = values / np.float32(options.custom_div) - np.float32(options.custom_sub)
        return custom
    low, high = (-1.0, 1.0) if options.zero_center else (0.0, 1.0)
    if options.HasField("output_tensor_float_range"):
        low, high = options.output_tensor_float_range.min, options.output_tensor_float_range.max
    scaled: Array = values * np.float32((high - low) / 255) + np.float32(low)
    return scaled
