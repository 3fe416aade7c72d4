"""Running a TensorRT engine: batches in lanes, as many at a time as there are callers."""

from collections import deque
from typing import Any, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from engines.engine import Engine, EngineError
from engines.tensorrt.dialect import Dialect, Tensors
from engines.tensorrt.graph import Graph, record
from engines.tensorrt.logger import FULL, Log, log_of
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

    def __init__(
        self, dialect: Dialect, backend: str, precision: str, plan: bytes, path: str
    ) -> None:
        """Load an engine.

        Args:
            plan: the engine; it was checked before, as it is native code.
            path: where it is from.

        Raises:
            EngineError: it was built by another TensorRT or for another GPU, or CUDA fails.
        """
        self.backend, self.precision = backend, precision
        self._trt, self._log, self._device = dialect.trt, log_of(dialect.trt), Device()
        self._idle: List[_Lane] = []
        with self._device:
            self._log.clear()
            self._runtime = dialect.trt.Runtime(self._log.logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                error = self._log.error()
                again = "" if FULL.search(error) else "; build it again"
                raise EngineError("TensorRT can't load {}: {}{}".format(path, error, again))
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
        with self._device:
            return self._answer(pictures)

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
                with self._device:
                    lane = self._take_lane()
                    working.append(lane)
                    lane.start(pictures)
            while working:
                yield self._finish(working)
        finally:
            with self._device:
                for lane in working:  # of a stream that was not read to its end
                    lane.free()

    def infer_timed(self, pictures: np.ndarray) -> Tuple[np.ndarray, GpuTimes]:
        """`infer` for at most the largest batch, and what the GPU's clock says of it."""
        self.check_pictures(pictures)
        with self._device:
            moments = [self._device.event() for _ in range(4)]
            answer = self._answer(pictures, moments)
            times = GpuTimes(*(a.time_till(b) for a, b in zip(moments, moments[1:])))
            del moments  # pycuda frees them only where the GPU is worked on
            return answer, times

    def layer_times(self, pictures: np.ndarray, runs: int = 10) -> Dict[str, float]:
        """Mean milliseconds of each layer, by TensorRT's profiler.

        Layers are timed one by one: together they take longer than a run without the profiler.

        Args:
            pictures: as for `infer`, at most the largest batch.
            runs: how many are averaged, after one that is not.
        """
        self.check_pictures(pictures)
        with self._device:
            lane = self._new_lane()  # a profiler can't be taken off its context again
            lane.record = False  # it sees each layer only where they are started one by one
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
        with self._device:
            self._contexts.save()
            while self._idle:
                self._idle.pop().free()
            # In the order in which one rests on the other.
            self._contexts = self._engine = self._runtime = None

    def _answer(self, pictures: np.ndarray, moments: Optional[List[Any]] = None) -> np.ndarray:
        """A batch through a lane; one in which something failed is not used again."""
        lane = self._take_lane()
        try:
            lane.start(pictures, moments)
            answer = lane.finish()
        except BaseException:
            lane.free()
            raise
        self._idle.append(lane)
        return answer

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
        with self._device:
            answer = working[0].finish()
        self._idle.append(working.popleft())
        return answer


class _Lane:
    """An execution context with a stream and buffers, for one batch at a time.

    Contexts are not to be shared by threads, and buffers are made once, for the largest batch.

    Attributes:
        record: whether a batch is recorded as a CUDA graph when its size comes a second time.
    """

    def __init__(
        self, device: Device, tensors: Tensors, context: Any, log: Log, record: bool
    ) -> None:
        self.context, self.record = context, record
        self._graph: Optional[Graph] = None
        self._tensors, self._log = tensors, log
        self._smallest, largest = tensors.batch
        self._stream = device.stream()
        self._handle = self._stream.handle
        self._source = device.buffer((largest, *tensors.input.shape[1:]))
        try:
            self._result = device.buffer((largest, *tensors.output.shape[1:]))
        except BaseException:
            self._source.free()
            raise
        self._bound = tensors.bind(context, self._source.pointer, self._result.pointer)
        self._pixels, self._answers = self._source.host, self._result.host
        self._rows = self._pictures = 0

    def start(self, pictures: np.ndarray, moments: Optional[List[Any]] = None) -> None:
        """Put a batch on the stream.

        Args:
            pictures: no more than the largest batch. Where there are fewer than the smallest,
                whatever the buffer holds is computed beside them.
            moments: four events to record: before, after upload, compute and download.
        """
        changed = len(pictures) != self._pictures and self._resize(len(pictures))
        self._pixels[...] = pictures
        if moments is not None:
            self._enqueue_timed(*moments)
        elif changed or not self.record:
            self._enqueue()
        else:  # TensorRT's preparations for the shape were made in the run before
            if self._graph is None:
                self._graph = record(self._handle, self._enqueue)
            self._graph.launch(self._handle)

    def finish(self) -> np.ndarray:
        """Wait for the batch; its answers."""
        self._stream.synchronize()
        answer: np.ndarray = self._answers.copy()
        return answer

    def free(self) -> None:
        """Give everything back, after what may still be at work."""
        try:
            self._stream.synchronize()
        finally:
            self._forget_graph()
            del self._pixels, self._answers  # else the memory outlives what is freed next
            self._source.free()
            self._result.free()
            del self.context, self._stream

    def _resize(self, pictures: int) -> bool:
        """Be ready for so many; whether TensorRT is told another shape."""
        rows = max(pictures, self._smallest)
        changed = rows != self._rows
        if changed:
            if not self._tensors.set_shape(self.context, (rows, *self._tensors.input.shape[1:])):
                raise EngineError(
                    "TensorRT refuses a batch of {}: {}".format(rows, self._log.error())
                )
            self._forget_graph()  # a context may be told no other shape while one is in use
            self._source.copy_only(rows)
            self._result.copy_only(rows)
            self._rows = rows
        self._pixels, self._answers = self._source.host[:pictures], self._result.host[:pictures]
        self._pictures = pictures
        return changed

    def _enqueue(self) -> None:
        self._source.upload(self._stream)
        self._compute()
        self._result.download(self._stream)

    def _enqueue_timed(self, begun: Any, uploaded: Any, computed: Any, downloaded: Any) -> None:
        begun.record(self._stream)
        self._source.upload(self._stream)
        uploaded.record(self._stream)
        self._compute()
        computed.record(self._stream)
        self._result.download(self._stream)
        downloaded.record(self._stream)

    def _compute(self) -> None:
        if not self._tensors.enqueue(self.context, self._bound, self._handle):
            raise EngineError("TensorRT can't run the batch: {}".format(self._log.error()))

    def _forget_graph(self) -> None:
        if self._graph is not None:
            self._graph.free()
            self._graph = None


def _make_profiler(trt: Any) -> Any:
    """A profiler that adds up the milliseconds of each layer in `totals`."""

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)  # the binding demands this very call
            self.totals = {}  # type: Dict[str, float]

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.totals[layer_name] = self.totals.get(layer_name, 0.0) + ms

    return Profiler()
