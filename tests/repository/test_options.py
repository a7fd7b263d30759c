"""Options of models as text: the grammar, and the complaints."""

from __future__ import annotations

import pytest

from kfs.options import (
    Conversion,
    Layout,
    VersionPolicy,
    parse_batch,
    parse_by_tensor,
    parse_color_format,
    parse_layout,
    parse_numbers,
    parse_precision,
    parse_shape,
    parse_version_policy,
)
from kfs.signature import ANY, Dim, fixed


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("(1,3,224,224)", fixed(1, 3, 224, 224)),
        (" ( 1 , 3 ) ", fixed(1, 3)),
        ("(1,-1,20:40)", (Dim(1, 1), ANY, Dim(20, 40))),
        ("(5,)", fixed(5)),
        ("()", ()),
        ("AUTO", "auto"),
    ],
)
def test_shapes(text: str, shape: object) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["1,3", "(1,x)", "(0,3)", "(4:2)", "(1,-2)", "(1,,2)", "", "any"])
def test_malformed_shapes_are_told(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_shape(text)


@pytest.mark.parametrize(
    ("text", "batch"),
    [
        ("auto", "auto"),
        ("4", Dim(4, 4)),
        (4, Dim(4, 4)),
        ("1:8", Dim(1, 8)),
        ("-1", ANY),
        (0, None),
    ],
)
def test_batches(text: str | int, batch: object) -> None:
    assert parse_batch(text) == batch


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("NHWC", Layout("NHWC", "NHWC")),
        ("nhwc:nchw", Layout("NHWC", "NCHW")),
        ("N...:N...", Layout("N...", "N...")),
        ("N?HW", Layout("N?HW", "N?HW")),
    ],
)
def test_layouts(text: str, layout: Layout) -> None:
    assert parse_layout(text) == layout


@pytest.mark.parametrize("text", ["", "NHWCX", "NN", "N...C...", "NHWC:", "NHWC:NCHW:N"])
def test_malformed_layouts_are_told(text: str) -> None:
    with pytest.raises(ValueError, match="expected a layout"):
        parse_layout(text)


def test_numbers() -> None:
    assert parse_numbers("123.5") == (123.5,)
    assert parse_numbers("[1,2.5,3]") == parse_numbers("(1,2.5,3)") == (1, 2.5, 3)
    with pytest.raises(ValueError, match="expected a number"):
        parse_numbers("[1,b]")
    with pytest.raises(ValueError, match="expected a number"):
        parse_numbers("nan")


def test_colours_are_told_model_first_and_precisions_client_first() -> None:
    assert parse_color_format("BGR:RGB") == Conversion(client="RGB", model="BGR")
    assert parse_precision("UINT8:fp32") == Conversion(client="uint8", model="fp32")
    for parse, text in ((parse_color_format, "CMYK"), (parse_precision, "fp31:fp32")):
        with pytest.raises(ValueError, match="expected two of"):
            parse(text)


def test_one_value_or_one_for_each_tensor() -> None:
    assert parse_by_tensor("(1,2)", parse_shape) == {"": fixed(1, 2)}
    assert parse_by_tensor('{"a": "(1)", "b": "auto"}', parse_shape) == {"a": fixed(1), "b": "auto"}
    assert parse_by_tensor({"a": "(1)"}, parse_shape) == {"a": fixed(1)}
    with pytest.raises(ValueError, match="a: expected auto or a shape"):
        parse_by_tensor('{"a": "1"}', parse_shape)
    with pytest.raises(ValueError, match="no JSON"):
        parse_by_tensor('{"a"', parse_shape)


@pytest.mark.parametrize(
    ("document", "there", "chosen"),
    [
        ({"latest": {"num_versions": 2}}, {1, 2, 3}, {2, 3}),
        ({"latest": {}}, {1, 2, 3}, {3}),
        ({"all": {}}, {1, 2, 3}, {1, 2, 3}),
        ({"specific": {"versions": [1, 3, 7]}}, {1, 2, 3}, {1, 3}),
        ({"latest": {"num_versions": 2}}, set(), set()),
    ],
)
def test_version_policies(document: object, there: set[int], chosen: set[int]) -> None:
    assert parse_version_policy(document).choose(frozenset(there)) == chosen


@pytest.mark.parametrize(
    "document",
    [
        {}, {"latest": {"num_versions": 0}}, {"latest": {"n": 1}}, {"all": {"x": 1}},
        {"specific": {"versions": []}}, {"specific": {"versions": [0]}}, {"some": {}},
        {"latest": {}, "all": {}}, {"specific": {"versions": [True]}}, "latest",
    ],
)  # fmt: skip
def test_malformed_policies_are_told(document: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_version_policy(document)


def test_the_latest_version_is_the_default_policy() -> None:
    assert VersionPolicy().choose(frozenset({1, 2, 11})) == {11}
