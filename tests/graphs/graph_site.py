"""A config.json with graphs and the models they use, and a server for it."""

from __future__ import annotations

import queue
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import models
import numpy as np
from graphs.plug_ins import ALL
from openvino import opset13 as op
from site_of_models import Site
from wire import Stub

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.servables.graph.graph import registry

for calculator in ALL:
    registry.add(calculator.__name__, calculator)

SESSION = """
node {{
  calculator: "OpenVINOModelServerSessionCalculator"
  output_side_packet: "SESSION:{name}"
  node_options: {{
    [type.googleapis.com / mediapipe.OpenVINOModelServerSessionCalculatorOptions]: {{
      servable_name: "{name}"
    }}
  }}
}}
"""


def session(name: str) -> str:
    return SESSION.format(name=name)


def inference(name: str, inputs: dict[str, str], outputs: dict[str, str], **tags: str) -> str:
    """A node that runs the servable; ports are TAG -> stream, tags TAG -> name of the tensor."""
    lines = [f'input_stream: "{tag}:{stream}"' for tag, stream in inputs.items()]
    lines += [f'output_stream: "{tag}:{stream}"' for tag, stream in outputs.items()]
    options = [
        f"tag_to_{'input' if tag in inputs else 'output'}_tensor_names "
        f'{{ key: "{tag}" value: "{tensor}" }}'
        for tag, tensor in tags.items()
    ]
    return f"""
node {{
  calculator: "OpenVINOInferenceCalculator"
  input_side_packet: "SESSION:{name}"
  {" ".join(lines)}
  node_options: {{
    [type.googleapis.com/mediapipe.OpenVINOInferenceCalculatorOptions]: {{ {" ".join(options)} }}
  }}
}}
"""


def ends(inputs: list[str], outputs: list[str]) -> str:
    lines = [f'input_stream: "{port}"' for port in inputs]
    return "\n".join(lines + [f'output_stream: "{port}"' for port in outputs]) + "\n"


def node(calculator: str, inputs: list[str], outputs: list[str], more: str = "") -> str:
    lines = [f'  input_stream: "{port}"' for port in inputs]
    lines += [f'  output_stream: "{port}"' for port in outputs]
    text = "\n".join([*lines, textwrap.indent(more, "  ")])
    return f'node {{\n  calculator: "{calculator}"\n{text}\n}}\n'


def handler(name: str, options: str = "") -> str:
    """How a node waits for its inputs."""
    return f'input_stream_handler {{ input_stream_handler: "{name}" options {{ {options} }} }}'


_HANDLER = """
name: "{name}"
input_side_packet: "PYTHON_NODE_RESOURCES:py"
node_options: {{ [type.googleapis.com/mediapipe.PythonExecutorCalculatorOptions]: {{
  handler_path: "{name}.py" }} }}
"""

#: What takes a generator back to its node.
LOOP = """
input_stream_info { tag_index: "LOOPBACK:0" back_edge: true }
input_stream_handler {
  input_stream_handler: "SyncSetInputStreamHandler"
  options { [mediapipe.SyncSetInputStreamHandlerOptions.ext] { sync_set { tag_index: "LOOPBACK:0" } } }
}
"""  # noqa: E501


def python(name: str, inputs: list[str], outputs: list[str], more: str = "") -> str:
    """A node that runs the handler in the file of its name."""
    return node("PythonExecutorCalculator", inputs, outputs, _HANDLER.format(name=name) + more)


def one(name: str) -> str:
    """A graph from in to out with a single handler."""
    return ends(["OVMS_PY_TENSOR:in"], ["OVMS_PY_TENSOR:out"]) + python(
        name, ["IN:in"], ["OUT:out"]
    )


def looped(name: str) -> str:
    """The same with a handler that may be a generator."""
    inputs, outputs = ["OVMS_PY_TENSOR:in"], ["OVMS_PY_TENSOR:out"]
    return ends(inputs, outputs) + python(
        name, ["IN:in", "LOOPBACK:loopback"], ["OUT:out", "LOOPBACK:loopback"], LOOP
    )


def dummy_graph() -> str:
    return (
        ends(["in"], ["out"])
        + session("dummy")
        + inference("dummy", {"B": "in"}, {"A": "out"}, B="b", A="a")
    )


def add_models(site: Site) -> None:
    models.dummy(site.root / "dummy" / "1")
    models.dummy(site.root / "dynamic" / "1", (-1, -1))
    first, second = (models.parameter(f"input{n}", [1, 10], "f32") for n in (1, 2))
    models.save(site.root / "add" / "1", [first, second], {"sum": op.add(first, second)})
    models.identity(site.root / "strings" / "1", "BYTES", [-1])
    for name in ("dummy", "dynamic", "add", "strings"):
        site.models[name] = {"name": name, "base_path": name}


def add_graph(site: Site, name: str, text: str, **files: str) -> Path:
    """Write the graph with files beside it, and name it in the config."""
    folder = site.root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.pbtxt").write_text(text)
    for file, content in files.items():
        (folder / f"{file}.py").write_text(textwrap.dedent(content))
    site.graphs[name] = {"name": name}
    return folder


def request(
    name: str,
    id: str = "",
    at: Any = None,
    datatype: str = "FP32",
    sides: dict[str, Any] | None = None,
    **values: Any,
) -> pb.ModelInferRequest:
    """Raw tensors by name; `at` is the timestamp of the packets."""
    message = pb.ModelInferRequest(model_name=name, id=id)
    for tensor, value in values.items():
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        message.inputs.add(name=tensor, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    parameters = dict(sides or {})
    if at is not None:
        parameters["OVMS_MP_TIMESTAMP"] = at
    for key, value in parameters.items():
        kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
        setattr(message.parameters[key], kinds[type(value)], value)
    return message


def tensors(response: pb.ModelInferResponse) -> dict[str, list[float]]:
    """FP32 outputs by name, flat."""
    return {
        tensor.name: np.frombuffer(raw, np.float32).tolist()
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def ask(stub: Stub, message: pb.ModelInferRequest) -> dict[str, list[float]]:
    return tensors(stub.ModelInfer(message, timeout=30))


class Talk:
    """A stream that the test speaks on, message by message."""

    def __init__(self, stub: Stub) -> None:
        self._messages: queue.Queue[pb.ModelInferRequest | None] = queue.Queue()
        self.answers = stub.stream(iter(self._messages.get, None))

    def say(self, message: pb.ModelInferRequest) -> None:
        self._messages.put(message)

    def hear(self) -> pb.ModelStreamInferResponse:
        return next(self.answers)

    def hear_values(self) -> dict[str, list[float]]:
        answer = self.hear()
        assert not answer.error_message, answer.error_message
        return tensors(answer.infer_response)

    def close(self) -> None:
        """Half-close: the client has said everything."""
        self._messages.put(None)

    def rest(self) -> list[pb.ModelStreamInferResponse]:
        self.close()
        return list(self.answers)

    def cancel(self) -> None:
        self.answers.cancel()  # type: ignore[attr-defined]
        self.close()


def time_of(response: pb.ModelInferResponse) -> int:
    return response.parameters["OVMS_MP_TIMESTAMP"].int64_param


def status_of(answers: Iterator[pb.ModelStreamInferResponse]) -> tuple[str, str]:
    """How a stream ends, whatever it still says."""
    try:
        for _ in answers:
            pass
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""
