"""CUDA's driver over the GPU that `_gpu` plays: what libcuda.c calls.

Programs reach it by libcuda.so.1: with all that they do where pycuda is not installed, and with
CUDA graphs in any case, as pycuda has no calls for those. A graph is the work of a stream, kept
instead of queued, and queued when it is launched.

What the processor knows by a number only, it knows by one that needs more than 32 bits.
"""
# ruff: noqa: N802 - CUDA's names

import ctypes
import threading
import traceback
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from . import _gpu
from ._gpu import fault, gpu

UNKNOWN = 999  # CUDA_ERROR_UNKNOWN
INTEGRATED = 18  # CU_DEVICE_ATTRIBUTE_INTEGRATED
DEVICEMAP = 2  # CU_MEMHOSTALLOC_DEVICEMAP

_calls: dict[str, Any] = {}  # what C calls, by name
_contexts: dict[int, _gpu.Context] = {}  # these by their handles
_streams: dict[int, _gpu.Stream] = {}
_events: dict[int, tuple[_gpu.Context, _gpu.Moment]] = {}
_graphs: list[list[Callable[[], None]]] = []
_words = {number: text.encode() for number, text in _gpu.WORDS.items()}
_said = threading.local()  # the last error of each thread, with the reason


def register(path: str = "libcuda.so.1") -> None:
    """Have the driver played here, if it is the double's."""
    try:
        library = ctypes.CDLL(path)
        c_void_p.in_dll(library, "play_cuInit")
    except (OSError, ValueError):
        return
    for name, call in _calls.items():
        c_void_p.in_dll(library, f"play_{name}").value = ctypes.cast(call, c_void_p).value
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_calls))  # the library has them to its end
    if c_int.in_dll(library, "initialized"):
        gpu.initialized = True


def _play(*types: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let C call a function, which raises what is not a success."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        name = function.__name__

        def call(*arguments: Any) -> int:
            try:
                if not gpu.initialized and name not in ("cuInit", "cuGetErrorString"):
                    raise fault(_gpu.NOT_INITIALIZED)
                function(*arguments)
            except _gpu.Error as error:
                _said.error = error
                return error.result
            except BaseException:
                traceback.print_exc()
                return UNKNOWN
            return 0

        _calls[name] = ctypes.CFUNCTYPE(c_int, *types)(call)
        return function

    return add


@_play(c_uint)
def cuInit(_flags: int) -> None:
    gpu.initialized = True


@_play(c_int, POINTER(c_char_p))
def cuGetErrorString(result: int, text: Any) -> None:
    error = getattr(_said, "error", None)
    if error is not None and error.result == result:
        _said.text = error.words.encode()  # kept until the next is asked for
        text[0] = _said.text
    elif result in _words:
        text[0] = _words[result]
    else:
        raise fault(_gpu.INVALID_VALUE)


@_play(POINTER(c_int), c_int, c_int)
def cuDeviceGetAttribute(value: Any, attribute: int, _device: int) -> None:
    if attribute != INTEGRATED:
        raise fault(_gpu.INVALID_VALUE, why=f"attribute {attribute}")
    value[0] = int(_gpu.board().integrated)


# Contexts


@_play(POINTER(c_void_p), c_int)
def cuDevicePrimaryCtxRetain(context: Any, device: int) -> None:
    if device != 0:
        raise fault(_gpu.INVALID_DEVICE)
    context[0] = _handle_of(gpu.primary)


@_play(c_void_p)
def cuCtxPushCurrent_v2(context: int | None) -> None:
    found = _contexts.get(context or 0)
    if found is None or not found.alive:
        raise fault(_gpu.INVALID_CONTEXT)
    gpu.stack.contexts.append(found)


@_play(POINTER(c_void_p))
def cuCtxPopCurrent_v2(context: Any) -> None:
    context[0] = _handle_of(gpu.current("cuCtxPopCurrent"))
    gpu.stack.contexts.pop()


@_play(POINTER(c_void_p))
def cuCtxGetCurrent(context: Any) -> None:
    stack = gpu.stack.contexts
    context[0] = _handle_of(stack[-1]) if stack else None


def _handle_of(context: _gpu.Context) -> int:
    for handle, known in list(_contexts.items()):
        if known is context:
            return handle
    return _add(_contexts, context)


def _add(known: dict[int, Any], thing: Any) -> int:
    handle = gpu.new_handle()
    known[handle] = thing
    return handle


# Memory


@_play(POINTER(c_uint64), c_size_t)
def cuMemAlloc_v2(address: Any, size: int) -> None:
    address[0] = gpu.allocate(size, "cuMemAlloc")


@_play(c_uint64)
def cuMemFree_v2(address: int) -> None:
    region = gpu.device.find(address, 0)
    if region is None or region.start != address:
        raise fault(_gpu.INVALID_VALUE, why="no such memory was allocated")
    if any(pin.address == address for pin in gpu.pins.values()):
        raise fault(_gpu.INVALID_VALUE, why="the processor's memory is freed by cuMemFreeHost")
    _need(region.context, "cuMemFree")
    gpu.free(address)


@_play(POINTER(c_void_p), c_size_t, c_uint)
def cuMemHostAlloc(start: Any, size: int, flags: int) -> None:
    gpu.current("cuMemHostAlloc")
    if size == 0:
        raise fault(_gpu.INVALID_VALUE, why="0 bytes")
    start[0] = gpu.pin(size, bool(flags & DEVICEMAP), "cuMemHostAlloc").ctypes.data


@_play(POINTER(c_uint64), c_void_p, c_uint)
def cuMemHostGetDevicePointer_v2(address: Any, start: int | None, flags: int) -> None:
    if flags != 0:
        raise fault(_gpu.INVALID_VALUE, why="flags must be 0")
    address[0] = gpu.mapped(start or 0, "cuMemHostGetDevicePointer")


@_play(c_void_p)
def cuMemFreeHost(start: int | None) -> None:
    region = gpu.pinned.find(start or 0, 0)
    if region is None or region.start != start:
        raise fault(_gpu.INVALID_VALUE, why="no such memory was pinned")
    _need(region.context, "cuMemFreeHost")
    gpu.release(gpu.unpin(region.start))


def _need(context: _gpu.Context, function: str) -> None:
    """See that the current context is the one to which something belongs."""
    if gpu.current(function) is not context:
        raise fault(_gpu.INVALID_CONTEXT, why="it belongs to another context")


@_play(c_uint64, c_void_p, c_size_t, c_void_p)
def cuMemcpyHtoDAsync_v2(dest: int, src: int | None, size: int, stream: int | None) -> None:
    queue = gpu.stream(stream or 0, gpu.current("cuMemcpyHtoDAsync"))
    gpu.queue_copy(src or 0, size, dest, queue, True, "cuMemcpyHtoDAsync")


@_play(c_void_p, c_uint64, c_size_t, c_void_p)
def cuMemcpyDtoHAsync_v2(dest: int | None, src: int, size: int, stream: int | None) -> None:
    queue = gpu.stream(stream or 0, gpu.current("cuMemcpyDtoHAsync"))
    gpu.queue_copy(dest or 0, size, src, queue, False, "cuMemcpyDtoHAsync")


# Streams and events


def _stream(handle: int | None) -> _gpu.Stream:
    found = gpu.stream(handle or 0, gpu.current("cuStream"))
    if found is None:
        raise fault(_gpu.INVALID_HANDLE)
    return found


@_play(POINTER(c_void_p), c_uint)
def cuStreamCreate(stream: Any, _flags: int) -> None:
    made = gpu.new_stream(gpu.current("cuStreamCreate"))
    _streams[made.handle] = made
    stream[0] = made.handle


@_play(c_void_p)
def cuStreamSynchronize(stream: int | None) -> None:
    _stream(stream).run()


@_play(c_void_p)
def cuStreamDestroy_v2(stream: int | None) -> None:
    if _streams.pop(_stream(stream).handle, None) is None:
        raise fault(_gpu.INVALID_HANDLE, why="it was not created here")


@_play(POINTER(c_void_p), c_uint)
def cuEventCreate(event: Any, _flags: int) -> None:
    event[0] = _add(_events, (gpu.current("cuEventCreate"), _gpu.Moment()))


@_play(c_void_p, c_void_p)
def cuEventRecord(event: int | None, stream: int | None) -> None:
    _moment(event).record(_stream(stream))


@_play(POINTER(c_float), c_void_p, c_void_p)
def cuEventElapsedTime(milliseconds: Any, start: int | None, end: int | None) -> None:
    milliseconds[0] = _moment(end).since(_moment(start), "cuEventElapsedTime")


@_play(c_void_p)
def cuEventDestroy_v2(event: int | None) -> None:
    _moment(event)
    del _events[event or 0]


def _moment(handle: int | None) -> _gpu.Moment:
    if handle not in _events:
        raise fault(_gpu.INVALID_HANDLE)
    context, moment = _events[handle]
    _need(context, "cuEvent")
    return moment


# Graphs


@_play(c_void_p, c_int)
def cuStreamBeginCapture_v2(stream: int | None, _mode: int) -> None:
    _stream(stream).capture()


@_play(c_void_p, POINTER(c_void_p))
def cuStreamEndCapture(stream: int | None, graph: Any) -> None:
    recorded = _stream(stream).end_capture()
    if recorded is None:
        raise fault(_gpu.CAPTURE_INVALIDATED)
    _graphs.append(recorded)
    graph[0] = len(_graphs)


@_play(c_void_p, c_void_p)
def cuGraphLaunch(graph: int | None, stream: int | None) -> None:
    queue = _stream(stream)
    if not graph or graph > len(_graphs):
        raise fault(_gpu.INVALID_HANDLE)
    for work in _graphs[graph - 1]:
        queue.put(work)
