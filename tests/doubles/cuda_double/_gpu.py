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
from typing import NamedTuple

import numpy as np

PAGE = 512  # alignment of addresses, and the gap behind each allocation

# Results of calls, as cuda.h numbers them, and what CUDA says of each.
INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, INVALID_DEVICE = 1, 2, 3, 101
INVALID_CONTEXT, INVALID_HANDLE, NOT_READY, ILLEGAL_ADDRESS = 201, 400, 600, 700
CONTEXT_IS_DESTROYED, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 709, 900, 901
WORDS = {
    INVALID_VALUE: "invalid argument",
    OUT_OF_MEMORY: "out of memory",
    NOT_INITIALIZED: "initialization error",
    INVALID_DEVICE: "invalid device ordinal",
    INVALID_CONTEXT: "invalid device context",
    INVALID_HANDLE: "invalid resource handle",
    NOT_READY: "device not ready",
    ILLEGAL_ADDRESS: "an illegal memory access was encountered",
    CONTEXT_IS_DESTROYED: "context is destroyed",
    CAPTURE_UNSUPPORTED: "operation not permitted when stream is capturing",
    CAPTURE_INVALIDATED: "operation failed due to a previous error during capture",
}


class Error(Exception):
    """An error of CUDA: the number of the result and what CUDA says, without the call's name."""

    def __init__(self, text: str, result: int = INVALID_VALUE, words: str = "") -> None:
        super().__init__(text)
        self.result, self.words = result, words or text


class LogicError(Error):
    """CUDA was used wrongly."""


class MemoryError(Error):  # noqa: A001 - pycuda's name
    """There is not enough memory on the GPU."""


class LaunchError(Error):
    """A kernel could not be run."""


class RuntimeError(Error):  # noqa: A001 - pycuda's name
    """Something else failed."""


def fault(result: int, function: str = "", why: str = "") -> Error:
    """The error of a result, for the call that gave it; and the reason, which CUDA does not say."""
    words = WORDS[result] + (f" (the double: {why})" if why else "")
    kind = {OUT_OF_MEMORY: MemoryError, NOT_READY: RuntimeError}.get(result, LogicError)
    return kind(f"{function} failed: {words}" if function else words, result, words)


def illegal_access(why: str, function: str = "") -> Error:
    """What CUDA says of a wrong address."""
    return fault(ILLEGAL_ADDRESS, function, why)


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


class Pin(NamedTuple):
    """What pinned memory has: an address on the GPU, if it is mapped; and the bytes it counts."""

    address: int | None
    counted: int


class Memory:
    """Which addresses there are."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._regions: dict[int, Region] = {}
        self._one = threading.RLock()  # at a time changes them or looks

    def add(self, region: Region) -> None:
        """Make the addresses of a region known."""
        with self._one:
            bisect.insort(self._starts, region.start)
            self._regions[region.start] = region

    def remove(self, start: int) -> Region:
        """Forget a region."""
        with self._one:
            self._starts.remove(start)
            return self._regions.pop(start)

    def find(self, address: int, size: int) -> Region | None:
        """The region in which `size` bytes from `address` on lie; None if there is none."""
        with self._one:
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
            raise fault(CAPTURE_UNSUPPORTED)
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


class Moment:
    """When what was on a stream is done: CUDA's event."""

    def __init__(self, timed: bool = True) -> None:
        self._timed = timed
        self._stream: Stream | None = None
        self._records = 0  # how often it was recorded; the last time counts
        self._time: float | None = None

    def record(self, stream: Stream) -> None:
        """Let it be when what is on a stream now is done."""
        self._stream = stream
        self._records, self._time = self._records + 1, None
        this_time = self._records

        def reach() -> None:
            if self._records == this_time:
                self._time = now()

        stream.put(reach)

    @property
    def reached(self) -> bool:
        """Whether it has come; also if it was never recorded."""
        return not self._records or self._time is not None

    def step(self) -> None:
        """Let the GPU get on a little towards it."""
        if self._stream is not None and not self.reached:
            self._stream.step()

    def wait(self) -> Callable[[], None]:
        """What has to be done for the time that was recorded last."""
        stream = self._stream
        return (lambda: None) if stream is None else lambda: stream.run(lambda: self.reached)

    def since(self, other: "Moment", function: str) -> float:
        """Milliseconds from another one to this."""
        if not self._timed or not other._timed or not self._records or not other._records:
            raise fault(INVALID_HANDLE, function)
        if self._time is None or other._time is None:
            raise fault(NOT_READY, function)
        return self._time - other._time


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
        self.pins: dict[int, Pin] = {}  # by its first address
        self.used = 0
        self.primary = Context()
        self.streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self._next_address = 0x7_0000_0000
        self._next_handle = 0x5_5000_0000
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
            raise fault(INVALID_CONTEXT, function)
        if not stack[-1].alive:
            raise fault(CONTEXT_IS_DESTROYED, function)
        return stack[-1]

    def current_or_primary(self) -> Context:
        """The context that CUDA's runtime, and so TensorRT, works in."""
        return self.stack.contexts[-1] if self.stack.contexts else self.primary

    def reserve(self, size: int, function: str) -> None:
        """Count some memory as used."""
        with self.running:
            if self.used + size > board().memory:
                raise fault(OUT_OF_MEMORY, function)
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

    def new_handle(self) -> int:
        """A number for something that the processor knows by its number only."""
        with self.running:
            self._next_handle += 0x10
            return self._next_handle

    def new_stream(self, context: Context) -> Stream:
        """A stream with nothing to do."""
        with self.running:
            stream = Stream(context, self.new_handle())
            context.streams.add(stream)
            self.streams[stream.handle] = stream
            return stream

    def stream(self, handle: int, context: Context) -> Stream | None:
        """The stream of a context that has some handle."""
        found = context.default_stream if handle == 0 else self.streams.get(handle)
        return found if found is not None and found.context is context else None

    def allocate(self, size: int, function: str) -> int:
        """The address of new memory on the GPU."""
        context = self.current(function)
        if size <= 0:
            raise fault(INVALID_VALUE, function, f"{size} bytes")
        self.reserve(size, function)
        address = self.new_address(size)
        # What was there before is anything but zeros.
        self.device.add(Region(address, np.full(size, 0xA5, np.uint8), context))
        return address

    def free(self, address: int) -> None:
        """Give that back."""
        self.release(len(self.device.remove(address).data))

    def pin(self, size: int, mapped: bool, function: str) -> np.ndarray:
        """New pinned memory of the processor, uint8; if mapped, with an address on the GPU."""
        context = self.current(function)
        counted = size if board().integrated else 0
        self.reserve(counted, function)
        data = np.full(max(size, 1), 0xA5, np.uint8)
        start = data.ctypes.data
        address = self.new_address(size) if mapped else None
        self.pinned.add(Region(start, data, context))
        self.pins[start] = Pin(address, counted)
        if address is not None:
            self.device.add(Region(address, data, context))
        return data

    def unpin(self, start: int) -> int:
        """Give that back; how many bytes are to be released."""
        self.pinned.remove(start)
        pin = self.pins.pop(start)
        if pin.address is not None:
            self.device.remove(pin.address)
        return pin.counted

    def mapped(self, start: int, function: str) -> int:
        """The address on the GPU of pinned memory."""
        self.current(function)
        pin = self.pins.get(start)
        if pin is None or pin.address is None:
            raise fault(INVALID_VALUE, function, "allocated without DEVICEMAP")
        return pin.address

    def queue_copy(
        self,
        start: int,
        size: int,
        address: int,
        stream: Stream | None,
        to_gpu: bool,
        function: str,
    ) -> None:
        """Copy between pinned memory and the GPU's when its turn on the stream comes.

        Args:
            start: the processor's address.
            address: the GPU's.
            stream: None if there is none with the handle that was given.
            to_gpu: the direction.
        """
        context = self.current(function)
        if self.pinned.find(start, size) is None:
            why = "the host's memory is not pinned, so the copy would not be asynchronous"
            raise fault(INVALID_VALUE, function, why)
        if stream is None or stream.context is not context:
            raise fault(INVALID_HANDLE, function)
        self.bytes_at(address, size, context, function)

        def copy() -> None:
            region = self.pinned.find(start, size)
            if region is None:
                raise illegal_access("the host's memory was freed before the copy was done")
            pinned = region.data[start - region.start :][:size]
            there = self.bytes_at(address, size, context)
            dest, src = (there, pinned) if to_gpu else (pinned, there)
            dest[:] = src

        stream.put(copy)

    def bytes_at(self, address: int, size: int, context: Context, function: str = "") -> np.ndarray:
        """The memory of the GPU from `address` on, as uint8 that can be written to.

        Raises:
            LogicError: that much is not there, was freed, or belongs to another context.
        """
        region = self.device.find(address, size)
        if region is None:
            raise illegal_access(f"{size} bytes at {address:#x} are not allocated", function)
        if region.context is not context:
            raise illegal_access(f"{address:#x} belongs to another context", function)
        start = address - region.start
        return region.data[start : start + size]


def now() -> float:
    """Milliseconds."""
    return time.perf_counter() * 1000


gpu = Gpu()
_this = sys.modules[__name__]


@atexit.register
def _end() -> None:
    if sys.modules.get(__name__) is _this:  # a test that played in its own process has ended it
        abort_unless_empty(gpu.stack)
