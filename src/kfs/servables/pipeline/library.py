"""Custom node libraries: shared objects, and Python files as an extension of ours."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Protocol

from kfs.files import check_is_file
from kfs.servables.pipeline.faults import PipelineError
from kfs.servables.pipeline.spec import LibrarySpec
from kfs.signature import Signature
from kfs.tensors.arrays import Tensor, TensorMap

#: For compilers of custom nodes: `#include "kfs/custom_node.h"`.
INCLUDE_FOLDER = Path(str(files("kfs").joinpath("include")))


class LibraryNode(Protocol):
    """A library initialized for one node."""

    def describe(self) -> Signature:
        """
        Raises:
            PipelineError: the library cannot say it.
        """

    def execute(self, inputs: Mapping[str, Tensor]) -> TensorMap:
        """
        Raises:
            ServingError: INTERNAL; the library failed or returned what cannot be used.
        """

    def close(self) -> None:
        """Give back what `initialize` took, once no output is in use any more."""


class Library(Protocol):
    """An opened library."""

    def initialize(self, params: Mapping[str, str]) -> LibraryNode:
        """
        Raises:
            PipelineError: the library refused.
        """


def open_library(spec: LibrarySpec, folder: Path) -> Library:
    """Open a library.

    Args:
        folder: that of the configuration file, where relative paths begin.

    Raises:
        PipelineError: one line that says what is wrong.
    """
    # Only now: most servers have no custom node.
    from kfs.servables.pipeline.custom_node import SharedLibrary
    from kfs.servables.pipeline.python_node import PythonLibrary

    path = _resolve(spec, folder)
    try:
        check_is_file(path)
        return PythonLibrary(path) if path.suffix == ".py" else SharedLibrary(path)
    except OSError as error:
        reason = f"library {spec.name}: cannot open {path}: {error.strerror}"
        raise PipelineError("NODE_LIBRARY_LOAD_FAILED_OPEN", reason) from None
    except PipelineError as error:
        raise PipelineError(error.status, f"library {spec.name}: {error}") from None


def _resolve(spec: LibrarySpec, folder: Path) -> Path:
    if ".." in spec.base_path.replace("\\", "/").split("/"):
        raise PipelineError(
            "PATH_INVALID", f"library {spec.name}: base_path {spec.base_path} may not contain .."
        )
    return folder.absolute() / spec.base_path
