"""Memory on the GPU, and the order of work on it: all that is done through pycuda, or without.

Whatever is made here is used and freed inside `with device:`, in any thread. pycuda's contexts are
a stack in each thread, and a thread that ends with one left on it aborts the process.
"""

import ctypes
from contextlib import contextmanager
from typing import Any, Iterator, Optional, Tuple

import numpy as np

from engines.engine import EngineError


def cuda_calls() -> Any:
    """pycuda's driver module where it is installed, as its calls are quicker; else ours."""
    try:
        import pycuda.driver as cuda
    except Exception:  # one that was compiled for another CUDA or numpy fails in many ways
        from engines.tensorrt import driver as cuda
    return cuda


class Device:
    """The first GPU. Inside `with device:` this thread works on it.

    There EngineError is raised for every error of CUDA; and here, if CUDA shows no GPU.

    Attributes:
        unified: whether it shares its memory with the processor, as a Jetson's does: nothing is
            copied then.
    """

    def __init__(self) -> None:
        self._cuda = cuda = cuda_calls()
        with _errors(cuda):
            cuda.init()
            device = cuda.Device(0)
            if hasattr(device, "retain_primary_context"):
                # The context that TensorRT's CUDA runtime uses anyway.
                self._context = device.retain_primary_context()
            else:  # pycuda 2019
                self._context = device.make_context()
                cuda.Context.pop()
            self.unified = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))
        self._push, self._pop = self._context.push, cuda.Context.pop

    def __enter__(self) -> "Device":
        self._push()
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        self._pop()
        if error is not None:
            _tell(self._cuda, error)

    def stream(self) -> Any:
        """A new CUDA stream: work on it is done in order."""
        return self._cuda.Stream()

    def event(self) -> Any:
        """A new CUDA event: a moment on a stream."""
        return self._cuda.Event()

    def buffer(self, shape: Tuple[Any, ...]) -> "Buffer":
        """Room for a float32 array on both sides."""
        return Buffer(self._cuda, shape, self.unified)


class Buffer:
    """A float32 array that processor and GPU both reach.

    Attributes:
        host: the array, in pinned memory, which the GPU's copy engine reads by itself.
        pointer: its address on the GPU.
    """

    def __init__(self, cuda: Any, shape: Tuple[int, ...], unified: bool) -> None:
        self._cuda = cuda
        flags = cuda.host_alloc_flags.DEVICEMAP if unified else 0
        self.host: np.ndarray = cuda.pagelocked_empty(shape, np.float32, "C", flags)
        if unified:
            self._memory = None
            self.pointer = int(self.host.base.get_device_pointer())
        else:
            self._memory = cuda.mem_alloc(int(self.host.nbytes))
            self.pointer = int(self._memory)
        self.copy_only(len(self.host))

    def copy_only(self, rows: int) -> None:
        """Let `upload` and `download` copy the first rows; until then they copy all."""
        self._copied = as_bytes(self.host[:rows])

    def upload(self, stream: Any) -> None:
        """Start to copy to the GPU; nothing to do where memory is unified."""
        if self._memory is not None:
            self._cuda.memcpy_htod_async(self.pointer, self._copied, stream)

    def download(self, stream: Any) -> None:
        """Start to copy from the GPU; nothing to do where memory is unified."""
        if self._memory is not None:
            self._cuda.memcpy_dtoh_async(self._copied, self.pointer, stream)

    def free(self) -> None:
        """Give the memory back; nothing may be at work on it."""
        if self._memory is not None:
            self._memory.free()
        del self._memory, self._copied, self.host


def as_bytes(array: np.ndarray) -> "ctypes.Array[ctypes.c_char]":
    """A C-contiguous array's memory in a form whose address is quickly told, for copies."""
    return (ctypes.c_char * array.nbytes).from_buffer(array.data)


@contextmanager
def _errors(cuda: Any) -> Iterator[None]:
    try:
        yield
    except cuda.Error as error:
        _tell(cuda, error)


def _tell(cuda: Any, error: BaseException) -> None:
    """Raise EngineError for an error of CUDA, and nothing for others."""
    if isinstance(error, cuda.MemoryError):
        raise EngineError(
            "the GPU's memory is full ({}); end other programs on it, or build for a smaller "
            "--batch".format(error)
        ) from error
    if isinstance(error, cuda.Error):
        raise EngineError("CUDA failed: {}".format(error)) from error
