"""A pipeline as a servable."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from kfs import errors
from kfs._fast.wire import Request
from kfs.errors import ServingError
from kfs.servables.answers import choose_straight, has_place
from kfs.servables.base import CallContext, Servable, ServableSource
from kfs.servables.binding import bind
from kfs.servables.outline import Outline
from kfs.servables.pipeline.draft import Interface
from kfs.servables.pipeline.faults import PipelineError, node_fault
from kfs.servables.pipeline.library import Library, LibraryNode
from kfs.servables.pipeline.nodes import CustomNode, ModelNode, Node
from kfs.servables.pipeline.outline import outline_plan
from kfs.servables.pipeline.plan import Plan, make_plan
from kfs.servables.pipeline.run import run_plan
from kfs.servables.pipeline.spec import NodeSpec, PipelineSpec
from kfs.signature import format_shape
from kfs.tensors.arrays import NOWHERE, Array, TensorMap

_log = logging.getLogger("kfs.pipeline")


class Pipeline(Servable):
    """A checked plan, with its custom nodes initialized; models are leased per inference."""

    version = 1
    kind = "pipeline"

    def __init__(
        self,
        name: str,
        plan: Plan,
        nodes: Mapping[str, Node],
        instances: Mapping[str, LibraryNode],
    ) -> None:
        self.name = name
        self.signature = plan.signature
        self.plan = plan
        self.straight_outputs = _choose_straight(plan)
        self._nodes = nodes
        self._instances = instances
        self._costs_s: dict[str, float] = {}

    @classmethod
    def load(
        cls,
        spec: PipelineSpec,
        source: ServableSource,
        libraries: Mapping[str, Library | PipelineError],
    ) -> Pipeline:
        """Initialize custom nodes, check everything, and get ready.

        The models have to be available in `source` by now; nothing waits for them.

        Args:
            libraries: the custom node libraries by name, or why one could not be opened.

        Raises:
            PipelineError: one line with the names of the pipeline and the node.
        """
        instances: dict[str, LibraryNode] = {}
        try:
            for node in spec.nodes:
                if node.model is None and node.name not in instances:
                    instances[node.name] = _initialize(node, libraries)
            interfaces = {
                node.name: _interface(node, source, instances.get(node.name)) for node in spec.nodes
            }
            plan = make_plan(spec, interfaces)
            nodes = {node.name: _node(node, source, plan, instances) for node in spec.nodes}
            pipeline = cls(spec.name, plan, nodes, instances)
        except BaseException as error:
            for instance in instances.values():
                instance.close()
            if isinstance(error, PipelineError):
                raise PipelineError(error.status, f"pipeline {spec.name}: {error}") from None
            raise
        pipeline._log_signature()
        return pipeline

    def outline(self) -> Outline:
        return outline_plan(self.name, self.plan)

    def bind(self, request: Request) -> TensorMap:
        return bind(request, self.signature, demultiplexed=self.plan.demultiplexes_entry)

    def infer(
        self, tensors: TensorMap, call: CallContext, places: Mapping[str, Array] = NOWHERE
    ) -> TensorMap:
        return run_plan(self.plan, self._nodes, tensors, call, self._costs_s, places)

    def unload(self) -> None:
        for instance in self._instances.values():
            instance.close()
        _log.info("Unloaded pipeline: %s", self.name)

    def _log_signature(self) -> None:
        for kind, specs in (("Input", self.signature.inputs), ("Output", self.signature.outputs)):
            for spec in specs:
                _log.info(
                    "%s name: %s; shape: %s; precision: %s; layout: %s",
                    kind, spec.name, format_shape(spec.shape), spec.datatype.label, spec.layout,
                )  # fmt: skip
        _log.info("Loaded pipeline %s; nodes: %s", self.name, ", ".join(self._nodes))


def _choose_straight(plan: Plan) -> frozenset[str]:
    """The names of outputs to be written where they are wanted: those gathered, whatever size."""
    outputs = plan.signature.outputs
    chosen = filter(has_place, outputs) if plan.gathers_exit else choose_straight(outputs)
    return frozenset(spec.name for spec in chosen)


def _initialize(node: NodeSpec, libraries: Mapping[str, Library | PipelineError]) -> LibraryNode:
    assert node.library is not None
    library = libraries.get(node.library)
    if library is None or isinstance(library, PipelineError):
        why = f"library {node.library} is not there; there are {', '.join(libraries) or 'none'}"
        raise node_fault("PIPELINE_DEFINITION_INVALID_NODE_LIBRARY", node.name, str(library or why))
    try:
        return library.initialize(node.params)
    except PipelineError as error:
        raise node_fault(error.status, node.name, f"library {node.library}: {error}") from None


def _interface(
    node: NodeSpec, source: ServableSource, instance: LibraryNode | None
) -> Interface | PipelineError:
    if instance is None:
        return _model_interface(node, source)
    try:
        return Interface(instance.describe())
    except PipelineError as error:
        return node_fault(error.status, node.name, f"library {node.library}: {error}")


def _model_interface(node: NodeSpec, source: ServableSource) -> Interface | PipelineError:
    assert node.model is not None
    version_text = "" if node.version is None else str(node.version)
    try:
        # A call that has expired: whoever looks for the model does not wait for it.
        lease = source.lease(node.model, version_text, CallContext(deadline=time.monotonic()))
    except ServingError as error:
        # Models are loaded before: what is still to come is none.
        is_to_come = error.status is errors.DEADLINE_EXCEEDED
        return _missing_model(node, _only_models("no model") if is_to_come else str(error))
    try:
        kind = lease.servable.kind
        if kind != Servable.kind:
            return _missing_model(node, _only_models(f"a {kind}"))
        return Interface(lease.servable.signature, lease.servable.is_auto)
    finally:
        lease.release()


def _only_models(found: str) -> str:
    return f"it is {found}; only models can be used"


def _missing_model(node: NodeSpec, why: str) -> PipelineError:
    version = "" if node.version is None else f" version {node.version}"
    return node_fault(
        "PIPELINE_NODE_REFERING_TO_MISSING_MODEL", node.name,
        f"model {node.model}{version} is not available: {why}",
    )  # fmt: skip


def _node(
    node: NodeSpec, source: ServableSource, plan: Plan, instances: Mapping[str, LibraryNode]
) -> Node:
    if node.model is None:
        return CustomNode(instances[node.name])
    return ModelNode(source, node.model, node.version, plan.steps[node.name].signature)
