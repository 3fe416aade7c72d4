"""CUDA's driver by way of ctypes, under the names of `pycuda.driver` that `memory` uses.

For a device on which pycuda was not compiled: JetPack does not bring it, but whatever has a GPU has
the driver. Names, numbers and structures are those of cuda.h, unchanged since CUDA 10.2.
"""

import ctypes
import weakref
from typing import Any, List, Tuple

import numpy as np

LIBRARY = "libcuda.so.1"
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY

_Pointer = ctypes.c_void_p
_Address = ctypes.c_uint64  # CUdeviceptr
_FUNCTIONS = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGet": (_Pointer, ctypes.c_int),
    "cuDeviceGetAttribute": (_Pointer, ctypes.c_int, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (_Pointer, ctypes.c_int),
    "cuCtxPushCurrent_v2": (_Pointer,),
    "cuCtxPopCurrent_v2": (_Pointer,),
    "cuCtxGetCurrent": (_Pointer,),
    "cuMemAlloc_v2": (_Pointer, ctypes.c_size_t),
    "cuMemFree_v2": (_Address,),
    "cuMemHostAlloc": (_Pointer, ctypes.c_size_t, ctypes.c_uint),
    "cuMemHostGetDevicePointer_v2": (_Pointer, _Pointer, ctypes.c_uint),
    "cuMemFreeHost": (_Pointer,),
    "cuMemcpyHtoDAsync_v2": (_Address, _Pointer, ctypes.c_size_t, _Pointer),
    "cuMemcpyDtoHAsync_v2": (_Pointer, _Address, ctypes.c_size_t, _Pointer),
    "cuStreamCreate": (_Pointer, ctypes.c_uint),
    "cuStreamSynchronize": (_Pointer,),
    "cuStreamDestroy_v2": (_Pointer,),
    "cuEventCreate": (_Pointer, ctypes.c_uint),
    "cuEventRecord": (_Pointer, _Pointer),
    "cuEventElapsedTime": (_Pointer, _Pointer, _Pointer),
    "cuEventDestroy_v2": (_Pointer,),
    "cuGetErrorString": (ctypes.c_int, _Pointer),
}


class Error(Exception):
    """CUDA refused, or work on the GPU failed."""


class MemoryError(Error):  # noqa: A001 - pycuda's name
    """The GPU has not so much memory left."""


class device_attribute:  # noqa: N801 - pycuda's name
    """What can be asked about a device."""

    INTEGRATED = 18


class host_alloc_flags:  # noqa: N801 - pycuda's name
    """How host memory is pinned."""

    DEVICEMAP = 2


class _Driver:
    """The library, with the types of what is called in it."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(LIBRARY)
            for name, types in _FUNCTIONS.items():
                getattr(library, name).argtypes = types
        except (OSError, AttributeError) as error:
            raise Error("NVIDIA's driver can't be used: {}".format(error)) from error
        self._library = library

    def __getattr__(self, name: str) -> Any:
        """A function that raises `Error` for what the driver returns; looked up once."""
        function = getattr(self._library, name)

        def call(*arguments: Any) -> None:
            result = function(*arguments)
            if result:
                raise self._error(name, result)

        setattr(self, name, call)
        return call

    def _error(self, function: str, result: int) -> Error:
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(result, ctypes.byref(text))
        words = (text.value or b"error %d" % result).decode("utf-8", "replace")
        kind = MemoryError if result == OUT_OF_MEMORY else Error
        return kind("{} failed: {}".format(function.partition("_")[0], words))


_drivers: List[_Driver] = []  # the one that `init` made
_POPPED = ctypes.byref(_Pointer())  # where the driver says which context it was; nobody asks


def init() -> None:
    """Has to be called before anything else.

    Raises:
        Error: there is no driver, or it finds no GPU.
    """
    if not _drivers:
        driver = _Driver()
        driver.cuInit(0)
        _drivers.append(driver)


def _cuda() -> Any:
    return _drivers[0]


class Device:
    """A GPU, by its number."""

    def __init__(self, number: int) -> None:
        device = ctypes.c_int()
        _cuda().cuDeviceGet(ctypes.byref(device), number)
        self._device = device.value

    def get_attribute(self, attribute: int) -> int:
        """One of `device_attribute`."""
        value = ctypes.c_int()
        _cuda().cuDeviceGetAttribute(ctypes.byref(value), attribute, self._device)
        return value.value

    def retain_primary_context(self) -> "Context":
        """The context that CUDA's runtime uses, and so TensorRT; not pushed."""
        context = _Pointer()
        _cuda().cuDevicePrimaryCtxRetain(ctypes.byref(context), self._device)
        return Context(context)


class Context:
    """A CUDA context; each thread has a stack of them."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def push(self) -> None:
        """Make it current in this thread."""
        _cuda().cuCtxPushCurrent_v2(self._context)

    @staticmethod
    def pop() -> None:
        """Make the one before it current."""
        _cuda().cuCtxPopCurrent_v2(_POPPED)


class _Owned:
    """Something of the driver's that is given back when nobody has it any more."""

    def _give_back(self, function: str, *what: Any) -> None:
        """Say by which call; in whatever thread it is, the context is the one of now."""
        context = _Pointer()
        _cuda().cuCtxGetCurrent(ctypes.byref(context))
        self._finalizer = weakref.finalize(self, _free, Context(context), function, what)
        self._finalizer.atexit = False  # the process's end frees all

    def free(self) -> None:
        """Give it back now."""
        self._finalizer()


def _free(context: Context, function: str, what: Tuple[Any, ...]) -> None:
    context.push()
    try:
        getattr(_cuda(), function)(*what)
    finally:
        context.pop()


class DeviceAllocation(_Owned):
    """Memory on the GPU."""

    def __init__(self, size: int) -> None:
        address = _Address()
        _cuda().cuMemAlloc_v2(ctypes.byref(address), size)
        self._address = address.value
        self._give_back("cuMemFree_v2", self._address)

    def __int__(self) -> int:
        return self._address


mem_alloc = DeviceAllocation


class PagelockedHostAllocation(_Owned):
    """Pinned memory of the processor: the base of an array that `pagelocked_empty` makes."""

    def __init__(self, shape: Tuple[int, ...], dtype: Any, flags: int) -> None:
        dtype, self._start = np.dtype(dtype), _Pointer()
        size = int(np.prod(shape)) * dtype.itemsize
        _cuda().cuMemHostAlloc(ctypes.byref(self._start), size, flags)
        self._give_back("cuMemFreeHost", self._start)
        self.__array_interface__ = {
            "shape": tuple(shape),
            "typestr": dtype.str,
            "data": (self._start.value, False),
            "version": 3,
        }

    def get_device_pointer(self) -> int:
        """Its address for the GPU; for memory that was allocated with DEVICEMAP."""
        address = _Address()
        _cuda().cuMemHostGetDevicePointer_v2(ctypes.byref(address), self._start, 0)
        return address.value


def pagelocked_empty(
    shape: Tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0
) -> np.ndarray:
    """An array in pinned memory, in C order."""
    return np.asarray(PagelockedHostAllocation(shape, dtype, mem_flags))


class Stream(_Owned):
    """Work on the GPU that is done in order."""

    def __init__(self) -> None:
        stream = _Pointer()
        _cuda().cuStreamCreate(ctypes.byref(stream), 0)
        self.handle = int(stream.value or 0)
        self._give_back("cuStreamDestroy_v2", self.handle)

    def synchronize(self) -> None:
        """Wait until all is done."""
        _cuda().cuStreamSynchronize(self.handle)


class Event(_Owned):
    """A moment on a stream."""

    def __init__(self) -> None:
        self._event = _Pointer()
        _cuda().cuEventCreate(ctypes.byref(self._event), 0)
        self._give_back("cuEventDestroy_v2", self._event)

    def record(self, stream: Stream) -> "Event":
        """The moment when what is on a stream now is done."""
        _cuda().cuEventRecord(self._event, stream.handle)
        return self

    def time_till(self, event: "Event") -> float:
        """Milliseconds from this moment to another; both must have been waited for."""
        milliseconds = ctypes.c_float()
        _cuda().cuEventElapsedTime(ctypes.byref(milliseconds), self._event, event._event)
        return milliseconds.value


def memcpy_htod_async(dest: int, src: "ctypes.Array[Any]", stream: Stream) -> None:
    """Copy bytes in pinned memory to the GPU, when its turn on the stream comes."""
    _cuda().cuMemcpyHtoDAsync_v2(dest, src, len(src), stream.handle)


def memcpy_dtoh_async(dest: "ctypes.Array[Any]", src: int, stream: Stream) -> None:
    """Copy from the GPU to such bytes, when its turn on the stream comes."""
    _cuda().cuMemcpyDtoHAsync_v2(dest, src, len(dest), stream.handle)
