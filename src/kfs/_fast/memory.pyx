# cython: language_level=3
"""Views of memory that keep its owner alive."""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize


cdef class TensorView:
    # The one deliberate lie of the project: the buffer says that it is writable, although the
    # memory is that of immutable bytes, because OpenVINO refuses read-only buffers as inputs.
    # Inputs are only ever read; a test compares the bytes before and after inference.

    def __init__(self):
        raise TypeError("views are made by the functions that know the memory's owner")

    @property
    def nbytes(self):
        return self.size

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        # The exporter is the view, so a buffer keeps the view alive and the view its owner.
        PyBuffer_FillInfo(buffer, self, self.data, <Py_ssize_t>self.size, 0, flags)


cdef TensorView view_of(object owner, const void* data, size_t size):
    """A view of `size` bytes at `data`, which must lie in memory that `owner` keeps alive."""
    cdef TensorView view = TensorView.__new__(TensorView)
    view.owner = owner
    view.data = <char*>data
    view.size = size
    return view


cdef TensorView new_block(size_t size):
    """A view of fresh memory, not yet filled, which nobody else can see."""
    owner = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
    return view_of(owner, PyBytes_AS_STRING(owner), size)
