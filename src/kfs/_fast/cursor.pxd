"""A bounded cursor over the protobuf wire format: check, then advance.

Every function takes the cursor by pointer and returns a Status; after anything but OK the cursor
stands at the fault. Sizes are unsigned, and the only comparison is with what is left.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    static inline unsigned int trailing_zeros(unsigned long long word) {
        return (unsigned int)__builtin_ctzll(word);
    }
    static inline unsigned int leading_zeros(unsigned long long word) {
        return (unsigned int)__builtin_clzll(word);
    }
    """
    unsigned int trailing_zeros(uint64_t word) noexcept nogil
    unsigned int leading_zeros(uint64_t word) noexcept nogil

cdef enum Status:
    OK = 0
    TRUNCATED = 1
    LONG_VARINT = 2
    BAD_TAG = 3
    BAD_WIRE_TYPE = 4
    BAD_GROUP = 5
    DEEP_GROUP = 6
    BAD_LENGTH = 7
    BAD_PACKING = 8
    BAD_UTF8 = 9
    MANY_PARTS = 10
    MANY_VALUES = 11

cdef enum WireType:
    VARINT = 0
    FIXED64 = 1
    DELIMITED = 2
    START_GROUP = 3
    END_GROUP = 4
    FIXED32 = 5

cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end

# What protobuf's own parser allows.
cdef enum:
    MAX_DEPTH = 100


cdef inline Status read_varint(Cursor* c, uint64_t* value) noexcept nogil:
    cdef uint64_t result = 0
    cdef unsigned int shift = 0
    cdef uint8_t byte
    while shift < 70:
        if c.at == c.end:
            return TRUNCATED
        byte = c.at[0]
        c.at += 1
        # Bits beyond the 64th fall off, as they do in protobuf.
        if shift < 64:
            result |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = result
            return OK
        shift += 7
    return LONG_VARINT


cdef inline Status read_tag(Cursor* c, uint32_t* field, uint32_t* wire_type) noexcept nogil:
    """At most five bytes, and within 32 bits."""
    cdef const uint8_t* begin = c.at
    cdef uint64_t tag = 0
    cdef Status status = read_varint(c, &tag)
    if status == TRUNCATED and <size_t>(c.end - begin) < 5:
        return TRUNCATED
    if status != OK or c.at - begin > 5 or tag > 0xFFFFFFFFu or tag < 8:
        return BAD_TAG
    field[0] = <uint32_t>(tag >> 3)
    wire_type[0] = <uint32_t>(tag & 7)
    return OK


cdef inline Status read_span(Cursor* c, Cursor* span) noexcept nogil:
    """A length and that many bytes, which become a cursor of their own."""
    cdef uint64_t size = 0
    cdef Status status = read_varint(c, &size)
    if status != OK:
        return status
    if size > 0x7FFFFFFFu:
        return BAD_LENGTH
    if size > <size_t>(c.end - c.at):
        return TRUNCATED
    span.at = c.at
    span.end = c.at + size
    c.at = span.end
    return OK


cdef inline Status skip_fixed(Cursor* c, size_t size) noexcept nogil:
    if size > <size_t>(c.end - c.at):
        return TRUNCATED
    c.at += size
    return OK


cdef Status skip_field(Cursor* c, uint32_t field, uint32_t wire_type, int depth) noexcept nogil
cdef Status count_varints(Cursor* c, size_t* count) noexcept nogil
