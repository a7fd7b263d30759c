"""Custom nodes in Python: a file with a class `Node`, on numpy arrays."""

from __future__ import annotations

import importlib.util
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kfs import errors
from kfs.datatypes import DATATYPES
from kfs.errors import ServingError
from kfs.servables.pipeline.faults import PipelineError
from kfs.signature import Signature, TensorSpec, fixed
from kfs.tensors.arrays import StringTensor, Tensor, TensorMap, dense

_log = logging.getLogger("kfs.custom_node")

# Whatever a file raises, it fails alone: that it wants to exit ends neither the server nor a thread
# of it. So nothing less than BaseException is caught below.

# Files of one name do not collide: each gets a module of its own.
_numbers = itertools.count()
_MAX_SIZE = (1 << 63) - 1
_METHODS = ("inputs", "outputs", "execute")


class PythonLibrary:
    """A loaded Python file."""

    def __init__(self, path: Path) -> None:
        spec = importlib.util.spec_from_file_location(f"kfs_node_{next(_numbers)}", path)
        if spec is None or spec.loader is None:
            raise PipelineError("NODE_LIBRARY_LOAD_FAILED_OPEN", f"cannot open {path}")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            raise PipelineError(
                "NODE_LIBRARY_LOAD_FAILED_OPEN", f"cannot load {path}: {_told(error)}"
            ) from error
        self._class: Any = getattr(module, "Node", None)
        lacking = [name for name in _METHODS if not callable(getattr(self._class, name, None))]
        if lacking:
            raise PipelineError(
                "NODE_LIBRARY_LOAD_FAILED_SYM",
                f"{path} needs a class Node with the methods {', '.join(_METHODS)}; missing: "
                f"{', '.join(lacking)}",
            )

    def initialize(self, params: Mapping[str, str]) -> PythonNode:
        try:
            node = self._class()
        except BaseException as error:
            raise PipelineError(
                "NODE_LIBRARY_INITIALIZE_FAILED", f"Node() raised {_told(error)}"
            ) from error
        return PythonNode(node, dict(params))


class PythonNode:
    """An instance of the class `Node` of a file."""

    def __init__(self, node: Any, params: dict[str, str]) -> None:
        self._node = node
        self._params = params

    def close(self) -> None:
        self._node = None

    def describe(self) -> Signature:
        return Signature.of(self._describe("inputs"), self._describe("outputs"))

    def _describe(self, method: str) -> list[TensorSpec]:
        try:
            told = getattr(self._node, method)(dict(self._params))
            return [
                TensorSpec(name, DATATYPES[datatype], fixed(*map(_size, shape)), "...")
                for name, (datatype, shape) in told.items()
            ]
        except BaseException as error:
            raise PipelineError(
                "NODE_LIBRARY_METADATA_FAILED",
                f"{method}(params) has to return {{name: (datatype, shape)}} with datatypes of "
                f"{', '.join(DATATYPES)}: {_told(error)}",
            ) from error

    def execute(self, inputs: Mapping[str, Tensor]) -> TensorMap:
        arrays = {}
        for name, tensor in inputs.items():
            if isinstance(tensor, StringTensor):
                raise ServingError(errors.DEMULTIPLY_STRING, f"input: {name}")
            # Another node may see the same memory, or the client's request.
            view = tensor.view()
            view.flags.writeable = False
            arrays[name] = view
        try:
            outputs = self._node.execute(arrays, dict(self._params))
        except BaseException as error:
            _log.exception("A custom node raised")
            raise ServingError(errors.CUSTOM_NODE_FAILED, f"raised {_told(error)}") from error
        if not isinstance(outputs, Mapping):
            raise _corrupted(f"execute has to return a dict, not {type(outputs).__name__}")
        return {name: _checked(name, value) for name, value in outputs.items()}


def _size(told: object) -> int:
    size = int(told)  # type: ignore[call-overload]
    if size > _MAX_SIZE:
        raise ValueError(f"no dimension has the size {size}")
    return int(size)


def _checked(name: object, value: object) -> Tensor:
    if not isinstance(name, str) or not isinstance(value, (np.ndarray, np.generic)):
        raise _corrupted(f"output {name} has to be a numpy array, not {type(value).__name__}")
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.byteorder == ">":
        raise _corrupted(f"output {name} has the type {array.dtype}, which cannot be used")
    return dense(array)  # an input which was only passed on, for instance, is read-only


def _corrupted(text: str) -> ServingError:
    return ServingError(errors.CUSTOM_NODE_OUTPUTS_CORRUPTED, text)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
