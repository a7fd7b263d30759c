"""Tensor data of a request."""

from kfs._fast.wire cimport Request

cdef struct Item:
    const char* data
    size_t nbytes

# Calls nothing of Python; false stops the walk.
ctypedef bint (*Visit)(void* state, Item item) noexcept nogil

cdef size_t visit_items(Request request, size_t index, Visit visit, void* state) except? 0
