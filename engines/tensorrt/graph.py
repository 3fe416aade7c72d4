"""CUDA graphs: what a batch is on a stream, recorded once, and from then on started by one call.

A small network is a hundred kernels of some microseconds, and starting each takes the processor
about as long. pycuda has no calls for graphs in any release, so the driver is asked itself.
Source: CUDA's driver API, "Stream Management" and "Graph Management"; CUDA 10.1 or newer.
"""

import ctypes
from typing import Any, Callable

from engines.engine import EngineError

RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: other threads may go on with what they do


class Graph:
    """Recorded work. Where it lies in memory is recorded with it, and must stay."""

    def __init__(self, driver: Any, executable: ctypes.c_void_p) -> None:
        self._driver, self._executable = driver, executable

    def launch(self, stream: int) -> None:
        """Put the work on a stream."""
        _check(
            self._driver.cuGraphLaunch(self._executable, ctypes.c_void_p(stream)), "cuGraphLaunch"
        )

    def free(self) -> None:
        """Forget the work; it must have been waited for."""
        self._driver.cuGraphExecDestroy(self._executable)


def record(stream: int, work: Callable[[], None]) -> Graph:
    """Record what `work` puts on a stream; none of it is done.

    Args:
        stream: the handle of a CUDA stream of the current context.
        work: only starts work there, which was done once without recording before: TensorRT makes
            its last preparations in the first run.

    Raises:
        EngineError: CUDA can't record it; the stream goes on as before.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    handle, graph = ctypes.c_void_p(stream), ctypes.c_void_p()
    if not hasattr(driver, "cuStreamBeginCapture_v2"):
        raise EngineError("this driver has no CUDA graphs; they came with CUDA 10.1")
    _check(driver.cuStreamBeginCapture_v2(handle, RELAXED), "cuStreamBeginCapture")
    try:
        work()
    finally:
        result = driver.cuStreamEndCapture(handle, ctypes.byref(graph))
    _check(result, "cuStreamEndCapture")
    try:
        return Graph(driver, _instantiate(driver, graph))
    finally:
        driver.cuGraphDestroy(graph)


def _instantiate(driver: Any, graph: ctypes.c_void_p) -> ctypes.c_void_p:
    executable = ctypes.c_void_p()
    if hasattr(driver, "cuGraphInstantiateWithFlags"):  # CUDA 11.4
        result = driver.cuGraphInstantiateWithFlags(
            ctypes.byref(executable), graph, ctypes.c_ulonglong(0)
        )
    else:
        instantiate = getattr(driver, "cuGraphInstantiate_v2", driver.cuGraphInstantiate)
        result = instantiate(ctypes.byref(executable), graph, None, None, ctypes.c_size_t(0))
    _check(result, "cuGraphInstantiate")
    return executable


def _check(result: int, function: str) -> None:
    if result != 0:
        raise EngineError("CUDA can't record the engine: {} gives {}".format(function, result))
