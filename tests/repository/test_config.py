"""config.json: what is read from it, and where it is told to be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfs.options import Conversion, Layout, VersionPolicy
from kfs.repository.changes import compare
from kfs.repository.config import Wanted, read_config
from kfs.repository.schema import ConfigError
from kfs.settings import ModelSettings
from kfs.signature import Dim, fixed


def read(folder: Path, document: Any) -> Wanted:
    path = folder / "config.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_config(path, ModelSettings("", ""))


def models(*configs: dict[str, Any]) -> dict[str, Any]:
    return {"model_config_list": [{"config": config} for config in configs]}


def test_a_model_with_every_option(tmp_path: Path) -> None:
    config = {
        "name": "m", "base_path": "models/m", "shape": {"a": "(1,3,-1,2:4)"}, "nireq": 3,
        "layout": {"a": "NHWC:NCHW"}, "model_version_policy": {"all": {}}, "target_device": "CPU",
        "plugin_config": {"NUM_STREAMS": 2, "ENABLE_CPU_PINNING": True}, "allow_cache": True,
        "mean": "[1,2,3]", "scale": 2, "color_format": "BGR:RGB", "precision": "uint8:fp32",
    }  # fmt: skip
    found = read(tmp_path, models(config)).models["m"]
    assert found == ModelSettings(
        name="m", base_path=tmp_path / "models" / "m", nireq=3, target_device="CPU",
        plugin_config={"NUM_STREAMS": 2, "ENABLE_CPU_PINNING": True},
        version_policy=VersionPolicy(latest=None),
        shapes={"a": (*fixed(1, 3, -1), Dim(2, 4))}, layouts={"a": Layout("NHWC", "NCHW")},
        mean=(1, 2, 3), scale=(2,), color_format=Conversion("RGB", "BGR"),
        precision=Conversion("uint8", "fp32"), allow_cache=True,
    )  # fmt: skip


def test_a_key_that_is_there_twice_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """{"model_config_list": [{"config": {"name": "m", "nireq": 2, "base_path": "a",
                                              "nireq": 4}},
                                  {"config": {"name": "other", "base_path": "b"}}]}"""
    assert read(tmp_path, text).models["m"].nireq == 4
    (told,) = caplog.messages
    assert told.endswith(
        "config.json: the key nireq is more than once in an object; the last counts"
    )


def test_paths_start_at_the_folder_of_the_file_and_clouds_are_left_alone(tmp_path: Path) -> None:
    wanted = read(
        tmp_path,
        models(
            {"name": "relative", "base_path": "a/b"},
            {"name": "absolute", "base_path": "/a/b"},
            {"name": "cloud", "base_path": "s3://bucket/a"},
        ),
    )
    assert {name: model.base_path for name, model in wanted.models.items()} == {
        "relative": tmp_path / "a" / "b",
        "absolute": Path("/a/b"),
        "cloud": "s3://bucket/a",
    }


def test_a_graph_is_told_its_whole_path_where_that_of_the_file_is_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = {"model_config_list": [], "mediapipe_config_list": [{"name": "g"}]}
    graph = read(Path(), document).graphs["g"]
    assert graph.base_path == tmp_path / "g"  # what its handlers go from, to find their models
    assert graph.path == tmp_path / "g" / "graph.pbtxt"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"base_path": "a/../b"}, "'..' is not allowed"),
        ({}, "the path is missing"),
        ({"base_path": "a", "layout": "NXYZ"}, "layout: expected a layout"),
        ({"base_path": "a", "layout": '{"b":' * 99_999}, "layout: expected a JSON object"),
        (
            {"base_path": "a", "model_version_policy": {"some": {}}},
            "model_version_policy: ",
        ),
        ({"base_path": "a", "precision": "x"}, "precision: expected"),
        ({"base_path": "a", "custom_loader_options": {"loader_name": "x"}}, "custom loaders"),
    ],
)
def test_an_error_in_one_model_is_its_own(
    tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    wanted = read(tmp_path, models({"name": "bad", **config}, {"name": "good", "base_path": "g"}))
    assert list(wanted.models) == ["good"]
    assert reason in wanted.broken["bad"]


def test_a_malformed_shape_or_batch_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"name": "m", "base_path": "m", "shape": "1,2", "batch_size": "many"}
    found = read(tmp_path, models(config)).models["m"]
    assert found.shapes == {}
    assert found.batch is None
    assert "m: shape is ignored: expected auto or a shape" in caplog.text
    assert "m: batch_size is ignored: expected a size" in caplog.text


def test_groups_of_what_may_be_unloaded_change_nothing(tmp_path: Path) -> None:
    named, plain = (
        read(
            tmp_path,
            {
                **models({"name": "m", "base_path": "m", **group}),
                "mediapipe_config_list": [{"name": "g", **group}],
            },
        )
        for group in ({"group_name": "rag"}, {})
    )
    assert named == plain


def test_the_first_of_two_with_one_name_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = read(
        tmp_path, models({"name": "m", "base_path": "first"}, {"name": "m", "base_path": "second"})
    )
    assert wanted.models["m"].base_path == tmp_path / "first"
    assert "m is configured more than once" in caplog.text


def test_a_name_is_that_of_one_thing_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for graph, model in (("g", "g"), ("h", "p")):
        (tmp_path / graph).mkdir()
        (tmp_path / graph / "subconfig.json").write_text(json.dumps(models({"name": model})))
    pipeline = {"name": "p", "inputs": [], "nodes": [], "outputs": []}
    wanted = read(
        tmp_path,
        {
            **models({"name": "m", "base_path": "m"}),
            "pipeline_config_list": [pipeline, {**pipeline, "name": "m"}],
            "mediapipe_config_list": [{"name": name} for name in ("g", "h", "h", "m")],
        },
    )
    assert (*wanted.models, *wanted.broken, *wanted.pipelines, *wanted.graphs) == (
        "m", "g", "p", "h",
    )  # fmt: skip
    for name in ("g", "h", "m", "p"):
        assert f"{name} is configured more than once" in caplog.text


def test_a_file_may_begin_with_the_mark_that_windows_writes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_config_list": []}', encoding="utf-8-sig")
    assert not read_config(path, ModelSettings("", "")).models


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is not JSON: Expecting property name"),
        ("[]", "the file: Input should be an object; found []"),
        ({"model_config_list": [{"config": 1}]}, "model_config_list[0].config: Input should be an "
         "object; found 1"),
        ('{"model_config_list": [], "x": NaN}', "is not JSON: NaN is no JSON number"),
        (models({"name": ""}), "model_config_list[0].config.name: String should have at least 1 "
         "character"),
        ({}, "model_config_list: Field required"),
        ({**models(), "models": []}, "models: this key is not allowed here; expected: "
         "model_config_list, "),
        ({"model_config": []}, "model_config: this key is not allowed here; did you mean "
         "model_config_list?"),
        ({**models(), "monitoring": {"metrics": {"enabled": True}}}, "monitoring.metrics.enabled: "
         "this key is not allowed here; did you mean enable?"),
        (models({"base_path": "m"}), "model_config_list[0].config.name: Field required"),
        (models({"name": "m", "nireq": -1}), "model_config_list[0].config.nireq: Input should be "
         "greater than or equal to 0; found -1"),
        (models({"name": "m", "nireq": "4"}), "nireq: Input should be a valid "
         'integer; found "4"'),
        (models({"name": "m"}, {"name": "n", "shapes": "(1)"}),
         "model_config_list[1].config.shapes: this key is not allowed here; did you mean shape?"),
        (models({"name": "m", "shape": {"a": 1}}), "model_config_list[0].config.shape.a: Input "
         "should be a valid string; found 1"),
        (models({"name": "m", "shape": [1, 2]}), "model_config_list[0].config.shape: Input should "
         "be a valid string or Input should be an object; found [1, 2]"),
        (models({"name": "m", "plugin_config": {"X": {}}}), "model_config_list[0].config."
         "plugin_config.X: "),
        ({**models(), "custom_node_library_config_list": [{"name": "l"}]},
         "custom_node_library_config_list[0].base_path: Field required"),
        ({**models(), "custom_node_library_config_list": None},
         "custom_node_library_config_list: null is no value of this key; leave the key out"),
        (models({"name": "m", "base_path": None}), "model_config_list[0].config.base_path: null is "
         "no value of this key"),
        ({**models(), "monitoring": {"metrics": {"enable": "yes"}}}, "monitoring.metrics.enable: "
         'Input should be a valid boolean; found "yes"'),
        ({**models(), "pipeline_config_list": [{"name": "p", "inputs": [], "outputs": [], "nodes":
         [{"name": "n", "type": "DL model", "inputs": [], "outputs": []}]}]},
         "pipeline_config_list[0].nodes[0]: a node of type DL model needs model_name"),
        ({**models(), "pipeline_config_list": [{"name": "p", "inputs": [], "outputs": [], "nodes":
         [], "demultiply_count": 10001}]},
         "pipeline_config_list[0].demultiply_count: Input should be less than or equal to 10000"),
        ({**models(), "pipeline_config_list": [{"name": "p", "inputs": [], "outputs": [{}],
         "nodes": []}]}, "pipeline_config_list[0].outputs[0]: Input should be an object with one "
         "key; found {}"),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_with_the_place(
    tmp_path: Path, document: object, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, document)
    assert str(caught.value).startswith(str(tmp_path / "config.json"))
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "config.json", ModelSettings("", ""))


def test_changes_between_two_sets_of_models() -> None:
    def model(name: str, **options: Any) -> ModelSettings:
        return ModelSettings(name, Path(name), **options)

    before = {name: model(name) for name in ("kept", "policy", "nireq", "gone")}
    after = {
        "kept": model("kept"),
        "policy": model("policy", version_policy=VersionPolicy(latest=3)),
        "nireq": model("nireq", nireq=2),
        "new": model("new"),
    }
    changes = compare(before, after)
    assert changes.added == {"new"}
    assert changes.replaced == {"nireq"}
    assert changes.removed == {"gone"}
    assert changes.kept == {"kept", "policy"}
