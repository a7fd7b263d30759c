"""The tensor of Python handlers: a buffer with a name, a shape and a datatype."""

from collections.abc import Iterable

from typing_extensions import Buffer, disjoint_base

@disjoint_base
class Tensor(Buffer):
    """A view of any object with a buffer; nothing is copied unless its memory has gaps.

    It offers a read-only buffer itself, with the format and the shape of the memory, whatever
    `shape` and `datatype` say: `numpy.array(tensor)`, `bytes(tensor)`, `memoryview(tensor)`.

    Source: the class of this name in OpenVINO Model Server's Python module `pyovms`.

    Args:
        name: which input or output it is.
        buffer: the object with the values.
        shape: what a client is told; that of the buffer when it is left out.
        datatype: likewise; a name of the KServe protocol, or one of your own.

    Raises:
        TypeError: the object has no buffer, or one of Python objects.
    """

    def __new__(
        cls,
        name: str,
        buffer: Buffer,
        shape: Iterable[int] | None = None,
        datatype: str | None = None,
    ) -> Tensor: ...
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def datatype(self) -> str: ...
    @property
    def size(self) -> int:
        """Bytes of the values."""

    @property
    def data(self) -> memoryview: ...
    @property
    def ptr(self) -> int:
        """The address of the values."""

    @property
    def ref_obj(self) -> object:
        """The object with the values."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

def from_server(name: str, data: Buffer, shape: tuple[int, ...], datatype: str) -> Tensor:
    """A tensor that the server makes of dense memory.

    The values of a datatype of the protocol have its format and `shape`; those of BYTES and of
    others are bytes in one dimension.

    Raises:
        ValueError: datatype and shape do not fit the number of bytes.
    """
