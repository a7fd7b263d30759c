"""The results of one output of a step, over all its sessions."""

from __future__ import annotations

import math
import threading

import numpy as np

from kfs import errors
from kfs.errors import ServingError
from kfs.signature import format_shape
from kfs.tensors.arrays import Array, StringTensor, Tensor

#: The most shards one tensor is cut into.
MAX_SHARDS = 10_000


class Shards:
    """One tensor for each session.

    Where someone gathers them, they are written side by side into one allocation, so that
    gathering is a view of it.

    Args:
        place: where they are wanted, along a first axis; they lie elsewhere if they do not fit.
    """

    def __init__(self, n_sessions: int, *, gathered: bool, place: Array | None = None) -> None:
        self._values: list[Tensor | None] = [None] * n_sessions
        self._gathered = gathered
        self._place = place
        #: All of them, along a first axis.
        self._grid: Array | None = None
        self._allocating = threading.Lock()

    def place(self, index: int) -> Array | None:
        """Where session `index` may write its tensor itself, before that is put."""
        if self._place is None:
            return None
        place: Array = self._place[index, ...]
        return place

    def put(self, index: int, tensor: Tensor, *, borrowed: bool) -> None:
        """
        Raises:
            ServingError: INVALID_ARGUMENT; it cannot be gathered with the others.
        """
        if self._gathered:
            self._write(index, tensor, borrowed=borrowed)
        elif borrowed and not isinstance(tensor, StringTensor):
            self._values[index] = self._keep(index, tensor)
        else:
            self._values[index] = tensor

    def at(self, index: int) -> Tensor:
        """What session `index` produced."""
        value = self._values[index]
        if value is None and self._grid is not None:
            # With an ellipsis it is a view also where it is a scalar.
            whole: Tensor = self._grid[index, ...]
            return whole
        if value is None:
            raise ServingError(errors.INTERNAL_ERROR, f"session {index} has no result")
        return value

    def gather(self, first: int, sizes: list[int]) -> Tensor:
        """The tensors of the sessions from `first` on, as many as `sizes` span, as one."""
        if self._grid is None:
            raise ServingError(errors.INTERNAL_ERROR, "nothing was gathered")
        rows = self._grid[first : first + math.prod(sizes)]
        gathered: Array = rows.reshape(*sizes, *rows.shape[1:])
        return gathered

    def _keep(self, index: int, tensor: Array) -> Array:
        place = self.place(index)
        if place is None or not _is_alike(tensor, place):
            copy: Array = tensor.copy()
            return copy
        place[...] = tensor
        return place

    def _write(self, index: int, tensor: Tensor, *, borrowed: bool) -> None:
        if isinstance(tensor, StringTensor):
            raise ServingError(errors.DEMULTIPLY_STRING, "strings cannot be gathered")
        n_sessions = len(self._values)
        if n_sessions == 1 and not borrowed and self._place is None:
            self._grid = tensor[np.newaxis]
            self._values[0] = tensor
            return
        grid = self._grid
        if grid is None:
            grid = self._allocate(tensor)
        row = grid[index, ...]
        if not _is_alike(tensor, row):
            raise ServingError(
                errors.INCONSISTENT_SHARDS,
                f"Expected: {row.dtype} {format_shape(row.shape)} as of the other shards; "
                f"Actual: {tensor.dtype} {format_shape(tensor.shape)}",
            )
        row[...] = tensor  # numpy copies nothing where it lies there already

    def _allocate(self, first: Array) -> Array:
        with self._allocating:
            if self._grid is None:
                place = self.place(0)
                if self._place is not None and place is not None and _is_alike(first, place):
                    self._grid = self._place
                else:
                    self._grid = np.empty((len(self._values), *first.shape), first.dtype)
            return self._grid


def _is_alike(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def count_shards(tensors: dict[str, Tensor], count: int | None) -> int:
    """How many shards the outputs of a demultiplexer make.

    Args:
        count: what they have to be; None when it is theirs to say.

    Raises:
        ServingError: INVALID_ARGUMENT, INTERNAL when there are too few dimensions, which only a
            library can bring about, or ABORTED when there is no shard.
    """
    n_shards: int | None = None
    for name, tensor in tensors.items():
        if isinstance(tensor, StringTensor):
            raise ServingError(errors.DEMULTIPLY_STRING, f"output: {name}")
        shape = tensor.shape
        if shape and shape[0] > MAX_SHARDS:
            raise _fault(errors.DEMULTIPLY_TOO_LARGE, f"at most {MAX_SHARDS}", shape, name)
        if len(shape) < 3:
            raise _fault(errors.DEMULTIPLY_RANK, "at least 3 dimensions", shape, name)
        wanted = n_shards if count is None else count
        if wanted is not None and shape[0] != wanted:
            raise _fault(errors.DEMULTIPLY_SIZE, f"{wanted} shards", shape, name)
        n_shards = shape[0]
    if not n_shards:
        raise ServingError(errors.PIPELINE_NO_RESULTS)
    return n_shards


def _fault(status: errors.Status, expected: str, shape: tuple[int, ...], name: str) -> ServingError:
    return ServingError(
        status, f"output: {name} Expected: {expected}; Actual: {format_shape(shape)}"
    )
