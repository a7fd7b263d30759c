"""Python handlers: a file with the class OvmsPythonModel, run by a node of a graph."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import sys
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from types import ModuleType
from typing import Any

from kfs import pyovms
from kfs.servables.graph.calculator import FAILURES

_log = logging.getLogger("kfs.graph")

_CLASS = "OvmsPythonModel"

_MAX_SIZE = (1 << 63) - 1

#: All that clients read of what went wrong; the log has the rest.
_FAILED = "Error occurred during graph execution"

# Files of equal names, and the same file loaded again, are modules of their own.
_numbers = itertools.count()


class HandlerError(Exception):
    """A handler that cannot be loaded, in one readable line, or that failed."""


class Handler:
    """One object of a handler's class, which all calls and streams of a graph share."""

    def __init__(
        self, module: ModuleType, model: Any, node_name: str, outputs: frozenset[str]
    ) -> None:
        self._module = module
        self._model = model
        self._node_name = node_name
        self._outputs = outputs

    @classmethod
    def load(
        cls,
        path: Path,
        node_name: str,
        input_names: Sequence[str],
        output_names: Sequence[str],
        loopbacks: Set[str] = frozenset(),
    ) -> Handler:
        """Import the file, make an object of its class, and call its `initialize`.

        Args:
            path: the file.
            input_names: of the node's streams, in the order of the graph file.
            output_names: likewise.
            loopbacks: those of the outputs that take no tensors.

        Raises:
            HandlerError: the file, and what failed; the traceback is in the log.
        """
        where = f"node {node_name}: {path}"
        if not path.is_file():
            raise HandlerError(f"{where}: no such file")
        module = None
        try:
            module = _import(path)
            kind = getattr(module, _CLASS, None)
            if kind is None:
                raise HandlerError(f"{where}: expected a class {_CLASS}; there is none")
            if not hasattr(kind, "execute"):
                raise HandlerError(f"{where}: expected a method execute in {_CLASS}")
            model = kind()
            if hasattr(model, "initialize"):
                model.initialize(
                    {
                        "node_name": node_name,
                        "input_names": list(input_names),
                        "output_names": list(output_names),
                        "base_path": str(path.parent),
                    }
                )
        except HandlerError:
            _forget(module)
            raise
        except FAILURES as error:
            _forget(module)
            _log.error("%s cannot be loaded", where, exc_info=error)
            raise HandlerError(f"{where}: {type(error).__name__}: {error}") from error
        return cls(module, model, node_name, frozenset(output_names) - loopbacks)

    def execute(
        self, inputs: list[pyovms.Tensor]
    ) -> list[pyovms.Tensor] | Iterator[list[pyovms.Tensor]]:
        """What the handler returns: a list, or an iterator of lists if it is a generator.

        Raises:
            HandlerError: it failed or returned something else; also while iterating.
        """
        try:
            result = self._model.execute(inputs)
        except FAILURES as error:
            raise self._failed(error) from None
        if isinstance(result, list):
            return self._checked(result)
        if isinstance(result, Iterator):
            return self._iterate(result)
        raise self._failed(
            TypeError(f"execute returned {type(result).__name__}; expected a list of Tensor, or "
                      "a generator of such lists")
        )  # fmt: skip

    def finalize(self) -> None:
        """Call the handler's `finalize`, if it has one; what it raises is only logged."""
        try:
            if hasattr(self._model, "finalize"):
                self._model.finalize()
        except FAILURES:
            _log.exception("finalize of node %s failed", self._node_name)
        _forget(self._module)

    def _iterate(self, values: Iterator[Any]) -> Iterator[list[pyovms.Tensor]]:
        while True:
            try:
                value = next(values)
            except StopIteration:
                return
            except FAILURES as error:
                raise self._failed(error) from None
            yield self._checked(value)

    def _checked(self, result: Any) -> list[pyovms.Tensor]:
        if not isinstance(result, list):
            raise self._failed(
                TypeError(f"execute gave {type(result).__name__}; expected a list of Tensor")
            )
        for tensor in result:
            if not isinstance(tensor, pyovms.Tensor):
                raise self._failed(
                    TypeError(f"execute gave a list with {type(tensor).__name__}; expected Tensor")
                )
            if tensor.name not in self._outputs:
                raise self._failed(
                    ValueError(
                        f"execute gave the tensor {tensor.name!r}; the node's outputs are "
                        f"{', '.join(sorted(self._outputs))}"
                    )
                )
            reason = _why_unsendable(tensor)
            if reason:
                raise self._failed(ValueError(f"execute gave {reason}"))
        return result

    def _failed(self, error: BaseException) -> HandlerError:
        _log.error("Handler of node %s failed", self._node_name, exc_info=error)
        return HandlerError(_FAILED)


def _why_unsendable(tensor: pyovms.Tensor) -> str:
    """Why a response cannot hold it, whatever it may mean; empty when it can."""
    if any(not -_MAX_SIZE <= size <= _MAX_SIZE for size in tensor.shape):
        return f"a tensor of the shape {tensor.shape}; expected sizes of 64 bits"
    try:
        tensor.datatype.encode()
    except UnicodeEncodeError as error:
        return f"a tensor with the datatype {tensor.datatype!r}, which is no text: {error}"
    return ""


def _import(path: Path) -> ModuleType:
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # for what the handler imports from its own folder
    name = f"{path.stem}_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise HandlerError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickle and dataclasses look there
    # Not by the loader: its cache takes a file that was edited within a second for the old one.
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
    except BaseException:
        _forget(module)
        raise
    return module


def _forget(module: ModuleType | None) -> None:
    """Let go of all that the file made, which may be large."""
    if module is not None:
        sys.modules.pop(module.__name__, None)
