"""Elements of BYTES on their way out: strings as OpenVINO keeps them, and rows of a matrix."""

from libcpp.string cimport string

from kfs._fast.contents cimport Item

cdef class Elements:
    cdef size_t framed_size(self) noexcept nogil
    cdef void write_framed(self, char* to) noexcept nogil

cdef class StringArray(Elements):
    # Owned: `new string[count]`.
    cdef string* items_
    cdef readonly size_t count
    cdef object __weakref__

cdef class Rows(Elements):
    cdef Py_buffer matrix
    cdef size_t nbytes

    cdef Item row(self, size_t index) noexcept nogil
    cdef size_t measure(self) noexcept nogil
