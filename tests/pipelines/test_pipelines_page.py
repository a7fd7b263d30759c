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
from pipelines.pipes import X, infer, load

from kfs.repository.catalog import Catalog
from kfs.servables.pipeline import open_library, parse_library

ROOT = Path(__file__).parents[2]
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
    "in_python": (X, lambda x: np.stack([x + 1] * 3)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where config.json would be, with the libraries built as the page says."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(ROOT / "examples" / "custom_nodes" / "add.c", folder)
    (folder / "repeat.py").write_text(blocks("python")[0])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-ec", blocks("sh")[0]], cwd=folder, check=True, env={**os.environ, "PATH": path}
    )
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_works(models_catalog: Catalog, folder: Path, name: str) -> None:
    config: dict[str, Any] = CONFIGS[name]
    listed = map(parse_library, config.get("custom_node_library_config_list", []))
    libraries = {spec.name: open_library(spec, folder) for spec in listed}
    p = load(models_catalog, config["pipeline_config_list"][0], libraries)
    x, wanted = WANTED[name]
    assert np.array_equal(infer(p, x=x)["result"], wanted(x))
    p.unload()


def test_the_example_in_python_is_the_one_of_the_folder() -> None:
    example = (ROOT / "examples" / "custom_nodes" / "repeat.py").read_text()
    assert example.endswith(blocks("python")[0])
