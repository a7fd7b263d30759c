# cython: language_level=3
"""The tensor of Python handlers: a buffer with a name, a shape and a datatype."""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_GET_BUFFER

_DATATYPES = {
    "?": "BOOL", "b": "INT8", "B": "UINT8", "h": "INT16", "H": "UINT16", "i": "INT32",
    "I": "UINT32", "q": "INT64", "Q": "UINT64", "e": "FP16", "f": "FP32", "d": "FP64",
}
# `l` has the size that C's long has here; numpy writes its int64 so on Linux.
_BY_SIZE = {("l", 8): "INT64", ("L", 8): "UINT64", ("l", 4): "INT32", ("L", 4): "UINT32"}
_FORMATS = {name: (letter.encode(), size) for letter, name, size in (
    ("?", "BOOL", 1), ("b", "INT8", 1), ("B", "UINT8", 1), ("h", "INT16", 2), ("H", "UINT16", 2),
    ("i", "INT32", 4), ("I", "UINT32", 4), ("q", "INT64", 8), ("Q", "UINT64", 8),
    ("e", "FP16", 2), ("f", "FP32", 4), ("d", "FP64", 8),
)}


cdef class Tensor:
    # Memory belongs to what `view` was made of, and lives as long as the view. The sizes and
    # strides below belong to this object; buffers given out point to them, and keep it alive.
    cdef readonly str name
    cdef readonly str datatype
    cdef readonly tuple shape
    cdef readonly object ref_obj
    cdef object view
    cdef bytes format
    cdef void* address
    cdef Py_ssize_t nbytes
    cdef Py_ssize_t itemsize
    cdef int ndim
    cdef Py_ssize_t* sizes

    def __cinit__(self, str name not None, object buffer, shape=None, datatype=None):
        cdef Py_buffer* found
        self.name = name
        self.ref_obj = buffer
        view = memoryview(buffer)
        if "O" in view.format and _holds_objects(view.format):
            # Their addresses would be sent, and mean nothing to whoever reads them.
            raise TypeError(
                f"tensor {name!r}: expected a buffer of numbers or bytes; found Python objects"
            )
        # What the memory is, also where a copy without gaps has to stand for it.
        self.format = view.format.encode()
        self._set_sizes(view.shape, view.itemsize)
        self.shape = view.shape if shape is None else tuple(int(size) for size in shape)
        self.datatype = _datatype_of(view.format, view.itemsize) if datatype is None else datatype
        self.view = view if view.c_contiguous else memoryview(view.tobytes())
        found = PyMemoryView_GET_BUFFER(self.view)
        self.address = found.buf
        self.nbytes = found.len

    def __dealloc__(self):
        PyMem_Free(self.sizes)

    cdef int _set_sizes(self, tuple shape, Py_ssize_t itemsize) except -1:
        """Sizes, then the strides of dense memory."""
        cdef int at
        cdef Py_ssize_t stride = itemsize
        cdef bint is_empty = 0 in shape
        cdef Py_ssize_t* sizes
        sizes = <Py_ssize_t*>PyMem_Malloc((2 * len(shape) + 1) * sizeof(Py_ssize_t))
        if sizes == NULL:
            raise MemoryError()
        PyMem_Free(self.sizes)
        self.sizes = sizes
        self.ndim = len(shape)
        self.itemsize = itemsize
        for at in range(self.ndim - 1, -1, -1):
            sizes[at] = shape[at]
            sizes[self.ndim + at] = stride
            if not is_empty:  # where sizes may be any, and nothing has a place
                stride *= shape[at]
        return 0

    @property
    def size(self):
        return self.nbytes

    @property
    def ptr(self):
        return <size_t>self.address

    @property
    def data(self):
        return memoryview(self)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if flags & PyBUF_WRITABLE == PyBUF_WRITABLE:
            raise BufferError("a Tensor is read-only")
        buffer.obj = self
        buffer.buf = self.address
        buffer.len = self.nbytes
        buffer.itemsize = self.itemsize
        buffer.readonly = 1
        buffer.ndim = self.ndim
        buffer.format = <char*>self.format if flags & PyBUF_FORMAT == PyBUF_FORMAT else NULL
        buffer.shape = self.sizes if flags & PyBUF_ND == PyBUF_ND else NULL
        buffer.strides = (
            self.sizes + self.ndim if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        )
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __repr__(self):
        return f"Tensor({self.name!r}, shape={self.shape}, datatype={self.datatype!r})"


def _datatype_of(str format, Py_ssize_t itemsize):
    """The datatype of a buffer's format; a format without one stands for itself."""
    letter = format[1:] if format[:1] in ("@", "=", "<") else format
    return _DATATYPES.get(letter) or _BY_SIZE.get((letter, itemsize)) or format


def _holds_objects(str format):
    """Whether there are any but for the names of fields, which stand between colons."""
    return "O" in "".join(format.split(":")[::2])


def from_server(
    str name not None, object data not None, tuple shape not None, str datatype not None
):
    cdef Tensor tensor = Tensor(name, data, shape, datatype)
    known = _FORMATS.get(datatype)
    if known is None:
        return tensor
    format, itemsize = known
    count = itemsize
    for size in shape:
        count *= size
    if count != tensor.nbytes:
        raise ValueError(f"{datatype} {shape} is {count} bytes; the data has {tensor.nbytes}")
    tensor.format = format
    tensor._set_sizes(shape, itemsize)
    return tensor
