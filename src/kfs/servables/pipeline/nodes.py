"""What a step of a pipeline runs: a model, leased anew for every session, or a custom node."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from kfs import errors
from kfs.errors import ServingError
from kfs.servables.base import CallContext, Servable, ServableSource
from kfs.servables.checks import check_input
from kfs.servables.pipeline.library import LibraryNode
from kfs.signature import Signature
from kfs.tensors.arrays import NOWHERE, Array, TensorMap


class Results(Protocol):
    """Where the outputs of one session go, by the model's or library's names."""

    def places(self, names: Collection[str]) -> dict[str, Array]:
        """Where those of `names` may be written that have a place, before they are put."""

    def put(self, outputs: TensorMap, *, borrowed: bool) -> None:
        """
        Args:
            borrowed: their memory is valid only during this call.

        Raises:
            ServingError: INTERNAL, one is missing; INVALID_ARGUMENT, one cannot be gathered.
        """


class Node(Protocol):
    """Runs one session of a step."""

    def run(self, inputs: TensorMap, results: Results, call: CallContext, *, is_last: bool) -> None:
        """Put the outputs into `results`.

        Args:
            is_last: nothing runs in this call after it, so it may hold on to what it leased
                until the call is closed.

        Raises:
            ServingError: without the node's name, which the caller adds.
        """


class ModelNode:
    """A model of the source.

    The slot is given back before anything else of the pipeline runs: outputs are copied out of it,
    unless the session is the last one, whose outputs may lie there until the response is written.
    """

    def __init__(
        self, source: ServableSource, name: str, version: int | None, signature: Signature
    ) -> None:
        self._source = source
        self._name = name
        self._version_text = "" if version is None else str(version)
        self._signature = signature

    def run(self, inputs: TensorMap, results: Results, call: CallContext, *, is_last: bool) -> None:
        lease = self._source.lease(self._name, self._version_text, call)
        if is_last:
            call.on_close(lease.release)
            self._infer(lease.servable, inputs, results, call, borrowed=False)
            return
        try:
            with call.part() as part:
                self._infer(lease.servable, inputs, results, part, borrowed=True)
        finally:
            lease.release()

    def _infer(
        self,
        servable: Servable,
        inputs: TensorMap,
        results: Results,
        call: CallContext,
        *,
        borrowed: bool,
    ) -> None:
        if servable.signature is not self._signature:
            self._check_names(servable.signature)
        for spec in servable.signature.inputs:
            check_input(spec, inputs[spec.name])
        names = servable.straight_outputs
        places = results.places(names) if names else NOWHERE
        results.put(servable.infer(inputs, call, places), borrowed=borrowed)

    def _check_names(self, now: Signature) -> None:
        """Another version than the pipeline was planned with still has to fit into it."""
        for kind, before, after in (
            ("inputs", self._signature.inputs, now.inputs),
            ("outputs", self._signature.outputs, now.outputs),
        ):
            names, wanted = [s.name for s in after], [s.name for s in before]
            if names != wanted:
                raise ServingError(
                    errors.PIPELINE_NOT_LOADED_YET,
                    f"model {self._name} has changed: {kind} were {', '.join(wanted)}, now are "
                    f"{', '.join(names)}",
                )


class CustomNode:
    """A custom node library, initialized for this node."""

    def __init__(self, instance: LibraryNode) -> None:
        self._instance = instance

    def run(self, inputs: TensorMap, results: Results, call: CallContext, *, is_last: bool) -> None:
        call.check()
        results.put(self._instance.execute(inputs), borrowed=False)
