"""A model as a servable."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path

from kfs import errors
from kfs._fast.wire import Request
from kfs.datatypes import DATATYPES
from kfs.errors import ModelLoadError, ServingError
from kfs.metrics.servables import ModelMetrics, elapsed_us
from kfs.options import UNNAMED
from kfs.servables.answers import choose_straight
from kfs.servables.base import CallContext, Servable
from kfs.servables.binding import bind, takes_images
from kfs.servables.model.compile import (
    Compiled,
    ReadModel,
    compile_model,
    is_alias_safe,
    read_model,
)
from kfs.servables.model.slots import Slots, check_strings
from kfs.servables.model.source import TensorNames
from kfs.settings import ModelSettings
from kfs.signature import ANY, Dim, Signature, TensorSpec, fixed, format_shape
from kfs.tensors.arrays import NOWHERE, Array, TensorMap

_log = logging.getLogger("kfs.model")
_BYTES = DATATYPES["BYTES"]


class _Program:
    """A compiled model and its slots."""

    def __init__(self, settings: ModelSettings, read: ReadModel, metrics: ModelMetrics) -> None:
        self._metrics = metrics
        self.compiled: Compiled = compile_model(settings, read)
        if any(spec.datatype is _BYTES for spec in (*self.compiled.inputs, *self.compiled.outputs)):
            check_strings()
        n_slots = self.compiled.n_slots
        alias = is_alias_safe(settings.target_device)
        try:
            self.slots = Slots(
                self.compiled.model,
                n_slots,
                metrics,
                alias=alias,
                max_waiting=settings.max_waiting_calls,
            )
        except Exception as error:
            raise ModelLoadError(
                f"no {n_slots} infer requests for {settings.name}: {error}"
            ) from error
        self.input_names = [spec.name for spec in self.compiled.inputs]
        served = {spec.name: (i, spec) for i, spec in enumerate(self.compiled.outputs)}
        self.served_outputs = [(i, spec) for i, spec in served.values() if spec.datatype.numpy]
        self.straight_outputs = self._choose_straight() if alias else frozenset()
        metrics.slots.inc(n_slots)
        metrics.streams.inc(self.compiled.n_streams)

    def _choose_straight(self) -> frozenset[str]:
        """The names of outputs that OpenVINO is to write where they are wanted."""
        computed = [
            spec for index, spec in self.served_outputs if index not in self.compiled.passed
        ]
        return frozenset(spec.name for spec in choose_straight(computed))

    def unload(self) -> None:
        self._metrics.slots.dec(self.compiled.n_slots)
        self._metrics.streams.dec(self.compiled.n_streams)

    def infer(
        self, tensors: TensorMap, call: CallContext, places: Mapping[str, Array]
    ) -> TensorMap:
        straight = self._straight(places) if places else {}
        slot = self.slots.take(call)
        call.check()
        begin = time.perf_counter()
        found = slot.infer([tensors[name] for name in self.input_names], straight)
        self._metrics.inference_time.observe(elapsed_us(begin))
        outputs: TensorMap = {}
        for index, spec in self.served_outputs:
            output = straight[index] if index in straight else found[index]
            if not spec.accepts(output.shape):
                raise ServingError(
                    errors.INTERNAL_ERROR,
                    f"output {spec.name} has the shape {format_shape(output.shape)}, declared "
                    f"is {format_shape(spec.shape)}",
                )
            outputs[spec.name] = output
        return outputs

    def _straight(self, places: Mapping[str, Array]) -> dict[int, Array]:
        """By index, the places that OpenVINO takes: it wants its own datatype and shape."""
        return {
            index: place
            for index, spec in self.served_outputs
            if spec.name in self.straight_outputs
            and (place := places.get(spec.name)) is not None
            and (place.shape, place.dtype.str) == (spec.static_shape, spec.datatype.numpy)
        }


class Model(Servable):
    """One version of one model, compiled, with its slots."""

    #: Whether requests change its shape; such a model cannot be part of a pipeline.
    is_auto = False

    def __init__(
        self, settings: ModelSettings, version: int, read: ReadModel, metrics: ModelMetrics
    ) -> None:
        self.name = settings.name
        self.version = version
        self.settings = settings
        self.metrics: ModelMetrics = metrics
        self._program = _Program(settings, read, metrics)
        self.signature = self._program.compiled.signature
        if not self.is_auto:
            self.straight_outputs = self._program.straight_outputs

    @classmethod
    def load(
        cls,
        settings: ModelSettings,
        version: int,
        folder: Path,
        metrics: ModelMetrics | None = None,
    ) -> Model:
        """Read, compile and get ready.

        Args:
            metrics: where requests and slots are counted; None for nowhere.

        Raises:
            ModelLoadError: one line that says what is wrong.
        """
        kind = AutoModel if settings.is_auto else Model
        read = read_model(settings, folder)
        model = kind(settings, version, read, metrics or ModelMetrics())
        model._log_loaded(read.names)
        return model

    def infer(
        self, tensors: TensorMap, call: CallContext, places: Mapping[str, Array] = NOWHERE
    ) -> TensorMap:
        self.metrics.current.inc()
        call.on_close(self.metrics.current.dec)
        return self._program_for(tensors, call).infer(tensors, call, places)

    def _program_for(self, tensors: TensorMap, call: CallContext) -> _Program:
        return self._program

    def unload(self) -> None:
        self._program.unload()
        _log.info("Unloaded model: %s; version: %d", self.name, self.version)

    def _log_loaded(self, names: TensorNames) -> None:
        for kind, specs, aliases in (
            ("Input", self.signature.inputs, names.inputs),
            ("Output", self.signature.outputs, names.outputs),
        ):
            name_of = {alias: name for name, alias in aliases.items()}
            for spec in specs:
                _log.info(
                    "%s name: %s; mapping_name: %s; shape: %s; precision: %s; layout: %s",
                    kind, name_of.get(spec.name, spec.name), spec.name, format_shape(spec.shape),
                    spec.datatype.label, spec.layout,
                )  # fmt: skip
        _log.info(
            "Loaded model %s; version: %d; batch size: %s; No of InferRequests: %d",
            self.name, self.version, _batch_size(self.signature), self._program.compiled.n_slots,
        )  # fmt: skip


class AutoModel(Model):
    """A model that is compiled anew for the shape or the batch of a request.

    The new program takes the place of the old one as a whole: inferences that run on the old one
    finish there, so none waits but those that ask for another shape.
    """

    is_auto = True

    def __init__(
        self, settings: ModelSettings, version: int, read: ReadModel, metrics: ModelMetrics
    ) -> None:
        super().__init__(settings, version, read, metrics)
        self._read = read
        self._reshaping = threading.Lock()
        self._accepted = Signature.of(
            [self._accept(spec) for spec in self.signature.inputs], self.signature.outputs
        )

    @property
    def accepted(self) -> Signature:
        return self._accepted

    def bind(self, request: Request) -> TensorMap:
        images = {tensor.name for tensor in request.inputs if tensor.datatype == "BYTES"}
        return bind(request, self._accept_images(images) if images else self._accepted)

    def _accept(self, spec: TensorSpec) -> TensorSpec:
        """What may be sent: any size where it is `auto`."""
        any_shape = (ANY,) * len(spec.shape)
        return replace(spec, shape=self._shape_for(spec, any_shape))

    def _accept_images(self, names: Set[str]) -> Signature:
        """What may be sent where some inputs are sent as encoded images.

        Any number of them where that is `auto`; they get the size that the model has by now,
        rather than the model theirs.
        """
        specs = [
            replace(accepted, shape=(accepted.shape[0], *current.shape[1:]))
            if accepted.name in names and takes_images(accepted)
            else accepted
            for accepted, current in zip(self._accepted.inputs, self.signature.inputs, strict=True)
        ]
        return Signature.of(specs, self.signature.outputs)

    def _shape_for(self, spec: TensorSpec, wanted: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """The shape of an input that takes from `wanted` what is `auto`, and leaves the rest."""
        if "auto" in self.settings.shapes.values():
            shape = self.settings.shapes.get(spec.name, self.settings.shapes.get(UNNAMED))
            return wanted if shape == "auto" else spec.shape
        axis = spec.batch_axis
        return tuple(
            wanted[index] if index == axis else dim for index, dim in enumerate(spec.shape)
        )

    def _program_for(self, tensors: TensorMap, call: CallContext) -> _Program:
        program = self._program
        if _fits(program, tensors):
            return program
        with self._reshaping:
            call.check()
            if not _fits(self._program, tensors):
                self._reshape(tensors)
            return self._program

    def _reshape(self, tensors: TensorMap) -> None:
        self._check_batches(tensors)
        shapes = {
            spec.name: self._shape_for(spec, fixed(*tensors[spec.name].shape))
            for spec in self._accepted.inputs
        }
        settings = replace(
            self.settings,
            shapes=shapes,
            batch=None,
            cache_dir=self.settings.cache_dir if self.settings.allow_cache else None,
        )
        told = ", ".join(f"{name} {format_shape(shape)}" for name, shape in shapes.items())
        try:
            program = _Program(settings, self._read, self.metrics)
        except ModelLoadError as error:
            raise ServingError(errors.RESHAPE_FAILED, f"Actual: {told}; {error}") from error
        replaced, self._program = self._program, program
        replaced.unload()
        self.signature = program.compiled.signature
        _log.info("Reshaped model %s; version: %d; to: %s", self.name, self.version, told)

    def _check_batches(self, tensors: TensorMap) -> None:
        """With an `auto` batch, all inputs have that of the first."""
        if self.settings.batch != "auto":
            return
        expected: int | None = None
        for spec in self._accepted.inputs:
            if spec.batch_axis is None:
                continue
            size = tensors[spec.name].shape[spec.batch_axis]
            expected = size if expected is None else expected
            if size != expected:
                raise ServingError(
                    errors.INVALID_BATCH_SIZE,
                    f"Expected: {expected}; Actual: {size}; input name: {spec.name}",
                )


def _batch_size(signature: Signature) -> str:
    """That of the first input which has one, for the log."""
    for spec in signature.inputs:
        if spec.batch_axis is not None and spec.batch_axis < len(spec.shape):
            return str(spec.shape[spec.batch_axis])
    return "none"


def _fits(program: _Program, tensors: TensorMap) -> bool:
    return all(spec.accepts(tensors[spec.name].shape) for spec in program.compiled.inputs)
