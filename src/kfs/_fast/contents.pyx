# cython: language_level=3
"""Tensor data of a request: aliased where the wire already is the tensor, else decoded once."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from libc.string cimport memcpy, memset

from kfs._fast.cursor cimport Cursor, OK, read_varint, trailing_zeros
from kfs._fast.memory cimport TensorView, new_block, view_of
from kfs._fast.wire cimport Chunk, InputTensor, Request, Span

from kfs.datatypes import DATATYPES
from kfs.errors import ValueRangeError

# Work on more bytes than this is done without the GIL.
cdef enum:
    LONG_WORK = 65536

ctypedef fused Value:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t


def raw_view(Request request not None, size_t index):
    cdef Span* span = request.raw_at(index)
    return view_of(request.data, PyBytes_AS_STRING(request.data) + span.offset, span.nbytes)


def count(Request request not None, size_t index, unsigned int field_number):
    cdef InputTensor tensor = request.input_at(index)
    cdef size_t n = 0
    cdef size_t i
    for i in range(tensor.n_chunks):
        if tensor.chunks[i].field == field_number:
            n += tensor.chunks[i].count
    return n


def contents_view(Request request not None, size_t index, str datatype not None):
    cdef InputTensor tensor = request.input_at(index)
    row = DATATYPES[datatype]
    cdef unsigned int field = row.field_number
    cdef size_t itemsize = row.itemsize
    if not field:
        return new_block(0)  # FP16 has no field, so there are no values either
    if field > 7:
        raise ValueError(f"{datatype} is not carried by a field of numbers")
    cdef TensorView view = aliased(request, tensor, field)
    if view is not None:
        return view
    view = new_block(<size_t>count(request, index, field) * itemsize)
    if field == 1:
        decode_bool(request, tensor, view)
    elif field >= 6:
        join_fixed(request, tensor, field, view)
    else:
        decode_integers(request, tensor, datatype, field, view)
    return view


cdef TensorView aliased(Request request, InputTensor tensor, unsigned int field):
    """A view into the wire if one packed chunk has the very bytes of the tensor, else None."""
    cdef Chunk* only = NULL
    cdef Chunk* chunk
    cdef const char* data = PyBytes_AS_STRING(request.data)
    cdef size_t i
    for i in range(tensor.n_chunks):
        chunk = &tensor.chunks[i]
        if chunk.field == field and chunk.count:
            if only != NULL or not chunk.packed:
                return None
            only = chunk
    if only == NULL or 2 <= field <= 5:
        return None
    if field == 1 and not is_flags(<const uint8_t*>data + only.offset, only.nbytes):
        return None
    return view_of(request.data, data + only.offset, only.nbytes)


cdef bint is_flags(const uint8_t* data, size_t nbytes) noexcept nogil:
    """Whether every byte is 0 or 1: varints of more than a byte have the high bit set."""
    cdef uint8_t seen = 0
    cdef size_t i
    for i in range(nbytes):
        seen |= data[i]
    return seen <= 1


cdef void join_fixed(Request request, InputTensor tensor, unsigned int field, TensorView view):
    """Chunks of floats, one after the other."""
    cdef const char* data = PyBytes_AS_STRING(request.data)
    cdef char* to = view.data
    cdef size_t i
    for i in range(tensor.n_chunks):
        if tensor.chunks[i].field == field:
            memcpy(to, data + tensor.chunks[i].offset, tensor.chunks[i].nbytes)
            to += tensor.chunks[i].nbytes


cdef void decode_bool(Request request, InputTensor tensor, TensorView view):
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(request.data)
    cdef uint8_t* to = <uint8_t*>view.data
    cdef uint64_t value = 0
    cdef Cursor c
    cdef size_t i
    for i in range(tensor.n_chunks):
        if tensor.chunks[i].field == 1:
            c.at = data + tensor.chunks[i].offset
            c.end = c.at + tensor.chunks[i].nbytes
            while c.at != c.end and read_varint(&c, &value) == OK:
                to[0] = value != 0
                to += 1


cdef int decode_integers(Request request, InputTensor tensor, str datatype, unsigned int field,
                         TensorView view) except -1:
    if datatype == "INT64":
        return decode_field[int64_t](request, tensor, field, view, 0, datatype)
    if datatype == "UINT64":
        return decode_field[uint64_t](request, tensor, field, view, 0, datatype)
    if datatype == "INT32":
        return decode_field[int32_t](request, tensor, field, view, 0, datatype)
    if datatype == "UINT32":
        return decode_field[uint32_t](request, tensor, field, view, 0, datatype)
    if datatype == "INT16":
        return decode_field[int16_t](request, tensor, field, view, 0, datatype)
    if datatype == "UINT16":
        return decode_field[uint16_t](request, tensor, field, view, 0, datatype)
    if datatype == "INT8":
        return decode_field[int8_t](request, tensor, field, view, 0, datatype)
    return decode_field[uint8_t](request, tensor, field, view, 0, datatype)


cdef int decode_field(Request request, InputTensor tensor, unsigned int field, TensorView view,
                      Value kind, str datatype) except -1:
    """Decode every chunk of the field; `kind` only tells the type."""
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(request.data)
    cdef Value* to = <Value*>view.data
    cdef Cursor c
    cdef Chunk* chunk
    cdef size_t done = 0
    cdef size_t fits = 0
    cdef size_t i
    for i in range(tensor.n_chunks):
        chunk = &tensor.chunks[i]
        if chunk.field != field:
            continue
        c.at = data + chunk.offset
        c.end = c.at + chunk.nbytes
        if chunk.nbytes > LONG_WORK:
            with nogil:
                fits = decode_chunk(&c, to + done)
        else:
            fits = decode_chunk(&c, to + done)
        done += fits
        if fits != chunk.count:
            raise ValueRangeError(narrowed(&c, field), done, datatype)
    return 0


cdef inline uint64_t joined(uint64_t word) noexcept nogil:
    """The value of a varint of up to eight bytes: seven bits of each, pushed together."""
    word = ((word & 0x7F007F007F007F00u) >> 1) | (word & 0x007F007F007F007Fu)
    word = ((word & 0x3FFF00003FFF0000u) >> 2) | (word & 0x00003FFF00003FFFu)
    return ((word & 0x0FFFFFFF00000000u) >> 4) | (word & 0x000000000FFFFFFFu)


cdef inline uint64_t short_value(const uint8_t* at, unsigned int size) noexcept nogil:
    """The value of a checked varint of `size` bytes, with at least eight to read at `at`."""
    cdef uint64_t word
    memcpy(&word, at, 8)
    if size <= 8:
        return joined(word & (<uint64_t>-1 >> (64 - 8 * size)))
    word = joined(word) | (<uint64_t>(at[8] & 0x7F) << 56)
    return word | (<uint64_t>at[9] << 63) if size == 10 else word


cdef inline uint64_t ends_in_block(const uint8_t* at) noexcept nogil:
    """A bit for each of 64 bytes: whether a varint ends there."""
    cdef uint64_t word
    cdef uint64_t ends = 0
    cdef unsigned int i
    for i in range(8):
        memcpy(&word, at + 8 * i, 8)
        word = (~word >> 7) & 0x0101010101010101u
        # The product gathers the eight bits in its highest byte.
        ends |= ((word * 0x0102040810204080u) >> 56) << (8 * i)
    return ends


cdef inline bint put(Value* to, uint64_t value) noexcept nogil:
    """Keep the value; false if it does not fit.

    Fields of 32 bits keep the low half of a varint, as protobuf does; then it is looked at.
    """
    if Value is int8_t or Value is int16_t:
        if <int32_t>value != <int32_t><Value>value:
            return False
    elif Value is uint8_t or Value is uint16_t:
        if <uint32_t>value != <uint32_t><Value>value:
            return False
    to[0] = <Value>value
    return True


cdef inline size_t decode_chunk(Cursor* c, Value* to) noexcept nogil:
    """The number of values decoded; the cursor stands at the first that does not fit, if any."""
    cdef size_t n = 0
    cdef uint64_t ends
    cdef uint64_t value = 0
    cdef unsigned int start
    cdef unsigned int stop
    cdef const uint8_t* begin
    # Blocks of 64 bytes, with room to read on behind them: where every varint of a block ends is
    # known at once, so none waits for the one before it.
    while <size_t>(c.end - c.at) >= 80:
        ends = ends_in_block(c.at)
        start = 0
        if ends == <uint64_t>-1:
            for start in range(64):
                if not put(to + n + start, c.at[start]):
                    c.at += start
                    return n + start
            n += 64
            c.at += 64
            continue
        while ends:
            stop = trailing_zeros(ends) + 1
            if not put(to + n, short_value(c.at + start, stop - start)):
                c.at += start
                return n
            n += 1
            start = stop
            ends &= ends - 1
        c.at += start
    while c.at != c.end:
        begin = c.at
        read_varint(c, &value)
        if not put(to + n, value):
            c.at = begin
            return n
        n += 1
    return n


cdef object narrowed(Cursor* c, unsigned int field):
    """The value at the cursor as a client would have written it."""
    cdef uint64_t value = 0
    read_varint(c, &value)
    if field == 2:
        return <int32_t>value
    return <uint32_t>value


cdef Items items_of(Request request, size_t index) except *:
    """Where the elements of a BYTES tensor lie, as long as the request lives.

    The caller has made sure, by `raw_item_count`, that raw framing is whole.
    """
    cdef Items items = Items(PyBytes_AS_STRING(request.data), 0, NULL, 0)
    cdef InputTensor tensor
    cdef Span* span
    if request.n_raw:
        span = request.raw_at(index)
        items.data += span.offset
        items.nbytes = span.nbytes
        return items
    tensor = request.input_at(index)
    items.chunks = tensor.chunks
    items.n_chunks = tensor.n_chunks
    if tensor.n_chunks:
        items.nbytes = (
            tensor.chunks[tensor.n_chunks - 1].offset + tensor.chunks[tensor.n_chunks - 1].nbytes
            - tensor.chunks[0].offset
        )
    return items


cdef void visit_items(Items* items, Visit visit, void* state) noexcept:
    """Call `visit` with every element in order, without the GIL where there is much to do."""
    if items.nbytes > LONG_WORK:
        with nogil:
            visit_each(items, visit, state)
    else:
        visit_each(items, visit, state)


cdef void visit_each(Items* items, Visit visit, void* state) noexcept nogil:
    cdef Chunk* chunk
    cdef size_t i
    if items.chunks == NULL:
        visit_framed(items.data, items.nbytes, visit, state)
        return
    for i in range(items.n_chunks):
        chunk = &items.chunks[i]
        if chunk.field == 8 and not visit(state, Item(items.data + chunk.offset, chunk.nbytes)):
            return


cdef void visit_framed(const char* at, size_t nbytes, Visit visit, void* state) noexcept nogil:
    cdef uint32_t size
    while nbytes >= 4:
        memcpy(&size, at, 4)
        at += 4
        nbytes -= 4
        if size > nbytes or not visit(state, Item(at, size)):
            return
        at += size
        nbytes -= size


def raw_item_count(Request request not None, size_t index):
    cdef Span* span = request.raw_at(index)
    cdef const char* at = PyBytes_AS_STRING(request.data) + span.offset
    cdef size_t left = span.nbytes
    cdef uint32_t size
    cdef Py_ssize_t n = 0
    while left:
        if left < 4:
            return -1
        memcpy(&size, at, 4)
        left -= 4
        if size > left:
            return -1
        at += 4 + <size_t>size
        left -= size
        n += 1
    return n


cdef Py_ssize_t n_items(Request request, size_t index) except -1:
    """How many elements a BYTES tensor has, raw or in contents."""
    cdef Py_ssize_t n
    if not request.n_raw:
        return count(request, index, 8)
    n = raw_item_count(request, index)
    if n < 0:
        raise ValueError("the raw framing is broken")
    return n


cdef bint append_view(void* state, Item item) noexcept with gil:
    cdef list found = <list>state
    request = found[0]
    found.append(view_of((<Request>request).data, item.data, item.nbytes))
    return True


def bytes_items(Request request not None, size_t index):
    cdef Items items = items_of(request, index)
    found = [request]
    visit_each(&items, <Visit>append_view, <void*>found)
    return found[1:]


cdef bint keep_longest(void* state, Item item) noexcept nogil:
    cdef size_t* longest = <size_t*>state
    if item.nbytes > longest[0]:
        longest[0] = item.nbytes
    return True


def bytes_lengths_max(Request request not None, size_t index):
    cdef Items items = items_of(request, index)
    cdef size_t longest = 0
    visit_items(&items, keep_longest, &longest)
    return longest


cdef struct Rows:
    char* to
    size_t width
    bint fits


cdef bint pad_row(void* state, Item item) noexcept nogil:
    cdef Rows* rows = <Rows*>state
    if item.nbytes >= rows.width:
        rows.fits = False
        return False
    memcpy(rows.to, item.data, item.nbytes)
    memset(rows.to + item.nbytes, 0, rows.width - item.nbytes)
    rows.to += rows.width
    return True


def padded_rows(Request request not None, size_t index, size_t width):
    cdef Items items = items_of(request, index)
    cdef Py_ssize_t n = n_items(request, index)
    if width and <size_t>n > <size_t>0x7FFFFFFFFFFFFFFF // width:
        raise OverflowError("rows of more bytes than there are addresses")
    cdef TensorView view = new_block(<size_t>n * width)
    cdef Rows rows = Rows(view.data, width, True)
    visit_items(&items, pad_row, &rows)
    if not rows.fits:
        raise ValueError(f"an element does not fit into {width} bytes with its terminating zero")
    return view
