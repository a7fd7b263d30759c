# cython: language_level=3
# distutils: language = c++
"""Calls into libraries of custom nodes: without the GIL, and what they throw is caught.

An exception of C++ that met a caller in plain C would end the process.
"""

cdef extern from *:
    """
    #include <cstring>
    #include <exception>

    /* Tell Python of the C++ exception that is being handled. */
    static void tell_thrown() {
        try {
            throw;
        } catch (const std::exception& error) {
            const char* text = error.what();
            PyObject* told = PyUnicode_DecodeUTF8(text, (Py_ssize_t)std::strlen(text), "replace");
            if (told == NULL) return;
            PyErr_SetObject(PyExc_RuntimeError, told);
            Py_DECREF(told);
        } catch (...) {
            PyErr_SetString(PyExc_RuntimeError, "something that is no std::exception");
        }
    }
    """
    void tell_thrown()

# As include/kfs/custom_node.h declares them; structures are the caller's business.
ctypedef int (*Initialize)(void**, const void*, int) except +tell_thrown nogil
ctypedef int (*Deinitialize)(void*) except +tell_thrown nogil
ctypedef int (*Execute)(
    const void*, int, void**, int*, const void*, int, void*) except +tell_thrown nogil
ctypedef int (*Describe)(void**, int*, const void*, int, void*) except +tell_thrown nogil
ctypedef int (*Release)(void*, void*) except +tell_thrown nogil


cdef class Functions:
    # The library stays open for the life of the process, so these stay valid.
    cdef Initialize _initialize
    cdef Deinitialize _deinitialize
    cdef Execute _execute
    cdef Describe _inputs
    cdef Describe _outputs
    cdef Release _release

    def __cinit__(self, size_t initialize, size_t deinitialize, size_t execute,
                  size_t get_inputs_info, size_t get_outputs_info, size_t release):
        self._initialize = <Initialize><void*>initialize
        self._deinitialize = <Deinitialize><void*>deinitialize
        self._execute = <Execute><void*>execute
        self._inputs = <Describe><void*>get_inputs_info
        self._outputs = <Describe><void*>get_outputs_info
        self._release = <Release><void*>release

    def initialize(self, size_t manager, size_t params, int n_params):
        cdef int code
        with nogil:
            code = self._initialize(<void**>manager, <void*>params, n_params)
        return code

    def deinitialize(self, size_t manager):
        cdef int code
        with nogil:
            code = self._deinitialize(<void*>manager)
        return code

    def execute(self, size_t inputs, int n_inputs, size_t outputs, size_t n_outputs,
                size_t params, int n_params, size_t manager):
        cdef int code
        with nogil:
            code = self._execute(
                <void*>inputs, n_inputs, <void**>outputs, <int*>n_outputs,
                <void*>params, n_params, <void*>manager)
        return code

    def get_inputs_info(self, size_t infos, size_t n_infos, size_t params, int n_params,
                        size_t manager):
        cdef int code
        with nogil:
            code = self._inputs(
                <void**>infos, <int*>n_infos, <void*>params, n_params, <void*>manager)
        return code

    def get_outputs_info(self, size_t infos, size_t n_infos, size_t params, int n_params,
                         size_t manager):
        cdef int code
        with nogil:
            code = self._outputs(
                <void**>infos, <int*>n_infos, <void*>params, n_params, <void*>manager)
        return code

    def release(self, size_t memory, size_t manager):
        cdef int code
        with nogil:
            code = self._release(<void*>memory, <void*>manager)
        return code
