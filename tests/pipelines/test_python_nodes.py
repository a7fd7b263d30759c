"""Custom nodes in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pipelines.pipes import X, custom, entry, infer, load, model, refused

from kfs.repository.catalog import Catalog
from kfs.servables.pipeline import Library, LibrarySpec, PipelineError, open_library
from kfs.servables.pipeline.python_node import PythonNode

EXAMPLES = Path(__file__).parents[2] / "examples" / "custom_nodes"

HEAD = """
import numpy as np

class Node:
    def inputs(self, params):
        return {"x": ("FP32", [1, 10])}

    def outputs(self, params):
        return {"y": ("FP32", [1, 10])}

    def execute(self, inputs, params):
"""


def library(folder: Path, body: str) -> dict[str, Library]:
    (folder / "node.py").write_text(HEAD + f"        {body}\n")
    return {"node": open_library(LibrarySpec("node", "node.py"), folder)}


def python_pipeline(catalog: Catalog, folder: Path, body: str) -> object:
    node = custom("n", "node", {"y": "y"}, x="request.x")
    return load(catalog, entry(["x"], [node], y="n.y"), library(folder, body))


def test_the_example_in_python(models_catalog: Catalog) -> None:
    libraries = {"repeat": open_library(LibrarySpec("repeat", "repeat.py"), EXAMPLES)}
    split = custom("r", "repeat", {"c": "copies"}, {"times": "3"}, split=-1, numbers="request.x")
    nodes = [split, model("n", "dummy", b="r.c")]
    p = load(models_catalog, entry(["x"], nodes, y="n.a"), libraries)
    assert np.array_equal(infer(p, x=X)["y"], np.stack([X + 1] * 3))


def test_inputs_are_read_only_and_outputs_may_be_views(
    models_catalog: Catalog, tmp_path: Path
) -> None:
    p = python_pipeline(models_catalog, tmp_path, 'return {"y": inputs["x"][:, ::-1]}')
    assert np.array_equal(infer(p, x=X)["y"], X[:, ::-1])
    p = python_pipeline(models_catalog, tmp_path, 'inputs["x"] += 1')
    with refused("INTERNAL", "Custom node failed on execution - Node: n raised ValueError"):
        infer(p, x=X)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return None", "execute has to return a dict, not NoneType"),
        ('return {"y": [1]}', "output y has to be a numpy array, not list"),
        ('return {"z": inputs["x"]}', "output y is missing"),
        ('return {"y": np.array(["a"], object)}', "the type object"),
        ('return {"y": inputs["x"].astype("f8")}', "Expected: precision FP32; Actual: FP64"),
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "Node: n raised SystemExit: 3"),
        ("raise KeyboardInterrupt", "Node: n raised KeyboardInterrupt"),
    ],
)
def test_a_node_that_returns_nonsense(
    models_catalog: Catalog, tmp_path: Path, body: str, text: str
) -> None:
    p = python_pipeline(models_catalog, tmp_path, body)
    with refused("INTERNAL", text):
        infer(p, x=X)


def test_what_no_node_should_raise_is_told_with_its_name(
    models_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exits(*_: object) -> None:
        raise SystemExit(3)

    p = python_pipeline(models_catalog, tmp_path, "pass")
    monkeypatch.setattr(PythonNode, "execute", exits)
    with refused("INTERNAL", "Node: n"):
        infer(p, x=X)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("x =", "NODE_LIBRARY_LOAD_FAILED_OPEN"),
        ("raise SystemExit(3)", "NODE_LIBRARY_LOAD_FAILED_OPEN"),
        ("class Node: ...", "NODE_LIBRARY_LOAD_FAILED_SYM"),
    ],
)
def test_a_file_that_is_no_node(tmp_path: Path, text: str, status: str) -> None:
    (tmp_path / "node.py").write_text(text)
    with pytest.raises(PipelineError) as caught:
        open_library(LibrarySpec("l", "node.py"), tmp_path)
    assert caught.value.status == status


@pytest.mark.parametrize("method", ["__init__(self)", "inputs(self, params)"])
def test_a_node_that_wants_to_exit_is_not_loaded(
    models_catalog: Catalog, tmp_path: Path, method: str
) -> None:
    libraries = library(tmp_path, f"pass\n\n    def {method}: raise SystemExit(3)")
    node = custom("n", "node", {"y": "y"}, x="request.x")
    with pytest.raises(PipelineError, match=r"node n: library node: .*SystemExit: 3"):
        load(models_catalog, entry(["x"], [node], y="n.y"), libraries)


def test_a_dimension_that_no_tensor_has(models_catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "node.py").write_text(HEAD.replace("[1, 10]", "[1, 2**63]") + "        pass\n")
    libraries = {"node": open_library(LibrarySpec("node", "node.py"), tmp_path)}
    node = custom("n", "node", {"y": "y"}, x="request.x")
    with pytest.raises(PipelineError, match="no dimension has the size 9223372036854775808"):
        load(models_catalog, entry(["x"], [node], y="n.y"), libraries)


def test_a_model_takes_what_a_node_only_passed_on(models_catalog: Catalog, tmp_path: Path) -> None:
    libraries = library(tmp_path, 'return {"y": inputs["x"]}')
    nodes = [custom("n", "node", {"y": "y"}, x="request.x"), model("m", "dummy", b="n.y")]
    p = load(models_catalog, entry(["x"], nodes, y="m.a"), libraries)
    assert np.array_equal(infer(p, x=X)["y"], X + 1)


def test_what_a_node_passed_on_is_not_changed_by_another(
    models_catalog: Catalog, tmp_path: Path
) -> None:
    libraries = library(tmp_path, 'inputs["x"].flags.writeable = True; inputs["x"] += 1')
    node = custom("n", "node", {"y": "y"}, x="request.x")
    p = load(models_catalog, entry(["x"], [node], y="n.y"), libraries)
    x = X.copy()
    x.flags.writeable = False
    with refused("INTERNAL", "raised ValueError"):
        infer(p, x=x)
    assert np.array_equal(x, X)
