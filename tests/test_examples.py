"""Every client example, run against a server of the bundled model as its text says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import loopback

from kfs.cli.app import Server
from kfs.digits import MODEL_NAME, MODEL_PATH, images
from kfs.settings import ModelSettings

CLIENTS = Path(__file__).parents[1] / "examples" / "client"
ALL_DIGITS = [f"{image.path.name}: {image.truth}" for image in images()]

EXPECTED = {
    "live.py": ["live: True"],
    "ready.py": ["ready: True"],
    "server_metadata.py": ["kfs-fast 0."],
    "model_ready.py": ["digits ready: True"],
    "model_metadata.py": ["image FP32 [-1, 8, 8, 1]", "probabilities FP32 [-1, 10]"],
    "infer_raw.py": ["digit: 1"],
    "infer_contents.py": ["digit: 1"],
    "infer_image.py": ALL_DIGITS,
    "infer_async.py": ALL_DIGITS,
    "stream.py": ALL_DIGITS,
}


@pytest.fixture(scope="module")
def url() -> object:
    with Server(loopback(ModelSettings(MODEL_NAME, MODEL_PATH))) as server:
        yield f"127.0.0.1:{server.port}"


def test_every_example_is_tested() -> None:
    assert {path.name for path in CLIENTS.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_prints_what_it_should(url: str, name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(CLIENTS / name), url],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in EXPECTED[name]:
        assert line in done.stdout
