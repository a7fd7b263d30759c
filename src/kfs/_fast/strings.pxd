"""Native strings, as OpenVINO keeps them."""

from libcpp.string cimport string

cdef class StringArray:
    # Owned: `new string[count]`.
    cdef string* items_
    cdef readonly size_t count
    cdef object __weakref__

    cdef size_t framed_size(self) noexcept nogil
    cdef void write_framed(self, char* to) noexcept nogil
