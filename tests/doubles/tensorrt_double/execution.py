"""Running an engine: shapes and addresses first, then work that is put on a stream.

Stricter than TensorRT, which leaves these undefined: an execution context that two threads or two
streams use at once, a context or engine that is gone before its work is done, a stream or memory
of another CUDA context.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from cuda_double import _gpu

from . import messages
from .network import NUMPY, Dims, dtype_of, shape_of
from .played import played

if TYPE_CHECKING:
    from .engine import ICudaEngine

Times = list[tuple[str, float]]  # milliseconds of each layer


class IProfiler:
    """What people derive their profilers from."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Is given each layer's time."""
        raise NotImplementedError


class IExecutionContext:
    """What runs an engine. It keeps the engine, and belongs to one thread at a time."""

    def __init__(self, engine: "ICudaEngine") -> None:
        self._engine = engine
        take_memory(self, engine.device_memory_size)
        self._calls = threading.Lock()
        self._waiting: deque[tuple[int, int]] = deque()  # thread and stream of unfinished work
        self._addresses: dict[str, int] = {}
        self._times: Times | None = None
        self._prepared: dict[str, Any] = {}
        # A static input needs no shape.
        shapes = {name: shape_of(engine._values[name]) for name in engine._inputs}
        self._shapes = {name: shape for name, shape in shapes.items() if -1 not in shape}
        dynamic = len(self._shapes) < len(shapes)
        self._has_profile = True
        if played().numbers < (10,) and dynamic and engine._first() is not None:
            self._has_profile = False
            messages.error(
                "3: [executionContext.cpp::ExecutionContext] Profile 0 has been chosen by another "
                "IExecutionContext. Use another profileIndex or destroy the IExecutionContext that "
                "use this profile."
            )
        else:
            engine._first = weakref.ref(self)
        self.name = ""
        self.profiler: IProfiler | None = None
        self.enqueue_emits_profile = True
        self.debug_sync = False

    @property
    def engine(self) -> "ICudaEngine":
        """The one it runs."""
        return self._engine

    @property
    def active_optimization_profile(self) -> int:
        """The first, or none; the double knows no other."""
        return 0 if self._has_profile else -1

    @property
    def all_binding_shapes_specified(self) -> bool:
        """Whether it could run."""
        return len(self._shapes) == len(self._engine._inputs)

    # By index: up to TensorRT 8.

    def set_binding_shape(self, binding: int, shape: Sequence[int]) -> bool:
        """Say which shape an input has."""
        with self._alone("setBindingDimensions"):
            name = self._engine._names[binding]
            return self._set_shape("setBindingDimensions", name, shape)

    def get_binding_shape(self, binding: int) -> Dims:
        """-1 where it depends on inputs whose shape was not said."""
        return Dims(self._shape(self._engine._names[binding]))

    def execute_async_v2(
        self, bindings: Sequence[int], stream_handle: int, input_consumed: Any = None
    ) -> bool:
        """Put a run on a stream; the addresses of all inputs and outputs in the engine's order."""
        with self._alone("enqueueV2"):
            return self._enqueue_all("enqueueV2", bindings, stream_handle)

    def execute_v2(self, bindings: Sequence[int]) -> bool:
        """The same, and wait."""
        with self._alone("executeV2"):
            done = self._enqueue_all("executeV2", bindings, 0)
        if done:
            self._engine._cuda.default_stream.run()
        return done

    # By name: since TensorRT 8.5.

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """Say which shape an input has."""
        with self._alone("setInputShape"):
            return self._set_shape("setInputShape", name, shape)

    def get_tensor_shape(self, name: str) -> Dims:
        """-1 where it depends on inputs whose shape was not said."""
        return Dims(self._shape(name))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where on the GPU an input or output lies."""
        with self._alone("setTensorAddress"):
            if name not in self._engine._values:
                return self._fail("setTensorAddress", f"{name} is no input or output")
            self._addresses[name] = memory
            return True

    def get_tensor_address(self, name: str) -> int:
        """Where it lies; 0: that was not said."""
        return self._addresses.get(name, 0)

    def infer_shapes(self) -> list[str]:
        """The inputs whose shapes or addresses are missing."""
        return [n for n in self._engine._inputs if n not in self._shapes]

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Put a run on a stream."""
        with self._alone("enqueueV3"):
            for name in self._engine._names:
                if not self._addresses.get(name):
                    kind = "input" if name in self._engine._inputs else "output"
                    return self._fail(
                        "enqueueV3",
                        f"Address is not set for {kind} tensor {name}. Call "
                        "setInputTensorAddress or setTensorAddress before enqueue/execute.",
                    )
            return self._enqueue("enqueueV3", dict(self._addresses), stream_handle)

    def report_to_profiler(self) -> bool:
        """Give the profiler the times of the last run; False: there is none that is done."""
        if self.profiler is None or self._times is None or self._waiting:
            return self._fail("reportToProfiler", "there is no run to report")
        self._report(self._times)
        self._times = None
        return True

    def _set_shape(self, function: str, name: str, shape: Sequence[int]) -> bool:
        if name not in self._engine._inputs:
            return self._fail(function, f"{name} is no input")
        if not self._has_profile:
            return self._fail(function, "no optimization profile has been set so far")
        given = tuple(int(length) for length in shape)
        small, _, large = self._engine._profile_shapes(name, 0)
        self._shapes.pop(name, None)
        if len(given) != len(small):
            return self._fail(function, f"{name} has {len(small)} axes, not {len(given)}")
        for axis, (length, lowest, highest) in enumerate(zip(given, small, large, strict=True)):
            if not lowest <= length <= highest:
                return self._fail(
                    function,
                    f"Supplied binding dimension {list(given)} for bindings[{name}] exceed min ~ "
                    f"max range at index {axis}, maximum dimension in profile is {highest}, "
                    f"minimum dimension in profile is {lowest}, but supplied dimension is "
                    f"{length}.",
                )
        self._shapes[name] = given
        return True

    def _shape(self, name: str) -> tuple[int, ...]:
        """The shape of an input or output, as far as the inputs' shapes settle it."""
        if name in self._shapes:
            return self._shapes[name]
        settled = {}
        for source, shape in self._shapes.items():
            dims = self._engine._values[source].type.tensor_type.shape.dim
            settled.update(
                {d.dim_param: length for d, length in zip(dims, shape, strict=True) if d.dim_param}
            )
        dims = self._engine._values[name].type.tensor_type.shape.dim
        return tuple(
            d.dim_value if d.HasField("dim_value") else settled.get(d.dim_param, -1) for d in dims
        )

    def _enqueue_all(self, function: str, bindings: Sequence[int], stream_handle: int) -> bool:
        names = self._engine._names
        if len(bindings) != len(names):
            return self._fail(function, f"{len(bindings)} addresses for {len(names)} bindings")
        return self._enqueue(function, dict(zip(names, bindings, strict=True)), stream_handle)

    def _enqueue(self, function: str, addresses: dict[str, int], stream_handle: int) -> bool:
        cuda = self._engine._cuda
        if _gpu.gpu.current_or_primary() is not cuda:
            return self._fail(function, "the engine belongs to another CUDA context")
        stream = _gpu.gpu.stream(stream_handle, cuda)
        if stream is None:
            return self._fail(function, f"{stream_handle:#x} is no stream of this CUDA context")
        if not self.all_binding_shapes_specified:
            return self._fail(function, "not all input dimensions are specified")
        if any(handle != stream_handle for _, handle in self._waiting):
            return self._fail(function, "this execution context is at work on another stream")
        shapes = {name: self._shape(name) for name in self._engine._names}
        try:
            for name, shape in shapes.items():
                _gpu.gpu.bytes_at(addresses[name], self._engine._bytes(name, shape), cuda)
        except _gpu.LogicError as problem:
            return self._fail(function, f"tensor {name}: {problem}")
        if not stream.captures:
            self._waiting.append((threading.get_ident(), stream_handle))
        elif not self._ran_with(shapes):
            return self._fail(function, "a run with these shapes must come before its capture")
        self._prepared = dict(shapes)
        stream.put(_run(weakref.ref(self), addresses, shapes, self.profiler is not None))
        if self.profiler is not None and self.enqueue_emits_profile:
            stream.run()  # as TensorRT, which waits in order to tell the times
            self.report_to_profiler()
        return True

    def _ran_with(self, shapes: dict[str, Any]) -> bool:
        """Whether the run before had these shapes; TensorRT makes its preparations in one."""
        return self._prepared == shapes

    def _finish(self, addresses: dict[str, int], shapes: dict[str, Any], timed: bool) -> None:
        """What happens when the stream has come to a run."""
        engine = self._engine
        if self._waiting:  # not what a graph launches
            self._waiting.popleft()
        memory = {
            name: _gpu.gpu.bytes_at(address, engine._bytes(name, shapes[name]), engine._cuda)
            for name, address in addresses.items()
        }
        feeds = {
            name: memory[name].view(NUMPY[dtype_of(engine._values[name])]).reshape(shapes[name])
            for name in engine._inputs
        }
        # The processor may overwrite the memory from another thread meanwhile; a copy is a copy.
        feeds = {name: np.array(values) for name, values in feeds.items()}
        if timed:
            found, self._times = engine._graph.run_timed(feeds)
        else:
            found = engine._graph.run(feeds)
        for name, values in zip(engine._graph.outputs, found, strict=True):
            memory[name][:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)

    def _report(self, times: Times) -> None:
        if self.profiler is not None:
            for layer, milliseconds in times:
                self.profiler.report_layer_time(layer, milliseconds)

    @contextmanager
    def _alone(self, function: str) -> Iterator[None]:
        """See that no other thread uses this context."""
        thread = threading.get_ident()
        if not self._calls.acquire(blocking=False):
            raise two_threads(function)
        try:
            if any(other != thread for other, _ in self._waiting):
                raise two_threads(function)
            yield
        finally:
            self._calls.release()

    def _fail(self, function: str, text: str) -> bool:
        messages.api_error(f"IExecutionContext::{function}", 3, "API Usage Error", text)
        return False


class SharedContext(BaseException):
    """An execution context was used by two threads at once, which TensorRT does not survive.

    Not an `Exception`, so that nobody catches it by chance.
    """


def two_threads(function: str) -> SharedContext:
    """Say it, and give what to raise."""
    text = "an execution context is used by two threads at once"
    messages.api_error(f"IExecutionContext::{function}", 3, "API Usage Error", text)
    return SharedContext(text)


def _run(
    context: "weakref.ref[IExecutionContext]",
    addresses: dict[str, int],
    shapes: dict[str, Any],
    timed: bool,
) -> Callable[[], None]:
    """Work for a stream. As in CUDA it keeps nothing of what it needs alive."""

    def work() -> None:
        alive = context()
        if alive is None:
            raise _gpu.illegal_access("the execution context was destroyed before its run")
        alive._finish(addresses, shapes, timed)

    return work


def take_memory(owner: Any, size: int) -> None:
    """Count memory of the GPU as used for as long as its owner lives."""
    _gpu.gpu.reserve(size, "cuMemAlloc")
    weakref.finalize(owner, _gpu.gpu.release, size).atexit = False
