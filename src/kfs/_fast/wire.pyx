# cython: language_level=3
"""A ModelInferRequest, read but not copied.

One pass over the message, in the order of the wire, with the rules of protobuf: scalars sent
twice are the last one, messages sent twice are merged, unknown fields and known ones of another
wire type are passed over. Payloads stay where they are, as offsets into the message.
"""

from types import MappingProxyType
from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kfs._fast.cursor cimport (
    BAD_GROUP, BAD_LENGTH, BAD_PACKING, BAD_TAG, BAD_UTF8, BAD_WIRE_TYPE, DEEP_GROUP, DELIMITED,
    FIXED32, FIXED64, LONG_VARINT, MANY_PARTS, MANY_VALUES, MAX_DEPTH, OK, TRUNCATED, VARINT,
    Cursor, Status, count_varints, read_span, read_tag, read_varint, skip_field, skip_fixed,
)

from kfs.errors import WireError


# Two bytes of a message can be one of these, and take a hundred here, so they are bounded. Parts
# are inputs, outputs, parameters, dimensions and raw contents; values have a place of their own
# each: elements of BYTES, and numbers that are not packed.
cdef enum:
    MAX_PARTS = 1 << 20
    MAX_VALUES = 1 << 25


class Parameter(NamedTuple):
    kind: str
    value: object


cdef object NO_PARAMETERS = MappingProxyType({})

cdef dict REASONS = {
    TRUNCATED: "the message ends inside a value",
    LONG_VARINT: "a varint of more than 10 bytes",
    BAD_TAG: "a tag that is no field number",
    BAD_WIRE_TYPE: "a wire type that does not exist",
    BAD_GROUP: "a group that does not end where it should",
    DEEP_GROUP: "groups nested deeper than 100",
    BAD_LENGTH: "a length of more than 2 GiB",
    BAD_PACKING: "packed values whose size is no multiple of theirs",
    BAD_UTF8: "a string that is not UTF-8",
    MANY_PARTS: f"more than {MAX_PARTS} inputs, outputs, parameters, dimensions and raw contents",
    MANY_VALUES: f"more than {MAX_VALUES} elements of BYTES, or values that are not packed",
}

cdef tuple CONTENTS_FIELDS = (
    "", "bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents",
    "fp32_contents", "fp64_contents", "bytes_contents",
)


cdef class InputTensor:

    def __cinit__(self):
        self.name = ""
        self.datatype = ""
        self.shape = ()
        self.parameters = NO_PARAMETERS

    def __init__(self):
        raise TypeError("made by read_request only")

    def __dealloc__(self):
        PyMem_Free(self.chunks)

    cdef int add_chunk(self, uint8_t field, bint packed, size_t offset, size_t nbytes,
                       size_t count) except -1:
        cdef Chunk* grown
        if self.n_chunks == self.max_chunks:
            grown = <Chunk*>PyMem_Realloc(self.chunks, (2 * self.max_chunks + 1) * sizeof(Chunk))
            if grown == NULL:
                raise MemoryError
            self.chunks = grown
            self.max_chunks = 2 * self.max_chunks + 1
        self.chunks[self.n_chunks] = Chunk(
            field, packed, <uint32_t>offset, <uint32_t>nbytes, <uint32_t>count)
        self.n_chunks += 1
        return 0


cdef class Request:

    def __cinit__(self):
        self.model_name = ""
        self.model_version = ""
        self.id = ""
        self.parameters = NO_PARAMETERS

    def __init__(self):
        raise TypeError("made by read_request only")

    def __dealloc__(self):
        PyMem_Free(self.raw)

    cdef int add_raw(self, size_t offset, size_t nbytes) except -1:
        cdef Span* grown
        if self.n_raw == self.max_raw:
            grown = <Span*>PyMem_Realloc(self.raw, (2 * self.max_raw + 1) * sizeof(Span))
            if grown == NULL:
                raise MemoryError
            self.raw = grown
            self.max_raw = 2 * self.max_raw + 1
        self.raw[self.n_raw] = Span(<uint32_t>offset, <uint32_t>nbytes)
        self.n_raw += 1
        return 0

    cdef InputTensor input_at(self, size_t index):
        return <InputTensor>self.inputs[index]

    cdef Span* raw_at(self, size_t index) except NULL:
        if index >= self.n_raw:
            raise IndexError(f"raw_input_contents[{index}] of {self.n_raw}")
        return &self.raw[index]


cdef class Reader:
    """The state of one pass: where the message begins, to tell offsets."""

    cdef const uint8_t* start
    cdef Request request
    cdef list inputs
    cdef list outputs
    cdef size_t n_parts
    cdef size_t n_values

    cdef int part(self, Cursor* c, Cursor* span, str path) except -1:
        """The bytes of one more part."""
        self.n_parts += 1
        self.check(MANY_PARTS if self.n_parts > MAX_PARTS else read_span(c, span), c, path)
        return 0

    cdef int check(self, Status status, Cursor* c, str path) except -1:
        """The one place that turns a status into an exception."""
        if status == OK:
            return 0
        raise WireError(REASONS[status], path or "message", c.at - self.start)

    cdef str text(self, Cursor* c, str path):
        cdef Cursor span
        self.check(read_span(c, &span), c, path)
        try:
            return PyUnicode_DecodeUTF8(<char*>span.at, span.end - span.at, NULL)
        except UnicodeDecodeError as error:
            span.at += error.start
            self.check(BAD_UTF8, &span, path)

    cdef int message(self, Cursor c) except -1:
        cdef uint32_t field = 0
        cdef uint32_t wire_type = 0
        cdef Cursor span
        cdef Request request = self.request
        while c.at != c.end:
            self.check(read_tag(&c, &field, &wire_type), &c, "")
            if wire_type != DELIMITED or field > 7:
                self.check(skip_field(&c, field, wire_type, MAX_DEPTH), &c, "")
            elif field == 1:
                request.model_name = self.text(&c, "model_name")
            elif field == 2:
                request.model_version = self.text(&c, "model_version")
            elif field == 3:
                request.id = self.text(&c, "id")
            elif field == 4:
                self.part(&c, &span, "parameters")
                if request.parameters is NO_PARAMETERS:
                    request.parameters = {}
                self.parameter(span, request.parameters, "parameters", MAX_DEPTH - 1)
            elif field == 5:
                self.part(&c, &span, "inputs")
                self.input(span)
            elif field == 6:
                self.part(&c, &span, "outputs")
                self.output(span)
            else:
                self.part(&c, &span, "raw_input_contents")
                request.add_raw(span.at - self.start, span.end - span.at)
        return 0

    cdef int strings(self, Cursor c, dict names) except -1:
        """A message in which only strings are looked at, for its faults."""
        cdef uint32_t field = 0
        cdef uint32_t wire_type = 0
        while c.at != c.end:
            self.check(read_tag(&c, &field, &wire_type), &c, "")
            if wire_type == DELIMITED and field in names:
                self.text(&c, names[field])
            else:
                self.check(skip_field(&c, field, wire_type, MAX_DEPTH), &c, "")
        return 0

    cdef str path(self, str kind, str leaf):
        """Where the reader is, for an error: `inputs[2].shape`."""
        index = len(self.inputs) if kind == "inputs" else len(self.outputs)
        return f"{kind}[{index}].{leaf}" if leaf else f"{kind}[{index}]"

    cdef int input(self, Cursor c) except -1:
        cdef uint32_t field = 0
        cdef uint32_t wire_type = 0
        cdef Cursor span
        cdef InputTensor tensor = InputTensor.__new__(InputTensor)
        cdef list shape = []
        cdef Status status
        while c.at != c.end:
            status = read_tag(&c, &field, &wire_type)
            if status != OK:
                self.check(status, &c, self.path("inputs", ""))
            if field == 1 and wire_type == DELIMITED:
                tensor.name = self.input_text(&c, "name")
            elif field == 2 and wire_type == DELIMITED:
                tensor.datatype = self.input_text(&c, "datatype")
            elif field == 3 and wire_type in (VARINT, DELIMITED):
                status = read_shape(&c, wire_type, shape, &self.n_parts)
                if status != OK:
                    self.check(status, &c, self.path("inputs", "shape"))
            elif field == 4 and wire_type == DELIMITED:
                path = self.path("inputs", "parameters")
                self.part(&c, &span, path)
                if tensor.parameters is NO_PARAMETERS:
                    tensor.parameters = {}
                self.parameter(span, tensor.parameters, path, MAX_DEPTH - 2)
            elif field == 5 and wire_type == DELIMITED:
                status = read_span(&c, &span)
                if status != OK:
                    self.check(status, &c, self.path("inputs", "contents"))
                tensor.has_contents = True
                self.contents(span, tensor)
            else:
                status = skip_field(&c, field, wire_type, MAX_DEPTH - 1)
                if status != OK:
                    self.check(status, &c, self.path("inputs", ""))
        tensor.shape = tuple(shape)
        self.inputs.append(tensor)
        return 0

    cdef str input_text(self, Cursor* c, str leaf):
        # The path is put together for errors only.
        cdef Cursor begin = c[0]
        try:
            return self.text(c, "")
        except WireError:
            c[0] = begin
            return self.text(c, self.path("inputs", leaf))

    cdef int output(self, Cursor c) except -1:
        cdef uint32_t field = 0
        cdef uint32_t wire_type = 0
        cdef Cursor span
        cdef str name = ""
        cdef str path = self.path("outputs", "")
        while c.at != c.end:
            self.check(read_tag(&c, &field, &wire_type), &c, path)
            if field == 1 and wire_type == DELIMITED:
                name = self.text(&c, self.path("outputs", "name"))
            elif field == 2 and wire_type == DELIMITED:
                # Read for its faults; nothing is asked of an output but its name.
                self.part(&c, &span, self.path("outputs", "parameters"))
                self.parameter(span, {}, self.path("outputs", "parameters"), MAX_DEPTH - 2)
            else:
                self.check(skip_field(&c, field, wire_type, MAX_DEPTH - 1), &c, path)
        self.outputs.append(name)
        return 0

    cdef int parameter(self, Cursor c, dict parameters, str path, int depth) except -1:
        """An entry of a map: key 1, value 2, either of which may be missing.

        An entry with anything else in it is an unknown field as a whole, to protobuf in Python.
        """
        cdef uint32_t field = 0
        cdef uint32_t wire_type = 0
        cdef Cursor span
        cdef bint known = True
        cdef str key = ""
        cdef object value = Parameter("", None)
        while c.at != c.end:
            self.check(read_tag(&c, &field, &wire_type), &c, path)
            if field == 1 and wire_type == DELIMITED:
                key = self.text(&c, path)
            elif field == 2 and wire_type == DELIMITED:
                self.check(read_span(&c, &span), &c, path)
                value = self.choice(span, value, path, depth - 1)
            else:
                self.check(skip_field(&c, field, wire_type, depth), &c, path)
                known = False
        if known:
            parameters[key] = value
        return 0

    cdef object choice(self, Cursor c, object value, str path, int depth):
        """An InferParameter merged onto `value`: of a oneof, the last member counts."""
        cdef uint32_t field = 0
        cdef uint32_t wire_type = 0
        cdef uint64_t number = 0
        cdef double real
        while c.at != c.end:
            self.check(read_tag(&c, &field, &wire_type), &c, path)
            if wire_type == VARINT and field in (1, 2, 5):
                self.check(read_varint(&c, &number), &c, path)
                if field == 1:
                    value = Parameter("bool_param", number != 0)
                elif field == 2:
                    value = Parameter("int64_param", <int64_t>number)
                else:
                    value = Parameter("uint64_param", number)
            elif wire_type == DELIMITED and field == 3:
                value = Parameter("string_param", self.text(&c, path))
            elif wire_type == FIXED64 and field == 4:
                self.check(skip_fixed(&c, 8), &c, path)
                memcpy(&real, c.at - 8, 8)
                value = Parameter("double_param", real)
            else:
                self.check(skip_field(&c, field, wire_type, depth), &c, path)
        return value

    cdef int contents(self, Cursor c, InputTensor tensor) except -1:
        """Note where values are; sizes and varints are checked, values are not decoded."""
        cdef uint32_t field = 0
        cdef uint32_t wire_type = 0
        cdef Cursor span
        cdef const uint8_t* begin
        cdef size_t count
        cdef Status status
        while c.at != c.end:
            status = read_tag(&c, &field, &wire_type)
            if status == OK and 1 <= field <= 8 and is_contents(field, wire_type):
                count = 1
                if wire_type == DELIMITED:
                    status = read_span(&c, &span)
                    if status == OK and field != 8:
                        begin = span.at
                        status = count_packed(&span, field, &count)
                        if status != OK:
                            c.at = span.at
                        span.at = begin
                else:
                    span.at = c.at
                    status = skip_field(&c, field, wire_type, 0)
                    span.end = c.at
                self.n_values += 1
                if status == OK and self.n_values > MAX_VALUES:
                    status = MANY_VALUES
                if status == OK:
                    tensor.add_chunk(field, wire_type == DELIMITED, span.at - self.start,
                                     span.end - span.at, count)
                if status != OK:
                    self.check(
                        status, &c, self.path("inputs", f"contents.{CONTENTS_FIELDS[field]}"))
            elif status == OK:
                status = skip_field(&c, field, wire_type, MAX_DEPTH - 2)
            if status != OK:
                self.check(status, &c, self.path("inputs", "contents"))
        return 0


cdef inline bint is_contents(uint32_t field, uint32_t wire_type) noexcept nogil:
    """Whether the wire type is one that the field is sent as: packed, or one by one."""
    if wire_type == DELIMITED:
        return True
    if field == 6:
        return wire_type == FIXED32
    if field == 7:
        return wire_type == FIXED64
    return field <= 5 and wire_type == VARINT


cdef inline Status count_packed(Cursor* span, uint32_t field, size_t* count) noexcept nogil:
    cdef size_t nbytes = <size_t>(span.end - span.at)
    cdef size_t itemsize
    if field <= 5:
        return count_varints(span, count)
    itemsize = 4 if field == 6 else 8
    if nbytes % itemsize:
        return BAD_PACKING
    count[0] = nbytes // itemsize
    return OK


cdef Status read_shape(Cursor* c, uint32_t wire_type, list shape, size_t* n_parts):
    cdef Cursor span
    cdef Status status
    if wire_type == VARINT:
        return read_dimension(c, shape, n_parts)
    status = read_span(c, &span)
    while status == OK and span.at != span.end:
        status = read_dimension(&span, shape, n_parts)
        if status != OK:
            c.at = span.at
    return status


cdef Status read_dimension(Cursor* c, list shape, size_t* n_parts):
    cdef uint64_t size = 0
    cdef Status status = read_varint(c, &size)
    n_parts[0] += 1
    if status == OK and n_parts[0] > MAX_PARTS:
        return MANY_PARTS
    if status == OK:
        shape.append(<int64_t>size)
    return status


def read_request(bytes data not None):
    cdef Reader reader = Reader.__new__(Reader)
    cdef Cursor c
    cdef Request request = Request.__new__(Request)
    request.data = data
    reader.request = request
    reader.inputs = []
    reader.outputs = []
    c.at = reader.start = <const uint8_t*>PyBytes_AS_STRING(data)
    c.end = c.at + PyBytes_GET_SIZE(data)
    # As protobuf; offsets within the message have 32 bits.
    reader.check(BAD_LENGTH if PyBytes_GET_SIZE(data) > 0x7FFFFFFF else OK, &c, "")
    reader.message(c)
    request.inputs = tuple(reader.inputs)
    request.outputs = tuple(reader.outputs)
    return request


def check_strings(bytes data not None, dict names not None):
    cdef Reader reader = Reader.__new__(Reader)
    cdef Cursor c
    c.at = reader.start = <const uint8_t*>PyBytes_AS_STRING(data)
    c.end = c.at + PyBytes_GET_SIZE(data)
    reader.strings(c, names)
