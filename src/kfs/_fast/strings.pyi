"""Elements of BYTES on their way out: strings as OpenVINO keeps them, and rows of a matrix."""

from collections.abc import Sequence
from typing import final

from typing_extensions import Buffer, disjoint_base

from kfs._fast.wire import Request

#: Bytes per std::string; where OpenVINO's differs, its strings cannot be shared.
ITEMSIZE: int

@disjoint_base
class Elements:
    """What the response writer frames: each element after its length in 4 bytes."""

@final
class StringArray(Elements, Buffer):
    """Strings in the memory layout of a string tensor.

    The buffer is that of the std::string objects, for an OpenVINO tensor to be made over it.
    Elements are any bytes, NULs included.
    """

    @staticmethod
    def empty(count: int) -> StringArray:
        """`count` empty strings, for OpenVINO to assign."""

    @staticmethod
    def of(items: Sequence[Buffer]) -> StringArray:
        """A copy of every item."""

    @staticmethod
    def from_request(request: Request, index: int) -> StringArray:
        """The elements of a BYTES input of a request.

        Raises:
            ValueError: the framing of the raw contents is broken.
        """

    def __len__(self) -> int: ...
    def items(self) -> list[bytes]: ...
    @property
    def framed_nbytes(self) -> int:
        """Bytes that the strings take on the wire, each with its length in 4 bytes."""

    @property
    def count(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Rows(Elements):
    """The rows of a matrix of bytes, each an element up to its first zero, or to its end.

    The matrix, a C-contiguous buffer of two dimensions, is kept and must not change.

    Raises:
        ValueError: it is no such matrix, or its rows have no byte.
    """

    def __init__(self, matrix: Buffer) -> None: ...
