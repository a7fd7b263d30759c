"""Pipelines of a config.json, through reloads."""

from __future__ import annotations

import ctypes
import json
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from conftest import wait_until
from graphs.graph_site import add_graph, ends, node
from pipelines.pipes import C_NODES, compile_library, custom, entry
from site_of_models import ONES, Site, ask, plus, refusal
from wire import Stub, infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.repository.catalog import available_servable


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()


def chain(*models: str, **options: Any) -> dict[str, Any]:
    """b -> each of the models after the other -> a."""
    nodes = [
        {
            "name": f"node{index}", "type": "DL model", "model_name": model, **options,
            "inputs": [{"b": {"node_name": f"node{index - 1}" if index else "request",
                              "data_item": "a" if index else "b"}}],
            "outputs": [{"data_item": "a", "alias": "a"}],
        }
        for index, model in enumerate(models)
    ]  # fmt: skip
    last = {"node_name": nodes[-1]["name"], "data_item": "a"}
    return {"name": "chain", "inputs": ["b"], "nodes": nodes, "outputs": [{"a": last}]}


def test_a_pipeline_is_served_like_a_model(site: Site) -> None:
    site.add("one", 1)
    site.add("two", 2)
    site.pipelines = [chain("one", "two", "two")]
    stub = site.start()
    assert ask(stub, "chain") == 5
    assert ask(stub, "chain", "7") == 5, "versions of pipelines are not looked at"
    assert stub.ModelReady(pb.ModelReadyRequest(name="chain", version="x")).ready
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="chain"))
    assert list(metadata.versions) == ["1"]
    assert [(found.name, list(found.shape)) for found in metadata.inputs] == [("b", [1, 10])]


def test_a_new_version_of_a_model_is_used(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one", "one")]
    stub = site.start()
    plus(site.root / "one" / "2", 10)
    site.poll()
    assert ask(stub, "chain") == 20


def test_a_pipeline_waits_for_its_model_and_comes_back(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one")]
    stub = site.start()
    shutil.rmtree(site.root / "one" / "1")
    site.poll()
    code, text = refusal(lambda: ask(stub, "chain"))
    assert (code, text) == ("UNAVAILABLE", "Pipeline is not loaded yet - chain")
    assert not stub.ModelReady(pb.ModelReadyRequest(name="chain")).ready
    plus(site.root / "one" / "1", 3)
    site.poll()
    assert ask(stub, "chain") == 3


def test_a_broken_pipeline_leaves_the_others_and_says_which_node(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [{**chain("one", "nothing"), "name": "broken"}, chain("one")]
    stub = site.start()
    assert site.server
    assert ask(stub, "chain") == 1
    error = str(site.server.catalog.entry("broken").error)
    assert "broken" in error
    assert "node1" in error
    assert "nothing" in error


def test_a_pipeline_of_what_is_loaded_after_it_is_told_that_this_is_no_model(site: Site) -> None:
    site.add("one", 1)
    add_graph(site, "graph", ends(["in"], ["out"]) + node("AddOne", ["in"], ["out"]))
    site.pipelines = [
        {**chain("one", "graph"), "name": "of_a_graph"},
        {**chain("chain"), "name": "of_a_pipeline"},
        chain("one"),
    ]
    site.start()
    assert site.server
    why = "is not available: it is no model; only models can be used"
    parts = {"of_a_graph": "node1: model graph", "of_a_pipeline": "node0: model chain"}
    for name, part in parts.items():
        assert site.server.catalog.entry(name).error == f"pipeline {name}: node {part} {why}"


def test_a_removed_pipeline_is_retired_and_comes_back(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one")]
    stub = site.start()
    site.pipelines = []
    site.write()
    site.poll()
    assert refusal(lambda: ask(stub, "chain")) == ("NOT_FOUND", "Pipeline is retired - chain")
    site.pipelines = [chain("one", "one")]
    site.write()
    site.poll()
    assert ask(stub, "chain") == 2


def take_out(site: Site, stub: Stub) -> None:
    """No pipeline is wanted any more: `chain` is told to be retired, and nothing else of it."""
    site.pipelines = []
    site.write()
    site.poll()
    retired = ("NOT_FOUND", "Pipeline is retired - chain")
    assert refusal(lambda: ask(stub, "chain")) == retired
    metadata = pb.ModelMetadataRequest(name="chain")
    assert refusal(lambda: stub.ModelMetadata(metadata, timeout=30)) == retired
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=30)
    told = [(found.state, found.reason) for found in index.models if found.name == "chain"]
    assert told == [("UNAVAILABLE", "")]


def test_a_pipeline_that_was_never_loaded_is_retired_too(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one", "nothing")]
    stub = site.start()
    caplog.clear()
    with caplog.at_level("INFO", "kfs.repository"):
        take_out(site, stub)
    states = [word for word in ("UNLOADING", "END") if f'"state": "{word}"' in caplog.text]
    assert states == ["UNLOADING", "END"], "each is logged"
    site.pipelines = [chain("one")]
    site.write()
    site.poll()
    assert ask(stub, "chain") == 1


def test_a_pipeline_whose_model_is_gone_is_retired_too(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one")]
    stub = site.start()
    shutil.rmtree(site.root / "one" / "1")
    site.poll()
    assert refusal(lambda: ask(stub, "chain"))[0] == "UNAVAILABLE"
    take_out(site, stub)


def test_nothing_is_left_of_the_models_of_a_pipeline_when_the_server_has_stopped(
    site: Site,
) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one")]
    assert ask(site.start(), "chain") == 1
    assert site.server is not None
    model = weakref.ref(available_servable(site.server.catalog.find("one", ""), "one"))
    site.server.stop(0)
    assert model() is None


def test_an_auto_model_cannot_be_part_of_a_pipeline(site: Site) -> None:
    site.add("one", 1, shape="auto")
    site.pipelines = [chain("one")]
    stub = site.start()
    assert refusal(lambda: ask(stub, "chain"))[0] == "UNAVAILABLE"
    assert site.server
    assert "node0" in str(site.server.catalog.entry("chain").error)


@pytest.mark.parametrize("kind", ["pipeline", "graph"])
def test_what_is_no_model_cannot_be_part_of_a_pipeline(site: Site, kind: str) -> None:
    add_graph(site, "graph", ends(["b"], ["a"]) + node("AddOne", ["b"], ["a"]))
    site.add("one", 1)
    site.pipelines = [{**chain("one"), "name": "pipeline"}]
    stub = site.start()
    site.pipelines.append(chain(kind))
    site.write()
    site.poll()
    assert not is_ready(stub, "chain")
    assert site.server
    error = str(site.server.catalog.entry("chain").error)
    assert f"node0: model {kind} is not available: it is a {kind}; only models" in error


def test_a_name_stays_what_it_was(site: Site) -> None:
    site.add("one", 1)
    site.add("two", 2)
    site.pipelines = [chain("one")]
    stub = site.start()
    site.pipelines = [{**chain("one"), "name": "two"}]
    del site.models["two"]
    site.add("chain", 7, version=2)
    site.write()
    site.poll()
    assert refusal(lambda: ask(stub, "chain")) == ("NOT_FOUND", "Pipeline is retired - chain")
    assert refusal(lambda: ask(stub, "two"))[0] == "NOT_FOUND"
    assert site.server
    for name, what in (("chain", "model"), ("two", "pipeline")):
        error = site.server.catalog.entry(name).error
        assert error == f"{what} {name}: the name is that of something else, maybe retired"
    assert ask(stub, "one") == 1


def test_a_model_that_a_pipeline_uses_does_not_become_auto(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one")]
    stub = site.start()

    def ask_wide() -> str:
        request = infer_request("one", shape=(3, 10), raw=ONES.tobytes() * 3)
        return str(stub.ModelInfer(request, timeout=30).outputs[0].shape[0])

    site.models["one"]["batch_size"] = "auto"
    site.write()
    site.poll()
    assert ask(stub, "chain") == 1
    assert refusal(ask_wide)[0] == "INVALID_ARGUMENT"
    # In one step with the pipeline's end it may.
    site.pipelines = []
    site.write()
    site.poll()
    assert ask_wide() == "3"
    assert refusal(lambda: ask(stub, "chain"))[0] == "NOT_FOUND"


def test_no_model_at_all_leaves_the_pipeline_waiting(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one")]
    stub = site.start()
    kept = dict(site.models)
    site.models.clear()
    site.write()
    site.poll()
    assert refusal(lambda: ask(stub, "chain"))[0] == "UNAVAILABLE"
    site.models["one"] = {**kept["one"], "base_path": "nowhere"}
    site.write()
    site.poll()
    assert refusal(lambda: ask(stub, "chain"))[0] == "UNAVAILABLE"
    site.models.update(kept)
    site.write()
    site.poll()
    assert ask(stub, "chain") == 1


def test_changes_of_several_pipelines_at_once(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [{**chain("one"), "name": name} for name in ("kept", "changed", "gone")]
    stub = site.start()
    site.pipelines = [
        {**chain("one"), "name": "kept"},
        {**chain("one", "one"), "name": "changed"},
        {**chain("one", "one", "one"), "name": "new"},
        {**chain("one", "one"), "name": "new"},
    ]
    site.write()
    site.poll()
    assert [ask(stub, name) for name in ("kept", "changed", "new")] == [1, 2, 3]
    assert refusal(lambda: ask(stub, "gone"))[0] == "NOT_FOUND"
    ready = {
        name: stub.ModelReady(pb.ModelReadyRequest(name=name)).ready
        for name in ("kept", "changed", "new", "gone")
    }
    assert ready == {"kept": True, "changed": True, "new": True, "gone": False}
    code, text = refusal(lambda: stub.ModelMetadata(pb.ModelMetadataRequest(name="gone")))
    assert (code, text) == ("NOT_FOUND", "Pipeline is retired - gone")


def test_an_input_renamed_is_seen_in_metadata(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one")]
    stub = site.start()
    text = json.dumps(chain("one")).replace('["b"]', '["c"]').replace(
        '"request", "data_item": "b"', '"request", "data_item": "c"'
    )  # fmt: skip
    site.pipelines = [json.loads(text)]
    site.write()
    site.poll()
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="chain"))
    assert [found.name for found in metadata.inputs] == ["c"]


def custom_chain(count: int) -> dict[str, Any]:
    """b -> nodes of the library `ops`, whose manager is counted -> the rows of the last."""
    nodes = [
        custom(f"n{i}", "ops", {"y": "different_ops_results"}, input_numbers="request.b",
               op_factors="request.f")
        for i in range(count)
    ]  # fmt: skip
    outputs = {f"y{i}": f"n{i}.y" for i in range(count)}
    return entry(["b", "f"], nodes, name="custom", **outputs)


def n_managers(site: Site) -> int:
    function = ctypes.CDLL(str(site.root / "libops.so")).managers
    function.restype = ctypes.c_long
    return int(function())


def is_ready(stub: Stub, name: str) -> bool:
    return bool(stub.ModelReady(pb.ModelReadyRequest(name=name)).ready)


def test_what_custom_nodes_hold_is_given_back_at_reloads(site: Site) -> None:
    compile_library(C_NODES / "ops.c", site.root)
    site.libraries = {"ops": "libops.so"}
    site.pipelines = [custom_chain(3)]
    site.start()
    assert n_managers(site) == 3
    for pipelines, n_expected in (([custom_chain(2)], 2), ([], 0), ([custom_chain(3)], 3)):
        site.pipelines = pipelines
        site.write()
        site.poll()
        wait_until(lambda n=n_expected: n_managers(site) == n)
    site.stop()
    assert n_managers(site) == 0


def test_a_pipeline_that_fails_as_nobody_expects_says_so_and_leaves_the_others(site: Site) -> None:
    compile_library(C_NODES / "ops.c", site.root)
    site.libraries = {"ops": "libops.so"}
    broken = custom_chain(2)
    broken["nodes"][1]["params"] = {"what": "\ud800"}  # no library can be given it
    site.add("one", 1)
    site.pipelines = [broken, chain("one")]
    stub = site.start()
    assert ask(stub, "chain") == 1
    assert site.server
    error = str(site.server.catalog.entry("custom").error)
    assert error.startswith("pipeline custom: UnicodeEncodeError: ")
    assert n_managers(site) == 0
    site.pipelines = [custom_chain(2), chain("one")]
    site.write()
    site.poll()
    assert is_ready(stub, "custom")


def test_a_library_that_cannot_be_opened_and_then_can(site: Site) -> None:
    compile_library(C_NODES / "ops.c", site.root)
    site.pipelines = [custom_chain(1)]
    missing = ["libnothing.so", "a/../libops.so", "lib\ud800.so"]
    for broken in ({"other": "libops.so"}, *({"ops": path} for path in missing)):
        site.libraries = broken
        if site.server is None:
            stub = site.start()
        site.write()
        site.poll()
        assert not is_ready(stub, "custom")
    site.libraries = {"ops": "libops.so"}
    site.write()
    site.poll()
    assert is_ready(stub, "custom")
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="custom", version="abc"))
    assert [list(found.shape) for found in metadata.inputs] == [[1, 10], [1, 4]]


NEEDS_A_FILE = """
from pathlib import Path

FOLDER = Path(__file__).parent


class Node:
    def __init__(self):
        with (FOLDER / "tried").open("a") as tried:
            tried.write(".")
        (FOLDER / "needed").read_text()

    def inputs(self, params):
        return {"x": ("FP32", [1, 10])}

    def outputs(self, params):
        return {"y": ("FP32", [1, 10])}

    def execute(self, inputs, params):
        return {"y": inputs["x"] + 3}
"""


def test_a_library_that_could_not_be_initialized_is_tried_again_with_the_configuration(
    site: Site,
) -> None:
    (site.root / "node.py").write_text(NEEDS_A_FILE)
    site.libraries = {"node": "node.py"}
    nodes = [custom("n", "node", {"y": "y"}, x="request.b")]
    site.pipelines = [entry(["b"], nodes, name="chain", y="n.y")]
    stub = site.start()
    (site.root / "needed").touch()
    site.poll()
    assert not is_ready(stub, "chain"), "nothing is known to have changed"
    for name in ("one", "two"):
        site.add(name, 1)
        site.write()
        site.poll()
        assert ask(stub, "chain") == 3
    n_tries = len((site.root / "tried").read_text())
    assert n_tries == 2, "what is available is left alone"


def test_libraries_stay_where_nothing_is_said_of_them_and_go_with_an_empty_list(
    site: Site,
) -> None:
    compile_library(C_NODES / "ops.c", site.root)
    site.libraries = {"ops": "libops.so"}
    site.pipelines = [custom_chain(1)]
    stub = site.start()
    site.libraries = None
    for n_nodes in (1, 2):
        site.pipelines = [custom_chain(n_nodes)]
        site.write()
        site.poll()
        assert is_ready(stub, "custom")
    site.libraries = {}
    site.write()
    site.poll()
    assert not is_ready(stub, "custom")


class Load:
    """Clients that ask without a pause, from threads of their own."""

    def __init__(self, stub: Stub, name: str, n_clients: int = 6) -> None:
        self._stub, self._name = stub, name
        self._stopping = threading.Event()
        self.answers: Counter[float] = Counter()
        self.refusals: Counter[tuple[str, str]] = Counter()
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(n_clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.see_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def see_more(self) -> None:
        """Wait until each client was answered since."""
        before = self.count()
        wait_until(lambda: self.count() >= before + 3 * len(self._threads))

    def count(self) -> int:
        return sum(self.answers.values()) + sum(self.refusals.values())

    def _ask(self) -> None:
        while not self._stopping.is_set():
            try:
                answer = ask(self._stub, self._name)
            except grpc.RpcError as error:
                found = error.code().name, error.details()
                with self._counting:
                    self.refusals[found] += 1
            else:
                with self._counting:
                    self.answers[answer] += 1


def test_new_versions_and_pipelines_under_load_fail_no_request(site: Site) -> None:
    site.add("one", 1)
    site.add("two", 2)
    site.pipelines = [chain("one", "one")]
    stub = site.start()
    with Load(stub, "chain") as load:
        for version in range(2, 6):
            plus(site.root / "one" / str(version), 10 ** (version - 1))
            site.poll()
            load.see_more()
        site.pipelines = [chain("one", "one"), {**chain("two"), "name": "other"}]
        site.write()
        site.poll()
        load.see_more()
        assert ask(stub, "other") == 2
    assert not load.refusals
    # One request may meet two versions, one in each node.
    numbers = [1, 10, 100, 1000, 10_000]
    assert load.answers.keys() <= {a + b for a in numbers for b in numbers}
    assert load.answers[20_000]


def test_a_pipeline_that_changes_under_load(site: Site) -> None:
    site.add("one", 1)
    site.add("two", 2)
    site.pipelines = [chain("one")]
    stub = site.start()
    with Load(stub, "chain") as load:
        for models in (["one", "one"], ["two", "one"], ["two", "two", "two"], ["one"]):
            site.pipelines = [chain(*models)]
            site.write()
            site.poll()
            load.see_more()
        site.models["one"]["nireq"] = 1
        site.write()
        site.poll()
        load.see_more()
    assert not load.refusals
    assert load.answers.keys() <= {1, 2, 3, 6}
    assert load.answers[6]


def test_a_pipeline_that_goes_and_comes_under_load(site: Site) -> None:
    site.add("one", 1)
    site.pipelines = [chain("one", "one")]
    stub = site.start()
    with Load(stub, "chain") as load:
        for pipelines in ([], [chain("one", "one")], [], [chain("one", "one")]):
            site.pipelines = pipelines
            site.write()
            site.poll()
            load.see_more()
        shutil.rmtree(site.root / "one" / "1")
        site.poll()
        load.see_more()
        plus(site.root / "one" / "2", 5)
        site.poll()
        load.see_more()
    # 6 is a request between the versions: its second node waited for the new one.
    assert {2, 10} <= load.answers.keys() <= {2, 6, 10}
    assert {code for code, _ in load.refusals} == {"NOT_FOUND", "UNAVAILABLE"}
    told = {text for _, text in load.refusals}
    assert {"Pipeline is retired - chain", "Pipeline is not loaded yet - chain"} <= told
    # Between the model's end and the look at the pipeline, its node tells.
    assert all("chain" in text or "Node: node" in text for text in told), told


def test_a_pinned_version_that_goes_and_comes(site: Site) -> None:
    site.add("one", 1, model_version_policy={"all": {}})
    plus(site.root / "one" / "2", 5)
    site.pipelines = [chain("one", version=1)]
    stub = site.start()
    with Load(stub, "chain") as load:
        shutil.rmtree(site.root / "one" / "1")
        site.poll()
        load.see_more()
        assert refusal(lambda: ask(stub, "chain"))[0] == "UNAVAILABLE"
        assert ask(stub, "one") == 5
        plus(site.root / "one" / "1", 1)
        site.poll()
        assert ask(stub, "chain") == 1
    assert load.answers.keys() == {1}
    assert {code for code, _ in load.refusals} <= {"NOT_FOUND", "UNAVAILABLE"}
