"""Handlers from the import of their file to `finalize`."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import wait_until
from graphs.graph_site import Talk, add_graph, ask, ends, one, python, request, status_of, tensors
from graphs.handlers import BESIDE, INCREMENT, NOTES
from graphs.plug_ins import Generators, Stuck
from site_of_models import Site, refusal

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.repository import repository

FINALIZES = """
    from pathlib import Path

    class OvmsPythonModel:
        def initialize(self, kwargs):
            self.folder = Path(kwargs["base_path"])

        def execute(self, inputs):
            return []

        def finalize(self):
            (self.folder / "finalized").touch()
"""

SLOW_TO_END = """
    from pyovms import Tensor
    from graphs.plug_ins import Generators, Stuck

    class OvmsPythonModel:
        def execute(self, inputs):
            Stuck.reached.release()
            assert Stuck.released.wait(60)
            return [Tensor("out", inputs[0])]

        def finalize(self):
            assert Generators.finalized.wait(60)
"""

BROKEN = {
    "missing": (None, "no such file"),
    "syntax": ("def", "SyntaxError"),
    "no_class": ("x = 1", "expected a class OvmsPythonModel; there is none"),
    "no_execute": ("class OvmsPythonModel:\n        pass", "expected a method execute"),
    "raises": (
        "class OvmsPythonModel:\n        def execute(self, inputs):\n            pass\n"
        "        def initialize(self, kwargs):\n            raise ValueError('no weights')",
        "ValueError: no weights",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_handlers_that_cannot_be_loaded(tmp_path: Path, name: str) -> None:
    text, reason = BROKEN[name]
    site = Site(tmp_path)
    files = {} if text is None else {name: "    " + text}
    add_graph(site, name, one(name), **files)
    stub = site.start()
    try:
        ready = stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=30)
        assert not ready.ready
        assert site.server is not None
        error = site.server.catalog.entry(name).error
        assert error is not None
        assert reason in error
        assert f"node {name}" in error
        code, details = refusal(lambda: ask(stub, request(name, **{"in": [1.0]})))
        assert (code, details) == ("UNAVAILABLE", f"Mediapipe is not loaded yet - {name}")
    finally:
        site.stop()


def test_a_handler_is_finalized_when_its_graph_goes(tmp_path: Path) -> None:
    site = Site(tmp_path)
    folder = add_graph(site, "notes", one("notes"), notes=NOTES, beside=BESIDE)
    stub = site.start()
    try:
        talk = Talk(stub)
        talk.say(request("notes", **{"in": [1.0]}))
        talk.hear()
        del site.graphs["notes"]
        site.write()
        site.poll()
        assert not (folder / "finalized").exists()  # the stream still uses it
        code, details = refusal(lambda: ask(stub, request("notes", **{"in": [1.0]})))
        assert (code, details) == ("NOT_FOUND", "Mediapipe is retired - notes")
        talk.say(request("notes", **{"in": [1.0]}))
        talk.hear()
        talk.close()
        assert status_of(talk.answers) == ("OK", "")
        wait_until((folder / "finalized").exists)
    finally:
        site.stop()


def test_no_answer_waits_for_a_handler_that_is_finalized(tmp_path: Path) -> None:
    site = Site(tmp_path)
    add_graph(site, "g", one("handler"), handler=SLOW_TO_END)
    stub = site.start()
    try:
        Stuck.hold()
        Generators.finalized.clear()
        answer = stub.ModelInfer.future(request("g", **{"in": [1.0]}), timeout=5)
        assert Stuck.reached.acquire(timeout=30)
        del site.graphs["g"]
        site.write()
        site.poll()
        Stuck.released.set()
        assert tensors(answer.result()) == {"out": [1.0]}
    finally:
        Generators.finalized.set()
        site.stop()


def test_neither_a_look_nor_the_end_waits_for_a_handler_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_END_S", 0.1)
    site = Site(tmp_path)
    for name in ("g", "h"):
        add_graph(site, name, one("handler"), handler=SLOW_TO_END)
    site.start()
    try:
        Generators.finalized.clear()
        del site.graphs["g"]
        site.write()
        site.poll()
        assert site.server is not None
        assert site.server.stop(0) == 1  # which ends the process all the same
    finally:
        Generators.finalized.set()
        site.stop()


def test_what_was_ready_is_finalized_when_another_handler_fails(tmp_path: Path) -> None:
    site = Site(tmp_path)
    text = python("good", ["IN:in"], ["OUT:middle"]) + python("bad", ["IN:middle"], ["OUT:out"])
    folder = add_graph(site, "half", ends(["OVMS_PY_TENSOR:in"], ["OVMS_PY_TENSOR:out"]) + text,
                       good=FINALIZES, bad="raise ValueError")  # fmt: skip
    site.start()
    try:
        assert (folder / "finalized").exists()
    finally:
        site.stop()


def test_a_handler_is_imported_anew_with_its_graph(tmp_path: Path) -> None:
    site = Site(tmp_path)
    add_graph(site, "g", one("handler"), handler=INCREMENT)
    stub = site.start()
    try:
        assert ask(stub, request("g", **{"in": [1.0]})) == {"out": [2.0]}
        add_graph(site, "g", one("handler"), handler=INCREMENT.replace("data + 1", "data + 7"))
        site.poll()
        assert ask(stub, request("g", **{"in": [1.0]})) == {"out": [2.0]}
        add_graph(site, "g", "# edited\n" + one("handler"))
        site.poll()
        assert ask(stub, request("g", **{"in": [1.0]})) == {"out": [8.0]}
    finally:
        site.stop()


def test_a_handler_that_could_not_be_loaded_is_tried_again_with_the_configuration(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    add_graph(site, "g", one("handler"), handler="    def")
    stub = site.start()
    try:
        add_graph(site, "g", one("handler"), handler=INCREMENT)
        site.poll()
        assert refusal(lambda: ask(stub, request("g", **{"in": [1.0]})))[0] == "UNAVAILABLE"
        site.add("another", 1)
        site.write()
        site.poll()
        assert ask(stub, request("g", **{"in": [1.0]})) == {"out": [2.0]}
    finally:
        site.stop()


def test_handlers_of_equal_file_names_do_not_collide(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for name, added in (("one", "1"), ("ten", "10")):
        add_graph(site, name, one("handler"), handler=INCREMENT.replace("+ 1", f"+ {added}"))
    stub = site.start()
    try:
        assert ask(stub, request("one", **{"in": [1.0]})) == {"out": [2.0]}
        assert ask(stub, request("ten", **{"in": [1.0]})) == {"out": [11.0]}
    finally:
        site.stop()


@pytest.mark.parametrize("graph_path", ["../files/g.pbtxt", "deep/g.pbtxt"])
def test_paths_begin_at_the_base_path_wherever_the_file_lies(
    tmp_path: Path, graph_path: str
) -> None:
    site = Site(tmp_path)
    folder = add_graph(site, "g", "", handler=INCREMENT)
    path = folder / graph_path
    path.parent.mkdir()
    path.write_text(one("handler"))
    (path.parent / "handler.py").write_text("raise ImportError('not this one')")
    site.graphs["g"]["graph_path"] = graph_path
    stub = site.start()
    try:
        assert ask(stub, request("g", **{"in": [1.0]})) == {"out": [2.0]}
    finally:
        site.stop()


def test_paths_of_a_graph_in_version_1_begin_there(tmp_path: Path) -> None:
    site = Site(tmp_path)
    add_graph(site, "g/1", one("handler"), handler=INCREMENT)
    site.graphs.clear()
    site.models["g"] = {"name": "g"}
    stub = site.start()
    try:
        assert ask(stub, request("g", **{"in": [1.0]})) == {"out": [2.0]}
    finally:
        site.stop()
