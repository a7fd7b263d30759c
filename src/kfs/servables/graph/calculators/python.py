"""PythonExecutorCalculator: runs a handler, a file with the class OvmsPythonModel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kfs import pyovms
from kfs._proto import calculator_graph_pb2 as pb
from kfs.errors import Code
from kfs.servables.graph.calculator import (
    BOOL,
    PY_TENSOR,
    Calculator,
    CalculatorError,
    Contract,
    NodeContext,
    Setting,
    options_of,
)
from kfs.servables.graph.packets import told_type
from kfs.servables.graph.python_handler import Handler, HandlerError
from kfs.servables.graph.spec import GraphError, NodeSpec, Port, Ports

_OPTIONS = pb.PythonExecutorCalculatorOptions
_LOOPBACK = "LOOPBACK"
_RESOURCES = "PYTHON_NODE_RESOURCES"


class PythonExecutorCalculator(Calculator):
    """One handler object for all instances of the graph; generators are kept per instance.

    A generator's value k leaves at the time of its input plus k: each value is followed by a
    packet on LOOPBACK that brings the node back for the next one.
    """

    def __init__(self) -> None:
        self._values: Iterator[list[pyovms.Tensor]] | None = None

    @classmethod
    def contract(cls, contract: Contract) -> None:
        node = contract.node
        if not any(port.tag == _RESOURCES for port in node.side_inputs):
            raise GraphError(f'expected input_side_packet: "{_RESOURCES}:py"')
        if not node.inputs or not node.outputs:
            raise GraphError("expected at least one input_stream and one output_stream")
        loops = [
            any(port.tag == _LOOPBACK for port in ports) for ports in (node.inputs, node.outputs)
        ]
        if loops[0] != loops[1]:
            raise GraphError(f"expected {_LOOPBACK} as an input and as an output, or as neither")
        contract.own_side_inputs.update(node.side_inputs)
        contract.inputs.update({port: _type_of(port) for port in node.inputs})
        contract.outputs.update({port: _type_of(port) for port in node.outputs})

    @classmethod
    def prepare(cls, node: NodeSpec, setting: Setting) -> Handler:
        if not node.has_node_options:
            raise GraphError(f"node {node.name}: expected node_options; there are none")
        if not node.is_named:
            raise GraphError(f"{node.calculator}: expected a name for the node; there is none")
        path = setting.folder / options_of(node, _OPTIONS).handler_path
        loopbacks = {port.name for port in node.outputs if port.tag == _LOOPBACK}
        try:
            return Handler.load(
                Path(path), node.name, node.input_names, node.output_names, loopbacks
            )
        except HandlerError as error:
            raise GraphError(str(error)) from error

    @classmethod
    def release(cls, resource: Handler) -> None:
        resource.finalize()

    def process(self, context: NodeContext) -> None:
        inputs = [
            value
            for port, value in zip(context.node.inputs, context.inputs, strict=True)
            if value is not None and port.tag != _LOOPBACK
        ]
        _check_types(inputs)
        is_looped = context.input(_LOOPBACK) is not None
        if is_looped and not inputs:
            self._send_next(context)
        elif self._values is not None:
            raise CalculatorError(
                "Node is already processing data. Create new stream for another request.",
                Code.RESOURCE_EXHAUSTED,
            )
        else:
            self._execute(context, inputs)

    def close(self, context: NodeContext) -> None:
        self._values = None  # runs the `finally` of a generator that was not exhausted

    def _execute(self, context: NodeContext, inputs: list[pyovms.Tensor]) -> None:
        try:
            result = context.resource.execute(inputs)
        except HandlerError as error:
            raise CalculatorError(str(error)) from None
        if isinstance(result, list):
            _send(context, result)
            return
        if not _is_looped(context.node.outputs):
            raise CalculatorError("Execute yielded, but LOOPBACK is not defined in the node")
        self._values = result
        self._send_next(context)

    def _send_next(self, context: NodeContext) -> None:
        if self._values is None:
            return
        try:
            tensors = next(self._values, None)
        except HandlerError as error:
            raise CalculatorError(str(error)) from None
        if tensors is None:
            self._values = None
            return
        _send(context, tensors)
        context.send(True, _LOOPBACK, timestamp=context.timestamp + 1)


def _check_types(inputs: Sequence[Any]) -> None:
    # Calculators need not say what they send.
    for value in inputs:
        if not isinstance(value, pyovms.Tensor):
            raise CalculatorError(f"expected {PY_TENSOR} at every input; found {told_type(value)}")


def _is_looped(ports: Ports) -> bool:
    return any(port.tag == _LOOPBACK for port in ports)


def _type_of(port: Port) -> str:
    return BOOL if port.tag == _LOOPBACK else PY_TENSOR


def _send(context: NodeContext, tensors: Sequence[pyovms.Tensor]) -> None:
    ports = {port.name: port for port in context.node.outputs}
    for tensor in tensors:
        port = ports[tensor.name]  # the handler's results have been checked
        context.send(tensor, port.tag, port.index)
