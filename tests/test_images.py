"""Encoded images to rank-4 inputs, compared byte for byte with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from wire import Stub, infer_request

from kfs import errors
from kfs.datatypes import DATATYPES
from kfs.errors import ServingError
from kfs.signature import ANY, Dim, TensorSpec, fixed
from kfs.tensors.images import accepts_images, decode_images

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


def test_large_images_are_decoded_side_by_side_in_order() -> None:
    images = [picture(200, 150) for _ in range(6)]
    found = decode_images([encode(image) for image in images], spec(shape=(ANY, 200, 150, 3)))
    assert np.array_equal(found, np.stack(images))


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
