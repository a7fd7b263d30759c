"""Tensor data of a request."""

from kfs._fast.wire cimport Chunk, Request

cdef struct Item:
    const char* data
    size_t nbytes

# Where the elements of a BYTES tensor lie, within `nbytes`: framed from `data` on, or a chunk each.
cdef struct Items:
    const char* data
    size_t nbytes
    Chunk* chunks
    size_t n_chunks

# Calls nothing of Python; false stops the walk.
ctypedef bint (*Visit)(void* state, Item item) noexcept nogil

cdef Py_ssize_t n_items(Request request, size_t index) except -1
cdef Items items_of(Request request, size_t index) except *
cdef void visit_items(Items* items, Visit visit, void* state) noexcept
