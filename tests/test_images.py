"""Encoded images to rank-4 inputs, compared byte for byte with OpenCV."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from wire import Stub, infer_request

from kfs import errors
from kfs.datatypes import DATATYPES
from kfs.errors import ServingError
from kfs.signature import ANY, Dim, TensorSpec, fixed
from kfs.tensors.images import accepts_images, decode_images, max_pixels

RANDOM = np.random.default_rng(7)


def picture(height: int = 8, width: int = 6, channels: int = 3, dtype: Any = np.uint8) -> Any:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def encode(image: Any, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, image)[1])


def spec(
    datatype: str = "UINT8", shape: Sequence[Any] = (ANY, 8, 6, 3), layout: str = "NHWC"
) -> TensorSpec:
    dims = tuple(dim if isinstance(dim, Dim) else fixed(dim)[0] for dim in shape)
    return TensorSpec("image", DATATYPES[datatype], dims, layout)


def fault(items: Sequence[bytes], wanted: TensorSpec, **options: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        decode_images(items, wanted, **options)
    assert str(caught.value).endswith("; input name: image")
    assert str(caught.value).count("input name") == 1
    return caught.value


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
def test_colour_stays_bgr(suffix: str) -> None:
    data = encode(picture(), suffix)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decode_images([data], spec()), expected[np.newaxis])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_stay_as_they_are(channels: int) -> None:
    image = picture(channels=channels)
    found = decode_images([encode(image)], spec(shape=(1, 8, 6, channels)))
    assert np.array_equal(found, image.reshape(1, 8, 6, channels))


@pytest.mark.parametrize(
    "name", ["UINT8", "UINT16", "INT8", "INT16", "INT32", "FP16", "FP32", "FP64"]
)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_precisions_saturate(name: str, depth: Any) -> None:
    image = picture(dtype=depth)
    dtype = np.dtype(DATATYPES[name].numpy)
    limit = np.inf if dtype.kind == "f" else np.iinfo(dtype).max
    with np.errstate(over="ignore"):
        expected = np.minimum(image.astype(np.float64), limit).astype(dtype)
    assert np.array_equal(decode_images([encode(image)], spec(name))[0], expected)


@pytest.mark.parametrize("name", ["INT64", "UINT32", "UINT64", "BOOL"])
def test_other_precisions_take_no_images(name: str) -> None:
    assert fault([encode(picture())], spec(name)).status is errors.INVALID_PRECISION


@pytest.mark.parametrize("batch", [1, ANY, Dim(1, 4)])
@pytest.mark.parametrize("name", ["UINT8", "UINT16", "INT16", "FP32", "FP64"])
def test_resizing_follows_the_conversion(name: str, batch: Any) -> None:
    image = picture(20, 30)
    expected = cv2.resize(image.astype(DATATYPES[name].numpy), (6, 8))
    found = decode_images([encode(image)], spec(name, (batch, 8, 6, 3)))
    assert np.array_equal(found[0], expected)


@pytest.mark.parametrize("name", ["INT8", "INT32", "FP16"])
def test_resizing_comes_first_where_opencv_cannot_resize(name: str) -> None:
    image = picture(20, 30) // 2
    expected = cv2.resize(image, (6, 8)).astype(DATATYPES[name].numpy)
    assert np.array_equal(decode_images([encode(image)], spec(name))[0], expected)


def test_a_grey_image_keeps_its_axis_when_resized() -> None:
    image = picture(20, 30, channels=1)
    found = decode_images([encode(image)], spec(shape=(1, 8, 6, 1)))
    assert np.array_equal(found[0, :, :, 0], cv2.resize(image, (6, 8)))


def test_a_batch_of_several_resolutions_is_resized() -> None:
    images = [picture(8, 6), picture(10, 12), picture(3, 3)]
    found = decode_images([encode(image) for image in images], spec())
    for index, image in enumerate(images):
        assert np.array_equal(found[index], cv2.resize(image, (6, 8)))


@pytest.mark.parametrize(("height", "expected"), [(3, 5), (7, 7), (20, 10)])
def test_a_range_is_the_size_or_its_nearest_end(height: int, expected: int) -> None:
    image = picture(height, 6)
    found = decode_images([encode(image)], spec(shape=(1, Dim(5, 10), 6, 3)))
    assert found.shape == (1, expected, 6, 3)
    assert np.array_equal(found[0], cv2.resize(image, (6, expected)))


def test_dynamic_height_and_width_are_those_of_the_first_image() -> None:
    wanted = spec(shape=(ANY, ANY, ANY, 3))
    assert decode_images([encode(picture(9, 5))] * 2, wanted).shape == (2, 9, 5, 3)
    error = fault([encode(picture(9, 5)), encode(picture(9, 6))], wanted)
    assert error.status is errors.RESOLUTION_MISMATCH
    assert "Expected: 9x5 pixels" in error.details
    assert "image 1 has 9x6 pixels" in error.details


def test_a_default_layout_takes_images_but_does_not_resize() -> None:
    wanted = spec(layout="N...")
    assert decode_images([encode(picture())], wanted).shape == (1, 8, 6, 3)
    assert fault([encode(picture(9, 6))], wanted).status is errors.INVALID_SHAPE


@pytest.mark.parametrize(
    ("layout", "accepted"),
    [("NHWC", True), ("N...", True), ("...", True), ("N??C", True), ("N?HWC", False),
     ("NCHW", False), ("NCH?", False), ("NH?W", False), ("?HWC", True), ("...C", True)],
)  # fmt: skip
def test_layouts(layout: str, accepted: bool) -> None:
    wanted = spec(layout=layout)
    assert accepts_images(wanted) is accepted
    if not accepted:
        assert fault([encode(picture())], wanted).status is errors.UNSUPPORTED_LAYOUT


def test_behind_a_demultiplexed_dimension() -> None:
    wanted = spec(shape=(ANY, 1, 8, 6, 3), layout="N?HWC")
    assert decode_images([encode(picture())] * 3, wanted).shape == (3, 1, 8, 6, 3)


@pytest.mark.parametrize("count", [0, 3])
def test_the_number_of_images_must_fit_the_batch(count: int) -> None:
    error = fault([encode(picture())] * count, spec(shape=(Dim(1, 2), 8, 6, 3)))
    assert error.status is errors.INVALID_BATCH_SIZE


def test_an_empty_image() -> None:
    assert fault([b""], spec()).status is errors.EMPTY_BYTES
    assert fault([b""], spec(), raw=True).status is errors.UNDECODABLE_IMAGE


@pytest.mark.parametrize("junk", [b"junk", b"\x89PNG\r\n\x1a\n", encode(picture(), ".jpg")[:20]])
def test_an_undecodable_image_is_named(junk: bytes) -> None:
    error = fault([encode(picture()), junk], spec())
    assert error.status is errors.UNDECODABLE_IMAGE
    assert "image 1 cannot be decoded" in error.details


@pytest.mark.parametrize("channels", [1, 4])
def test_a_wrong_number_of_channels(channels: int) -> None:
    error = fault([encode(picture()), encode(picture(channels=channels))], spec())
    assert error.status is errors.INVALID_CHANNEL_COUNT
    assert f"Expected: 3; Actual: {channels} in image 1" in error.details


def test_dynamic_channels_are_those_of_the_first_image() -> None:
    wanted = spec(shape=(ANY, 8, 6, ANY))
    assert decode_images([encode(picture(channels=4))], wanted).shape == (1, 8, 6, 4)
    error = fault([encode(picture(channels=4)), encode(picture())], wanted)
    assert error.status is errors.INVALID_CHANNEL_COUNT


def test_a_range_of_channels_is_that_of_the_first_image() -> None:
    wanted = spec(shape=(ANY, 8, 6, Dim(1, 3)))
    assert decode_images([GREY, GREY], wanted).shape == (2, 8, 6, 1)
    error = fault([GREY, IMAGE], wanted)
    assert error.status is errors.INVALID_CHANNEL_COUNT
    assert "Expected: 1; Actual: 3 in image 1" in error.details
    error = fault([encode(picture(channels=4))], wanted)
    assert error.status is errors.INVALID_CHANNEL_COUNT
    assert "Expected: [1~3]; Actual: 4 in image 0" in error.details


def test_large_images_are_decoded_side_by_side_in_order() -> None:
    images = [picture(200, 150) for _ in range(6)]
    found = decode_images([encode(image) for image in images], spec(shape=(ANY, 200, 150, 3)))
    assert np.array_equal(found, np.stack(images))


def converted(image: Any, name: str) -> Any:
    """What OpenCV's own saturating arithmetic makes of the values."""
    depths = {"UINT8": cv2.CV_8U, "INT8": cv2.CV_8S, "UINT16": cv2.CV_16U, "INT16": cv2.CV_16S,
              "INT32": cv2.CV_32S, "FP32": cv2.CV_32F, "FP64": cv2.CV_64F}  # fmt: skip
    return cv2.add(image, np.zeros_like(image), dtype=depths[name])


@pytest.mark.parametrize("name", ["UINT8", "INT8", "UINT16", "INT16", "INT32", "FP32", "FP64"])
def test_every_16_bit_value_converts_as_in_opencv(name: str) -> None:
    image = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    found = decode_images([encode(image)], spec(name, (1, 256, 256, 1)))
    assert found.dtype == DATATYPES[name].numpy
    assert found.tobytes() == converted(image, name).tobytes()


def test_half_floats_round_to_even_and_overflow_to_infinity() -> None:
    image = np.array([[2049, 2051, 65504, 65519, 65520, 65535]], np.uint16)
    found = decode_images([encode(image)], spec("FP16", (1, 1, 6, 1)))
    assert found.ravel().tolist() == [2048, 2052, 65504, 65504, np.inf, np.inf]


@pytest.mark.parametrize("name", ["UINT8", "INT8", "UINT16", "INT16", "INT32"])
def test_fractions_round_to_even_and_saturate(name: str) -> None:
    values = np.array([[-0.5, 0.5, 1.5, 2.5, -1.5, 254.5, 255.5, 1e9, -1e9]], np.float32)
    found = decode_images([encode(values, ".pfm")], spec(name, (1, 1, 9, 1)))
    assert found.tobytes() == converted(values, name).tobytes()


def test_floats_beyond_every_integer_go_to_the_nearest_and_nan_to_the_lowest() -> None:
    values = np.array([[np.nan, 3e9, -3e9, np.inf, -np.inf]], np.float32)
    found = decode_images([encode(values, ".pfm")], spec("INT32", (1, 1, 5, 1)))
    low, high = -(1 << 31), (1 << 31) - 1
    assert found.ravel().tolist() == [low, high, low, high, low]


def test_16_bit_images_saturate_before_they_are_resized() -> None:
    image = picture(20, 30, dtype=np.uint16) // 128
    expected = cv2.resize(np.minimum(image, 255).astype(np.uint8), (6, 8))
    assert np.array_equal(decode_images([encode(image)], spec())[0], expected)


@pytest.mark.parametrize("name", ["INT8", "INT32", "FP16"])
def test_16_bit_images_are_resized_before_these_conversions(name: str) -> None:
    image = picture(20, 30, dtype=np.uint16) // 2
    resized = cv2.resize(image, (6, 8))
    expected = resized.astype(np.float16) if name == "FP16" else converted(resized, name)
    assert np.array_equal(decode_images([encode(image)], spec(name))[0], expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ["UINT8", "FP32", "INT32"])
@pytest.mark.parametrize("target", [(1, 1), (1, 7), (7, 1), (40, 50)])
def test_resizing_fills_each_slot(channels: int, name: str, target: tuple[int, int]) -> None:
    images = [picture(20, 30, channels) for _ in range(2)]
    dtype = DATATYPES[name].numpy
    size = (target[1], target[0])
    found = decode_images([encode(i) for i in images], spec(name, (ANY, *target, channels)))
    assert found.shape == (2, *target, channels)
    assert found.flags.c_contiguous
    for slot, image in zip(found, images, strict=True):
        expected = (
            cv2.resize(image, size).astype(dtype)
            if name == "INT32"
            else cv2.resize(image.astype(dtype), size)
        )
        assert slot.tobytes() == expected.tobytes()


def test_pixels_that_cannot_be_resized() -> None:
    image = np.full((4, 4), -5, np.int32)
    error = fault([encode(image, ".tiff")], spec("INT32", (1, 2, 2, 1)))
    assert error.status is errors.UNDECODABLE_IMAGE
    assert "image 0 has 4x4 pixels (height x width) of int32" in error.details


def test_orientation_is_ignored() -> None:
    data = encode(picture(8, 6), ".jpg")
    # One entry: tag 0x0112, Orientation, of type SHORT, with the value 6, a quarter turn.
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + tiff
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    upright = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert upright.shape == (6, 8, 3)  # the entry is one that OpenCV understands
    assert np.array_equal(decode_images([turned], spec()), decode_images([data], spec()))


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + checksum


def png(
    width: int, height: int, colour_type: int, rows: bytes, *before: bytes, depth: int = 8
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *before,
                     chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")))  # fmt: skip


def test_a_palette_becomes_bgr() -> None:
    data = png(2, 1, 3, b"\0\0\1", chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60])))
    found = decode_images([data], spec(shape=(1, 1, 2, 3)))
    assert found.tolist() == [[[[30, 20, 10], [60, 50, 40]]]]


def test_grey_with_alpha_becomes_bgra() -> None:
    data = png(2, 1, 4, bytes([0, 7, 100, 9, 200]))
    found = decode_images([data], spec(shape=(1, 1, 2, 4)))
    assert found.tolist() == [[[[7, 7, 7, 100], [9, 9, 9, 200]]]]


def test_a_grey_jpeg_keeps_one_channel() -> None:
    data = encode(picture(channels=1), ".jpg")
    assert decode_images([data], spec(shape=(1, 8, 6, ANY))).shape == (1, 8, 6, 1)
    assert fault([data], spec()).status is errors.INVALID_CHANNEL_COUNT


def one_bit_png(side: int) -> bytes:
    """A complete file; without a limit it decodes."""
    return png(side, side, 0, bytes(side * (1 + -(-side // 8))), depth=1)


def test_an_image_of_too_many_pixels_is_refused() -> None:
    wanted = spec(shape=(ANY, ANY, ANY, 1))
    assert decode_images([one_bit_png(1000)], wanted).shape == (1, 1000, 1000, 1)
    error = fault([one_bit_png(math.isqrt(max_pixels()) + 1)], wanted)
    assert error.status is errors.UNDECODABLE_IMAGE
    assert "of at most 134217728 pixels" in error.details


def test_images_become_no_more_than_the_largest_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfs.tensors.images.MAX_MESSAGE_NBYTES", 2 * 8 * 6 * 3)
    assert decode_images([encode(picture())] * 2, spec()).nbytes == 288
    error = fault([encode(picture())] * 3, spec())
    assert error.status is errors.UNDECODABLE_IMAGE
    assert "Expected: images of at most 288 bytes in all, decoded to U8; Actual: 432" in str(error)


@pytest.mark.parametrize(
    ("limit", "found"),
    [("63", "63 False"), ("64", "64 True")]
    + [(junk, "134217728 True") for junk in ("junk", "9" * 20, "\u0663")],
)
def test_the_environment_limits_the_pixels_of_an_image(limit: str, found: str) -> None:
    """OpenCV reads it when it is imported, and would end the process over junk."""
    code = """if True:
        import numpy, kfs.tensors.images as images
        png = images.cv2.imencode(".png", numpy.zeros((8, 8), "u1"))[1]
        print(images.max_pixels(), images._decode(png) is not None)
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPENCV_IO_MAX_IMAGE_PIXELS": limit},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == found


def test_opencv_writes_nothing_of_a_bad_image_to_the_standard_error() -> None:
    code = """if True:
        import numpy, kfs.tensors.images as images
        png = images.cv2.imencode(".png", numpy.zeros((8, 8), "u1"))[1]
        print(images._decode(png[:60]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.mark.parametrize(
    ("shape", "layout", "status"),
    [
        ((1, 8, 3), "N...", errors.UNSUPPORTED_LAYOUT),
        ((ANY, 1, 8, 6, 3), "NHWC", errors.UNSUPPORTED_LAYOUT),
        ((1, 1, 1, 8, 6, 3), "N...", errors.INVALID_SHAPE),
    ],
)
def test_inputs_of_other_ranks(shape: tuple[Any, ...], layout: str, status: errors.Status) -> None:
    assert fault([encode(picture())], spec(shape=shape, layout=layout)).status is status


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("...", (1, 8, 6, 3)), ("N?HWC", (1, 1, 8, 6, 3)), ("...", (ANY, 8, 6, 3))],
)
def test_layouts_that_resize(layout: str, shape: tuple[Any, ...]) -> None:
    image = picture(20, 30)
    found = decode_images([encode(image)], spec(shape=shape, layout=layout))
    assert found.tobytes() == cv2.resize(image, (6, 8)).tobytes()


@pytest.mark.parametrize("side", ["height", "width"])
def test_a_side_of_any_size_disables_resizing(side: str) -> None:
    wanted = spec(shape=(1, ANY, 6, 3) if side == "height" else (1, 8, ANY, 3))
    assert decode_images([encode(picture())], wanted).shape == (1, 8, 6, 3)
    assert fault([encode(picture(9, 7))], wanted).status is errors.INVALID_SHAPE


IMAGE, GREY, WIDE = encode(picture()), encode(picture(channels=1)), encode(picture(8, 7))


@pytest.mark.parametrize(
    ("items", "wanted", "status"),
    [
        ([], spec(layout="NCHW"), errors.UNSUPPORTED_LAYOUT),
        ([], spec(shape=(1,) * 6, layout="N..."), errors.INVALID_SHAPE),
        ([b"", b""], spec(shape=(1, 8, 6, 3)), errors.INVALID_BATCH_SIZE),
        ([b"junk", b""], spec(), errors.EMPTY_BYTES),
        ([b"junk", GREY], spec("INT64"), errors.UNDECODABLE_IMAGE),
        ([GREY, b"junk"], spec("INT64"), errors.INVALID_CHANNEL_COUNT),
        ([WIDE, b"junk"], spec("INT64"), errors.INVALID_PRECISION),
        ([WIDE, b"junk"], spec(layout="N..."), errors.INVALID_SHAPE),
        ([IMAGE, GREY, b"junk"], spec(), errors.INVALID_CHANNEL_COUNT),
        ([IMAGE, encode(picture(8, 7, 1))], spec(layout="N..."), errors.RESOLUTION_MISMATCH),
    ],
)
def test_the_first_of_two_faults_is_told(
    items: list[bytes], wanted: TensorSpec, status: errors.Status
) -> None:
    assert fault(items, wanted).status is status


@pytest.mark.parametrize("first", [0, 1, 5])
def test_the_first_faulty_image_of_many_is_told(first: int) -> None:
    good = encode(picture(200, 150))
    items = [good] * 12
    items[first:] = [good[:30], encode(picture(9, 9, 1)), *items[first + 2 :]]
    for _ in range(20):
        error = fault(items, spec(shape=(ANY, 200, 150, 3)))
        assert error.status is errors.UNDECODABLE_IMAGE
        assert f"image {first} cannot be decoded" in error.details


@pytest.mark.parametrize("last", [encode(picture(200, 150)), b"junk"])
def test_nothing_holds_on_to_the_images(last: bytes) -> None:
    items = [bytearray(encode(picture(200, 150))) for _ in range(4)] + [bytearray(last)]
    gc.disable()
    try:
        with contextlib.suppress(ServingError):
            decode_images([memoryview(item) for item in items], spec())
        for item in items:
            item.clear()  # raises while a view of it exists
    finally:
        gc.enable()


def test_many_calls_share_the_threads() -> None:
    images = [picture(100, 100) for _ in range(5)]
    items = [encode(image) for image in images]
    wanted = spec(shape=(ANY, 100, 100, 3))
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: decode_images(items, wanted), range(64)):
            assert np.array_equal(found, images)


@pytest.mark.parametrize("raw", [True, False])
def test_images_over_the_wire(stub: Stub, raw: bool) -> None:
    items = [encode(picture()), encode(picture(16, 12), ".jpg")]
    framed = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    request = infer_request("images", "input", "BYTES", [2], raw=framed if raw else None)
    if not raw:
        request.inputs[0].contents.bytes_contents.extend(items)
    response = stub.ModelInfer(request, timeout=30)
    assert list(response.outputs[0].shape) == [2, 8, 6, 3]
    expected = decode_images(items, spec("FP32"))
    assert response.raw_output_contents[0] == expected.tobytes()


def test_an_input_of_channels_first_takes_no_images(stub: Stub) -> None:
    request = infer_request("image_nchw", "input", "BYTES", [1], bytes_contents=[encode(picture())])
    with pytest.raises(Exception, match="not configured to accept NHWC layout"):
        stub.ModelInfer(request, timeout=30)
