"""The names of pycuda.driver that programs use, over the GPU that `cuda_double` plays."""

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cuda_double import _gpu
from cuda_double._gpu import (
    Error,
    LaunchError,
    LogicError,
    MemoryError,  # noqa: A004 - pycuda's name
    RuntimeError,  # noqa: A004 - pycuda's name
    board,
    fault,
    gpu,
)

from . import VERSION

__all__ = [
    "Context", "Device", "DeviceAllocation", "Error", "Event", "HostPointer", "LaunchError",
    "LogicError", "MemoryError", "PagelockedHostAllocation", "RuntimeError", "Stream",
    "ctx_flags", "device_attribute", "event_flags", "get_driver_version", "get_version",
    "host_alloc_flags", "init", "mem_alloc", "mem_get_info", "memcpy_dtoh", "memcpy_dtoh_async",
    "memcpy_htod", "memcpy_htod_async", "pagelocked_empty", "pagelocked_zeros",
]  # fmt: skip


class host_alloc_flags:  # noqa: N801 - pycuda's name
    """How host memory is pinned."""

    PORTABLE, DEVICEMAP, WRITECOMBINED = 1, 2, 4


class ctx_flags:  # noqa: N801 - pycuda's name
    """How a context waits."""

    SCHED_AUTO, SCHED_SPIN, SCHED_YIELD, SCHED_BLOCKING_SYNC, MAP_HOST = 0, 1, 2, 4, 8


class event_flags:  # noqa: N801 - pycuda's name
    """How an event waits."""

    DEFAULT, BLOCKING_SYNC, DISABLE_TIMING, INTERPROCESS = 0, 1, 2, 4


class device_attribute:  # noqa: N801 - pycuda's name
    """What can be asked about a device."""

    INTEGRATED, CAN_MAP_HOST_MEMORY = 18, 19
    COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76


def init(flags: int = 0) -> None:
    """Has to be called before anything else."""
    gpu.initialized = True


def get_version() -> tuple[int, int, int]:
    """Of CUDA, as pycuda was built with."""
    return (10, 2, 0)


def get_driver_version() -> int:
    """Of CUDA, as the driver has it."""
    return 10020


class Device:
    """The one GPU, number 0."""

    def __init__(self, number: int, /) -> None:
        _need_init("cuDeviceGet")
        if number != 0:
            raise fault(_gpu.INVALID_DEVICE, "cuDeviceGet")

    @staticmethod
    def count() -> int:
        """How many GPUs there are."""
        _need_init("cuDeviceGetCount")
        return 1

    def name(self) -> str:
        """What the GPU is called."""
        return board().name

    def compute_capability(self) -> tuple[int, int]:
        """Major and minor number."""
        return board().compute_capability

    def total_memory(self) -> int:
        """In bytes."""
        return board().memory

    def get_attribute(self, attribute: int, /) -> int:
        """One of `device_attribute`."""
        major, minor = board().compute_capability
        return {
            device_attribute.INTEGRATED: int(board().integrated),
            device_attribute.CAN_MAP_HOST_MEMORY: 1,
            device_attribute.COMPUTE_CAPABILITY_MAJOR: major,
            device_attribute.COMPUTE_CAPABILITY_MINOR: minor,
        }[attribute]

    def make_context(self, flags: int = 0) -> "Context":
        """A new context, pushed."""
        context = Context(_gpu.Context())
        context.push()
        return context

    def retain_primary_context(self) -> "Context":
        """The context of CUDA's runtime, not pushed."""
        gpu.primary.maker = threading.get_ident()
        return Context(gpu.primary)


if VERSION < (2020,):
    del Device.retain_primary_context


class Context:
    """A context, as a person holds it."""

    def __init__(self, context: _gpu.Context) -> None:
        self._context = context

    def push(self) -> None:
        """Make it current in this thread."""
        if not self._context.alive:
            raise fault(_gpu.INVALID_CONTEXT, "cuCtxPushCurrent")
        gpu.stack.contexts.append(self._context)

    @staticmethod
    def pop() -> None:
        """Make the one before it current."""
        if not gpu.stack.contexts:
            raise LogicError("context::pop failed: invalid device context - cannot pop")
        gpu.stack.contexts.pop()

    @staticmethod
    def get_current() -> "Context | None":
        """The current one."""
        return Context(gpu.stack.contexts[-1]) if gpu.stack.contexts else None

    @staticmethod
    def synchronize() -> None:
        """Wait for all streams."""
        gpu.current("cuCtxSynchronize").run_all()

    def detach(self) -> None:
        """Give it up."""
        if self._context in gpu.stack.contexts:
            gpu.stack.contexts.remove(self._context)
        if self._context is not gpu.primary:
            self._context.alive = False


class DeviceAllocation:
    """Memory on the GPU, freed with this object."""

    def __init__(self, size: int) -> None:
        context = gpu.current("cuMemAlloc")
        if type(size) is not int:
            raise TypeError(f"mem_alloc takes an int; received {type(size).__name__}")
        self._address = gpu.allocate(size, "cuMemAlloc")
        self._free = weakref.finalize(self, _free_device, self._address, context)
        self._free.atexit = False

    def free(self) -> None:
        """Give it back; it can't be used any more."""
        if not self._free.alive:
            raise fault(_gpu.INVALID_HANDLE, "device_allocation::free")
        self._free()

    def __int__(self) -> int:
        return self._address

    __index__ = __int__


def mem_alloc(size: int, /) -> DeviceAllocation:
    """Allocate memory on the GPU."""
    return DeviceAllocation(size)


def mem_get_info() -> tuple[int, int]:
    """Bytes that are free, and that there are."""
    gpu.current("cuMemGetInfo")
    return board().memory - gpu.used, board().memory


class HostPointer:
    """Memory of the processor that the GPU can reach."""

    def get_device_pointer(self) -> int:
        """Its address for the GPU."""
        raise NotImplementedError


class PagelockedHostAllocation(HostPointer):
    """Pinned memory: the base of an array that `pagelocked_empty` makes."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, mem_flags: int) -> None:
        context = gpu.current("cuMemHostAlloc")
        size = int(np.prod(shape)) * dtype.itemsize
        self._data = gpu.pin(size, bool(mem_flags & host_alloc_flags.DEVICEMAP), "cuMemHostAlloc")
        self._start = self._data.ctypes.data
        self._free = weakref.finalize(self, _free_host, self._start, context)
        self._free.atexit = False
        self.__array_interface__ = {
            "shape": shape, "typestr": dtype.str, "data": (self._start, False), "version": 3,
        }  # fmt: skip

    def get_device_pointer(self) -> int:
        """Its address for the GPU; only for memory that was allocated with DEVICEMAP."""
        return gpu.mapped(self._start, "cuMemHostGetDevicePointer")

    def free(self) -> None:
        """Give it back; the array can't be copied any more."""
        self._free()


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
    """An array that asynchronous copies can work on."""
    sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if order != "C":
        raise LogicError("the double has arrays in C order only")
    return np.asarray(PagelockedHostAllocation(sizes, np.dtype(dtype), mem_flags))


def pagelocked_zeros(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
    """The same, filled with zeros."""
    array = pagelocked_empty(shape, dtype, order, mem_flags)
    array.fill(0)
    return array


class Stream:
    """Work in order."""

    def __init__(self, flags: int = 0) -> None:
        self._stream = gpu.new_stream(_current_for_object())

    @property
    def handle(self) -> int:
        """What CUDA calls it."""
        return self._stream.handle

    def synchronize(self) -> None:
        """Wait until all is done."""
        _run("cuStreamSynchronize", self._stream.run)

    def is_done(self) -> bool:
        """Whether all is done; the GPU gets on a little with every question."""
        return not _run("cuStreamQuery", self._stream.step)

    def wait_for_event(self, event: "Event", /) -> None:
        """Let what comes next on this stream wait for an event."""
        self._stream.put(event._moment.wait())


class Event:
    """A moment on a stream."""

    def __init__(self, flags: int = 0) -> None:
        _current_for_object()
        self._moment = _gpu.Moment(timed=not flags & event_flags.DISABLE_TIMING)

    def record(self, stream: Stream | None = None) -> "Event":
        """The moment when what is on a stream now is done."""
        context = gpu.current("cuEventRecord")
        self._moment.record(context.default_stream if stream is None else stream._stream)
        return self

    def synchronize(self) -> "Event":
        """Wait for that moment."""
        _run("cuEventSynchronize", self._moment.wait())
        return self

    def query(self) -> bool:
        """Whether it is reached; the GPU gets on a little with every question."""
        _run("cuEventQuery", self._moment.step)
        return self._moment.reached

    def time_since(self, event: "Event", /) -> float:
        """Milliseconds from another event to this one."""
        return self._moment.since(event._moment, "cuEventElapsedTime")

    def time_till(self, event: "Event", /) -> float:
        """Milliseconds from this event to another."""
        return event.time_since(self)


def memcpy_htod(dest: Any, src: Any) -> None:
    """Copy to the GPU, now."""
    context = gpu.current("cuMemcpyHtoD")
    data = _bytes_of(src)
    _run("cuMemcpyHtoD", lambda: _copy(gpu.bytes_at(_address(dest), len(data), context), data))


def memcpy_dtoh(dest: Any, src: Any) -> None:
    """Copy from the GPU, now."""
    context = gpu.current("cuMemcpyDtoH")
    room = _bytes_of(dest, writable=True)
    _run("cuMemcpyDtoH", lambda: _copy(room, gpu.bytes_at(_address(src), len(room), context)))


def memcpy_htod_async(dest: Any, src: Any, stream: Stream | None = None) -> None:
    """Copy pinned memory to the GPU when its turn on the stream comes."""
    _queue_copy("cuMemcpyHtoDAsync", src, dest, stream, to_gpu=True)


def memcpy_dtoh_async(dest: Any, src: Any, stream: Stream | None = None) -> None:
    """Copy to pinned memory from the GPU when its turn on the stream comes."""
    _queue_copy("cuMemcpyDtoHAsync", dest, src, stream, to_gpu=False)


def _queue_copy(function: str, host: Any, device: Any, stream: Stream | None, to_gpu: bool) -> None:
    context = gpu.current(function)
    data = _bytes_of(host, writable=not to_gpu)
    start, size = data.ctypes.data, len(data)
    queue = context.default_stream if stream is None else stream._stream
    # As in CUDA, nothing but the caller keeps the memory.
    gpu.queue_copy(start, size, _address(device), queue, to_gpu, function)


def _copy(dest: np.ndarray, src: np.ndarray) -> None:
    dest[:] = src


def _address(pointer: Any) -> int:
    if type(pointer) is not int and not isinstance(pointer, DeviceAllocation):
        raise TypeError(
            "an address on the GPU is an int or a DeviceAllocation; "
            f"received {type(pointer).__name__}"
        )
    return int(pointer)


def _bytes_of(host: Any, writable: bool = False) -> np.ndarray:
    view = memoryview(host)
    if not view.c_contiguous:
        raise ValueError("ndarray is not contiguous")
    if writable and view.readonly:
        raise BufferError("the host's memory is read-only")
    return np.frombuffer(host if view.nbytes else b"", np.uint8)


def _run(function: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except LogicError as error:
        raise LogicError(f"{function} failed: {error}", error.result, error.words) from error


def _current_for_object() -> _gpu.Context:
    if not gpu.stack.contexts:
        raise LogicError(
            "explicit_context_dependent failed: invalid device context - "
            "no currently active context?"
        )
    return gpu.current("explicit_context_dependent")


def _need_init(function: str) -> None:
    if not gpu.initialized:
        raise fault(_gpu.NOT_INITIALIZED, function)


def _may_free(context: _gpu.Context) -> bool:
    """As pycuda: in another thread than the context's only while it is current there."""
    return context.maker == threading.get_ident() or context in gpu.stack.contexts


def _free_device(address: int, context: _gpu.Context) -> None:
    if _may_free(context):
        gpu.free(address)


def _free_host(start: int, context: _gpu.Context) -> None:
    # The array's bytes go with the array in any case.
    counted = gpu.unpin(start)
    if _may_free(context):
        gpu.release(counted)
