"""Inference and conversion nodes: how ports become tensors of models and of handlers."""

from __future__ import annotations

from collections.abc import Iterator

import models
import numpy as np
import pytest
from graphs.graph_site import (
    add_graph,
    add_models,
    ask,
    ends,
    inference,
    node,
    python,
    request,
    session,
)
from openvino import opset13 as op
from site_of_models import Site, plus, refusal
from wire import Stub, infer_request

ONES = np.ones((1, 10), np.float32)
CONVERTER = "PyTensorOvTensorConverterCalculator"

SHAPED = """
    from pyovms import Tensor

    class OvmsPythonModel:
        def execute(self, inputs):
            shape, datatype = bytes(inputs[0])[4:].decode().split()
            return [Tensor("made", bytes(8), [int(n) for n in shape.split(",")], datatype)]
"""


def lists(options: str, *, inputs: str, outputs: str) -> str:
    """A node on lists of tensors of `add`, between nodes that make lists and take them apart."""
    return (
        ends(["in1", "in2"], ["out"])
        + session("add")
        + node("Pack", ["in1", "in2"], ["TENSORS:packed"])
        + f"""
node {{
  calculator: "OpenVINOInferenceCalculator"
  input_side_packet: "SESSION:add"
  input_stream: "{inputs}:packed"
  output_stream: "{outputs}:found"
  node_options: {{
    [type.googleapis.com/mediapipe.OpenVINOInferenceCalculatorOptions]: {{ {options} }}
  }}
}}
"""
        + node("Unpack", ["TENSORS:found"], ["out"])
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("models"))
    add_models(site)
    for name, taken, given in (("halve", "f32", "bf16"), ("mend", "bf16", "f32")):
        b = models.parameter("b", [1, 10], taken)
        models.save(site.root / name / "1", [b], {"a": op.convert(b, given)})
        site.models[name] = {"name": name, "base_path": name}
    for option in ("shape", "batch_size"):
        models.dummy(site.root / option / "1")
        site.models[option] = {"name": option, "base_path": option, option: "auto"}
        add_graph(site, f"auto_{option}", ends(["in"], ["out"]) + session(option)
                  + inference(option, {"B": "in"}, {"A": "out"}, B="b", A="a"))  # fmt: skip
    plus(site.root / "dummy" / "2", 5)
    site.models["dummy"]["model_version_policy"] = {"all": {}}
    plain = ends(["in"], ["out"]) + session("dummy")
    add_graph(site, "by_tag", plain + inference("dummy", {"B": "in"}, {"A": "out"}, B="b", A="a"))
    for version in ("1", "2", "3", "x", "0"):
        said = f'servable_name: "dummy" servable_version: "{version}"'
        text = plain.replace('servable_name: "dummy"', said)
        add_graph(site, f"version_{version}",
                  text + inference("dummy", {"B": "in"}, {"A": "out"}, B="b", A="a"))  # fmt: skip
    add_graph(site, "by_number", plain + inference("dummy", {"B": "in"}, {"A": "out"}))
    add_graph(site, "no_output",
              plain + inference("dummy", {"B": "in"}, {"A": "out"}, B="b", A="z"))  # fmt: skip
    add_graph(site, "halves", ends(["in"], ["half", "whole"]) + session("halve") + session("mend")
              + inference("halve", {"B": "in"}, {"A": "half"}, B="b", A="a")
              + inference("mend", {"B": "half"}, {"A": "whole"}, B="b", A="a"))  # fmt: skip
    for calculator in ("Turn", "Freeze"):
        add_graph(site, calculator, ends(["in"], ["out"]) + session("dynamic")
                  + node(calculator, ["in"], ["made"])
                  + inference("dynamic", {"B": "made"}, {"A": "out"}, B="b", A="a"))  # fmt: skip
    packed = ends(["in"], ["out"]) + node("Pack", ["in"], ["TENSORS:list"])
    add_graph(site, "list_to_model", packed + session("dummy")
              + inference("dummy", {"B": "list"}, {"A": "out"}, B="b", A="a"))  # fmt: skip
    add_graph(site, "list_to_converter",
              packed + node(CONVERTER, ["OVMS_PY_TENSOR:list"], ["OVTENSOR:out"]))  # fmt: skip
    order = 'input_order_list: "input1" input_order_list: "input2"'
    one_output = order + ' output_order_list: "sum"'
    for tag in ("OVTENSORS", "TENSORS", "TFTENSORS"):
        add_graph(site, f"lists_{tag.lower()}", lists(one_output, inputs=tag, outputs=tag))
    add_graph(site, "list_in_name_order", lists(order, inputs="OVTENSORS", outputs="OVTENSORS"))
    add_graph(site, "short_list", lists('input_order_list: "input1"', inputs="OVTENSORS",
                                        outputs="OVTENSORS"))  # fmt: skip
    add_graph(site, "converted", ends(["OVMS_PY_TENSOR:in"], ["OVTENSOR:out"])
              + python("shaped", ["IN:in"], ["MADE:made"])
              + node(CONVERTER, ["OVMS_PY_TENSOR:made"], ["OVTENSOR:out"]),
              shaped=SHAPED)  # fmt: skip
    named = (
        "node_options: { [type.googleapis.com/mediapipe.PyTensorOvTensorConverterCalculatorOptions]"
        ": { tag_to_output_tensor_names { key: 'OVMS_PY_TENSOR' value: 'mine' } } }"
    )
    add_graph(site, "to_python", ends(["OVTENSOR:in"], ["OVMS_PY_TENSOR:out"])
              + node(CONVERTER, ["OVTENSOR:in"], ["OVMS_PY_TENSOR:out"], named))  # fmt: skip
    add_graph(site, "halves_to_python", ends(["in"], ["OVMS_PY_TENSOR:out"]) + session("halve")
              + inference("halve", {"B": "in"}, {"OVTENSOR": "half"}, B="b", OVTENSOR="a")
              + node(CONVERTER, ["OVTENSOR:half"], ["OVMS_PY_TENSOR:out"], named))  # fmt: skip
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def stub(site: Site) -> Stub:
    assert site.channel is not None
    return Stub(site.channel)


@pytest.mark.parametrize(("version", "added"), [("1", 1), ("2", 5), ("0", 5), ("x", 5)])
def test_a_version_of_the_model(stub: Stub, version: str, added: int) -> None:
    found = ask(stub, request(f"version_{version}", **{"in": ONES}))
    assert found == {"out": [1.0 + added] * 10}


def test_a_version_that_is_not_there(stub: Stub) -> None:
    code, details = refusal(lambda: ask(stub, request("version_3", **{"in": ONES})))
    assert code == "FAILED_PRECONDITION"
    assert "failed to load the model" in details


def test_a_tag_that_is_no_name_of_the_model(stub: Stub) -> None:
    code, details = refusal(lambda: ask(stub, request("by_number", **{"in": ONES})))
    assert code == "INVALID_ARGUMENT"
    assert "dummy has the inputs b; given are B" in details
    code, details = refusal(lambda: ask(stub, request("no_output", **{"in": ONES})))
    assert code == "INVALID_ARGUMENT"
    assert 'there is no output "z"; outputs are a' in details


@pytest.mark.parametrize(
    "graph", ["lists_ovtensors", "lists_tensors", "lists_tftensors", "list_in_name_order"]
)
def test_lists_of_tensors(stub: Stub, graph: str) -> None:
    assert ask(stub, request(graph, in1=ONES, in2=2 * ONES)) == {"out": [3.0] * 10}


def test_models_hand_bfloat16_on(stub: Stub) -> None:
    answer = stub.ModelInfer(request("halves", **{"in": ONES}), timeout=30)
    assert [(found.name, found.datatype) for found in answer.outputs] == [
        ("half", "BF16"), ("whole", "FP32"),
    ]  # fmt: skip
    half, whole = answer.raw_output_contents
    assert half == ONES.tobytes()[2:4] * 10, "the upper half of each"
    assert whole == ONES.tobytes()


@pytest.mark.parametrize("width", [2, 5000])
def test_a_model_takes_what_numpy_has_anywhere(stub: Stub, width: int) -> None:
    values = np.arange(2 * width, dtype=np.float32).reshape(2, width)
    assert ask(stub, request("Turn", **{"in": values})) == {"out": (values.T + 1).ravel().tolist()}
    assert ask(stub, request("Freeze", **{"in": values})) == {"out": (values + 1).ravel().tolist()}


def test_a_list_that_is_too_long(stub: Stub) -> None:
    code, details = refusal(lambda: ask(stub, request("short_list", in1=ONES, in2=ONES)))
    assert code == "INVALID_ARGUMENT"
    assert "expected 1 tensors, as input_order_list says; found 2" in details


@pytest.mark.parametrize(
    ("graph", "port"),
    [
        ("list_to_model", "B:0:list: expected ov::Tensor"),
        ("list_to_converter", "OVMS_PY_TENSOR:0:list: expected pyovms.Tensor"),
    ],
)
def test_a_packet_of_another_type_is_told(stub: Stub, graph: str, port: str) -> None:
    code, details = refusal(lambda: ask(stub, request(graph, **{"in": ONES})))
    assert code == "INVALID_ARGUMENT"
    assert details.endswith(f"failed: Unexpected error; {port}; found builtins.list")


@pytest.mark.parametrize(
    ("option", "shapes"), [("shape", [(2, 3), (1, 10)]), ("batch_size", [(3, 10), (1, 10)])]
)
def test_a_model_is_reshaped(stub: Stub, option: str, shapes: list[tuple[int, int]]) -> None:
    for shape in shapes:
        found = ask(stub, request(f"auto_{option}", **{"in": np.ones(shape)}))
        assert found == {"out": [2.0] * (shape[0] * shape[1])}


def test_what_an_auto_batch_leaves_as_it_is(stub: Stub) -> None:
    code, details = refusal(lambda: ask(stub, request("auto_batch_size", **{"in": ONES[:, :5]})))
    assert code == "INVALID_ARGUMENT"
    assert "Invalid shape - Expected: (-1,10); Actual: (1,5)" in details


def test_what_the_model_refuses_is_told(stub: Stub) -> None:
    code, details = refusal(lambda: ask(stub, request("by_tag", **{"in": ONES[:, :5]})))
    assert code == "INVALID_ARGUMENT"
    assert "dummy: Invalid input shape" in details


def converted(stub: Stub, shape: str, datatype: str) -> tuple[str, list[int]]:
    text = f"{shape} {datatype}".encode()
    message = infer_request("converted", "in", "BYTES", [1], bytes_contents=[text])
    output = stub.ModelInfer(message, timeout=30).outputs[0]
    return output.datatype, list(output.shape)


def test_from_python_to_a_tensor(stub: Stub) -> None:
    assert converted(stub, "2", "FP32") == ("FP32", [2])
    assert converted(stub, "2,1,4", "INT8") == ("INT8", [2, 1, 4])
    assert converted(stub, "4,1", "BF16") == ("BF16", [4, 1])


@pytest.mark.parametrize(
    ("shape", "datatype", "text"),
    [
        ("8", "mine", "Undefined precision in input python tensor: mine"),
        ("8", "BYTES", "Undefined precision in input python tensor: BYTES"),
        ("3", "FP32", "python buffer size: 8; OV tensor size: 12; mismatch"),
        ("-8", "INT8", "expected sizes that are not negative"),
        (",".join(["1"] * 64 + ["8"]), "INT8", "maximum supported dimension"),
    ],
)
def test_what_is_no_tensor_of_a_model(stub: Stub, shape: str, datatype: str, text: str) -> None:
    code, details = refusal(lambda: converted(stub, shape, datatype))
    assert code == "INVALID_ARGUMENT"
    assert "INVALID_ARGUMENT: CalculatorGraph::Run() failed: " in details
    assert text in details


def test_from_a_tensor_to_python(stub: Stub) -> None:
    data = np.arange(6, dtype=np.int64).reshape(2, 3)
    message = infer_request("to_python", "in", "INT64", [2, 3], raw=data.tobytes())
    response = stub.ModelInfer(message, timeout=30)
    output = response.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == ("mine", "INT64", [2, 3])
    assert response.raw_output_contents[0] == data.tobytes()


def test_from_bfloat16_to_python(stub: Stub) -> None:
    answer = stub.ModelInfer(request("halves_to_python", **{"in": ONES}), timeout=30)
    output = answer.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == ("mine", "BF16", [1, 10])
    assert answer.raw_output_contents[0] == ONES.tobytes()[2:4] * 10, "the upper half of each"
