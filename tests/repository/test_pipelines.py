"""Pipelines of a config.json, through reloads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from site_of_models import Site, ask, plus, refusal

from kfs._proto import grpc_predict_v2_pb2 as pb


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


def test_an_auto_model_cannot_be_part_of_a_pipeline(site: Site) -> None:
    site.add("one", 1, shape="auto")
    site.pipelines = [chain("one")]
    stub = site.start()
    assert refusal(lambda: ask(stub, "chain"))[0] == "UNAVAILABLE"
    assert site.server
    assert "node0" in str(site.server.catalog.entry("chain").error)
