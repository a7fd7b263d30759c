"""Custom nodes in shared objects: those that behave, and those that do not."""

from __future__ import annotations

import ctypes
import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
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
    sources,
)  # fmt: skip

from kfs.errors import ServingError
from kfs.repository.catalog import Catalog
from kfs.servables.base import CallContext
from kfs.servables.pipeline import Library, LibrarySpec, PipelineError, open_library

EXAMPLES = Path(__file__).parents[2] / "examples" / "custom_nodes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libraries")
    for source in (*C_NODES.glob("*.c*"), EXAMPLES / "add.c"):
        compile_library(source, folder)
    return folder


@pytest.fixture(scope="module")
def libraries(folder: Path) -> dict[str, Library]:
    return {
        name: open_library(LibrarySpec(name, f"lib{name}.so"), folder)
        for name in ("add", "add_sub", "bad", "maximum", "ops", "pool", "repeat", "throws")
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
        ("many", "gave 2147483647 outputs"),
        ("precision", "unknown precision 77"),
        ("unspecified", "unknown precision 0"),
        ("size", "has 39 bytes; (1,10) of FP32 takes 40"),
        ("unnamed", "no name"),
        ("renamed", "output result is missing"),
        ("no utf-8", "output result is missing"),
        ("rank", "dimensions that cannot be read"),
        ("no dims", "dimensions that cannot be read"),
        ("no data", "has no data"),
        ("huge", "which no tensor has"),
        ("vast", "which no tensor has"),
        ("given", "an output is an input's memory"),
        ("in given", "an output is an input's memory"),
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
    ("mode", "text"),
    [
        ("shape", "Invalid input shape - Node: m input: b Invalid shape - Expected: (1,10); "
                  "Actual: (2,5)"),
        ("flat", "Invalid number of shape dimensions - Node: m input: b Invalid shape - Expected: "
                 "(1,10); Actual: (10)"),
        ("halves", "Invalid input precision - Node: m input: b Invalid precision - Expected: FP32; "
                   "Actual: FP16"),
    ],
)  # fmt: skip
def test_a_library_that_returns_what_the_next_node_does_not_take(
    models_catalog: Catalog, libraries: dict[str, Library], mode: str, text: str
) -> None:
    nodes = [
        custom("bad", "bad", {"y": "result"}, {"mode": mode}, numbers="request.x"),
        model("m", "dummy", b="bad.y"),
    ]
    p = load(models_catalog, entry(["x"], nodes, y="m.a"), libraries)
    with refused("INVALID_ARGUMENT", text):
        infer(p, x=X)


def test_a_dynamic_demultiplexer_says_the_count_that_its_library_says(
    models_catalog: Catalog, libraries: dict[str, Library]
) -> None:
    nodes = [custom("ops", "ops", RESULTS, split=-1, **OPS_NODE), model("n", "dummy", b="ops.rows")]
    p = load(models_catalog, entry(["x", "f"], nodes, y="n.a"), libraries)
    assert p.signature.outputs[0].metadata_shape == [4, 1, 10]
    assert np.array_equal(infer(p, x=OPS, f=FACTORS)["y"], ROWS + 1)


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        ("initialize", "NODE_LIBRARY_INITIALIZE_FAILED"),
        ("inputs", "NODE_LIBRARY_METADATA_FAILED"),
        ("outputs", "NODE_LIBRARY_METADATA_FAILED"),
        ("inputs null", "NODE_LIBRARY_OUTPUTS_CORRUPTED"),
        ("inputs count", "NODE_LIBRARY_OUTPUTS_CORRUPTED_COUNT"),
        ("inputs many", "NODE_LIBRARY_OUTPUTS_CORRUPTED_COUNT"),
        ("outputs null", "NODE_LIBRARY_OUTPUTS_CORRUPTED"),
        ("outputs count", "NODE_LIBRARY_OUTPUTS_CORRUPTED_COUNT"),
        ("info rank", "NODE_LIBRARY_OUTPUTS_CORRUPTED"),
        ("info dims", "NODE_LIBRARY_OUTPUTS_CORRUPTED"),
        ("info vast", "NODE_LIBRARY_OUTPUTS_CORRUPTED"),
    ],
)
def test_a_library_that_cannot_describe_itself(
    models_catalog: Catalog, libraries: dict[str, Library], folder: Path, mode: str, status: str
) -> None:
    node = custom("bad", "bad", {"y": "result"}, {"mode": mode}, numbers="request.x")
    gc.collect()  # what earlier tests left in cycles
    before = counted(folder, "bad", "blocks")
    with pytest.raises(PipelineError, match="node bad: library bad") as caught:
        load(models_catalog, entry(["x"], [node], y="bad.y"), libraries)
    assert caught.value.status == status
    assert counted(folder, "bad", "blocks") == before


def test_the_first_of_two_outputs_of_one_name_counts(
    models_catalog: Catalog, libraries: dict[str, Library], folder: Path
) -> None:
    node = custom("bad", "bad", {"y": "result"}, {"mode": "twice"}, numbers="request.x")
    p = load(models_catalog, entry(["x"], [node], y="bad.y"), libraries)
    gc.collect()
    before = counted(folder, "bad", "blocks")
    assert np.array_equal(infer(p, x=X)["y"], X)
    gc.collect()
    assert counted(folder, "bad", "blocks") == before


@pytest.mark.parametrize("mode", ["given", "in given", "vast", "many", "size", "execute"])
def test_thousands_of_faults_leave_nothing(
    models_catalog: Catalog, libraries: dict[str, Library], mode: str
) -> None:
    node = custom("bad", "bad", {"y": "result"}, {"mode": mode}, numbers="request.x")
    p = load(models_catalog, entry(["x"], [node], y="bad.y"), libraries)

    def fail(count: int) -> None:
        for _ in range(count):
            with CallContext() as call, suppress(ServingError):
                p.infer({"x": X}, call)
                raise AssertionError("it should have failed")

    process = psutil.Process()
    fail(200)
    before = process.memory_info().rss
    fail(2000)
    assert process.memory_info().rss - before < 1 << 20


def thrower(**params: str) -> dict[str, Any]:
    return custom("n", "throws", {"y": "numbers"}, params, numbers="request.x")


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"from": "execute"}, "execute threw no \ufffd such row"),
        ({"a number from": "execute"}, "execute threw something that is no std::exception"),
    ],
)
def test_what_a_library_throws_ends_the_call(
    models_catalog: Catalog, libraries: dict[str, Library], params: dict[str, str], text: str
) -> None:
    p = load(models_catalog, entry(["x"], [thrower(**params)], y="n.y"), libraries)
    for _ in range(3):
        with refused("INTERNAL", f"Custom node failed on execution - Node: n {text}"):
            infer(p, x=X)
    p.unload()


@pytest.mark.parametrize(
    ("function", "status"),
    [
        ("initialize", "NODE_LIBRARY_INITIALIZE_FAILED"),
        ("getInputsInfo", "NODE_LIBRARY_METADATA_FAILED"),
        ("getOutputsInfo", "NODE_LIBRARY_METADATA_FAILED"),
    ],
)
def test_what_a_library_throws_refuses_the_pipeline(
    models_catalog: Catalog, libraries: dict[str, Library], function: str, status: str
) -> None:
    config = entry(["x"], [thrower(**{"from": function})], y="n.y")
    with pytest.raises(
        PipelineError, match=f"library throws: {function} threw no . such"
    ) as caught:
        load(models_catalog, config, libraries)
    assert caught.value.status == status


def test_what_a_library_throws_when_it_is_given_something_back_is_logged(
    models_catalog: Catalog, libraries: dict[str, Library], caplog: pytest.LogCaptureFixture
) -> None:
    p = load(models_catalog, entry(["x"], [thrower(to="release")], y="n.y"), libraries)
    assert np.array_equal(infer(p, x=X)["y"], X)
    p.unload()
    gc.collect()
    told = {record.message for record in caplog.records if record.levelname == "WARNING"}
    assert told == {
        "release of a custom node threw not now",
        "deinitialize of a custom node threw not now",
    }


@pytest.mark.parametrize(
    ("params", "code"),
    [({}, 1), ({"random_parameter": "abcd"}, 1), ({"add_value": "1", "x": ""}, 2)],
)
def test_a_node_that_misses_its_params(
    models_catalog: Catalog, libraries: dict[str, Library], params: dict[str, str], code: int
) -> None:
    node = custom("n", "add_sub", {"y": "output_numbers"}, params, input_numbers="request.x")
    p = load(models_catalog, entry(["x"], [node], y="n.y"), libraries)
    with refused("INTERNAL", f"Custom node failed on execution - Node: n execute returned {code}"):
        infer(p, x=X)


def test_params_and_any_size(models_catalog: Catalog, libraries: dict[str, Library]) -> None:
    params = {"add_value": "3.2", "sub_value": "2.7"}
    node = custom("n", "add_sub", {"y": "output_numbers"}, params, input_numbers="request.x")
    p = load(models_catalog, entry(["x"], [node], y="n.y"), libraries)
    assert [spec.metadata_shape for spec in (*p.signature.inputs, *p.signature.outputs)] == [
        [1, -1], [1, -1],
    ]  # fmt: skip
    for numbers in ([[2.4, 9.3, -7.1]], [[]], [list(range(5000))]):
        x = np.array(numbers, np.float32)
        np.testing.assert_allclose(infer(p, x=x)["y"], x + 0.5, rtol=1e-6, atol=1e-6)
    with refused("INTERNAL", "execute returned 4"):
        infer(p, x=np.zeros((2, 3), np.float32))


def test_numbers_lie_where_a_pointer_to_numbers_may_point(
    models_catalog: Catalog, libraries: dict[str, Library]
) -> None:
    params = {"add_value": "3", "sub_value": "2"}
    node = custom("n", "add_sub", {"y": "output_numbers"}, params, input_numbers="request.x")
    p = load(models_catalog, entry(["x"], [node], y="n.y"), libraries)
    for offset in range(8):
        x = np.frombuffer(bytes(offset) + X.tobytes(), np.float32, offset=offset).reshape(1, 10)
        assert np.array_equal(infer(p, x=x)["y"], X + 1)


@pytest.mark.parametrize(
    ("criteria", "row"), [("MAXIMUM_MINIMUM", 0), ("MAXIMUM_AVERAGE", 2), ("MAXIMUM_MAXIMUM", 2)]
)
def test_a_custom_node_gathers(
    models_catalog: Catalog, libraries: dict[str, Library], criteria: str, row: int
) -> None:
    nodes = [
        custom("ops", "ops", RESULTS, split=4, **OPS_NODE),
        model("each", "dummy", b="ops.rows"),
        custom("join", "maximum", {"best": "maximum_tensor"}, {"selection_criteria": criteria},
               gather="ops", input_tensors="each.a"),
    ]  # fmt: skip
    p = load(models_catalog, entry(["x", "f"], nodes, y="join.best"), libraries)
    assert [spec.metadata_shape for spec in p.signature.outputs] == [[1, -1]]
    assert np.array_equal(infer(p, x=OPS, f=FACTORS)["y"], ROWS[row] + 1)
    nodes[2]["demultiply_count"] = 1
    with pytest.raises(PipelineError, match="node join: output maximum_tensor is"):
        load(models_catalog, entry(["x", "f"], nodes, y="join.best"), libraries)


def image_node(params: dict[str, str] | None = None) -> dict[str, Any]:
    return custom("n", "pool", {"y": "image"}, params, image="request.x")


def test_images_are_transformed(models_catalog: Catalog, libraries: dict[str, Library]) -> None:
    p = load(models_catalog, entry(["x"], [image_node({"channels": "3"})], y="n.y"), libraries)
    assert [spec.metadata_shape for spec in (*p.signature.inputs, *p.signature.outputs)] == [
        [-1, -1, -1, 3], [-1, 3, -1, -1],
    ]  # fmt: skip
    x = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    assert np.array_equal(infer(p, x=x)["y"], x.transpose(0, 3, 1, 2) + 8)


def test_an_output_of_no_bytes(models_catalog: Catalog, libraries: dict[str, Library]) -> None:
    p = load(models_catalog, entry(["x"], [image_node()], y="n.y"), libraries)
    for shape in ((2, 0, 5, 3), (0, 1, 1, 1), (2, 1, 1, 0)):
        assert infer(p, x=np.zeros(shape, np.float32))["y"].shape == shape


def balance(folder: Path) -> dict[str, int]:
    """What the library `pool` has not got back, and how often it got what was never lent."""
    gc.collect()
    return {what: counted(folder, "pool", what) for what in ("blocks", "managers", "strangers")}


@pytest.mark.parametrize("params", [{}, {"sulks": "yes"}])
def test_release_gets_each_pointer_once_and_with_its_manager(
    models_catalog: Catalog, libraries: dict[str, Library], folder: Path, params: dict[str, str]
) -> None:
    # Two nodes, two managers: what one gave outlives its call as the input of the other.
    before = balance(folder)
    after = {**image_node(params), "name": "m", "inputs": sources(image="n.y")}
    nodes = [image_node(params), after]
    p = load(models_catalog, entry(["x"], nodes, y="n.y", z="m.y"), libraries)
    x = np.ones((1, 8, 8, 3), np.float32)
    with ThreadPoolExecutor(8) as pool:
        for outputs in pool.map(lambda _: infer(p, x=x), range(200)):
            assert (outputs["y"] == 9).all()
            assert (outputs["z"] == 17).all()
    p.unload()
    assert balance(folder) == before


def test_an_output_in_use_keeps_the_manager(
    models_catalog: Catalog, libraries: dict[str, Library], folder: Path
) -> None:
    before = balance(folder)
    p = load(models_catalog, entry(["x"], [image_node()], y="n.y"), libraries)
    with CallContext() as call:
        outputs = p.infer({"x": np.ones((1, 1, 1, 1), np.float32)}, call)
        p.unload()
        assert balance(folder)["managers"] == before["managers"] + 1
        assert outputs["y"] == 9
        del outputs
    assert balance(folder) == before


@pytest.mark.parametrize("end", ["an answer", "an error", "a client that left"])
def test_megabytes_do_not_pile_up(
    models_catalog: Catalog, libraries: dict[str, Library], end: str
) -> None:
    params = {"add_value": "3", "sub_value": "2"}
    output = {"y": "output_numbers"}
    nodes = [
        custom("n", "add_sub", output, params, input_numbers="request.x"),
        custom("m", "add_sub", output, {} if end == "an error" else params, input_numbers="n.y"),
    ]
    p = load(models_catalog, entry(["x"], nodes, y="m.y"), libraries)
    x = np.ones((1, 1 << 18), np.float32)

    def ask() -> None:
        looks = iter([True, True])
        call = CallContext(lambda: end != "a client that left" or next(looks, False))
        with call, suppress(ServingError):
            p.infer({"x": x}, call)

    process = psutil.Process()
    for _ in range(20):
        ask()
    before = process.memory_info().rss
    for _ in range(200):
        ask()
    assert process.memory_info().rss - before < 50 << 20, "of 200 and 400 MB"


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
