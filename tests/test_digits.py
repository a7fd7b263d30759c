"""The bundled model by itself: its tensors, its accuracy, its images, as the texts state them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import openvino as ov
import pytest

from kfs.digits import INPUT, MODEL_PATH, OUTPUT, images

ROOT = Path(__file__).parents[1]
MODEL_FILE = MODEL_PATH / "1" / "digits.xml"
README = MODEL_PATH.parent / "README.md"


@pytest.fixture(scope="module")
def training() -> ModuleType:
    """The script that trained it."""
    spec = importlib.util.spec_from_file_location("train", ROOT / "examples/digits/train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def splits(training: ModuleType) -> Any:
    """What it was trained on, and what was held out."""
    return training.splits()


@pytest.fixture(scope="module")
def model() -> Any:
    return ov.Core().read_model(MODEL_FILE)


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


def test_the_outputs_are_probabilities(compiled: Any, splits: Any) -> None:
    _, held_out = splits
    probabilities = compiled(held_out.images.astype(np.float32))[OUTPUT]
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)


def test_accuracy_on_the_held_out_split_is_what_the_readmes_state(
    training: ModuleType, splits: Any
) -> None:
    _, held_out = splits
    n_correct, n_images = training.accuracy(MODEL_FILE, held_out), len(held_out.labels)
    assert n_correct / n_images >= 0.95
    for readme in (ROOT / "README.md", README):
        stated = re.search(r"(\d+) of (\d+) held-out images", readme.read_text())
        assert stated is not None
        assert (n_correct, n_images) == (int(stated[1]), int(stated[2]))
    assert f"held-out images right, or {100 * n_correct / n_images:.1f} %" in README.read_text()


def test_nothing_held_out_was_trained_on(splits: Any) -> None:
    trained, held_out = ({image.tobytes() for image in part.images} for part in splits)
    assert len(splits[0].labels) + len(splits[1].labels) == 1797
    assert not trained & held_out


def test_the_bundled_images_are_those_that_the_script_picks_from_the_held_out_ones(
    training: ModuleType, splits: Any
) -> None:
    _, held_out = splits
    for image, index in zip(images(), training.examples(held_out), strict=True):
        pixels = cv2.imread(str(image.path), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        assert pixels.shape == (8, 8)
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, held_out.images[index, :, :, 0])
        assert image.truth == held_out.labels[index]


def test_the_bundled_images_are_a_dozen_and_show_every_digit() -> None:
    assert len(images()) == 12
    assert {image.truth for image in images()} == set(range(10))
    assert all(image.data == image.path.read_bytes() for image in images())


@pytest.mark.parametrize("image", images(), ids=lambda image: image.path.stem)
def test_a_bundled_image_is_classified(image: Any, compiled: Any) -> None:
    pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    probabilities = compiled(pixels.astype(np.float32)[np.newaxis, ..., np.newaxis])[OUTPUT]
    assert probabilities.argmax() == image.truth


def test_the_model_is_small_and_tells_nothing_of_where_it_was_made() -> None:
    files = sorted((MODEL_PATH / "1").iterdir())
    assert [path.name for path in files] == ["digits.bin", "digits.xml"]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert not re.search(r'="/', files[1].read_text())
