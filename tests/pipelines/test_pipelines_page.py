"""Every example of docs/pipelines.md, run as it is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipelines.pipes import X, infer, load, refused

from kfs.repository.catalog import Catalog
from kfs.servables.pipeline import Pipeline, open_library, parse_library

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "custom_nodes"
PAGE = (ROOT / "docs" / "pipelines.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


CONFIGS = {
    config["pipeline_config_list"][0]["name"]: config for config in map(json.loads, blocks("json"))
}

#: What goes in as x, and what comes out as result.
WANTED: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {
    "chain": (X, lambda x: x + 2),
    "fan_out": (X, lambda x: 2 * x + 2),
    "shards": (np.stack([X, 2 * X, 3 * X]), lambda x: x + 1),
    "in_c": (X, lambda x: x + 3.5),
    "in_cpp": (np.stack([X, 3 * X, 2 * X]), lambda x: x[1] + 1),
    "in_python": (X, lambda x: np.stack([x + 1] * 3)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where config.json would be, with the libraries built as the page says."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
    (folder / "CMakeLists.txt").write_text(blocks("cmake")[0])
    (folder / "repeat.py").write_text(blocks("python")[0])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks("sh"):
        subprocess.run(
            ["sh", "-ec", block], cwd=folder, check=True, timeout=150,
            env={**os.environ, "PATH": path, "VIRTUAL_ENV": sys.prefix},
        )  # fmt: skip
    return folder


def load_example(catalog: Catalog, folder: Path, name: str) -> Pipeline:
    config: dict[str, Any] = CONFIGS[name]
    listed = map(parse_library, config.get("custom_node_library_config_list", []))
    libraries = {spec.name: open_library(spec, folder) for spec in listed}
    return load(catalog, config["pipeline_config_list"][0], libraries)


@pytest.mark.parametrize("name", WANTED)
def test_an_example_works(models_catalog: Catalog, folder: Path, name: str) -> None:
    p = load_example(models_catalog, folder, name)
    x, wanted = WANTED[name]
    assert np.array_equal(infer(p, x=x)["result"], wanted(x))
    p.unload()


def test_the_example_with_opencv_works(models_catalog: Catalog, folder: Path) -> None:
    if not (folder / "build" / "libcrop.so").exists():
        pytest.skip("OpenCV's headers and its CMake package are not installed")
    p = load_example(models_catalog, folder, "crops")
    assert [spec.metadata_shape for spec in p.signature.outputs] == [[-1, 1, 2, 4, 3], [-1, 1, 4]]
    image = np.zeros((1, 100, 200, 3), np.float32)
    image[:, :50, 100:] = (1, 2, 3)
    boxes = np.array([[[0.5, 0, 1, 0.5], [0, 0.5, 1, 1], [0.9, 0.1, 9, 0.2]]], np.float32)
    outputs = infer(p, image=image, boxes=boxes)
    assert np.array_equal(outputs["where"], boxes.reshape(3, 1, 4))
    assert outputs["crops"].shape == (3, 1, 2, 4, 3)
    for crop, colour in zip(outputs["crops"], [(1, 2, 3), (0, 0, 0), (1, 2, 3)], strict=True):
        assert np.array_equal(crop, np.broadcast_to(np.float32(colour), (1, 2, 4, 3)))
    with refused("ABORTED"):
        infer(p, image=image, boxes=boxes[:, :0])
    with refused("INTERNAL", "Node: cut execute returned 1"):
        infer(p, image=image[:, :0], boxes=boxes)
    p.unload()


def test_every_example_of_the_page_is_run() -> None:
    assert CONFIGS.keys() == {*WANTED, "crops"}


def test_the_examples_are_those_of_the_folder() -> None:
    assert (EXAMPLES / "repeat.py").read_text().endswith(blocks("python")[0])
    assert (EXAMPLES / "CMakeLists.txt").read_text() == blocks("cmake")[0]
