"""Calculators of other packages, found by their entry points as pip leaves them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from graphs.graph_site import ends, node
from grpc_tools import protoc

from kfs.servables.graph import Calculator, GraphError, options_of
from kfs.servables.graph.calculator import Registry
from kfs.servables.graph.calculators import BUILTIN
from kfs.servables.graph.plan import Plan, make_plan
from kfs.servables.graph.spec import parse_graph

PROTO = """
syntax = "proto2";
package plug;
message ScaleOptions { required double factor = 1; }
"""

SCALE = """
from kfs.servables.graph import OV_TENSOR, Calculator, options_of
from plug_scale_pb2 import DESCRIPTOR, ScaleOptions


class Scale(Calculator):
    options_file = DESCRIPTOR

    @classmethod
    def contract(cls, contract):
        contract.inputs[contract.node.inputs[0]] = OV_TENSOR

    def process(self, context):
        context.send(context.input() * options_of(context.node, ScaleOptions).factor)


class NoCalculator:
    pass
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Knows what a package on the path offers: one calculator that works, and three that do not."""
    (tmp_path / "plug_scale.proto").write_text(PROTO)
    assert not protoc.main(["", f"-I{tmp_path}", f"--python_out={tmp_path}", "plug_scale.proto"])
    (tmp_path / "plug_scale.py").write_text(SCALE)
    (tmp_path / "plug_broken.py").write_text("raise RuntimeError('no licence')")
    info = tmp_path / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[kfs.calculators]\nScale = plug_scale:Scale\nOther = plug_scale:NoCalculator\n"
        "Broken = plug_broken:Broken\nNowhere = plug_nowhere:Nowhere\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("plug_scale", "plug_scale_pb2"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    registry = Registry(BUILTIN)
    registry.load_plug_ins()
    return registry


def plan(registry: Registry, calculator: str, more: str = "") -> Plan:
    text = ends(["in"], ["out"]) + node(calculator, ["in"], ["out"], more)
    return make_plan(parse_graph(text), registry)


def test_a_calculator_of_a_package_with_options_of_its_own(registry: Registry) -> None:
    options = "node_options: { [type.googleapis.com/plug.ScaleOptions]: { factor: 3 } }"
    (found,) = plan(registry, "Scale", options).nodes
    assert issubclass(found.calculator, Calculator)
    assert found.calculator.__module__ == "plug_scale"
    assert options_of(found.spec, sys.modules["plug_scale_pb2"].ScaleOptions).factor == 3
    with pytest.raises(GraphError, match="missing required fields: factor"):
        plan(registry, "Scale", options.replace("factor: 3", ""))


@pytest.mark.parametrize(
    ("calculator", "reason"),
    [
        ("Other", r"node Other: calculator Other .*expected a subclass of Calculator"),
        ("Broken", r"node Broken: calculator Broken .*no licence"),
        ("Nowhere", r"node Nowhere: calculator Nowhere .*plug_nowhere"),
    ],
)
def test_what_cannot_be_used_is_told_to_the_graphs_that_name_it(
    registry: Registry, calculator: str, reason: str
) -> None:
    with pytest.raises(GraphError, match=reason):
        plan(registry, calculator)
    assert plan(registry, "PassThroughCalculator").nodes
