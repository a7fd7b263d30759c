"""Custom nodes in shared objects, through the C interface of OpenVINO Model Server.

Who owns what: the library allocates what it returns and the server gives it back with the
library's own `release`: dims at once, arrays of structures at once, data when its last user is
gone. Names are never released. Functions are called without the GIL, and what they throw is caught.

include/kfs/custom_node.h declares the same interface in C.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfs import errors
from kfs._fast.library import Functions
from kfs.datatypes import DATATYPES, UNSUPPORTED, Datatype
from kfs.errors import ServingError
from kfs.servables.pipeline.faults import PipelineError
from kfs.signature import ANY, Dim, Signature, TensorSpec, format_shape
from kfs.tensors.arrays import Array, StringTensor, Tensor, TensorMap

_log = logging.getLogger("kfs.custom_node")

# By their numbers in the interface; 0 is a type it does not know.
_PRECISIONS = ("", "FP32", "FP16", "UINT8", "INT8", "INT16", "UINT16", "INT32", "FP64", "INT64")
_NUMBER_OF = {DATATYPES[name].numpy: n for n, name in enumerate(_PRECISIONS) if name}

_UINT64_MAX = (1 << 64) - 1
# More than numpy takes; whoever says so has not filled its structures.
_MAX_RANK = 32
_DIMS = [ctypes.c_uint64 * rank for rank in range(65)]  # as many as numpy has
_MAX_TENSORS = 100_000
_MAX_SIZE = (1 << 63) - 1


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("nbytes", ctypes.c_uint64),
        ("dims", ctypes.POINTER(ctypes.c_uint64)),
        ("n_dims", ctypes.c_uint64),
        ("precision", ctypes.c_int),
    )


class _Info(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dims", ctypes.POINTER(ctypes.c_uint64)),
        ("n_dims", ctypes.c_uint64),
        ("precision", ctypes.c_int),
    )


class _Param(ctypes.Structure):
    _fields_ = (("key", ctypes.c_char_p), ("value", ctypes.c_char_p))


_FUNCTIONS = (
    "initialize", "deinitialize", "execute", "getInputsInfo", "getOutputsInfo", "release",
)  # fmt: skip


def _open(path: Path) -> ctypes.CDLL:
    """Bound lazily and with symbols of its own, since every library exports the same names."""
    loader = ctypes.CDLL(None)
    loader.dlopen.restype = ctypes.c_void_p
    loader.dlopen.argtypes = (ctypes.c_char_p, ctypes.c_int)
    loader.dlerror.restype = ctypes.c_char_p
    # ctypes itself would bind everything at once.
    handle = loader.dlopen(os.fsencode(path), os.RTLD_LAZY | os.RTLD_LOCAL)
    if not handle:
        reason = (loader.dlerror() or b"").decode(errors="replace")
        raise PipelineError("NODE_LIBRARY_LOAD_FAILED_OPEN", f"cannot open {path}: {reason}")
    return ctypes.CDLL(str(path), handle=handle)


class SharedLibrary:
    """An opened shared object with the six functions."""

    def __init__(self, path: Path) -> None:
        self._library = _open(path)
        addresses = []
        for name in _FUNCTIONS:
            try:
                addresses.append(_pointer(getattr(self._library, name)))
            except AttributeError:
                raise PipelineError(
                    "NODE_LIBRARY_LOAD_FAILED_SYM",
                    f"{path} does not export {name}; needed are {', '.join(_FUNCTIONS)}",
                ) from None
        self._functions = Functions(*addresses)

    def initialize(self, params: Mapping[str, str]) -> SharedNode:
        return SharedNode(self._functions, params)


class _Memory:
    """Memory of a library, as numpy asks for it; it lives as long as arrays over it."""

    def __init__(self, address: int, datatype: str, dims: tuple[int, ...]) -> None:
        self.__array_interface__ = {
            "data": (address, False), "typestr": datatype, "shape": dims, "version": 3,
        }  # fmt: skip


class _Manager:
    """What `initialize` made, alive until closed and until its last output is given back."""

    def __init__(self, functions: Functions, pointer: int) -> None:
        self.pointer = pointer
        self._functions = functions
        self._lock = threading.Lock()
        self._n_users = 1

    def release(self, memory: int) -> None:
        """Hand memory back to the library."""
        _give_back(self._functions.release, memory, self.pointer)

    def adopt(self, tensor: _Tensor, datatype: Datatype, dims: tuple[int, ...]) -> Array:
        """The library's memory as an array; given back when nobody uses it any more."""
        address: int = tensor.data
        memory = _Memory(address, datatype.numpy, dims)
        with self._lock:
            self._n_users += 1
        weakref.finalize(memory, self._drop, address)
        # The array holds on to `memory`, and so do views of it.
        array: Array = np.asarray(memory)
        return array

    def _drop(self, address: int) -> None:
        self.release(address)
        self.leave()

    def leave(self) -> None:
        """One user less; the last one ends it."""
        with self._lock:
            self._n_users -= 1
            if self._n_users:
                return
        _give_back(self._functions.deinitialize, self.pointer)


def _give_back(function: Callable[..., int], *arguments: int) -> None:
    """Call what gives something back; whoever used it is done, so a fault is only logged."""
    try:
        code = function(*arguments)
    except RuntimeError as error:
        _log.warning("%s of a custom node threw %s", function.__name__, str(error))
        return
    if code:
        _log.warning("%s of a custom node returned %d", function.__name__, code)


class SharedNode:
    """A shared object initialized for one node."""

    def __init__(self, functions: Functions, params: Mapping[str, str]) -> None:
        self._functions = functions
        self._n_params = len(params)
        pairs = [_Param(key.encode(), value.encode()) for key, value in params.items()]
        self._array = (_Param * len(pairs))(*pairs)  # held for its address
        self._params = ctypes.addressof(self._array) if pairs else 0
        pointer = ctypes.c_void_p()
        try:
            code = functions.initialize(ctypes.addressof(pointer), self._params, self._n_params)
        except RuntimeError as error:
            raise PipelineError(
                "NODE_LIBRARY_INITIALIZE_FAILED", f"initialize threw {error}"
            ) from error
        if code:
            raise PipelineError("NODE_LIBRARY_INITIALIZE_FAILED", f"initialize returned {code}")
        self._manager = _Manager(functions, pointer.value or 0)
        self._is_open = True

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._manager.leave()

    def describe(self) -> Signature:
        functions = self._functions
        return Signature.of(
            self._describe("getInputsInfo", functions.get_inputs_info),
            self._describe("getOutputsInfo", functions.get_outputs_info),
        )

    def _describe(self, function: str, describe: Callable[..., int]) -> list[TensorSpec]:
        infos = ctypes.POINTER(_Info)()
        count = ctypes.c_int(0)
        try:
            code = describe(
                ctypes.addressof(infos), ctypes.addressof(count), self._params, self._n_params,
                self._manager.pointer,
            )  # fmt: skip
        except RuntimeError as error:
            raise PipelineError(
                "NODE_LIBRARY_METADATA_FAILED", f"{function} threw {error}"
            ) from error
        if code:
            raise PipelineError("NODE_LIBRARY_METADATA_FAILED", f"{function} returned {code}")
        if not infos:
            raise PipelineError("NODE_LIBRARY_OUTPUTS_CORRUPTED", f"{function} gave a null pointer")
        try:
            if not 0 < count.value <= _MAX_TENSORS:
                raise PipelineError(
                    "NODE_LIBRARY_OUTPUTS_CORRUPTED_COUNT", f"{function} gave {count.value} tensors"
                )
            return self._read_infos(function, infos[: count.value])
        finally:
            self._manager.release(_pointer(infos))

    def _read_infos(self, function: str, infos: Sequence[_Info]) -> list[TensorSpec]:
        specs: dict[str, TensorSpec] = {}
        fault: PipelineError | None = None
        for info in infos:
            dims = _read_dims(info)
            if info.dims:
                self._manager.release(_pointer(info.dims))
            if dims is None or any(_MAX_SIZE < n < _UINT64_MAX for n in dims):
                fault = PipelineError(
                    "NODE_LIBRARY_OUTPUTS_CORRUPTED",
                    f"{function} gave {info.n_dims} dimensions that cannot be those of a tensor",
                )
            elif info.name is not None:
                name = info.name.decode(errors="replace")
                shape = tuple(ANY if n in (0, _UINT64_MAX) else Dim(n, n) for n in dims)
                specs.setdefault(
                    name, TensorSpec(name, _datatype(info.precision) or UNSUPPORTED, shape, "...")
                )
        if fault is not None:
            raise fault
        return list(specs.values())

    def execute(self, inputs: Mapping[str, Tensor]) -> TensorMap:
        given = (_Tensor * len(inputs))()
        kept = []  # memory that the structures point to
        for place, (name, tensor) in zip(given, inputs.items(), strict=True):
            kept.append(_fill(place, name, tensor))
        outputs = ctypes.POINTER(_Tensor)()
        count = ctypes.c_int(0)
        try:
            code = self._functions.execute(
                ctypes.addressof(given), len(inputs), ctypes.addressof(outputs),
                ctypes.addressof(count), self._params, self._n_params, self._manager.pointer,
            )  # fmt: skip
        except RuntimeError as error:
            raise ServingError(errors.CUSTOM_NODE_FAILED, f"execute threw {error}") from error
        if code:
            raise ServingError(errors.CUSTOM_NODE_FAILED, f"execute returned {code}")
        if not outputs:
            raise _corrupted("execute gave a null pointer for its outputs")
        try:
            if not 0 < count.value <= _MAX_TENSORS:
                raise _corrupted(f"execute gave {count.value} outputs")
            return self._adopt_outputs(outputs[: count.value], given)
        finally:
            self._manager.release(_pointer(outputs))

    def _adopt_outputs(self, outputs: Sequence[_Tensor], given: Iterable[_Tensor]) -> TensorMap:
        """Every tensor is taken over or given back, also after a fault; the first fault counts."""
        tensors: TensorMap = {}
        fault: ServingError | None = None
        for tensor in outputs:
            dims = _read_dims(tensor)
            if tensor.dims:
                self._manager.release(_pointer(tensor.dims))
            is_given = tensor.data and any(_lies_in(tensor.data, place) for place in given)
            wrong = "an output is an input's memory" if is_given else _find_fault(tensor, dims)
            if wrong is not None:
                if tensor.data and not is_given:
                    self._manager.release(tensor.data)
                fault = fault or _corrupted(wrong)
                continue
            assert dims is not None  # _find_fault saw to it
            datatype = _datatype(tensor.precision)
            assert datatype is not None
            array = self._manager.adopt(tensor, datatype, dims)
            tensors.setdefault(tensor.name.decode(errors="replace"), array)
        if fault is not None:
            raise fault
        return tensors


def _fill(place: _Tensor, name: str, tensor: Tensor) -> object:
    """Point a structure at a tensor; what is returned has to live as long as the structure."""
    if isinstance(tensor, StringTensor):
        raise ServingError(errors.DEMULTIPLY_STRING, f"input: {name} custom nodes take no strings")
    # A payload lies anywhere in its request, but compilers take a float* to point at a float.
    array: Array = tensor if tensor.flags.aligned else tensor.copy()
    dims = _DIMS[array.ndim](*array.shape)
    place.name = name.encode()
    place.data = array.__array_interface__["data"][0]
    place.nbytes = array.nbytes
    place.dims = dims
    place.n_dims = array.ndim
    place.precision = _NUMBER_OF.get(array.dtype.str, 0)
    return array, dims


def _datatype(precision: int) -> Datatype | None:
    return DATATYPES[_PRECISIONS[precision]] if 0 < precision < len(_PRECISIONS) else None


def _read_dims(described: _Tensor | _Info) -> tuple[int, ...] | None:
    """The dimensions; None when they cannot be those of a tensor."""
    count: int = described.n_dims
    if count > _MAX_RANK or (count and not described.dims):
        return None
    return tuple(described.dims[:count]) if count else ()


def _pointer(value: Any) -> int:
    """The address in a pointer or of a function; 0 for NULL."""
    return ctypes.cast(value, ctypes.c_void_p).value or 0


def _lies_in(address: int, given: _Tensor) -> bool:
    start: int = given.data or 0
    nbytes: int = given.nbytes
    return start <= address < start + max(nbytes, 1)


def _find_fault(tensor: _Tensor, dims: tuple[int, ...] | None) -> str | None:
    if tensor.name is None:
        return "an output has no name"
    name = tensor.name.decode(errors="replace")
    datatype = _datatype(tensor.precision)
    if datatype is None:
        return f"output {name} has the unknown precision {tensor.precision}"
    if dims is None:
        return f"output {name} has {tensor.n_dims} dimensions that cannot be read"
    if math.prod(filter(None, dims)) * datatype.itemsize > _MAX_SIZE:
        return f"output {name} has the shape {format_shape(dims)}, which no tensor has"
    expected = math.prod(dims) * datatype.itemsize
    if not tensor.data:
        return f"output {name} has no data; a pointer is needed even to nothing"
    if tensor.nbytes != expected:
        return (
            f"output {name} has {tensor.nbytes} bytes; {format_shape(dims)} of {datatype.label} "
            f"takes {expected}"
        )
    return None


def _corrupted(text: str) -> ServingError:
    return ServingError(errors.CUSTOM_NODE_OUTPUTS_CORRUPTED, text)
