"""Custom nodes in shared objects: those that behave, and those that do not."""

from __future__ import annotations

import ctypes
import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pipelines.pipes import (
    C_NODES,
    FACTORS,
    OPS,
    ROWS,
    X,
    compile_library,
    custom,
    entry,
    infer,
    load,
    model,
    refused,
)  # fmt: skip

from kfs.repository.catalog import Catalog
from kfs.servables.pipeline import Library, LibrarySpec, PipelineError, open_library

EXAMPLES = Path(__file__).parents[2] / "examples" / "custom_nodes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libraries")
    for source in (*C_NODES.glob("*.c"), EXAMPLES / "add.c"):
        compile_library(source, folder)
    return folder


@pytest.fixture(scope="module")
def libraries(folder: Path) -> dict[str, Library]:
    return {
        name: open_library(LibrarySpec(name, f"lib{name}.so"), folder)
        for name in ("add", "ops", "repeat", "bad")
    }


def counted(folder: Path, name: str, what: str) -> int:
    """How many blocks or managers a library has not got back yet."""
    function = getattr(ctypes.CDLL(str(folder / f"lib{name}.so")), what)
    function.restype = ctypes.c_long
    return int(function())


def test_the_example_in_c(models_catalog: Catalog, libraries: dict[str, Library]) -> None:
    node = custom("add", "add", {"y": "result"}, {"value": "2.5"}, numbers="request.x")
    p = load(models_catalog, entry(["x"], [node], y="add.y"), libraries)
    assert p.signature.inputs[0].metadata_shape == [1, -1]
    assert np.array_equal(infer(p, x=X)["y"], X + 2.5)
    with pytest.raises(PipelineError, match="pipeline p: node add: library add: initialize ret"):
        load(models_catalog, entry(["x"], [{**node, "params": {}}], y="add.y"), libraries)


OPS_NODE = {"input_numbers": "request.x", "op_factors": "request.f"}
RESULTS = {"rows": "different_ops_results", "factors": "different_ops_factors"}


def test_a_custom_node(models_catalog: Catalog, libraries: dict[str, Library]) -> None:
    node = custom("ops", "ops", RESULTS, **OPS_NODE)
    config = entry(["x", "f"], [node], rows="ops.rows", factors="ops.factors")
    p = load(models_catalog, config, libraries)
    assert [s.metadata_shape for s in p.signature.outputs] == [[4, 1, 4], [4, 1, 10]]
    outputs = infer(p, x=OPS, f=FACTORS)
    assert np.array_equal(outputs["rows"], ROWS)
    assert np.array_equal(outputs["factors"], np.stack([FACTORS] * 4))


def test_a_custom_node_demultiplexes(
    models_catalog: Catalog, libraries: dict[str, Library]
) -> None:
    nodes = [
        custom("ops", "ops", RESULTS, split=4, **OPS_NODE),
        model("n", "dummy", b="ops.rows"),
        model("join", "rows", b="n.a", gather="ops"),
    ]
    p = load(models_catalog, entry(["x", "f"], nodes[:2], y="n.a"), libraries)
    assert np.array_equal(infer(p, x=OPS, f=FACTORS)["y"], ROWS + 1)
    p = load(models_catalog, entry(["x", "f"], nodes, y="join.a"), libraries)
    assert np.array_equal(infer(p, x=OPS, f=FACTORS)["y"], ROWS + 2)
    config = entry(["x", "f"], nodes[:1], rows="ops.rows", factors="ops.factors")
    outputs = infer(load(models_catalog, config, libraries), x=OPS, f=FACTORS)
    assert np.array_equal(outputs["rows"], ROWS)


def test_under_a_request_that_is_demultiplexed(
    models_catalog: Catalog, libraries: dict[str, Library]
) -> None:
    nodes = [custom("ops", "ops", RESULTS, split=4, **OPS_NODE), model("n", "dummy", b="ops.rows")]
    p = load(models_catalog, entry(["x", "f"], nodes, split=3, y="n.a"), libraries)
    assert p.signature.outputs[0].metadata_shape == [3, 4, 1, 10]
    y = infer(p, x=np.stack([OPS] * 3), f=np.stack([FACTORS] * 3))["y"]
    assert np.array_equal(y, np.stack([ROWS + 1] * 3))


@pytest.mark.parametrize("count", [-1, 0])
def test_as_many_shards_as_it_returns(
    models_catalog: Catalog, libraries: dict[str, Library], count: int
) -> None:
    split = custom("split", "repeat", {"rows": "copies"}, split=count, numbers="request.x")
    each = model("each", "dummy", b="split.rows")
    p = load(models_catalog, entry(["x"], [split, each], y="each.a"), libraries)
    assert p.signature.outputs[0].metadata_shape == [-1, 1, 10]
    for n in (1, 7, 10_000):
        assert np.array_equal(infer(p, x=OPS + n)["y"], np.stack([OPS + n + 1] * n))
    with refused("ABORTED", "Pipeline execution aborted due to no content from custom node"):
        infer(p, x=OPS)
    with refused("INVALID_ARGUMENT", "Node: split output: rows Expected: at most 10000"):
        infer(p, x=OPS + 10_001)


def test_a_count_the_library_does_not_keep(
    models_catalog: Catalog, libraries: dict[str, Library]
) -> None:
    split = custom("split", "repeat", {"rows": "copies"}, split=3, numbers="request.x")
    p = load(models_catalog, entry(["x"], [split], y="split.rows"), libraries)
    assert p.signature.outputs[0].metadata_shape == [3, 1, 10]
    assert infer(p, x=OPS + 3)["y"].shape == (3, 1, 10)
    for n in (0, 4):
        with refused("INVALID_ARGUMENT", "Expected: 3 shards"):
            infer(p, x=OPS + n)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("execute", "Custom node failed on execution - Node: bad execute returned 9"),
        ("null", "null pointer"),
        ("count", "gave 0 outputs"),
        ("negative", "gave -1 outputs"),
        ("precision", "unknown precision 77"),
        ("unspecified", "unknown precision 0"),
        ("size", "has 39 bytes; (1,10) of FP32 takes 40"),
        ("unnamed", "no name"),
        ("renamed", "output result is missing"),
        ("rank", "dimensions that cannot be read"),
        ("no dims", "dimensions that cannot be read"),
        ("no data", "has no data"),
        ("huge", "has 40 bytes"),
        ("shape", "Node: response output: y Expected: (1,10); Actual: (2,5)"),
    ],
)
def test_a_library_that_returns_nonsense(
    models_catalog: Catalog, libraries: dict[str, Library], folder: Path, mode: str, text: str
) -> None:
    node = custom("bad", "bad", {"y": "result"}, {"mode": mode}, numbers="request.x")
    p = load(models_catalog, entry(["x"], [node], y="bad.y"), libraries)
    gc.collect()
    before = counted(folder, "bad", "blocks")
    for _ in range(3):
        with refused("INTERNAL", text):
            infer(p, x=X)
    gc.collect()
    assert counted(folder, "bad", "blocks") == before
    p.unload()


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        ("initialize", "NODE_LIBRARY_INITIALIZE_FAILED"),
        ("inputs", "NODE_LIBRARY_METADATA_FAILED"),
        ("outputs", "NODE_LIBRARY_METADATA_FAILED"),
        ("inputs null", "NODE_LIBRARY_OUTPUTS_CORRUPTED"),
        ("inputs count", "NODE_LIBRARY_OUTPUTS_CORRUPTED_COUNT"),
    ],
)
def test_a_library_that_cannot_describe_itself(
    models_catalog: Catalog, libraries: dict[str, Library], folder: Path, mode: str, status: str
) -> None:
    node = custom("bad", "bad", {"y": "result"}, {"mode": mode}, numbers="request.x")
    before = counted(folder, "bad", "blocks")
    with pytest.raises(PipelineError, match="node bad: library bad") as caught:
        load(models_catalog, entry(["x"], [node], y="bad.y"), libraries)
    assert caught.value.status == status
    assert counted(folder, "bad", "blocks") == before


def test_everything_is_given_back(
    models_catalog: Catalog, libraries: dict[str, Library], folder: Path
) -> None:
    gc.collect()
    before = counted(folder, "ops", "blocks"), counted(folder, "ops", "managers")
    nodes = [
        custom("ops", "ops", RESULTS, split=4, **OPS_NODE),
        model("n", "dummy", b="ops.rows"),
    ]
    p = load(models_catalog, entry(["x", "f"], nodes, y="n.a"), libraries)
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda _: infer(p, x=OPS, f=FACTORS)["y"], range(200))
        assert all(np.array_equal(answer, ROWS + 1) for answer in answers)
    p.unload()
    gc.collect()
    assert (counted(folder, "ops", "blocks"), counted(folder, "ops", "managers")) == before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("libmissing.so", "NODE_LIBRARY_LOAD_FAILED_OPEN"),
        ("libincomplete.so", "NODE_LIBRARY_LOAD_FAILED_SYM"),
        ("a/../libops.so", "PATH_INVALID"),
        ("../libops.so", "PATH_INVALID"),
        ("a\\..\\libops.so", "PATH_INVALID"),
    ],
)
def test_a_library_that_cannot_be_opened(folder: Path, path: str, status: str) -> None:
    with pytest.raises(PipelineError, match="library l:") as caught:
        open_library(LibrarySpec("l", path), folder)
    assert caught.value.status == status
