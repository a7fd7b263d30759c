"""The examples of the pages about graphs, run as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from graphs.graph_site import Talk, add_graph, ask, request, tensors
from site_of_models import Site
from wire import Stub

from kfs.digits import MODEL_PATH
from kfs.servables.graph.calculators import BUILTIN
from kfs.servables.graph.graph import registry

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


MODEL = blocks("graphs.md", "pbtxt")[0]
DOUBLE, COUNTDOWN = blocks("python-nodes.md", "pbtxt")
DOUBLE_HANDLER, BYTES_PIECE, COUNTDOWN_HANDLER, ALONE = blocks("python-nodes.md", "python")
DIFFERENCE = blocks("calculators.md", "pbtxt")[0]
DIFFERENCE_CALCULATOR = blocks("calculators.md", "python")[0]
CLIENT = blocks("streaming.md", "python")[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("pages"))
    site.models["digits"] = {"name": "digits", "base_path": str(MODEL_PATH)}
    module: dict[str, type] = {}
    exec(DIFFERENCE_CALCULATOR, module)
    registry.add("Difference", module["Difference"])
    add_graph(site, "one_model", MODEL)
    add_graph(site, "double", DOUBLE, double=DOUBLE_HANDLER)
    add_graph(site, "countdown", COUNTDOWN, countdown=COUNTDOWN_HANDLER)
    add_graph(site, "difference", DIFFERENCE)
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def stub(site: Site) -> Stub:
    assert site.channel is not None
    return Stub(site.channel)


def test_one_model(stub: Stub) -> None:
    found = ask(stub, request("one_model", image=np.zeros((1, 8, 8, 1), np.float32)))
    assert sum(found["scores"]) == pytest.approx(1, abs=1e-5)


def test_a_handler(stub: Stub) -> None:
    assert ask(stub, request("double", numbers=[1.5, 2.0])) == {"doubled": [3.0, 4.0]}


def test_a_handler_alone(tmp_path: Path) -> None:
    (tmp_path / "double.py").write_text(DOUBLE_HANDLER)
    (tmp_path / "test_double.py").write_text(ALONE)
    subprocess.run([sys.executable, "test_double.py"], cwd=tmp_path, check=True, timeout=60)


def test_elements_of_bytes() -> None:
    from kfs.pyovms import Tensor

    body = "\n    ".join(BYTES_PIECE.splitlines())
    names: dict[str, object] = {"Tensor": Tensor}
    exec(f"def execute(inputs):\n    {body}", names)
    (found,) = names["execute"]([Tensor("in", b"\x05\0\0\0hello")])  # type: ignore[operator]
    assert (bytes(found), found.shape, found.datatype) == (b"\x05\0\0\0HELLO", (1,), "BYTES")


def test_a_calculator_remembers_its_stream(stub: Stub) -> None:
    talk = Talk(stub)
    for value in (1.0, 4.0, 2.0):
        talk.say(request("difference", value=[value]))
    answers = [tensors(answer.infer_response) for answer in talk.rest()]
    assert answers == [{"change": [3.0]}, {"change": [-2.0]}]


def test_a_client_with_a_stream(site: Site) -> None:
    assert site.server is not None
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, f"127.0.0.1:{site.server.port}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "2", "1", "2", "1"]


def test_the_table_of_calculators_is_complete() -> None:
    text = (DOCS / "graphs.md").read_text()
    told = re.findall(r"^\| `(\w+Calculator)` \|", text, re.MULTILINE)
    assert sorted(told) == sorted(BUILTIN)
