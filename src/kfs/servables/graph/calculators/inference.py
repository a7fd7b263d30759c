"""OpenVINOInferenceCalculator: runs a model or a pipeline of this server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfs import errors
from kfs._proto import calculator_graph_pb2 as pb
from kfs.errors import ServingError
from kfs.servables.base import CallContext, Servable
from kfs.servables.checks import check_input
from kfs.servables.graph.calculator import (
    MP_TENSOR,
    MP_TENSORS,
    OV_TENSOR,
    OV_TENSORS,
    TF_TENSOR,
    TF_TENSORS,
    Calculator,
    CalculatorError,
    Contract,
    NodeContext,
    PacketType,
    Setting,
    options_of,
)
from kfs.servables.graph.calculators.session import SESSION, Session
from kfs.servables.graph.spec import GraphError, NodeSpec, Port
from kfs.tensors.arrays import StringTensor, Tensor, TensorMap, dense

_OPTIONS = pb.OpenVINOInferenceCalculatorOptions

#: What a stream carries, by what its tag begins with: the first that fits, OV_TENSOR otherwise.
_PREFIXES = (
    ("OVTENSORS", OV_TENSORS), ("OVTENSOR", OV_TENSOR), ("TENSORS", MP_TENSORS),
    ("TENSOR", MP_TENSOR), ("TFTENSORS", TF_TENSORS), ("TFTENSOR", TF_TENSOR),
)  # fmt: skip
_VECTORS = (OV_TENSORS, MP_TENSORS, TF_TENSORS)


def _type_of(port: Port) -> PacketType:
    for prefix, kind in _PREFIXES:
        if port.tag.startswith(prefix):
            return kind
    return OV_TENSOR


@dataclass(frozen=True)
class _Names:
    """Which tensors of the servable the ports are.

    Attributes:
        by_port: the name for each port, in their order; None for a port with a list.
        in_list: the names of a list, in its order; empty when it is not said.
    """

    by_port: tuple[str | None, ...]
    in_list: tuple[str, ...]


class OpenVINOInferenceCalculator(Calculator):
    """Tensors by tags or by lists; the side packet SESSION says of which servable."""

    is_straight = True

    @classmethod
    def contract(cls, contract: Contract) -> None:
        node, options = contract.node, options_of(contract.node, _OPTIONS)
        if [port.tag for port in node.side_inputs] != ["SESSION"]:
            raise GraphError('expected one input_side_packet with the tag SESSION: "SESSION:name"')
        if not node.inputs or not node.outputs:
            raise GraphError("expected at least one input_stream and one output_stream")
        for direction in ("input", "output"):
            tags, order = f"tag_to_{direction}_tensor_names", f"{direction}_order_list"
            if getattr(options, tags) and getattr(options, order):
                raise GraphError(f"expected {tags} or {order}; found both")
        for port in (*node.inputs, *node.outputs):
            if port.tag.startswith("TFLITE_TENSOR"):
                raise GraphError(f"{port}: TFLITE_TENSOR is not served")
        contract.inputs.update({port: _type_of(port) for port in node.inputs})
        contract.outputs.update({port: _type_of(port) for port in node.outputs})
        contract.side_inputs[node.side_inputs[0]] = SESSION
        contract.is_offset_zero = True

    @classmethod
    def prepare(cls, node: NodeSpec, setting: Setting) -> tuple[_Names, _Names]:
        options = options_of(node, _OPTIONS)
        return (
            _names(node.inputs, options.tag_to_input_tensor_names, options.input_order_list),
            _names(node.outputs, options.tag_to_output_tensor_names, options.output_order_list),
        )

    def process(self, context: NodeContext) -> None:
        inputs, outputs = context.resource
        session: Session = context.side_packet("SESSION")
        tensors = _gather(context, inputs)
        if context.is_last:
            # Nothing else of this call waits for the slot: its outputs may stay where they are.
            lease = session.lease(context.call)
            context.call.on_close(lease.release)
            found = _infer(lease.servable, tensors, context.call)
            _send(context, outputs, found)
            return
        lease = session.lease(context.call)
        try:
            with context.call.part() as part:
                found = _infer(lease.servable, tensors, part)
                _send(context, outputs, {name: _copy(value) for name, value in found.items()})
        finally:
            lease.release()


def _names(ports: Sequence[Port], by_tag: Mapping[str, str], order: Sequence[str]) -> _Names:
    return _Names(
        tuple(
            None if _type_of(port) in _VECTORS else by_tag.get(port.tag, port.tag) for port in ports
        ),
        tuple(order),
    )


def _gather(context: NodeContext, names: _Names) -> TensorMap:
    """The inputs of the servable by name."""
    tensors: TensorMap = {}
    for port, name, value in zip(context.node.inputs, names.by_port, context.inputs, strict=True):
        if value is None:
            raise CalculatorError(
                f"expected a packet at every input; {port} has none at {context.timestamp}"
            )
        if name is not None:
            tensors[name] = value
            continue
        if len(value) != len(names.in_list):
            raise CalculatorError(
                f"{port}: expected {len(names.in_list)} tensors, as input_order_list says; found "
                f"{len(value)}"
            )
        tensors.update(zip(names.in_list, value, strict=True))
    return tensors


def _infer(servable: Servable, tensors: TensorMap, call: CallContext) -> TensorMap:
    expected = [spec.name for spec in servable.signature.inputs]
    if sorted(tensors) != sorted(expected):
        raise CalculatorError(
            f"{servable.name} has the inputs {', '.join(expected)}; given are "
            f"{', '.join(sorted(tensors))}"
        )
    try:
        for spec in servable.accepted.inputs:
            tensor = tensors[spec.name]
            check_input(spec, tensor)
            if not isinstance(tensor, StringTensor):
                tensors[spec.name] = dense(tensor)
        return servable.infer(tensors, call)
    except ServingError as error:
        if error.status in (errors.CANCELLED, errors.DEADLINE_EXCEEDED):
            raise
        raise CalculatorError(f"{servable.name}: {error}") from error


def _send(context: NodeContext, names: _Names, found: TensorMap) -> None:
    for port, name in zip(context.node.outputs, names.by_port, strict=True):
        if name is None:
            order = names.in_list or sorted(found)
            value: Any = [_output(found, wanted) for wanted in order]
        else:
            value = _output(found, name)
        context.send(value, port.tag, port.index)


def _output(found: TensorMap, name: str) -> Tensor:
    try:
        return found[name]
    except KeyError:
        raise CalculatorError(
            f'there is no output "{name}"; outputs are {", ".join(sorted(found))}'
        ) from None


def _copy(tensor: Tensor) -> Tensor:
    """Out of the slot, which others use next; strings are copies already."""
    return tensor if isinstance(tensor, StringTensor) else tensor.copy()
