"""A pipeline before it is known to be right: its nodes, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kfs.servables.pipeline.faults import PipelineError
from kfs.servables.pipeline.spec import ENTRY, EXIT, NodeSpec, PipelineSpec
from kfs.signature import Signature, TensorSpec


@dataclass(frozen=True)
class Interface:
    """What a node's model or library says of itself.

    Attributes:
        is_auto: a model that is reshaped by its requests, which no pipeline can use.
    """

    signature: Signature
    is_auto: bool = False


class Draft:
    """A specification with the nodes that every pipeline has.

    Attributes:
        all: the request, the nodes in file order, the response.
        nodes: by name; of several with one name the last.
        exit_gathers: demultiplexers that nobody else gathers, so the response does.
    """

    def __init__(
        self, spec: PipelineSpec, interfaces: Mapping[str, Interface | PipelineError]
    ) -> None:
        self.spec = spec
        self._interfaces = interfaces
        entry = NodeSpec(
            ENTRY, outputs={name: name for name in spec.inputs}, demultiply=spec.demultiply
        )
        gathered = {node.gather_from for node in spec.nodes}
        self.all = (entry, *spec.nodes, NodeSpec(EXIT, inputs=spec.outputs))
        self.nodes = {node.name: node for node in self.all}
        self.exit_gathers = {
            node.name
            for node in self.all
            if node.demultiply is not None and node.name not in gathered
        }

    def interface(self, node: NodeSpec) -> Interface:
        """
        Raises:
            PipelineError: the model or library has none.
        """
        interface = self._interfaces[node.name]
        if isinstance(interface, PipelineError):
            raise interface
        return interface

    def input(self, node: NodeSpec, name: str) -> TensorSpec:
        inputs = self.interface(node).signature.inputs
        return next(spec for spec in inputs if spec.name == name)

    def output(self, node: NodeSpec, alias: str) -> TensorSpec:
        outputs = self.interface(node).signature.outputs
        return next(spec for spec in outputs if spec.name == node.outputs[alias])


def runs(node: NodeSpec) -> bool:
    """Whether it has a model or a library: the request and the response have none."""
    return node.name not in (ENTRY, EXIT)
