"""A ModelInferRequest, read but not copied."""

from libc.stdint cimport uint8_t, uint32_t

# A run of values of one contents field. There may be millions, each of a value, so they are small.
cdef struct Chunk:
    uint8_t field
    uint8_t packed
    uint32_t offset
    uint32_t nbytes
    uint32_t count

cdef struct Span:
    uint32_t offset
    uint32_t nbytes


cdef class InputTensor:
    cdef readonly str name
    cdef readonly str datatype
    cdef readonly tuple shape
    cdef readonly object parameters
    cdef readonly bint has_contents
    # Owned; in the order of the wire. Offsets are into Request.data.
    cdef Chunk* chunks
    cdef size_t n_chunks
    cdef size_t max_chunks

    cdef int add_chunk(self, uint8_t field, bint packed, size_t offset, size_t nbytes,
                       size_t count) except -1


cdef class Request:
    cdef readonly bytes data
    cdef readonly str model_name
    cdef readonly str model_version
    cdef readonly str id
    cdef readonly object parameters
    cdef readonly tuple inputs
    cdef readonly tuple outputs
    # Owned; offsets are into data.
    cdef Span* raw
    cdef readonly size_t n_raw
    cdef size_t max_raw

    cdef int add_raw(self, size_t offset, size_t nbytes) except -1
    cdef InputTensor input_at(self, size_t index)
    cdef Span* raw_at(self, size_t index) except NULL
