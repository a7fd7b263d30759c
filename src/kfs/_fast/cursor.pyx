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
    cdef const uint8_t* begin = c.at
    cdef uint64_t ignored
    cdef Status status
    count[0] = 0
    if c.at == c.end or (
        c.end[-1] < 0x80 and (count_short_varints(c, count) or has_no_long_varint(c))
    ):
        c.at = c.end
        return OK
    # There is a fault: find it.
    c.at = begin
    count[0] = 0
    while c.at != c.end:
        status = read_varint(c, &ignored)
        if status != OK:
            return status
        count[0] += 1
    return OK


cdef inline uint64_t five_go_on(uint64_t word) noexcept nogil:
    """Not zero if five bytes in a row have the bit that says the varint goes on."""
    cdef uint64_t on = word & 0x8080808080808080u
    return (on & (on >> 8) & (on >> 16)) & ((on >> 24) & (on >> 32))


cdef bint count_short_varints(Cursor* c, size_t* count) noexcept nogil:
    """Count the bytes that end a varint, eight at a time; false if there may be a faulty one.

    A varint of more than ten bytes has ten in a row that go on, five of them in one word of
    eight: no such five, no such varint. The last eight bytes are looked at as a word too, since
    ten in a row may be four in the last whole word and six behind it.
    """
    cdef size_t n_words = <size_t>(c.end - c.at) // 8
    cdef size_t n = 0
    cdef size_t i
    cdef size_t stop
    cdef uint64_t word
    cdef uint64_t five = 0
    cdef uint64_t ends
    i = 0
    while i < n_words:
        # Each byte of `ends` counts for itself, so at most 255 words before they are added up.
        stop = i + 255 if n_words - i > 255 else n_words
        ends = 0
        while i < stop:
            memcpy(&word, c.at + 8 * i, 8)
            ends += (~word >> 7) & 0x0101010101010101u
            five |= five_go_on(word)
            i += 1
        n += sum_bytes(ends)
    if n_words:
        memcpy(&word, c.end - 8, 8)
        five |= five_go_on(word)
    i = 8 * n_words
    while i < <size_t>(c.end - c.at):
        n += c.at[i] < 0x80
        i += 1
    count[0] = n
    return five == 0


cdef bint has_no_long_varint(Cursor* c) noexcept nogil:
    """Whether at most nine bytes in a row go on, told by the first and last end in each word."""
    cdef size_t n_words = <size_t>(c.end - c.at) // 8
    cdef size_t pending = 0  # bytes that go on, just before the word
    cdef size_t i
    cdef uint64_t word
    cdef uint64_t ends
    for i in range(n_words):
        memcpy(&word, c.at + 8 * i, 8)
        ends = ~word & 0x8080808080808080u
        if not ends:
            pending += 8
            continue
        if pending + (trailing_zeros(ends) >> 3) > 9:
            return False
        pending = leading_zeros(ends) >> 3
    for i in range(8 * n_words, <size_t>(c.end - c.at)):
        if c.at[i] >= 0x80:
            pending += 1
        elif pending > 9:
            return False
        else:
            pending = 0
    return True


cdef inline size_t sum_bytes(uint64_t bytes) noexcept nogil:
    bytes = (bytes & 0x00FF00FF00FF00FFu) + ((bytes >> 8) & 0x00FF00FF00FF00FFu)
    return <size_t>((bytes * 0x0001000100010001u) >> 48)
