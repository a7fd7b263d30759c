"""What may be written of a pipeline in config.json, and what may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pipelines.pipes import custom, entry, model

from kfs.repository.config import Wanted, read_config
from kfs.repository.schema import ConfigError
from kfs.settings import ModelSettings

PLAIN = entry(
    ["b"],
    [model("n", "dummy", b="request.b"), custom("c", "lib", {"y": "y"}, {"k": "v"}, x="n.a")],
    y="c.y",
)
Change = Callable[[Any], object]


def read(folder: Path, change: Change, pipeline: dict[str, Any] = PLAIN) -> Wanted:
    changed = deepcopy(pipeline)
    change(changed)
    path = folder / "config.json"
    path.write_text(json.dumps({"model_config_list": [], "pipeline_config_list": [changed]}))
    return read_config(path, ModelSettings("", ""))


def put(**values: Any) -> Change:
    return lambda pipeline: pipeline.update(values)


def drop(key: str) -> Change:
    return lambda pipeline: pipeline.pop(key)


def in_model(change: Change) -> Change:
    return lambda pipeline: change(pipeline["nodes"][0])


def in_custom(change: Change) -> Change:
    return lambda pipeline: change(pipeline["nodes"][1])


SOURCE = {"node_name": "request", "data_item": "b"}
REFUSED: list[tuple[Change, str]] = [
    (drop("name"), "name"),
    (drop("inputs"), "inputs"),
    (drop("nodes"), "nodes"),
    (drop("outputs"), "outputs"),
    (put(version=1), "version: this key is not allowed here"),
    (put(demultiply_count=-2), "demultiply_count"),
    (put(demultiply_count="10"), "demultiply_count"),
    (put(demultiply_count=2.5), "demultiply_count"),
    (in_model(put(type="DL modeloze Wrong kind")), "nodes[0].type"),
    (in_model(drop("model_name")), "needs model_name"),
    (in_model(drop("name")), "nodes[0].name"),
    (in_model(drop("type")), "nodes[0].type"),
    (in_model(drop("inputs")), "nodes[0].inputs"),
    (in_model(drop("outputs")), "nodes[0].outputs"),
    (in_model(put(library_name="lib")), "has no library_name"),
    (in_model(put(version=0)), "nodes[0].version"),
    (in_model(put(extra=1)), "nodes[0].extra: this key is not allowed here"),
    (in_model(put(demultiply_count=-2)), "nodes[0].demultiply_count"),
    (in_model(put(demultiply_count=10_001)), "nodes[0].demultiply_count"),
    (in_model(put(gather_from_node=10)), "nodes[0].gather_from_node"),
    (in_model(put(inputs=[{"b": SOURCE, "c": SOURCE}])), "nodes[0].inputs[0]"),
    (in_model(put(inputs=[{}])), "nodes[0].inputs[0]"),
    (in_model(put(inputs=[{"b": {"node_name": "request"}}])), "nodes[0].inputs[0].b.data_item"),
    (in_model(put(outputs=[{"data_item": "a"}])), "nodes[0].outputs[0].alias"),
    (in_custom(drop("library_name")), "needs library_name"),
    (in_custom(put(model_name="dummy")), "has no model_name"),
    (in_custom(put(params={"k": 1024})), "nodes[1].params.k"),
    (put(demultiply_count=None), "[0].demultiply_count: null is no value of this key"),
    (in_model(put(version=None)), "nodes[0].version: null is no value of this key"),
    (in_model(put(library_name=None)), "nodes[0].library_name: null is no value of this key"),
    (in_model(put(gather_from_node=None)), "nodes[0].gather_from_node: null is no value"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_a_mistake_names_its_place(tmp_path: Path, change: Change, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, change)
    assert "pipeline_config_list[0]" in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize(("written", "count"), [(-1, -1), (0, -1), (1, 1), (10_000, 10_000)])
def test_counts_that_demultiply(tmp_path: Path, written: int, count: int) -> None:
    found = read(tmp_path, put(demultiply_count=written)).pipelines["p"]
    assert found.demultiply == count
    found = read(tmp_path, in_model(put(demultiply_count=written))).pipelines["p"]
    assert found.nodes[0].demultiply == count


def test_what_means_nothing_to_a_node_is_tolerated(tmp_path: Path) -> None:
    found = read(tmp_path, in_custom(put(version=3))).pipelines["p"]
    assert found.nodes[1].version is None
    read(tmp_path, in_model(put(params={"k": "v"})))


def test_an_input_twice_is_one_and_the_last_of_equal_aliases_counts(tmp_path: Path) -> None:
    outputs = [{"data_item": item, "alias": "a"} for item in ("first", "last")]

    def change(pipeline: dict[str, Any]) -> None:
        pipeline["inputs"] = ["b", "b"]
        pipeline["nodes"][0]["outputs"] = outputs

    found = read(tmp_path, change).pipelines["p"]
    assert found.inputs == ("b",)
    assert found.nodes[0].outputs == {"a": "last"}
