"""Views of memory that keep its owner alive."""

cdef class TensorView:
    # Holds the memory that `data` points into; nothing else does.
    cdef readonly object owner
    cdef char* data
    cdef size_t size
    cdef object __weakref__


cdef TensorView view_of(object owner, const void* data, size_t size)
cdef TensorView new_block(size_t size)
