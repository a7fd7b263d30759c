"""A model as a servable."""

from __future__ import annotations

import logging
from pathlib import Path

from kfs import errors
from kfs.datatypes import DATATYPES
from kfs.errors import ModelLoadError, ServingError
from kfs.servables.base import CallContext, Servable
from kfs.servables.model.compile import Compiled, compile_model, is_alias_safe
from kfs.servables.model.slots import Slots, check_strings
from kfs.settings import ModelSettings
from kfs.signature import format_shape
from kfs.tensors.arrays import TensorMap

_log = logging.getLogger("kfs.model")
_BYTES = DATATYPES["BYTES"]


class Model(Servable):
    """One version of one model, compiled, with its slots."""

    def __init__(self, name: str, version: int, compiled: Compiled, slots: Slots) -> None:
        self.name = name
        self.version = version
        self.signature = compiled.signature
        self._compiled = compiled
        self._slots = slots
        self._input_names = [spec.name for spec in compiled.inputs]
        self._served_outputs = [
            (index, spec)
            for index, spec in enumerate(compiled.outputs)
            if spec.datatype.name in DATATYPES
        ]

    @classmethod
    def load(cls, settings: ModelSettings, version: int, folder: Path) -> Model:
        """Read, compile and get ready.

        Raises:
            ModelLoadError: one line that says what is wrong.
        """
        compiled = compile_model(settings, folder)
        if any(spec.datatype is _BYTES for spec in (*compiled.inputs, *compiled.outputs)):
            check_strings()
        try:
            slots = Slots(
                compiled.model, compiled.n_slots, alias=is_alias_safe(settings.target_device)
            )
        except Exception as error:
            raise ModelLoadError(
                f"no {compiled.n_slots} infer requests for {settings.name}: {error}"
            ) from error
        for kind, specs in (("Input", compiled.inputs), ("Output", compiled.outputs)):
            for spec in specs:
                _log.info(
                    "%s name: %s; shape: %s; precision: %s; layout: %s",
                    kind, spec.name, format_shape(spec.shape), spec.datatype.label, spec.layout,
                )  # fmt: skip
        _log.info(
            "Loaded model %s; version: %d; No of InferRequests: %d",
            settings.name, version, compiled.n_slots,
        )  # fmt: skip
        return cls(settings.name, version, compiled, slots)

    def infer(self, tensors: TensorMap, call: CallContext) -> TensorMap:
        slot = self._slots.take(call)
        call.check()
        slot.infer([tensors[name] for name in self._input_names])
        outputs: TensorMap = {}
        for index, spec in self._served_outputs:
            output = slot.output(index)
            if len(output.shape) != len(spec.shape) or not all(
                dim.accepts(size) for dim, size in zip(spec.shape, output.shape, strict=True)
            ):
                raise ServingError(
                    errors.INTERNAL_ERROR,
                    f"output {spec.name} has the shape {format_shape(output.shape)}, declared "
                    f"is {format_shape(spec.shape)}",
                )
            outputs[spec.name] = output
        return outputs

    def unload(self) -> None:
        _log.info("Unloaded model: %s; version: %d", self.name, self.version)
