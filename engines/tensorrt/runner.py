"""Running a TensorRT engine: batches in lanes, as many at a time as there are callers."""

from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from engines.engine import Engine, EngineError
from engines.tensorrt.dialect import Dialect, Tensors
from engines.tensorrt.graph import Graph, record
from engines.tensorrt.logger import Log, log_of
from engines.tensorrt.memory import Device

AT_ONCE = 2  # batches in a stream: one is copied while another is computed


class GpuTimes(NamedTuple):
    """Milliseconds that a batch took on the GPU, by its own clock."""

    upload: float
    compute: float
    download: float


class TensorRTEngine(Engine):
    """An engine on this machine's first GPU; may be used from several threads.

    Attributes:
        graphs: whether batches are recorded as CUDA graphs, each size of one when it comes again;
            to be set before the first. Not every network can be.
        batch: the smallest and the largest that it computes in one go.
        picture: height, width and channels of one.
    """

    def __init__(self, dialect: Dialect, backend: str, precision: str, path: str) -> None:
        """Load the engine in `path`, which was checked before: it is native code.

        Raises:
            EngineError: it was built by another TensorRT or for another GPU, or CUDA fails.
        """
        self.backend, self.precision = backend, precision
        self._trt, self._log, self._device = dialect.trt, log_of(dialect.trt), Device()
        self._idle: List[_Lane] = []
        plan = Path(path).read_bytes()
        with self._device.current():
            self._log.clear()
            self._runtime = dialect.trt.Runtime(self._log.logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise EngineError(
                    "TensorRT can't load {}: {}; build it again".format(path, self._log.error())
                )
            self._tensors = dialect.tensors(self._engine)
            self._contexts: Any = dialect.contexts(self._runtime, self._engine, plan)
        self.input, self.output = self._tensors.input, self._tensors.output
        self.batch = self._tensors.batch
        self.graphs = False
        self.picture: Tuple[Any, ...] = self.input.shape[1:]

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`; more pictures than the engine's largest batch go in several."""
        self.check_pictures(pictures)
        if self._engine is None:
            raise EngineError("the engine was closed")
        largest = self.batch[1]
        if len(pictures) > largest:
            parts = range(0, len(pictures), largest)
            return np.concatenate([self.infer(pictures[i : i + largest]) for i in parts])
        with self._device.current(), self._lane() as lane:
            lane.start(pictures)
            return lane.finish()

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See `Engine.stream`: a batch is copied while the one before it is computed."""
        working: Deque[_Lane] = deque()
        try:
            for pictures in batches:
                self.check_pictures(pictures)
                if len(working) == AT_ONCE:
                    yield self._finish(working)
                if len(pictures) > self.batch[1]:
                    while working:
                        yield self._finish(working)
                    yield self.infer(pictures)
                    continue
                with self._device.current():
                    lane = self._take_lane()
                    working.append(lane)
                    lane.start(pictures)
            while working:
                yield self._finish(working)
        finally:
            with self._device.current():
                for lane in working:  # of a stream that was not read to its end
                    lane.free()

    def infer_timed(self, pictures: np.ndarray) -> Tuple[np.ndarray, GpuTimes]:
        """`infer` for at most the largest batch, and what the GPU's clock says of it."""
        self.check_pictures(pictures)
        with self._device.current(), self._lane() as lane:
            moments = [self._device.event() for _ in range(4)]
            lane.start(pictures, moments)
            answer = lane.finish()
            spans = (a.time_till(b) for a, b in zip(moments, moments[1:]))
            return answer, GpuTimes(*spans)

    def layer_times(self, pictures: np.ndarray, runs: int = 10) -> Dict[str, float]:
        """Mean milliseconds of each layer, by TensorRT's profiler.

        Layers are timed one by one: together they take longer than a run without the profiler.

        Args:
            pictures: as for `infer`, at most the largest batch.
            runs: how many are averaged, after one that is not.
        """
        self.check_pictures(pictures)
        with self._device.current():
            lane = self._new_lane()  # a profiler can't be taken off its context again
            lane.forget_graphs()  # it sees each layer only where they are started one by one
            try:
                lane.start(pictures)
                lane.finish()
                profiler = _make_profiler(self._trt)
                lane.context.profiler = profiler
                for _ in range(runs):
                    lane.start(pictures)
                    lane.finish()
            finally:
                lane.free()
        return {name: total / runs for name, total in profiler.totals.items()}

    def layers(self) -> str:
        """TensorRT's own description of the engine's layers, JSON."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def __enter__(self) -> "TensorRTEngine":
        return self

    def close(self) -> None:
        """See `Engine.close`; no thread may be at work."""
        if self._engine is None:
            return
        with self._device.current():
            self._contexts.save()
            while self._idle:
                self._idle.pop().free()
            # In the order in which one rests on the other.
            self._contexts = self._engine = self._runtime = None

    @contextmanager
    def _lane(self) -> Iterator["_Lane"]:
        """A lane for one batch; one in which something failed is not used again."""
        lane = self._take_lane()
        try:
            yield lane
        except BaseException:
            lane.free()
            raise
        self._idle.append(lane)

    def _take_lane(self) -> "_Lane":
        try:
            return self._idle.pop()
        except IndexError:
            return self._new_lane()

    def _new_lane(self) -> "_Lane":
        context = self._contexts.create()
        if context is None:
            raise EngineError("TensorRT can't run the engine: {}".format(self._log.error()))
        return _Lane(self._device, self._tensors, context, self._log, self.graphs)

    def _finish(self, working: Deque["_Lane"]) -> np.ndarray:
        with self._device.current():
            answer = working[0].finish()
        self._idle.append(working.popleft())
        return answer


class _Lane:
    """An execution context with a stream and buffers, for one batch at a time.

    Contexts are not to be shared by threads, and buffers are made once, for the largest batch.
    """

    def __init__(
        self, device: Device, tensors: Tensors, context: Any, log: Log, graphs: bool
    ) -> None:
        self.context = context
        self._graphs: Optional[Dict[int, Graph]] = {} if graphs else None  # by number of rows
        self._tensors, self._log = tensors, log
        largest = tensors.batch[1]
        self._stream = device.stream()
        self._source = device.buffer((largest, *tensors.input.shape[1:]))
        self._result = device.buffer((largest, *tensors.output.shape[1:]))
        self._bound = tensors.bind(context, self._source.pointer, self._result.pointer)
        self._picture = tensors.input.shape[1:]
        self._rows = self._pictures = 0

    def start(self, pictures: np.ndarray, moments: Optional[List[Any]] = None) -> None:
        """Put a batch on the stream.

        Args:
            pictures: no more than the largest batch. Where there are fewer than the smallest,
                whatever the buffer holds is computed beside them.
            moments: four events to record: before, after upload, compute and download.
        """
        self._pictures = len(pictures)
        np.copyto(self._source.host[: self._pictures], pictures)
        rows = max(self._pictures, self._tensors.batch[0])
        recorded = None if moments else self._graphs and self._graphs.get(rows)
        if recorded:
            recorded.launch(self._stream.handle)
            return
        changed = rows != self._rows
        if changed:
            if not self._tensors.set_shape(self.context, (rows, *self._picture)):
                raise EngineError(
                    "TensorRT refuses a batch of {}: {}".format(rows, self._log.error())
                )
            self._rows = rows
        if self._graphs is None or moments or changed:
            self._enqueue(rows, iter(moments or ()))
        else:  # TensorRT's preparations for the shape were made in the run before
            stream = self._stream.handle
            self._graphs[rows] = record(stream, lambda: self._enqueue(rows, iter(())))
            self._graphs[rows].launch(stream)

    def _enqueue(self, rows: int, marks: Iterator[Any]) -> None:
        self._mark(marks)
        self._source.upload(rows, self._stream)
        self._mark(marks)
        if not self._tensors.enqueue(self.context, self._bound, self._stream.handle):
            raise EngineError("TensorRT can't run the batch: {}".format(self._log.error()))
        self._mark(marks)
        self._result.download(rows, self._stream)
        self._mark(marks)

    def forget_graphs(self) -> None:
        """Start every batch call by call."""
        self._graphs = None

    def finish(self) -> np.ndarray:
        """Wait for the batch; its answers."""
        self._stream.synchronize()
        answer: np.ndarray = self._result.host[: self._pictures].copy()
        return answer

    def free(self) -> None:
        """Give everything back, after what may still be at work."""
        try:
            self._stream.synchronize()
        finally:
            for graph in (self._graphs or {}).values():
                graph.free()
            self._source.free()
            self._result.free()
            del self.context, self._stream

    def _mark(self, marks: Iterator[Any]) -> None:
        moment = next(marks, None)
        if moment is not None:
            moment.record(self._stream)


def _make_profiler(trt: Any) -> Any:
    """A profiler that adds up the milliseconds of each layer in `totals`."""

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)  # the binding demands this very call
            self.totals = {}  # type: Dict[str, float]

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.totals[layer_name] = self.totals.get(layer_name, 0.0) + ms

    return Profiler()
