"""The bundled model by itself, without a server: its tensors, its accuracy, its images."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import pytest

from kfs.digits import INPUT, MODEL_PATH, OUTPUT, images

TRAIN = Path(__file__).parents[1] / "examples" / "digits" / "train.py"
README = MODEL_PATH.parent / "README.md"


@pytest.fixture(scope="module")
def splits() -> Any:
    """What it was trained on and what was held out, from the script that trained it."""
    return runpy.run_path(str(TRAIN))["splits"]()


@pytest.fixture(scope="module")
def model() -> Any:
    return ov.Core().read_model(MODEL_PATH / "1" / "digits.xml")


@pytest.fixture(scope="module")
def compiled(model: Any) -> Any:
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def test_the_tensors_are_as_the_readme_tells(model: Any) -> None:
    ((image,), (probabilities,)) = model.inputs, model.outputs
    assert (image.get_names(), probabilities.get_names()) == ({INPUT}, {OUTPUT})
    assert image.partial_shape == ov.PartialShape([-1, 8, 8, 1])
    assert probabilities.partial_shape == ov.PartialShape([-1, 10])
    assert image.element_type == probabilities.element_type == ov.Type.f32


def test_the_layout_is_read_back_as_nhwc(model: Any) -> None:
    (parameter,) = model.get_parameters()
    assert parameter.get_layout() == ov.Layout("NHWC")


def test_accuracy_is_what_the_readme_beside_the_model_states(compiled: Any, splits: Any) -> None:
    _, held_out = splits
    probabilities = compiled(held_out.images.astype(np.float32))[OUTPUT]
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    n_correct = int((probabilities.argmax(1) == held_out.labels).sum())
    stated = re.search(r"(\d+) of (\d+) held-out images right, or ([\d.]+) %", README.read_text())
    assert stated is not None
    assert (n_correct, len(held_out.labels)) == (int(stated[1]), int(stated[2]))
    assert f"{n_correct / len(held_out.labels):.1%}" == f"{stated[3]}%"
    assert n_correct / len(held_out.labels) >= 0.95


def test_nothing_held_out_was_trained_on(splits: Any) -> None:
    trained, held_out = ({image.tobytes() for image in part.images} for part in splits)
    assert len(splits[0].labels) + len(splits[1].labels) == 1797
    assert not trained & held_out


@pytest.mark.parametrize("image", images(), ids=lambda image: image.path.stem)
def test_a_bundled_image_is_held_out_and_classified(image: Any, compiled: Any, splits: Any) -> None:
    pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert pixels.shape == (8, 8)
    assert pixels.dtype == np.uint8
    trained, held_out = ({each.tobytes() for each in part.images} for part in splits)
    assert pixels.tobytes() in held_out
    assert pixels.tobytes() not in trained
    probabilities = compiled(pixels.astype(np.float32)[np.newaxis, ..., np.newaxis])[OUTPUT]
    assert probabilities.argmax() == image.truth


def test_the_bundled_images_are_a_dozen_and_show_every_digit() -> None:
    assert len(images()) == 12
    assert {image.truth for image in images()} == set(range(10))
    assert all(image.data == image.path.read_bytes() for image in images())
