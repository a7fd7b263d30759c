"""Every command in the documentation: run here, or known to be run elsewhere."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from conftest import loopback

from kfs.cli.app import Server
from kfs.digits import MODEL_PATH, images
from kfs.repository.config import read_config
from kfs.settings import ModelSettings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
KFS_FAST = [sys.executable, "-c", "from kfs.cli import main; main()"]

# What the documentation calls by names of its own, and what stands for it here.
STANDS_FOR = {
    "/models/resnet": str(MODEL_PATH),
    "src/kfs/digits/model": str(MODEL_PATH),
    "examples/repository/config.json": str(ROOT / "examples" / "repository" / "config.json"),
    "/models/config.json": str(ROOT / "examples" / "repository" / "config.json"),
    "examples/graphs/config.json": str(ROOT / "examples" / "graphs" / "config.json"),
    "cat.jpg": str(images()[0].path),
}
# Run by the gate or by other tests, or programs that are not ours.
ELSEWHERE = re.compile(
    r"pip install|pytest|python -m venv|pre-commit install|grpcurl|python examples/client/|"
    r"python examples/graphs/client/|python bench/|kfs-fast bench --compare|"
    r"\.ci/|KFS_\w+=\d+ pytest|python -X dev -m pytest|.*&& kfs-fast demo"
)


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            found += re.findall(r"^\$ (.*)$", block, re.MULTILINE)
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
            for listed in re.findall(r"command: (\[.*?\])", block, re.DOTALL):
                found.append(shlex.join(json.loads(listed)))
        for block in re.findall(r"```ini\n(.*?)```", page.read_text(), re.DOTALL):
            found += re.findall(r"^ExecStart=\S+/(kfs-fast .*)$", block, re.MULTILINE)
    return sorted(set(found))


@pytest.fixture(scope="module")
def url() -> object:
    served = [ModelSettings(name, MODEL_PATH) for name in ("resnet", "digits")]
    with Server(loopback(*served)) as server:
        yield f"127.0.0.1:{server.port}"


def arguments(command: str) -> list[str]:
    return [STANDS_FOR.get(word, word) for word in shlex.split(command, comments=True)[1:]]


def make_certificates(folder: Path) -> None:
    """The files that the documentation names."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
    issued.private_key_pem.write_to_path(folder / "server.key")
    authority.cert_pem.write_to_path(folder / "client_ca.pem")


def serves(words: list[str], folder: Path) -> None:
    """Start as told, but on free loopback ports; stop when ready."""
    make_certificates(folder)
    loopback = ["--port", "0", "--grpc_bind_address", "127.0.0.1"]
    if "--rest_port" in words:
        loopback += ["--rest_port", "0", "--rest_bind_address", "127.0.0.1"]
    process = subprocess.Popen(
        [*KFS_FAST, *words, *loopback], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    assert process.stdout is not None
    with process.stdout:
        assert any(line.rstrip().endswith(("Ready", 'Ready"}')) for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("command", commands())
def test_a_documented_command_works(command: str, url: str, tmp_path: Path) -> None:
    if ELSEWHERE.match(command):
        return
    assert command.startswith("kfs-fast "), f"who runs {command!r}?"
    words = arguments(command)
    if words[0] == "serve":
        serves(words, tmp_path)
        return
    client = [] if words[0] == "check" else ["--url", url]
    done = subprocess.run(
        [*KFS_FAST, *words, *client],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["repository.md", "metrics.md", "graphs.md"])
def test_a_documented_config_is_one(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "config.json").write_text(block)
        assert not read_config(tmp_path / "config.json", ModelSettings("", "")).broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
