# cython: language_level=3
# distutils: language = c++
"""The response writer: measure, allocate one `bytes`, fill it, see that it is exactly full.

Everything but the tensors is small and goes into a head; the tensors go straight to their place.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from kfs._fast.memory cimport view_of
from kfs._fast.strings cimport Elements

from kfs.errors import RESPONSE_TOO_LARGE, ServingError
from kfs.settings import MAX_MESSAGE_NBYTES

# Copies of more bytes than this are made without the GIL.
cdef enum:
    LONG_COPY = 65536

cdef size_t MAX_NBYTES = MAX_MESSAGE_NBYTES


cdef inline size_t varint_size(uint64_t value) noexcept nogil:
    cdef size_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline char* put_varint(char* to, uint64_t value) noexcept nogil:
    while value >= 0x80:
        to[0] = <char>(value | 0x80)
        to += 1
        value >>= 7
    to[0] = <char>value
    return to + 1


cdef inline char* put_bytes(char* to, const char* data, size_t size) noexcept nogil:
    memcpy(to, data, size)
    return to + size


cdef struct Text:
    const char* data
    size_t size


cdef Text text_of(str text) except *:
    """The UTF-8 form, which the str keeps; valid as long as the str lives."""
    cdef Py_ssize_t size = 0
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    return Text(data, <size_t>size)


cdef inline size_t text_size(Text text) noexcept nogil:
    """What a proto3 string field with a tag of one byte takes; an empty one is left out."""
    return 1 + varint_size(text.size) + text.size if text.size else 0


cdef inline char* put_text(char* to, char tag, Text text) noexcept nogil:
    if not text.size:
        return to
    to[0] = tag
    return put_bytes(put_varint(to + 1, text.size), text.data, text.size)


cdef class Output:
    """One output on its way out: what it says of itself, and where its data is."""

    # Kept alive here for `text`s that point into them.
    cdef str name
    cdef str datatype
    cdef tuple shape
    cdef Text name_text
    cdef Text datatype_text
    cdef size_t shape_size
    cdef size_t meta_size
    cdef size_t nbytes
    # One of two: a buffer, or elements to frame; none when reserved.
    cdef Py_buffer buffer
    cdef bint has_buffer
    cdef Elements elements

    def __dealloc__(self):
        if self.has_buffer:
            PyBuffer_Release(&self.buffer)

    cdef int describe(self, str name, str datatype, shape) except -1:
        cdef int64_t size
        self.name = name
        self.datatype = datatype
        # Exact integers from here on: what is measured is what will be written.
        self.shape = tuple([size for size in shape])
        self.name_text = text_of(name)
        self.datatype_text = text_of(datatype)
        self.shape_size = 0
        for size in self.shape:
            self.shape_size += varint_size(<uint64_t>size)
        self.meta_size = text_size(self.name_text) + text_size(self.datatype_text)
        if self.shape_size:
            self.meta_size += 1 + varint_size(self.shape_size) + self.shape_size
        return 0

    cdef int take(self, data) except -1:
        """Hold the data and learn its size."""
        if isinstance(data, Elements):
            self.elements = data
            self.nbytes = self.elements.framed_size()
        else:
            PyObject_GetBuffer(data, &self.buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
            self.has_buffer = True
            self.nbytes = <size_t>self.buffer.len
        return 0

    cdef char* put_meta(self, char* to) except NULL:
        cdef int64_t size
        to[0] = 0x2A
        to = put_varint(to + 1, self.meta_size)
        to = put_text(to, 0x0A, self.name_text)
        to = put_text(to, 0x12, self.datatype_text)
        if self.shape_size:
            to[0] = 0x1A
            to = put_varint(to + 1, self.shape_size)
            for size in self.shape:
                to = put_varint(to, <uint64_t>size)
        return to

    cdef int put_data(self, char* to) except -1:
        if self.has_buffer:
            if self.nbytes > LONG_COPY:
                with nogil:
                    memcpy(to, self.buffer.buf, self.nbytes)
            else:
                memcpy(to, self.buffer.buf, self.nbytes)
        elif self.elements is not None:
            if self.nbytes > LONG_COPY:
                with nogil:
                    self.elements.write_framed(to)
            else:
                self.elements.write_framed(to)
        return 0


cdef bytes parameter_entries(parameters):
    """The map of parameters, each an entry of field 4; rare and small, so plain Python."""
    out = bytearray()
    for key, (kind, value) in parameters.items():
        choice = parameter_choice(kind, value)
        entry = delimited(0x0A, key.encode()) + delimited(0x12, choice)
        out += delimited(0x22, entry)
    return bytes(out)


cdef bytes delimited(int tag, bytes data):
    return bytes([tag]) + varint(len(data)) + data


cdef bytes varint(uint64_t value):
    cdef char[10] digits
    cdef char* end = put_varint(digits, value)
    return digits[:end - digits]


cdef bytes parameter_choice(str kind, value):
    cdef double real
    if kind == "bool_param":
        return b"\x08" + varint(1 if value else 0)
    if kind == "int64_param":
        return b"\x10" + varint(<uint64_t><int64_t>value)
    if kind == "string_param":
        return delimited(0x1A, value.encode())
    if kind == "double_param":
        real = value
        return b"\x21" + (<char*>&real)[:8]
    if kind == "uint64_param":
        return b"\x28" + varint(value)
    return b""


cdef int check_size(size_t nbytes) except -1:
    if nbytes > MAX_NBYTES:
        raise ServingError(
            RESPONSE_TOO_LARGE, f"Expected: at most {MAX_NBYTES} bytes; Actual: {nbytes}")
    return 0


cdef class Writer:
    """One response: its outputs, and the sizes that were measured."""

    cdef Text model_name
    cdef Text model_version
    cdef Text id
    cdef bytes parameters
    cdef list outputs
    cdef bint stream
    cdef size_t inner
    cdef size_t total

    cdef int measure(self) except -1:
        cdef Output output
        cdef size_t size = (
            text_size(self.model_name) + text_size(self.model_version) + text_size(self.id)
            + <size_t>len(self.parameters)
        )
        for output in self.outputs:
            check_size(output.nbytes)
            size += 1 + varint_size(output.meta_size) + output.meta_size
            size += 1 + varint_size(output.nbytes) + output.nbytes
        self.inner = size
        self.total = size + 1 + varint_size(size) if self.stream else size
        check_size(self.total)
        return 0

    cdef bytes write(self, list regions):
        """Fill a fresh message. With `regions`, data is left out and views of its places added."""
        cdef bytes message = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>self.total)
        cdef char* begin = PyBytes_AS_STRING(message)
        cdef char* to = begin
        cdef Output output
        if self.stream:
            to[0] = 0x12
            to = put_varint(to + 1, self.inner)
        to = put_text(to, 0x0A, self.model_name)
        to = put_text(to, 0x12, self.model_version)
        to = put_text(to, 0x1A, self.id)
        to = put_bytes(to, PyBytes_AS_STRING(self.parameters), <size_t>len(self.parameters))
        for output in self.outputs:
            to = output.put_meta(to)
        for output in self.outputs:
            to[0] = 0x32
            to = put_varint(to + 1, output.nbytes)
            if regions is None:
                output.put_data(to)
            else:
                regions.append(view_of(message, to, output.nbytes))
            to += output.nbytes
        if <size_t>(to - begin) != self.total:
            raise RuntimeError(f"a response of {self.total} bytes was filled with {to - begin}")
        return message


cdef Writer new_writer(str model_name, str model_version, str id, parameters, bint stream):
    cdef Writer writer = Writer.__new__(Writer)
    writer.model_name = text_of(model_name)
    writer.model_version = text_of(model_version)
    writer.id = text_of(id)
    writer.parameters = parameter_entries(parameters) if parameters else b""
    writer.outputs = []
    writer.stream = stream
    return writer


def write_response(str model_name not None, str model_version not None, str id not None, outputs,
                   parameters=None, *, bint stream=False):
    cdef Writer writer = new_writer(model_name, model_version, id, parameters, stream)
    cdef Output output
    for name, datatype, shape, data in outputs:
        output = Output.__new__(Output)
        output.describe(name, datatype, shape)
        output.take(data)
        writer.outputs.append(output)
    writer.measure()
    return writer.write(None)


def reserve_response(str model_name not None, str model_version not None, str id not None, outputs,
                     parameters=None, *, bint stream=False):
    cdef Writer writer = new_writer(model_name, model_version, id, parameters, stream)
    cdef Output output
    regions = []
    for name, datatype, shape, nbytes in outputs:
        output = Output.__new__(Output)
        output.describe(name, datatype, shape)
        output.nbytes = nbytes
        writer.outputs.append(output)
    writer.measure()
    return writer.write(regions), regions


def write_error(str message not None):
    return delimited(0x0A, message.encode(errors="replace"))
