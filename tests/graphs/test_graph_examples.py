"""Every graph and client of examples/graphs, run as their pages say."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from kfs.digits import images

EXAMPLES = Path(__file__).parents[2] / "examples" / "graphs"
KFS_FAST = [sys.executable, "-c", "from kfs.cli import main; main()"]


def script(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def install(package: Path, folder: Path) -> None:
    """What pip leaves of a pure package: its modules, and a folder that tells its entry points."""
    text = (package / "pyproject.toml").read_text()
    name = re.findall(r'^name = "(.*)"', text, re.MULTILINE)[0].replace("-", "_")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    points = re.findall(r'entry-points\."(.*)"\]\n((?:.+\n)*)', text)
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{lines}".replace('"', "") for group, lines in points)
    )
    for module in package.glob("*.py"):
        (folder / module.name).write_text(module.read_text())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the examples' config.json; the package with the calculators is installed."""
    folder = tmp_path_factory.mktemp("site_packages")
    install(EXAMPLES / "calculators", folder)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path}
    words = ["serve", "--config_path", str(EXAMPLES / "config.json"), "--port", "0",
             "--grpc_bind_address", "127.0.0.1"]  # fmt: skip
    with subprocess.Popen(
        [*KFS_FAST, *words], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.rstrip().endswith("Ready"):
                    break
            started = re.search(r"Started gRPC server on port (\d+)", "".join(lines))
            assert started is not None, lines
            yield f"127.0.0.1:{started[1]}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def run(client: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "client" / f"{client}.py"), *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_there_is_a_test_for_every_client_and_every_graph() -> None:
    tested = {"two_models", "digit_reader", "rhymes", "running_mean", "counting"}
    assert {path.stem for path in (EXAMPLES / "client").glob("*.py")} == tested
    assert {path.parent.name for path in EXAMPLES.glob("*/graph.pbtxt")} == tested


def test_two_models(url: str) -> None:
    assert run("two_models", url) == [
        f"{image.path.name}: {image.truth}, {'odd' if image.truth % 2 else 'even'}"
        for image in images()
    ]


def test_python_around_a_model(url: str) -> None:
    lines = run("digit_reader", url)
    for line, image in zip(lines, images(), strict=True):
        assert re.fullmatch(rf"{image.path.name}: {image.truth} \(\d+%\), \d \(.*", line)


def test_a_generator_writes_what_its_model_allows(url: str) -> None:
    text = "\n".join(run("rhymes", url, "Humpty ", "200"))
    assert text.startswith("Humpty ")
    assert len(text) == len("Humpty ") + 200
    followers = script(EXAMPLES / "rhymes" / "train.py").train(
        (EXAMPLES / "rhymes" / "rhymes.txt").read_text()
    )
    for at in range(len("Humpty "), len(text)):
        assert text[at] in followers[text[at - 4 : at]]
    assert text == "\n".join(run("rhymes", url, "Humpty ", "200"))


def test_a_mean_that_lives_as_long_as_its_stream(url: str) -> None:
    lines = ["4: the mean is 4", "8: the mean is 6", "3: the mean is 5", "5: the mean is 5"]
    assert run("running_mean", url) == lines
    assert run("running_mean", url) == lines  # another stream begins anew


def test_counting_on_a_pipe(url: str) -> None:
    lines = run("counting", url, "90")
    assert len(lines) == 90
    assert lines[0] == "frame 1: 1 objects now, 1 so far"
    assert lines[30] == "frame 31: 3 objects now, 3 so far"
    assert lines[-1] == "frame 90: 2 objects now, 6 so far"


def test_counting_on_a_terminal(url: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "client" / "counting.py"), url, "20"],
        stdout=theirs, env={**os.environ, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # how a terminal says that nobody writes any more
            pass
        assert process.wait(timeout=60) == 0
    os.close(ours)
    assert b"2 objects now, 2 so far" in shown
    assert b"@" in shown


def test_the_second_model_is_the_one_of_the_script() -> None:
    folder = EXAMPLES / "two_models"
    probabilities = np.random.default_rng(0).random((3, 10), np.float32)
    core = ov.Core()
    kept = core.compile_model(folder / "parity" / "1" / "parity.xml", "CPU")
    made = core.compile_model(script(folder / "make_parity.py").make(), "CPU")
    assert np.array_equal(kept(probabilities)[0], made(probabilities)[0])


def test_the_generator_is_the_one_of_the_script() -> None:
    folder = EXAMPLES / "rhymes"
    made = script(folder / "train.py").write_model((folder / "rhymes.txt").read_text())
    assert (folder / "model.json").read_text() == made
