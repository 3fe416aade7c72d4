"""The names of pycuda.driver that programs use, over the GPU that `_gpu` plays.

With EDGETRT_DOUBLE_NO_PYCUDA set it is as if pycuda were not installed.
"""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import VERSION, _graphs
from ._gpu import (
    Context as _Context,
)
from ._gpu import (
    Error,
    LaunchError,
    LogicError,
    MemoryError,  # noqa: A004 - pycuda's name
    Region,
    RuntimeError,  # noqa: A004 - pycuda's name
    board,
    fail,
    gpu,
    illegal_access,
    now,
)
from ._gpu import (
    Stream as _Stream,
)

if os.environ.get("EDGETRT_DOUBLE_NO_PYCUDA"):
    raise ImportError("No module named 'pycuda'")
_graphs.register()

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
            raise LogicError("cuDeviceGet failed: invalid device ordinal")

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
        context = Context(_Context())
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

    def __init__(self, context: _Context) -> None:
        self._context = context

    def push(self) -> None:
        """Make it current in this thread."""
        if not self._context.alive:
            raise LogicError("cuCtxPushCurrent failed: invalid device context")
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
        if size <= 0:
            fail("cuMemAlloc", f"{size} bytes")
        gpu.reserve(size, "cuMemAlloc")
        self._address = gpu.new_address(size)
        # What was there before is anything but zeros.
        gpu.device.add(Region(self._address, np.full(size, 0xA5, np.uint8), context))
        self._free = weakref.finalize(self, _free_device, self._address, size, context)
        self._free.atexit = False

    def free(self) -> None:
        """Give it back; it can't be used any more."""
        if not self._free.alive:
            raise LogicError("device_allocation::free failed: invalid resource handle")
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
        counted = size if board().integrated else 0
        gpu.reserve(counted, "cuMemHostAlloc")
        self._data = np.full(max(size, 1), 0xA5, np.uint8)
        start = self._data.ctypes.data
        gpu.pinned.add(Region(start, self._data, context))
        mapped = None
        if mem_flags & host_alloc_flags.DEVICEMAP:
            mapped = gpu.new_address(size)
            gpu.device.add(Region(mapped, self._data, context))
        self._mapped = mapped
        self._free = weakref.finalize(self, _free_host, start, mapped, counted, context)
        self._free.atexit = False
        self.__array_interface__ = {
            "shape": shape, "typestr": dtype.str, "data": (start, False), "version": 3,
        }  # fmt: skip

    def get_device_pointer(self) -> int:
        """Its address for the GPU; only for memory that was allocated with DEVICEMAP."""
        gpu.current("cuMemHostGetDevicePointer")
        if self._mapped is None:
            fail("cuMemHostGetDevicePointer", "allocated without DEVICEMAP")
        return self._mapped

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
        self._stream.put(event._reach())


class Event:
    """A moment on a stream."""

    def __init__(self, flags: int = 0) -> None:
        _current_for_object()
        self._timed = not flags & event_flags.DISABLE_TIMING
        self._stream: _Stream | None = None
        self._records = 0  # how often it was recorded; the last time counts
        self._time: float | None = None

    def record(self, stream: Stream | None = None) -> "Event":
        """The moment when what is on a stream now is done."""
        context = gpu.current("cuEventRecord")
        self._stream = context.default_stream if stream is None else stream._stream
        self._records, self._time = self._records + 1, None
        this_time = self._records

        def reach() -> None:
            if self._records == this_time:
                self._time = now()

        self._stream.put(reach)
        return self

    def synchronize(self) -> "Event":
        """Wait for that moment."""
        _run("cuEventSynchronize", self._reach())
        return self

    def query(self) -> bool:
        """Whether it is reached; the GPU gets on a little with every question."""
        if self._stream is not None and not self._reached():
            _run("cuEventQuery", self._stream.step)
        return self._reached()

    def time_since(self, event: "Event", /) -> float:
        """Milliseconds from another event to this one."""
        if not self._timed or not event._timed or not self._records or not event._records:
            raise LogicError("cuEventElapsedTime failed: invalid resource handle")
        if self._time is None or event._time is None:
            raise RuntimeError("cuEventElapsedTime failed: device not ready")
        return self._time - event._time

    def time_till(self, event: "Event", /) -> float:
        """Milliseconds from this event to another."""
        return event.time_since(self)

    def _reached(self) -> bool:
        return not self._records or self._time is not None

    def _reach(self) -> Callable[[], None]:
        """What has to be done for the moment that was recorded last."""
        stream = self._stream
        return (lambda: None) if stream is None else lambda: stream.run(self._reached)


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
    start, size, address = data.ctypes.data, len(data), _address(device)
    del data, host  # as in CUDA, nothing but the caller keeps the memory
    if gpu.pinned.find(start, size) is None:
        fail(function, "the host's memory is not pinned, so the copy would not be asynchronous")
    queue = context.default_stream if stream is None else stream._stream
    if queue.context is not context:
        raise LogicError(f"{function} failed: invalid resource handle")
    _run(function, lambda: gpu.bytes_at(address, size, context))

    def copy() -> None:
        region = gpu.pinned.find(start, size)
        if region is None:
            raise illegal_access("the host's memory was freed before the copy was done")
        pinned = region.data[start - region.start :][:size]
        there = gpu.bytes_at(address, size, context)
        _copy(there, pinned) if to_gpu else _copy(pinned, there)

    queue.put(copy)


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
    return np.frombuffer(view.cast("B") if view.nbytes else b"", np.uint8)


def _run(function: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except LogicError as error:
        raise LogicError(f"{function} failed: {error}") from error


def _current_for_object() -> _Context:
    if not gpu.stack.contexts:
        raise LogicError(
            "explicit_context_dependent failed: invalid device context - "
            "no currently active context?"
        )
    return gpu.current("explicit_context_dependent")


def _need_init(function: str) -> None:
    if not gpu.initialized:
        raise LogicError(f"{function} failed: initialization error")


def _may_free(context: _Context) -> bool:
    """As pycuda: in another thread than the context's only while it is current there."""
    return context.maker == threading.get_ident() or context in gpu.stack.contexts


def _free_device(address: int, size: int, context: _Context) -> None:
    if _may_free(context):
        gpu.device.remove(address)
        gpu.release(size)


def _free_host(start: int, mapped: int | None, size: int, context: _Context) -> None:
    # The array's bytes go with the array in any case.
    gpu.pinned.remove(start)
    if mapped is not None:
        gpu.device.remove(mapped)
    if _may_free(context):
        gpu.release(size)
