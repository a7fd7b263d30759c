# cython: language_level=3
"""The longer functions of the wire cursor: unknown fields, and packed varints."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy


cdef Status skip_field(Cursor* c, uint32_t field, uint32_t wire_type, int depth) noexcept nogil:
    """Pass over the value of a field whose tag has been read.

    `depth` is how many levels a group may still open.
    """
    cdef Cursor span
    cdef uint64_t value
    if wire_type == VARINT:
        return read_varint(c, &value)
    if wire_type == FIXED64:
        return skip_fixed(c, 8)
    if wire_type == DELIMITED:
        return read_span(c, &span)
    if wire_type == FIXED32:
        return skip_fixed(c, 4)
    if wire_type == START_GROUP:
        return skip_group(c, field, depth)
    if wire_type == END_GROUP:
        return BAD_GROUP
    return BAD_WIRE_TYPE


cdef Status skip_group(Cursor* c, uint32_t group, int depth) noexcept nogil:
    """Pass over fields up to the end of the group with this number."""
    cdef uint32_t field = 0
    cdef uint32_t wire_type = 0
    cdef Status status
    if depth <= 0:
        return DEEP_GROUP
    while True:
        status = read_tag(c, &field, &wire_type)
        if status != OK:
            return status
        if wire_type == END_GROUP:
            return OK if field == group else BAD_GROUP
        status = skip_field(c, field, wire_type, depth - 1)
        if status != OK:
            return status


cdef Status count_varints(Cursor* c, size_t* count) noexcept nogil:
    """Check that the span is varints and nothing else, and count them."""
    cdef size_t n = 0
    cdef uint64_t eight
    cdef uint64_t ignored
    cdef Status status
    while c.at != c.end:
        # Eight one-byte varints at a time, which is what small numbers and flags are.
        while <size_t>(c.end - c.at) >= 8:
            memcpy(&eight, c.at, 8)
            if eight & 0x8080808080808080u:
                break
            c.at += 8
            n += 8
        if c.at == c.end:
            break
        status = read_varint(c, &ignored)
        if status != OK:
            return status
        n += 1
    count[0] = n
    return OK
