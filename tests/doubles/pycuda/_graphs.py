"""CUDA graphs: the work of a stream, kept instead of queued, and queued when it is launched.

pycuda has no calls for them; programs ask libcuda.so.1 (tests/doubles/libcuda.c), which asks here.
"""

import ctypes
from collections.abc import Callable

from . import _gpu

INVALID, NOT_CAPTURING = 400, 901  # CUDA_ERROR_INVALID_HANDLE, _STREAM_CAPTURE_INVALIDATED
BEGIN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
END = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
LAUNCH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

_graphs: list[list[Callable[[], None]]] = []


class Calls(ctypes.Structure):
    """`Graphs` of libcuda.c."""

    _fields_ = [("begin", BEGIN), ("end", END), ("launch", LAUNCH)]


@BEGIN
def _begin(stream: int, _mode: int) -> int:
    found = _gpu.gpu.streams.get(stream)
    if found is None:
        return INVALID
    found.capture()
    return 0


@END
def _end(stream: int, graph: "ctypes._Pointer[ctypes.c_void_p]") -> int:
    recorded = _gpu.gpu.streams[stream].end_capture()
    if recorded is None:
        return NOT_CAPTURING
    _graphs.append(recorded)
    graph[0] = ctypes.c_void_p(len(_graphs))
    return 0


@LAUNCH
def _launch(graph: int, stream: int) -> int:
    found = _gpu.gpu.streams.get(stream)
    if found is None or not graph:
        return INVALID
    for work in _graphs[graph - 1]:
        found.put(work)
    return 0


CALLS = Calls(_begin, _end, _launch)


def register() -> None:
    """Tell libcuda.so.1 of this, if it is the double's."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        driver.edgetrt_double_graphs(CALLS)
    except (OSError, AttributeError):
        return
