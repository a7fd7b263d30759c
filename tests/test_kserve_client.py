"""The KServe SDK's gRPC client, whose many dependencies want an environment of their own.

`python -m venv ks && ks/bin/pip install kserve`, then `KFS_KSERVE_PYTHON=ks/bin/python pytest`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ServeModels

from kfs.cli.app import Server
from kfs.digits import MODEL_PATH
from kfs.settings import ModelSettings

SCRIPT = Path(__file__).parent / "clients" / "kserve_client.py"
PYTHON = os.environ.get("KFS_KSERVE_PYTHON", "")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="KFS_KSERVE_PYTHON names no interpreter with kserve installed"
)


@pytest.fixture(scope="module")
def answers(server: Server) -> Any:
    """What the client was told, by what it asked."""
    done = subprocess.run(
        [PYTHON, str(SCRIPT), f"127.0.0.1:{server.port}"],
        capture_output=True, text=True, timeout=120, check=False,
        # Nothing of ours may be found by it.
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_client_of_the_page_is_answered(serve: ServeModels) -> None:
    server = serve(ModelSettings("digits", MODEL_PATH))
    page = (Path(__file__).parents[1] / "docs" / "clients.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace("localhost:9000", f"127.0.0.1:{server.port}")
    done = subprocess.run(
        [PYTHON, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[[")


@pytest.mark.parametrize("what", ["live", "ready", "model_ready"])
def test_the_server_and_a_model_are_ready(answers: Any, what: str) -> None:
    assert answers[what] is True


@pytest.mark.parametrize("how", ["binary", "contents"])
def test_numbers_are_answered(answers: Any, how: str) -> None:
    assert answers[f"numbers_{how}"] == {
        "model": "dummy",
        "version": "1",
        "id": "7",
        "output": "a",
        "datatype": "FP32",
        "shape": [1, 10],
        "values": [float(number + 1) for number in range(10)],
    }


@pytest.mark.parametrize("how", ["binary", "contents"])
def test_strings_are_answered(answers: Any, how: str) -> None:
    assert answers[f"strings_{how}"]["shape"] == [3]
    assert answers[f"strings_{how}"]["values"] == ["ala", "", "kota"]


def test_a_wrong_shape_is_told(answers: Any) -> None:
    assert "Invalid input shape" in answers["refused"]
