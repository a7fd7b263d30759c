"""Views of memory that keep its owner alive."""

from typing import final

from typing_extensions import Buffer

@final
class TensorView(Buffer):
    """Bytes at an address inside memory that `owner` keeps alive: one-dimensional, unsigned.

    The buffer says that it is writable, since OpenVINO refuses read-only ones as inputs, though
    the memory may be that of immutable bytes: nobody may write through a view, but for the views
    of a fresh response that is being filled.
    """

    @property
    def owner(self) -> object:
        """What keeps the memory alive; held exactly as long as the view."""

    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
