"""A batch of encoded images to a tensor: ours, and OpenCV's own decoding and resizing in a row.

    pytest bench/codec/test_images.py
    pytest bench/codec/test_images.py --benchmark-timer=time.process_time

Ours shares the images out over the cores; the second line adds up the time of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from kfs._fast import contents
from kfs._fast.wire import read_request
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli.malloc import keep_freed_memory
from kfs.datatypes import DATATYPES
from kfs.signature import TensorSpec, fixed
from kfs.tensors import images

N_IMAGES = 8

keep_freed_memory(256 << 20)  # for both, as the server does
SPEC = TensorSpec("input", DATATYPES["UINT8"], fixed(N_IMAGES, 224, 224, 3), "NHWC")


def photographs() -> list[bytes]:
    """JPEGs of 640x480: smooth, with some noise, as photographs are."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(N_IMAGES):
        smooth = cv2.resize(random.integers(0, 256, (15, 20, 3), np.uint8), (640, 480))
        noise = random.integers(0, 8, smooth.shape, np.uint8)
        found.append(cv2.imencode(".jpg", cv2.add(smooth, noise))[1].tobytes())
    return found


def request() -> bytes:
    message = pb.ModelInferRequest(model_name="model")
    tensor = message.inputs.add(name="input", datatype="BYTES", shape=[N_IMAGES])
    tensor.contents.bytes_contents.extend(photographs())
    return message.SerializeToString()


def decode_ours(data: bytes) -> Any:
    return images.decode_images(contents.bytes_items(read_request(data), 0), SPEC)


def decode_opencv(data: bytes) -> Any:
    items = contents.bytes_items(read_request(data), 0)
    array = np.empty((N_IMAGES, 224, 224, 3), np.uint8)
    for index, item in enumerate(items):
        image = cv2.imdecode(np.frombuffer(item, np.uint8), cv2.IMREAD_UNCHANGED)
        cv2.resize(image, (224, 224), dst=array[index])
    return array


DECODERS: dict[str, Callable[[bytes], Any]] = {"ours": decode_ours, "opencv": decode_opencv}


@pytest.mark.parametrize("who", DECODERS)
def test_eight_photographs(benchmark: Any, who: str) -> None:
    data = request()
    found = benchmark(DECODERS[who], data)
    assert np.array_equal(found, decode_opencv(data))
