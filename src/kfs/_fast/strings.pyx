# cython: language_level=3
# distutils: language = c++
"""Native strings, as OpenVINO keeps them: an array of std::string."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t
from libc.string cimport memcpy
from libcpp.string cimport string

from kfs._fast.contents cimport Item, visit_items
from kfs._fast.wire cimport Request

from kfs._fast.contents import count as count_contents
from kfs._fast.contents import raw_item_count

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


cdef class StringArray:

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
        cdef Py_ssize_t n
        if request.n_raw:
            n = raw_item_count(request, index)
        else:
            n = count_contents(request, index, 8)
        if n < 0:
            raise ValueError("the raw framing is broken")
        cdef StringArray array = StringArray.empty(n)
        cdef Filling filling = Filling(array.items_, array.count, True)
        visit_items(request, index, assign_next, &filling)
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
        """Each string after its length; `to` has `framed_size` bytes."""
        cdef uint32_t size
        cdef size_t i
        for i in range(self.count):
            size = <uint32_t>self.items_[i].size()
            memcpy(to, &size, 4)
            memcpy(to + 4, self.items_[i].data(), size)
            to += 4 + <size_t>size
