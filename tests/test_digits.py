"""The bundled model: as good as it says, on images it has not seen."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from kfs.digits import MODEL_PATH, images

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def training() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train", ROOT / "examples/digits/train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_accuracy_on_the_held_out_split_is_what_the_readme_states(training: ModuleType) -> None:
    _, held_out = training.splits()
    n_correct = training.accuracy(MODEL_PATH / "1" / "digits.xml", held_out)
    stated = re.search(r"(\d+) of (\d+) held-out images", (ROOT / "README.md").read_text())
    assert stated is not None
    assert (n_correct, len(held_out.labels)) == (int(stated[1]), int(stated[2]))
    assert n_correct / len(held_out.labels) >= 0.95


def test_the_bundled_images_are_held_out_ones(training: ModuleType) -> None:
    _, held_out = training.splits()
    chosen = training.examples(held_out)
    assert len(images()) == len(chosen) == 12
    for image, index in zip(images(), chosen, strict=True):
        assert image.truth == held_out.labels[index]
        pixels = cv2.imread(str(image.path), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(pixels, held_out.images[index, :, :, 0])


def test_the_model_is_small_and_tells_nothing_of_where_it_was_made() -> None:
    files = sorted((MODEL_PATH / "1").iterdir())
    assert [path.name for path in files] == ["digits.bin", "digits.xml"]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert not re.search(r'="/', files[1].read_text())
