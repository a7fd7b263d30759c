"""Logs: requests at DEBUG, for people or for machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import wait_until
from graphs.graph_site import add_graph, ends, node
from server_process import server_process
from site_of_models import ONES, Site, ask, plus, refusal
from wire import infer_request

from kfs.cli.console import set_up_logging
from kfs.settings import ModelSettings


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """What the whole process logs, and logging as it was before, at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield tmp_path / "log"
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


def lines(log_file: Path, logger: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in log_file.read_text().splitlines()]
    return [line for line in found if line["logger"] == logger]


def test_requests_are_logged_with_what_became_of_them(site: Site, log_file: Path) -> None:
    set_up_logging("DEBUG", log_file, as_json=True)
    site.add("m", 1)
    stub = site.start()
    stub.ModelInfer(infer_request("m", raw=ONES.tobytes(), id="good", version="1"))
    refusal(lambda: stub.ModelInfer(infer_request("m", shape=[2], raw=ONES.tobytes(), id="bad")))
    refusal(lambda: ask(stub, "nobody"))
    refusal(lambda: stub.ModelInfer(b"\xff"))
    list(stub.stream([infer_request("m", raw=ONES.tobytes(), id="streamed")]))
    site.stop()
    told = [
        (line["method"], line["servable"], line["version"], line["request_id"], line["status"])
        for line in lines(log_file, "kfs.requests")
    ]
    assert told == [
        ("ModelInfer", "m", "1", "good", "OK"),
        ("ModelInfer", "m", "", "bad", "INVALID_ARGUMENT"),
        ("ModelInfer", "nobody", "", "", "NOT_FOUND"),
        ("ModelInfer", "", "", "", "INVALID_ARGUMENT"),
        ("ModelInferStream", "m", "1", "streamed", "OK"),
        ("Stream", "m", "", "", "OK"),
    ]
    assert [str(line.get("reason", ""))[:26] for line in lines(log_file, "kfs.requests")][:3] == [
        "", "Invalid number of shape di", "Model with requested name ",
    ]  # fmt: skip
    assert all(line["duration_us"] > 0 for line in lines(log_file, "kfs.requests"))  # type: ignore[operator]


def test_for_people_a_request_is_one_line(site: Site, log_file: Path) -> None:
    set_up_logging("DEBUG", log_file)
    site.add("m", 1)
    stub = site.start()
    ask(stub, "m")
    site.stop()
    found = [line for line in log_file.read_text().splitlines() if "[kfs.requests]" in line]
    assert len(found) == 1
    assert "[DEBUG] ModelInfer of m, version default, id none: OK in " in found[0]


def test_a_log_that_is_moved_away_is_begun_anew(tmp_path: Path, log_file: Path) -> None:
    set_up_logging("INFO", log_file)
    logging.getLogger("kfs").info("before")
    moved = log_file.rename(tmp_path / "moved.log")
    logging.getLogger("kfs").info("after")
    assert "before" in moved.read_text()
    assert "after" in log_file.read_text()


def test_a_log_that_cannot_be_written_harms_nobody(
    site: Site, log_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = log_file / "folder"
    folder.mkdir(parents=True)
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stdout", full)
        set_up_logging("DEBUG", folder / "log")
        site.add("m", 1)
        stub = site.start()
        (folder / "log").unlink()
        folder.rmdir()
        assert ask(stub, "m") == 1
        site.add("m", 2, version=2)
        site.poll()
        assert ask(stub, "m") == 2
        folder.mkdir()
        assert ask(stub, "m") == 2
        assert "ModelInfer of m" in (folder / "log").read_text()
        told = capsys.readouterr().err
        with suppress(OSError):
            full.close()
    assert told.splitlines() == [
        "kfs-fast: log lines are lost, stdout: No space left on device",
        f"kfs-fast: log lines are lost, {folder / 'log'}: No such file or directory",
    ]


CLOSED = """
import os, sys
os.closerange(0, 3)
os.execv(sys.executable, [sys.executable, "-c", "from kfs.cli import main; main()", *sys.argv[1:]])
"""


def test_a_server_whose_standard_streams_are_closed_logs_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server_process.KFS_FAST", [sys.executable, "-c", CLOSED])
    log = tmp_path / "its"
    with server_process(tmp_path / "log", log_path=log) as server:
        wait_until(lambda: log.exists() and "[kfs.serving][INFO] Ready" in log.read_text())
        server.process.terminate()
        assert server.process.wait(60) == 0


def test_above_debug_requests_are_not_logged(site: Site, log_file: Path) -> None:
    set_up_logging("INFO", log_file, as_json=True)
    site.add("m", 1)
    stub = site.start()
    refusal(lambda: ask(stub, "nobody"))
    site.stop()
    assert lines(log_file, "kfs.requests") == []
    assert {"time", "level", "logger", "thread", "message"} <= lines(log_file, "kfs.model")[
        0
    ].keys()


def test_lines_that_scripts_made_for_ovms_look_for(site: Site, log_file: Path) -> None:
    set_up_logging("INFO", log_file)
    site.add("m", 1)
    (site.root / "m" / "1" / "mapping_config.json").write_text('{"inputs": {"b": "x"}}')
    site.start(defaults=ModelSettings("", "", cache_dir=site.root / "cache"))
    plus(site.root / "m" / "2", 2)
    site.poll()
    site.stop()
    told = [line.rsplit("[INFO] ")[-1] for line in log_file.read_text().splitlines()]
    state = (
        "STATUS CHANGE: Version {} of model m status change. "
        'New status: ( "state": "{}", "error_code": "OK" )'
    )
    looked_for = [
        f"Model cache is enabled: {site.root / 'cache'}",
        "Input name: b; mapping_name: x; shape: (1,10); precision: FP32; layout: N...",
        "Output name: a; mapping_name: a; shape: (1,10); precision: FP32; layout: N...",
        "Loaded model m; version: 1; batch size: 1; No of InferRequests: 1",
        state.format(1, "AVAILABLE"),
        "Updated default version for model: m, to: 1",
        "ServableManagerModule started",
        "Input name: b; mapping_name: b; shape: (1,10); precision: FP32; layout: N...",
        "Output name: a; mapping_name: a; shape: (1,10); precision: FP32; layout: N...",
        "Loaded model m; version: 2; batch size: 1; No of InferRequests: 1",
        state.format(2, "AVAILABLE"),
        "Will unload model: m; version: 1 ...",
        state.format(1, "UNLOADING"),
        state.format(1, "END"),
        "Updated default version for model: m, to: 2",
        "Will unload model: m; version: 2 ...",
    ]
    assert [line for line in told if line in looked_for] == looked_for


def test_lines_that_scripts_look_for_of_graphs_and_pipelines(site: Site, log_file: Path) -> None:
    set_up_logging("INFO", log_file)
    site.add("m", 1)
    add_graph(site, "g", ends(["in"], ["out"]) + node("PassThroughCalculator", ["in"], ["out"]))
    source = {"node_name": "request", "data_item": "in"}
    run = {
        "name": "n", "type": "DL model", "model_name": "m", "inputs": [{"b": source}],
        "outputs": [{"data_item": "a", "alias": "a"}],
    }  # fmt: skip
    output = {"out": {"node_name": "n", "data_item": "a"}}
    site.pipelines = [{"name": "p", "inputs": ["in"], "nodes": [run], "outputs": [output]}]
    site.start()
    told = log_file.read_text()
    for servable in ("Mediapipe: g", "Pipeline: p"):
        assert f"{servable} state changed to: AVAILABLE after handling: Validation" in told
