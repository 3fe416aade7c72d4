"""The GPU: memory behind made-up addresses, contexts on stacks, and streams of waiting work.

Work that is put on a stream runs when somebody waits for it and not before. So a program that
forgets to wait, or that overwrites a pinned array too early, computes wrong numbers every time,
and not just now and then as on a real GPU. For the same reason a synchronous copy waits for
nothing, and an address, once freed, is never given out again.

Environment variables, read when work begins:
    EDGETRT_DOUBLE_CC: compute capability, such as "8.6". By default a TX2's with TensorRT 8.2,
        an Orin's with others up to 10, and a GeForce 40's with 11.
    EDGETRT_DOUBLE_MEMORY: bytes of memory there are; 8 GiB by default.
"""

import atexit
import bisect
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import numpy as np

PAGE = 512  # alignment of addresses, and the gap behind each allocation


class Error(Exception):
    """An error of CUDA."""


class LogicError(Error):
    """CUDA was used wrongly."""


class MemoryError(Error):  # noqa: A001 - pycuda's name
    """There is not enough memory on the GPU."""


class LaunchError(Error):
    """A kernel could not be run."""


class RuntimeError(Error):  # noqa: A001 - pycuda's name
    """Something else failed."""


def illegal_access(why: str) -> LogicError:
    """What CUDA says of a wrong address, with the reason, which CUDA does not say."""
    return LogicError(f"an illegal memory access was encountered (the double: {why})")


class Board(NamedTuple):
    """What kind of GPU is played."""

    name: str
    compute_capability: tuple[int, int]
    integrated: bool
    memory: int


def board() -> Board:
    """The GPU that the environment asks for."""
    version = os.environ["EDGETRT_DOUBLE"]
    default = "6.2" if version.startswith("8.2") else "8.9" if version.startswith("11") else "8.7"
    capability = os.environ.get("EDGETRT_DOUBLE_CC", default)
    major, minor = (int(part) for part in capability.split("."))
    jetson = {"5.3": "NVIDIA Tegra X1", "6.2": "NVIDIA Tegra X2", "7.2": "Xavier", "8.7": "Orin"}
    name = jetson.get(capability, f"GPU of compute capability {capability}")
    memory = int(os.environ.get("EDGETRT_DOUBLE_MEMORY", 8 << 30))
    return Board(name, (major, minor), capability in jetson, memory)


class Region(NamedTuple):
    """Some memory: its first address, its bytes, and the context it belongs to."""

    start: int
    data: np.ndarray
    context: "Context"


class Memory:
    """Which addresses there are."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._regions: dict[int, Region] = {}

    def add(self, region: Region) -> None:
        """Make the addresses of a region known."""
        bisect.insort(self._starts, region.start)
        self._regions[region.start] = region

    def remove(self, start: int) -> None:
        """Forget a region."""
        self._starts.remove(start)
        del self._regions[start]

    def find(self, address: int, size: int) -> Region | None:
        """The region in which `size` bytes from `address` on lie; None if there is none."""
        place = bisect.bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        region = self._regions[self._starts[place]]
        return region if address + size <= region.start + len(region.data) else None


class Stream:
    """Work in order, waiting to be run."""

    def __init__(self, context: "Context", handle: int) -> None:
        self.context, self.handle = context, handle
        self._work: deque[Callable[[], None]] = deque()
        self._recorded: list[Callable[[], None]] | None = None
        self._spoilt = False

    def put(self, work: Callable[[], None]) -> None:
        """Add work at the end, or to what is recorded."""
        (self._work if self._recorded is None else self._recorded).append(work)

    @property
    def captures(self) -> bool:
        """Whether work is being recorded instead of queued."""
        return self._recorded is not None

    def capture(self) -> None:
        """Record work from now on."""
        self._recorded, self._spoilt = [], False

    def end_capture(self) -> list[Callable[[], None]] | None:
        """What was recorded; None if someone waited for the stream meanwhile."""
        recorded, self._recorded = self._recorded, None
        return None if self._spoilt else recorded

    def step(self) -> bool:
        """Do the first work; False if there is none left."""
        if self.captures:
            self._spoilt = True
            raise LogicError("operation not permitted when stream is capturing")
        with gpu.running:
            if not self._work:
                return False
            try:
                self._work.popleft()()
            except Error:
                self._work.clear()  # a context that CUDA found an error in does nothing more
                raise
            return True

    def run(self, done: Callable[[], bool] = lambda: False) -> None:
        """Work until `done`, or to the end."""
        while not done() and self.step():
            pass


class Context:
    """What a GPU does for one program."""

    def __init__(self) -> None:
        self.maker = threading.get_ident()
        self.alive = True
        self.streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self.default_stream = Stream(self, 0)

    def run_all(self) -> None:
        """Do all work of all streams."""
        for stream in (self.default_stream, *self.streams):
            stream.run()


class Stack:
    """The contexts that a thread pushed, the current one last."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self._ends_program = threading.current_thread() is threading.main_thread()

    def __del__(self) -> None:
        if not self._ends_program:
            abort_unless_empty(self)


def abort_unless_empty(stack: Stack) -> None:
    """What pycuda does where a thread ends with a context still pushed."""
    if stack.contexts:
        print(
            "-------------------------------------------------------------------\n"
            "PyCUDA ERROR: The context stack was not empty upon module cleanup.\n"
            "-------------------------------------------------------------------",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os.abort()


class Gpu:
    """All that there is of the one GPU in this process."""

    def __init__(self) -> None:
        self.initialized = False
        self.running = threading.RLock()  # it does one thing at a time
        self.device = Memory()  # by addresses that mean nothing to the processor
        self.pinned = Memory()  # by the processor's addresses
        self.used = 0
        self.primary = Context()
        self.streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self._next_address = 0x7_0000_0000
        self._next_handle = 0x5000_0000
        self._here = threading.local()

    @property
    def stack(self) -> Stack:
        """The contexts of this thread."""
        if not hasattr(self._here, "stack"):
            self._here.stack = Stack()
        stack: Stack = self._here.stack
        return stack

    def current(self, function: str) -> Context:
        """The context that is current in this thread."""
        stack = self.stack.contexts
        if not stack:
            raise LogicError(f"{function} failed: invalid device context")
        if not stack[-1].alive:
            raise LogicError(f"{function} failed: context is destroyed")
        return stack[-1]

    def current_or_primary(self) -> Context:
        """The context that CUDA's runtime, and so TensorRT, works in."""
        return self.stack.contexts[-1] if self.stack.contexts else self.primary

    def reserve(self, size: int, function: str) -> None:
        """Count some memory as used."""
        with self.running:
            if self.used + size > board().memory:
                raise MemoryError(f"{function} failed: out of memory")
            self.used += size

    def release(self, size: int) -> None:
        """Count it as free again."""
        with self.running:
            self.used -= size

    def new_address(self, size: int) -> int:
        """An address that was never given out before."""
        with self.running:
            address = self._next_address
            self._next_address += (size // PAGE + 2) * PAGE
            return address

    def new_stream(self, context: Context) -> Stream:
        """A stream with nothing to do."""
        with self.running:
            self._next_handle += 0x10
            stream = Stream(context, self._next_handle)
            context.streams.add(stream)
            self.streams[stream.handle] = stream
            return stream

    def stream(self, handle: int, context: Context) -> Stream | None:
        """The stream of a context that has some handle."""
        found = context.default_stream if handle == 0 else self.streams.get(handle)
        return found if found is not None and found.context is context else None

    def bytes_at(self, address: int, size: int, context: Context) -> np.ndarray:
        """The memory of the GPU from `address` on, as uint8 that can be written to.

        Raises:
            LogicError: that much is not there, was freed, or belongs to another context.
        """
        region = self.device.find(address, size)
        if region is None:
            raise illegal_access(f"{size} bytes at {address:#x} are not allocated")
        if region.context is not context:
            raise illegal_access(f"{address:#x} belongs to another context")
        start = address - region.start
        return region.data[start : start + size]


def now() -> float:
    """Milliseconds."""
    return time.perf_counter() * 1000


def fail(function: str, why: str) -> NoReturn:
    """Raise what CUDA says when it is called wrongly."""
    raise LogicError(f"{function} failed: invalid argument (the double: {why})")


gpu = Gpu()
_this = sys.modules[__name__]


@atexit.register
def _end() -> None:
    if sys.modules.get(__name__) is _this:  # a test that played in its own process has ended it
        abort_unless_empty(gpu.stack)
