"""A catalog of models for the pipelines of the tests, and short ways to write those."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from conftest import catalog_of
from openvino import opset13 as op

from kfs.errors import ServingError
from kfs.repository.catalog import Catalog
from kfs.servables.base import CallContext
from kfs.servables.pipeline import Library, Pipeline, parse
from kfs.settings import ModelSettings

X = np.array([[-5, 3, 0, -12, 9, -100, 102, 92, -1, 12]], np.float32)
OPS = np.arange(10, dtype=np.float32).reshape(1, 10)
FACTORS = np.array([[1, 3, 2, 2]], np.float32)
#: What the library `ops` makes of them.
ROWS = np.stack([OPS + 1, OPS - 3, OPS * 2, OPS / 2])

C_NODES = Path(__file__).parent / "libraries"


def model_catalog(root: Path, nireq: int = 2) -> Catalog:
    """dummy, dynamic, sum and other models, each as version 1."""
    import openvino as ov

    models.dummy(root / "dummy" / "1")
    models.dummy(root / "dynamic" / "1", (-1, -1))
    models.dummy(root / "batches" / "1", (ov.Dimension(1, 5), 10))
    models.dummy(root / "wide" / "1", (1, 20))
    models.dummy(root / "rows" / "1", (4, 1, 10))
    models.dummy(root / "cubes" / "1", (-1, 1, 10))
    models.dummy(root / "nested" / "1", (3, 4, 1, 10))
    models.add_two(root / "sum" / "1")
    models.identity(root / "strings" / "1", "BYTES", [-1])
    models.identity(root / "strings2" / "1", "BYTES", [-1])
    models.identity(root / "bytes" / "1", "UINT8", [-1, -1])
    models.identity(root / "image" / "1", "FP32", [1, 8, 6, 3], "NHWC")
    models.identity(root / "film" / "1", "FP32", [2, 1, 8, 6, 3], "N?HWC")
    models.identity(root / "fp64" / "1", "FP64", [-1, 10])
    models.identity(root / "ints" / "1", "INT32", [1, 10])
    b = models.parameter("b", [1, 10], "f32")
    models.save(root / "fp64_of_b" / "1", [b], {"a": op.convert(b, "f64")})
    b = models.parameter("b", [-1, -1], "f32")
    models.save(root / "to_bf16" / "1", [b], {"a": op.convert(b, "bf16")})
    b = models.parameter("b", [-1, -1], "bf16")
    models.save(root / "from_bf16" / "1", [b], {"a": op.convert(b, "f32")})
    b = models.parameter("b", [1, 10], "f32")
    models.save(root / "to_nibbles" / "1", [b], {"a": op.convert(b, "i4")})
    return catalog_of(
        *(ModelSettings(folder.name, folder, nireq=nireq) for folder in sorted(root.iterdir()))
    )


def sources(**inputs: str) -> list[dict[str, dict[str, str]]]:
    """`b="request.x"` as the configuration writes it."""
    return [
        {
            name.replace("__", ":"): dict(
                zip(("node_name", "data_item"), text.split("."), strict=True)
            )
        }
        for name, text in inputs.items()
    ]


def model(name: str, model_name: str, outputs: Mapping[str, str] | None = None, *,
          split: int | None = None, gather: str | None = None, version: int | None = None,
          **inputs: str) -> dict[str, Any]:  # fmt: skip
    """A node that runs a model; outputs are alias -> name of the model."""
    node = {"name": name, "type": "DL model", "model_name": model_name}
    return _node(node, inputs, outputs or {"a": "a"}, split=split, gather=gather, version=version)


def custom(name: str, library: str, outputs: Mapping[str, str],
           params: Mapping[str, str] | None = None, *, split: int | None = None,
           gather: str | None = None, **inputs: str) -> dict[str, Any]:  # fmt: skip
    node = {"name": name, "type": "custom", "library_name": library, "params": dict(params or {})}
    return _node(node, inputs, outputs, split=split, gather=gather)


def _node(node: dict[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, str],
          **options: Any) -> dict[str, Any]:  # fmt: skip
    node["inputs"] = sources(**inputs)
    node["outputs"] = [{"data_item": item, "alias": alias} for alias, item in outputs.items()]
    keys = {"split": "demultiply_count", "gather": "gather_from_node", "version": "version"}
    for option, key in keys.items():
        if options.get(option) is not None:
            node[key] = options[option]
    return node


def entry(inputs: Sequence[str], nodes: Sequence[Mapping[str, Any]], *, split: int | None = None,
          name: str = "p", **outputs: str) -> dict[str, Any]:  # fmt: skip
    """One object of pipeline_config_list."""
    found = {"name": name, "inputs": list(inputs), "nodes": list(nodes),
             "outputs": sources(**outputs)}  # fmt: skip
    return found if split is None else {**found, "demultiply_count": split}


def load(catalog: Catalog, config: Mapping[str, Any],
         libraries: Mapping[str, Library] | None = None) -> Pipeline:  # fmt: skip
    return Pipeline.load(parse(config), catalog, libraries or {})


def infer(pipeline: Pipeline, call: CallContext | None = None, **tensors: Any) -> dict[str, Any]:
    """Outputs, copied out of the call."""
    with call or CallContext() as context:
        outputs = pipeline.infer(tensors, context)
        return {name: np.array(value) for name, value in outputs.items()}


@contextmanager
def refused(code: str, text: str = "") -> Iterator[None]:
    with pytest.raises(ServingError) as caught:
        yield
    assert caught.value.status.code.name == code, caught.value
    assert text in str(caught.value)


def compile_library(source: Path, folder: Path) -> Path:
    """A shared object of a file in C or C++."""
    target = folder / f"lib{source.stem}.so"
    compiler = ["cc", "-std=c11"] if source.suffix == ".c" else ["c++", "-std=c++17"]
    include = Path(__file__).parents[2] / "include"
    subprocess.run(
        [*compiler, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{include}",
         "-o", str(target), str(source), "-lm"],
        check=True,
    )  # fmt: skip
    return target
