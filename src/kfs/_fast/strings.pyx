# cython: language_level=3
# distutils: language = c++
"""Elements of BYTES on their way out: strings as OpenVINO keeps them, and rows of a matrix."""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcpy
from libcpp.string cimport string

from kfs._fast.contents cimport Item, Items, items_of, n_items, visit_items
from kfs._fast.wire cimport Request

cdef extern from *:
    """
    #include <string>
    #include <new>
    static std::string* new_strings(size_t n) { return new (std::nothrow) std::string[n]; }
    static void delete_strings(std::string* items) { delete[] items; }
    static bool assign_string(std::string* to, const char* data, size_t n) {
        try { to->assign(data, n); return true; } catch (...) { return false; }
    }
    """
    string* new_strings(size_t n) noexcept nogil
    void delete_strings(string* items) noexcept nogil
    bint assign_string(string* to, const char* data, size_t n) noexcept nogil

ITEMSIZE = sizeof(string)

# Work on more bytes than this is done without the GIL.
cdef enum:
    LONG_WORK = 65536


cdef inline char* put_framed(char* to, const char* data, size_t nbytes) noexcept nogil:
    cdef uint32_t size = <uint32_t>nbytes
    memcpy(to, &size, 4)
    memcpy(to + 4, data, nbytes)
    return to + 4 + nbytes


cdef class Elements:

    cdef size_t framed_size(self) noexcept nogil:
        """Bytes on the wire, each element with its length in four of them."""
        return 0

    cdef void write_framed(self, char* to) noexcept nogil:
        """Each element after its length; `to` has `framed_size` bytes."""


cdef struct Filling:
    string* to
    size_t left
    bint enough_memory


cdef bint assign_next(void* state, Item item) noexcept nogil:
    cdef Filling* filling = <Filling*>state
    if not filling.left or not assign_string(filling.to, item.data, item.nbytes):
        filling.enough_memory = False
        return False
    filling.to += 1
    filling.left -= 1
    return True


cdef class StringArray(Elements):

    def __init__(self):
        raise TypeError("made by StringArray.of, .empty and .from_request")

    def __dealloc__(self):
        delete_strings(self.items_)

    @staticmethod
    def empty(size_t count):
        cdef StringArray array = StringArray.__new__(StringArray)
        if count > <size_t>0x7FFFFFFFFFFFFFFF // sizeof(string):
            raise MemoryError
        array.items_ = new_strings(count)
        if array.items_ == NULL:
            raise MemoryError
        array.count = count
        return array

    @staticmethod
    def of(items):
        cdef StringArray array = StringArray.empty(len(items))
        cdef Py_buffer buffer
        cdef size_t i
        cdef bint enough
        for i in range(array.count):
            PyObject_GetBuffer(items[i], &buffer, PyBUF_SIMPLE)
            enough = assign_string(&array.items_[i], <char*>buffer.buf, <size_t>buffer.len)
            PyBuffer_Release(&buffer)
            if not enough:
                raise MemoryError
        return array

    @staticmethod
    def from_request(Request request not None, size_t index):
        cdef StringArray array = StringArray.empty(n_items(request, index))
        cdef Filling filling = Filling(array.items_, array.count, True)
        cdef Items items = items_of(request, index)
        visit_items(&items, assign_next, &filling)
        if not filling.enough_memory:
            raise MemoryError
        return array

    def __len__(self):
        return self.count

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        # The strings themselves, for OpenVINO to read or assign; not their characters.
        PyBuffer_FillInfo(
            buffer, self, self.items_, <Py_ssize_t>(self.count * sizeof(string)), 0, flags)

    def items(self):
        cdef size_t i
        return [self.items_[i].data()[:self.items_[i].size()] for i in range(self.count)]

    @property
    def framed_nbytes(self):
        return self.framed_size()

    cdef size_t framed_size(self) noexcept nogil:
        cdef size_t total = 4 * self.count
        cdef size_t i
        for i in range(self.count):
            total += self.items_[i].size()
        return total

    cdef void write_framed(self, char* to) noexcept nogil:
        cdef size_t i
        for i in range(self.count):
            to = put_framed(to, self.items_[i].data(), self.items_[i].size())


cdef class Rows(Elements):

    def __cinit__(self, matrix not None):
        PyObject_GetBuffer(matrix, &self.matrix, PyBUF_C_CONTIGUOUS)
        if self.matrix.ndim != 2 or self.matrix.itemsize != 1:
            raise ValueError("rows are those of a matrix of bytes")
        if self.matrix.shape[0] and not self.matrix.shape[1]:
            raise ValueError("rows without a byte have no end")  # and take no memory, however many
        # It is asked for more than once.
        if self.matrix.len > LONG_WORK:
            with nogil:
                self.nbytes = self.measure()
        else:
            self.nbytes = self.measure()

    def __dealloc__(self):
        PyBuffer_Release(&self.matrix)

    cdef Item row(self, size_t index) noexcept nogil:
        cdef size_t width = <size_t>self.matrix.shape[1]
        cdef const char* data = <const char*>self.matrix.buf + index * width
        cdef const char* zero = <const char*>memchr(data, 0, width)
        return Item(data, width if zero == NULL else <size_t>(zero - data))

    cdef size_t measure(self) noexcept nogil:
        cdef size_t total = 0
        cdef size_t i
        for i in range(<size_t>self.matrix.shape[0]):
            total += 4 + self.row(i).nbytes
        return total

    cdef size_t framed_size(self) noexcept nogil:
        return self.nbytes

    cdef void write_framed(self, char* to) noexcept nogil:
        cdef Item row
        cdef size_t i
        for i in range(<size_t>self.matrix.shape[0]):
            row = self.row(i)
            to = put_framed(to, row.data, row.nbytes)
