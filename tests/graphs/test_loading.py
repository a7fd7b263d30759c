"""Which graph files are served, where they are found, and what is wrong with the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import grpc
import models
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import catalog_of, loopback
from graphs.graph_site import (
    Talk,
    add_graph,
    add_models,
    ask,
    dummy_graph,
    ends,
    handler,
    inference,
    node,
    request,
    session,
    status_of,
)
from site_of_models import Site, plus, refusal
from site_of_models import ask as ask_model
from wire import Stub

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.cli import cli
from kfs.cli.app import Server
from kfs.repository.folders import find_graph
from kfs.servables.graph import Graph, GraphError
from kfs.servables.graph.calculator import Calculator, Setting
from kfs.servables.graph.graph import registry
from kfs.servables.graph.spec import NodeSpec

ONES = np.ones((1, 10), np.float32)
IN_OUT = ends(["in"], ["out"])
BACK = 'input_stream_info { tag_index: ":0" back_edge: true }'
SYNC = "mediapipe.SyncSetInputStreamHandlerOptions.ext"


BROKEN = {
    "empty": ("", "the file is empty"),
    "no text format": ("{", "no CalculatorGraphConfig in text format"),
    "unknown field": (IN_OUT + "inputs: 3", 'has no field named "inputs"'),
    "unknown options": (
        IN_OUT + 'node { calculator: "AddOne" # a.B]\n'
        "node_options: { [type.googleapis.com / a.B]: {} } }",
        "line 4: there are no options a.B; known are those of ImageTransformationCalculator, Open",
    ),
    "unknown options of the older form": (
        IN_OUT + 'node { calculator: "AddOne" # a.B.ext\noptions: { [a . B . ext] {} } }',
        "line 4: there are no options a.B.ext; known are those of ImageTransformationCalculator, ",
    ),
    "unknown options by their name": (
        IN_OUT + 'node { calculator: "AddOne" node_options: { type_url: "x/a.B" value: "x" } }',
        "node AddOne, node_options: there are no options a.B; known are those of Image",
    ),
    "options that are none": (
        IN_OUT + 'node { calculator: "AddOne" node_options: { type_url: '
        '"x/mediapipe.PythonExecutorCalculatorOptions" value: "\\377" } }',
        "node_options: the value is no mediapipe.PythonExecutorCalculatorOptions",
    ),
    "missing field": (
        IN_OUT + session("dummy").replace('servable_name: "dummy"', ""),
        "missing required fields: servable_name",
    ),
    "no inputs": ('output_stream: "out"', "expected at least one input_stream"),
    "no outputs": ('input_stream: "in"', "expected at least one output_stream"),
    "an input twice": (ends(["A:in", "B:in"], ["out"]), 'input_stream "in" of the graph is there'),
    "upper case": (ends(["In"], ["out"]), '"In" does not match'),
    "two tags": (ends(["in"], ["TEST:TEST:out"]), '"TEST:TEST:out" does not match'),
    "a tag twice": (
        ends(["A:in", "A:in2"], ["out"]),
        'tag "A" index 0 already had a name "in" but is now also "in2"',
    ),
    "TFLITE": (ends(["TFLITE_TENSOR:in"], ["out"]), "TFLITE_TENSOR is not served"),
    "REQUEST alone": (ends(["REQUEST:in"], ["out"]), "REQUEST and an output_stream RESPONSE need"),
    "RESPONSE alone": (ends(["in"], ["RESPONSE:out"]), "RESPONSE need each other"),
    "REQUEST and more": (
        ends(["REQUEST:in", "in2"], ["RESPONSE:out"]),
        "exactly one input and one output",
    ),
    "unknown calculator": (
        IN_OUT + node("Nothing", ["in"], ["out"]),
        "node Nothing: there is no calculator Nothing; known are",
    ),
    "defined twice": (
        IN_OUT + node("AddOne", ["in"], ["out"]) * 2,
        'Output Stream "out" defined twice.',
    ),
    "produced by nobody": (
        IN_OUT + node("AddOne", ["other"], ["out"]),
        'Input Stream "other" for node AddOne does not have a corresponding output stream.',
    ),
    "a cycle": (
        IN_OUT + node("Sum", ["in", "out"], ["out"]),
        "input_stream_info with back_edge: true",
    ),
    "a wrong back edge": (
        IN_OUT + node("Sum", ["in", "out"], ["out"],
                      'input_stream_info { tag_index: ":7" back_edge: true }'),
        'the node has no input ":7"',
    ),
    "an index that no tag has": (
        IN_OUT + node("AddOne", [f"A:{'9' * 5000}:in"], ["out"]),
        'does not match "TAG:index:name"',
    ),
    "a back edge at such an index": (
        IN_OUT + node("AddOne", ["in"], ["out"],
                      f'input_stream_info {{ tag_index: ":{"9" * 5000}" back_edge: true }}'),
        'expected a tag_index such as "TAG:0" or ":1"',
    ),
    "unknown handler": (
        IN_OUT + node("AddOne", ["in"], ["out"], handler("Other")),
        "expected an input_stream_handler of DefaultInputStreamHandler",
    ),
    "unknown output handler": (
        IN_OUT + node("AddOne", ["in"], ["out"],
                      'output_stream_handler { output_stream_handler: "Other" }'),
        "node AddOne: expected InOrderOutputStreamHandler as output_stream_handler; found Other",
    ),
    "unknown executor": (
        IN_OUT + node("AddOne", ["in"], ["out"], 'executor: "other"'),
        'node AddOne: there is no executor "other" in the graph',
    ),
    "a side packet twice": (
        IN_OUT + 'input_side_packet: ["A:x", "A:y"]',
        'input_side_packet of the graph: tag "A" index 0 already had a name "x"',
    ),
    "threads": ("num_threads: -2\n" + IN_OUT, "expected num_threads to be -1 or not negative"),
    "queues": ("max_queue_size: -2\n" + IN_OUT, "expected max_queue_size to be -1 or not negative"),
    "a wrong sync set": (
        IN_OUT + node("AddOne", ["in"], ["out"], handler(
            "SyncSetInputStreamHandler", f'[{SYNC}] {{ sync_set {{ tag_index: "LOOPBACK:1" }} }}')),
        'the node has no input "LOOPBACK:1"',
    ),
    "a wrong base": (
        IN_OUT + node("AddOne", ["A:in"], ["out"], handler(
            "TimestampAlignInputStreamHandler",
            '[mediapipe.TimestampAlignInputStreamHandlerOptions.ext] '
            '{ timestamp_base_tag_index: "B" }')),
        'timestamp_base_tag_index: the node has no input "B"',
    ),
    "nothing to select": (
        IN_OUT + node("AddOne", ["in"], ["out"], handler("MuxInputStreamHandler")),
        "expected at least two inputs, of which the last one selects another; found 1",
    ),
    "a source": (IN_OUT + node("AddOne", [], ["out"]), "expected an input_stream"),
    "types": (
        IN_OUT + node("PassRequest", ["REQUEST:in"], ["RESPONSE:x"])
        + node("AddOne", ["x"], ["out"]),
        "expected ov::Tensor, but the stream has KFS response",
    ),
    "types behind nodes that pass packets on": (
        IN_OUT + node("PassRequest", ["REQUEST:in"], ["RESPONSE:x"])
        + node("PassThroughCalculator", ["x"], ["y"]) + node("PassThroughCalculator", ["y"], ["z"])
        + node("AddOne", ["z"], ["out"]),
        "expected ov::Tensor, but the stream has KFS response",
    ),
    "types of side packets behind a node that passes them on": (
        IN_OUT + session("dummy")
        + node("PassThroughCalculator", ["in"], ["x"],
               'input_side_packet: "SESSION:dummy" output_side_packet: "SESSION:passed"')
        + node("Side", ["x"], ["STRING:out"], 'input_side_packet: "INT64:passed"'),
        "expected int64, but the stream has session",
    ),
    "a bad queue": ("# OVMS_GRAPH_QUEUE_MAX_SIZE: -1\n" + IN_OUT, "OVMS_GRAPH_QUEUE_MAX_SIZE"),
    "a loop in a queue": (
        "# OVMS_GRAPH_QUEUE_MAX_SIZE: 2\n" + IN_OUT
        + node("PythonExecutorCalculator", ["LOOPBACK:x", "IN:in"], ["LOOPBACK:x", "OUT:out"]),
        "a handler with LOOPBACK and OVMS_GRAPH_QUEUE_MAX_SIZE do not go together",
    ),
    "something like a loop in a queue": (
        "# OVMS_GRAPH_QUEUE_MAX_SIZE: 2\n" + IN_OUT
        + node("PythonExecutorCalculator", ["LOOPBACK_X:in"], ["OUT:out"]),
        "a handler with LOOPBACK and OVMS_GRAPH_QUEUE_MAX_SIZE do not go together",
    ),
    "no session": (
        IN_OUT + inference("dummy", {"B": "in"}, {"A": "out"}).replace("SESSION:dummy", "X:dummy"),
        "expected one input_side_packet with the tag SESSION",
    ),
    "both orders": (
        IN_OUT + session("dummy") + inference("dummy", {"B": "in"}, {"A": "out"}, B="b").replace(
            "tag_to_input", 'input_order_list: "b" tag_to_input'),
        "expected tag_to_input_tensor_names or input_order_list; found both",
    ),
    "a session with streams": (
        IN_OUT + node("OpenVINOModelServerSessionCalculator", ["in"], ["out"]),
        "expected no streams",
    ),
    "pass through to other tags": (
        IN_OUT + node("PassThroughCalculator", ["A:in"], ["B:out"]),
        "expected the same tags and indexes",
    ),
    "a loop on one side": (
        IN_OUT + node("PythonExecutorCalculator", ["LOOPBACK:in"], ["out"],
                      'input_side_packet: "PYTHON_NODE_RESOURCES:py"'),
        "expected LOOPBACK as an input and as an output",
    ),
    "a handler without resources": (
        IN_OUT + node("PythonExecutorCalculator", ["in"], ["out"]),
        "PYTHON_NODE_RESOURCES:py",
    ),
    "a handler without options": (
        IN_OUT + node("PythonExecutorCalculator", ["in"], ["out"],
                      'name: "n" input_side_packet: "PYTHON_NODE_RESOURCES:py"'),
        "node n: expected node_options",
    ),
    "two handlers of one name": (
        IN_OUT + node("PythonExecutorCalculator", ["in"], ["out"], 'name: "n"')
        + node("PythonExecutorCalculator", ["in"], ["more"], 'name: "n"'),
        "node n: 2 nodes with handlers have this name",
    ),
    "a contract that exits": (
        IN_OUT + node("ExitInContract", ["in"], ["out"]),
        "node ExitInContract: contract raised SystemExit: no licence",
    ),
    "a preparation that fails": (
        IN_OUT + node("CrashInPrepare", ["in"], ["out"]),
        "node CrashInPrepare: prepare raised ZeroDivisionError: no weights",
    ),
    "a converter between nothing": (
        IN_OUT + node("PyTensorOvTensorConverterCalculator", ["in"], ["out"]),
        "OVTENSOR to OVMS_PY_TENSOR",
    ),
    "a converter without a name": (
        IN_OUT + node("PyTensorOvTensorConverterCalculator", ["OVTENSOR:in"],
                      ["OVMS_PY_TENSOR:out"]),
        "expected tag_to_output_tensor_names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said_with_the_file_and_the_place(tmp_path: Path, name: str) -> None:
    text, reason = BROKEN[name]
    path = tmp_path / "graph.pbtxt"
    path.write_text(text)
    with pytest.raises(GraphError) as caught:
        Graph.load("g", path, catalog_of())
    assert str(caught.value).startswith(f"graph g: {path}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n" + IN_OUT,
        ends(["in", "unused"], ["out", "unproduced"]) + node("AddOne", ["in"], ["out"]),
        "# OVMS_GRAPH_QUEUE_MAX_SIZE: AUTO\n" + IN_OUT + node("AddOne", ["in"], ["out"]),
        "num_threads: 3; report_deadlock: true, executor { name: 'x' type: 'y' }" + IN_OUT,
        "runtime_info { enable_graph_runtime_info: true capture_period_msec: 5 }" + IN_OUT,
        'profiler_config { trace_enabled: true } type: "T" package: "p"' + IN_OUT,
        "num_threads: -1 executor { name: 'x' }"
        + IN_OUT
        + node("AddOne", ["in"], ["out"], "executor: 'x'"),
        handler("MuxInputStreamHandler") + IN_OUT + session("dummy"),
        'input_stream: ["a", "TAG:b", "TAG:1:c"] output_stream: ["d"]',
        IN_OUT + node("PassThroughCalculator", ["x"], ["x"], BACK) + node("AddOne", ["x"], ["out"]),
    ],
)
def test_what_is_allowed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "graph.pbtxt"
    path.write_text(text)
    Graph.load("g", path, catalog_of()).unload()


@pytest.mark.parametrize("begin", [b"\xef\xbb\xbf", "# Größe\n".encode("latin-1")])
def test_what_editors_leave_in_a_file(tmp_path: Path, begin: bytes) -> None:
    path = tmp_path / "graph.pbtxt"
    path.write_bytes(begin + IN_OUT.encode())
    Graph.load("g", path, catalog_of()).unload()


def test_pools_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.pbtxt"
    path.write_text("# OVMS_GRAPH_QUEUE_MAX_SIZE: 2\n" + IN_OUT)
    monkeypatch.setenv("OVMS_GRAPH_QUEUE_OFF", "0")
    assert Graph.load("g", path, catalog_of()).plan.spec.is_queued
    monkeypatch.setenv("OVMS_GRAPH_QUEUE_OFF", "1")
    assert not Graph.load("g", path, catalog_of()).plan.spec.is_queued


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="No such file"):
        Graph.load("g", tmp_path / "graph.pbtxt", catalog_of())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    add_models(site)
    yield site
    site.stop()


def test_a_broken_graph_leaves_the_others(site: Site) -> None:
    add_graph(site, "good", dummy_graph())
    add_graph(site, "bad", IN_OUT + node("Nothing", ["in"], ["out"]))
    stub = site.start()
    assert ask(stub, request("good", **{"in": ONES}))["out"] == [2.0] * 10
    not_loaded = ("UNAVAILABLE", "Mediapipe is not loaded yet - bad")
    assert refusal(lambda: ask(stub, request("bad", **{"in": ONES}))) == not_loaded
    assert status_of(stub.stream([request("bad", **{"in": ONES})])) == not_loaded
    assert not stub.ModelReady(pb.ModelReadyRequest(name="bad"), timeout=30).ready
    metadata = pb.ModelMetadataRequest(name="bad")
    assert refusal(lambda: stub.ModelMetadata(metadata, timeout=30)) == not_loaded


def test_a_graph_whose_text_is_too_deep_leaves_the_others(site: Site) -> None:
    deep = "[type.googleapis.com/google.protobuf.Any] {" * 3000 + "}" * 3000
    add_graph(site, "bad", IN_OUT + f'node {{ calculator: "AddOne" node_options {{ {deep} }} }}')
    add_graph(site, "good", dummy_graph())
    stub = site.start()
    assert ask(stub, request("good", **{"in": ONES}))["out"] == [2.0] * 10
    code, details = refusal(lambda: ask(stub, request("bad", **{"in": ONES})))
    assert (code, details) == ("UNAVAILABLE", "Mediapipe is not loaded yet - bad")


def test_a_broken_graph_that_is_taken_out_is_retired(site: Site) -> None:
    add_graph(site, "good", dummy_graph())
    add_graph(site, "bad", "nonsense")
    stub = site.start()
    del site.graphs["bad"]
    site.write()
    site.poll()
    retired = ("NOT_FOUND", "Mediapipe is retired - bad")
    assert refusal(lambda: ask(stub, request("bad", **{"in": ONES}))) == retired
    metadata = pb.ModelMetadataRequest(name="bad")
    assert refusal(lambda: stub.ModelMetadata(metadata, timeout=30)) == retired
    assert site.server
    assert site.server.catalog.entry("bad").error is None


def test_what_is_to_be_loaded_is_known_before(site: Site) -> None:
    later = pb.ModelMetadataRequest(name="later")

    class Look(Calculator):
        found: ClassVar[list[object]] = []

        @classmethod
        def prepare(cls, node: NodeSpec, setting: Setting) -> None:
            cls.found.append(stub.ModelReady(pb.ModelReadyRequest(name="later"), timeout=30).ready)
            cls.found.append(refusal(lambda: stub.ModelMetadata(later, timeout=30)))

    registry.add("Look", Look)
    stub = site.start()
    add_graph(site, "first", IN_OUT + node("Look", ["in"], ["out"]))
    add_graph(site, "later", dummy_graph())
    site.write()
    site.poll()
    assert Look.found == [False, ("UNAVAILABLE", "Mediapipe is not loaded yet - later")]
    assert stub.ModelReady(pb.ModelReadyRequest(name="later"), timeout=30).ready


def test_graphs_in_the_list_of_models(site: Site) -> None:
    for folder in ("listed", "mesh/1", "other"):
        (site.root / folder).mkdir(parents=True)
        (site.root / folder / "graph.pbtxt").write_text(dummy_graph())
    (site.root / "other" / "graph.pbtxt").rename(site.root / "other" / "my.pbtxt")
    site.models["listed"] = {"name": "listed", "nireq": 3}
    site.models["mesh"] = {"name": "mesh", "base_path": "mesh"}
    site.models["other"] = {"name": "other", "base_path": "other", "graph_path": "my.pbtxt"}
    stub = site.start()
    for name in ("listed", "mesh", "other"):
        assert ask(stub, request(name, **{"in": ONES}))["out"] == [2.0] * 10


def test_an_entry_whose_graph_path_leads_nowhere_is_a_model(site: Site) -> None:
    (site.root / "wrong").mkdir()
    (site.root / "wrong" / "graph.pbtxt").write_text(dummy_graph())
    site.models["wrong"] = {"name": "wrong", "graph_path": "grahp.pbtxt"}
    stub = site.start()
    code, details = refusal(lambda: ask(stub, request("wrong", **{"in": ONES})))
    assert (code, "no version is available" in details) == ("NOT_FOUND", True)


def write_subconfig(path: Path, **models: str) -> None:
    configs = [{"config": {"name": name, "base_path": base}} for name, base in models.items()]
    path.write_text(json.dumps({"model_config_list": configs}))


def test_models_beside_a_graph(site: Site) -> None:
    folder = add_graph(site, "good", dummy_graph().replace("dummy", "inner"))
    plus(folder / "inner" / "1", 5)
    models.dummy(folder / "dummy" / "1", (1, 20))
    write_subconfig(folder / "subconfig.json", inner="inner", dummy="dummy")
    stub = site.start()
    assert ask(stub, request("good", **{"in": ONES}))["out"] == [6.0] * 10
    assert ask_model(stub, "inner") == 5
    assert ask_model(stub, "dummy") == 1  # the main file goes before
    plus(folder / "more" / "1", 7)
    write_subconfig(folder / "subconfig.json", inner="inner", more="more")
    site.poll()
    assert ask_model(stub, "more") == 7


def test_a_broken_file_beside_a_graph_leaves_the_graph(site: Site) -> None:
    folder = add_graph(site, "good", dummy_graph())
    (folder / "subconfig.json").write_text("{")
    stub = site.start()
    assert ask(stub, request("good", **{"in": ONES}))["out"] == [2.0] * 10


def test_a_config_json_of_another_program_beside_a_graph_says_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    folder = add_graph(site, "good", dummy_graph())
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 32000}')
    site.write()
    done = CliRunner().invoke(cli, ["check", "--config_path", str(site.root / "config.json")])
    assert (done.exit_code, "Everything is fine" in done.output) == (0, True)
    assert "not read" not in caplog.text
    write_subconfig(folder / "config.json", inner="inner")
    plus(folder / "inner" / "1", 5)
    stub = site.start()
    assert ask_model(stub, "inner") == 5
    (folder / "config.json").write_text('{"model_config_lists": []}')
    site.poll()
    assert ask_model(stub, "inner") == 5, "as it is one of ours, though broken"
    assert site.server
    assert "goes on as it was" in (site.server.catalog.entry("inner").error or "")


def test_models_go_on_while_the_file_beside_a_graph_is_broken(site: Site) -> None:
    folder = add_graph(site, "good", dummy_graph().replace("dummy", "inner"))
    plus(folder / "inner" / "1", 5)
    write_subconfig(folder / "subconfig.json", inner="inner")
    site.graphs["same_folder"] = {"name": "same_folder", "base_path": "good"}
    stub = site.start()
    (folder / "subconfig.json").write_text("{")
    for another in ("m1", "m2"):  # a change of the main file changes nothing of it
        site.poll()
        assert ask(stub, request("good", **{"in": ONES}))["out"] == [6.0] * 10
        site.add(another)
        site.write()
    assert site.server
    assert "goes on as it was" in str(site.server.catalog.entry("inner").error)
    write_subconfig(folder / "subconfig.json")
    site.poll()
    assert "retired" in refusal(lambda: ask_model(stub, "inner", "1"))[1]


def test_names_that_are_taken(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    add_graph(site, "elsewhere", dummy_graph())
    site.graphs["elsewhere"] = {"name": "dummy", "base_path": "elsewhere"}
    stub = site.start()
    assert ask_model(stub, "dummy") == 1
    assert "dummy is configured more than once" in caplog.text


def test_a_changed_graph_file_is_loaded_and_streams_keep_the_old_one(site: Site) -> None:
    folder = add_graph(site, "g", IN_OUT + node("AddOne", ["in"], ["out"]))
    stub = site.start()
    talk = Talk(stub)
    talk.say(request("g", **{"in": [1.0]}))
    assert talk.hear_values() == {"out": [2.0]}
    twice = node("AddOne", ["in"], ["x"]) + node("AddOne", ["x"], ["out"])
    (folder / "graph.pbtxt").write_text(IN_OUT + twice)
    site.poll()
    assert ask(stub, request("g", **{"in": [1.0]})) == {"out": [3.0]}
    talk.say(request("g", **{"in": [1.0]}))
    assert talk.hear_values() == {"out": [2.0]}
    assert talk.rest() == []


def test_a_graph_that_breaks_goes_and_comes_back(site: Site) -> None:
    folder = add_graph(site, "g", dummy_graph())
    stub = site.start()
    (folder / "graph.pbtxt").write_text("nonsense")
    site.poll()
    assert refusal(lambda: ask(stub, request("g", **{"in": ONES})))[0] == "UNAVAILABLE"
    (folder / "graph.pbtxt").write_text(dummy_graph())
    site.poll()
    assert ask(stub, request("g", **{"in": ONES}))["out"] == [2.0] * 10


def test_a_model_that_changes_is_used_at_once(site: Site) -> None:
    add_graph(site, "g", dummy_graph())
    stub = site.start()
    plus(site.root / "dummy" / "2", 40)
    site.poll()
    assert ask(stub, request("g", **{"in": ONES}))["out"] == [41.0] * 10
    del site.models["dummy"]
    site.write()
    site.poll()
    code, details = refusal(lambda: ask(stub, request("g", **{"in": ONES})))
    assert code == "FAILED_PRECONDITION"
    assert "OpenVINOModelServerSessionCalculator failed to load the model" in details


def test_one_graph_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "graph.pbtxt").write_text(IN_OUT + node("AddOne", ["in"], ["out"]))
    graph = find_graph("g", tmp_path)
    assert graph is not None
    with (
        Server(replace(loopback(), graphs=(graph,))) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        assert ask(Stub(channel), request("g", **{"in": [1.0]})) == {"out": [2.0]}


def test_flags_of_models_do_not_go_with_a_graph(tmp_path: Path) -> None:
    (tmp_path / "graph.pbtxt").write_text(IN_OUT)
    arguments = ["serve", "--model_name", "g", "--model_path", str(tmp_path), "--batch_size", "10"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code != 0
    assert "--batch_size is for models, and" in done.output
