"""OpenVINO on the processor."""

from collections import deque
from pathlib import Path
from typing import Any, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional

import numpy as np

from engines.engine import Engine, EngineError, TensorSpec, processors
from engines.settings import DEFAULT, Settings

BACKEND = "openvino"
SUFFIX = ".blob"

# What OpenVINO calls the type it computes in, by our precision. An INT8 graph computes its
# unquantized rest in f32: left to itself, OpenVINO would take bf16 on processors that have it.
COMPUTE_TYPES = {"fp32": "f32", "fp16": "f16", "int8": "f32"}


def unavailable() -> Optional[str]:
    """Why it can't be used here; None if it can."""
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        return "OpenVINO is not installed ({}); pip install openvino".format(error)
    return None


def build(
    onnx_path: str,
    engine_path: str,
    precision: str,
    target: str,
    settings: Settings = DEFAULT,
    progress: Any = None,
) -> Dict[str, Any]:
    """Compile a graph for this processor.

    It is compiled for one picture at a time, which on processors is faster than batches, even
    counted over many pictures.

    Args:
        onnx_path: graph with one input (N, height, width, 3) and one output.
        engine_path: file to write.
        precision: "fp32", "fp16" or "int8"; the graph already has it.
        target: "cpu".
        settings, progress: of no use here.

    Returns:
        "options": those that made it, among them the type it really computes in.

    Raises:
        EngineError: OpenVINO does not take the graph.
    """
    compute = _compute_type(precision)
    compiled = compile_graph(onnx_path, compute, "LATENCY")
    Path(engine_path).write_bytes(compiled.export_model().getvalue())
    return {"options": {"computes_in": compute, "input": "uint8", "threads": processors()}}


def compile_graph(onnx_path: str, compute: str, hint: str, profiled: bool = False) -> Any:
    """OpenVINO's compiled model of an ONNX graph, taking one picture of uint8 pixels at a time.

    Args:
        compute: "f32" or "f16".
        hint: "LATENCY" or "THROUGHPUT".
        profiled: whether each layer is timed.

    Raises:
        EngineError: OpenVINO does not take the graph.
    """
    import openvino
    from openvino.preprocess import PrePostProcessor

    try:
        core = openvino.Core()
        pre = PrePostProcessor(core.read_model(onnx_path))
        pre.input().tensor().set_element_type(openvino.Type.u8)
        model = pre.build()
        shape = model.input().get_partial_shape()
        shape[0] = 1
        model.reshape(shape)
        return core.compile_model(model, "CPU", _config(compute, hint, profiled))
    except RuntimeError as error:
        raise EngineError(
            "OpenVINO can't compile {}: {}".format(onnx_path, _last_line(error))
        ) from error


def load(data: bytes, path: str, precision: str) -> Engine:
    """An engine that `build` wrote.

    Args:
        data: the engine.
        path: where it is from.

    Raises:
        EngineError: it is no such file, or one of another version.
    """
    compute = _compute_type(precision)
    return OpenVINOEngine(
        lambda hint, profiled=False: _import(data, compute, hint, profiled, path), precision
    )


def load_graph(onnx_path: str, precision: str = "fp32") -> Engine:
    """An engine straight from an ONNX graph, for many pictures in this process only."""
    compute = _compute_type(precision)
    return OpenVINOEngine(
        lambda hint, profiled=False: compile_graph(onnx_path, compute, hint, profiled),
        precision,
        "THROUGHPUT",
    )


class OpenVINOEngine(Engine):
    """A model compiled for the latency of one picture, for many at a time, or both."""

    backend = BACKEND

    def __init__(self, compiler: Any, precision: str, hint: str = "LATENCY") -> None:
        """Compile with `compiler`: from a performance hint, and whether profiled, to a model.

        It is compiled for `hint` now, for the other when that is first needed.
        """
        self.precision = precision
        self._compiler = compiler
        self._compiled = {hint: compiler(hint)}
        self._request: Optional[_Request] = None
        self._idle: List[_Request] = []  # for many pictures
        compiled = self._compiled[hint]
        source, result = compiled.input(), compiled.output()
        self.input = TensorSpec(
            source.any_name, (None, *tuple(source.partial_shape.to_shape())[1:]), "uint8"
        )
        self._outputs = int(result.partial_shape.to_shape()[1])
        self.output = TensorSpec(result.any_name, (None, self._outputs), "float32")

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`; several pictures are worked on at the same time."""
        self.check_pictures(pictures)
        if len(pictures) > 1:
            return next(self.stream(iter([pictures])))
        if self._request is None:
            self._request = _Request(self._for("LATENCY"))
        self._request.start(pictures[0])
        return self._request.answer()[np.newaxis].copy()

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See `Engine.stream`."""
        compiled = self._for("THROUGHPUT")
        streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        under_way: Deque[_Job] = deque()
        try:
            for pictures in batches:
                self.check_pictures(pictures)
                results = np.empty((len(pictures), self._outputs), np.float32)
                for place, picture in enumerate(pictures):
                    # As many again as there are streams wait with their pixels ready: else a
                    # stream stands still while Python stores a result and fetches the next
                    # picture, which took 5 % of the processors.
                    if len(under_way) == 2 * streams:
                        yield from self._finish(under_way.popleft())
                    request = self._idle.pop() if self._idle else _Request(compiled)
                    request.start(picture)
                    under_way.append(_Job(request, results, place))
            while under_way:
                yield from self._finish(under_way.popleft())
        finally:
            for job in under_way:  # nobody wants their answers any more
                job.request.answer()
                self._idle.append(job.request)

    def layer_times(self, pictures: np.ndarray, runs: int = 10) -> Dict[str, float]:
        """See `Engine.layer_times`; of several pictures, the sum of one after another."""
        self.check_pictures(pictures)
        request = _Request(self._compiler("LATENCY", True))
        request.start(pictures[0])
        request.answer()
        first = request.layer_times()
        for _ in range(runs):
            for picture in pictures:
                request.start(picture)
                request.answer()
        # OpenVINO's times are means over every picture so far, with the slow first one; in whole
        # microseconds, so that what is left of a quick layer can be less than nothing.
        counted = runs * len(pictures)
        return {
            name: max(0.0, ((counted + 1) * mean - first.get(name, mean)) / runs)
            for name, mean in request.layer_times().items()
        }

    def close(self) -> None:
        """See `Engine.close`."""
        self._request = None
        self._idle = []
        self._compiled = {}

    def _for(self, hint: str) -> Any:
        if hint not in self._compiled:
            self._compiled[hint] = self._compiler(hint)
        return self._compiled[hint]

    def _finish(self, job: "_Job") -> Iterator[np.ndarray]:
        """Wait for a job; gives its batch's results if it was the batch's last."""
        job.results[job.place] = job.request.answer()
        self._idle.append(job.request)
        if job.place == len(job.results) - 1:
            yield job.results


class _Request:
    """One picture at a time through a compiled model.

    No AsyncInferQueue: its threads need Python's lock after the last result is there, and a
    model that is closed at that moment waits for them for ever, holding it (2026.4). And pixels
    are copied into the request's own memory: handing OpenVINO an array costs more, 0.1 ms.
    """

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._pixels = self._request.get_input_tensor().data[0]
        self._answer = self._request.get_output_tensor().data[0]

    def start(self, picture: np.ndarray) -> None:
        """Begin with a picture (height, width, 3); it may be changed afterwards."""
        np.copyto(self._pixels, picture)
        self._request.start_async()

    def answer(self) -> np.ndarray:
        """Wait for the outputs, (outputs,) float32; the next `start` changes them.

        Raises:
            EngineError: OpenVINO failed.
        """
        try:
            self._request.wait()
        except RuntimeError as error:
            raise EngineError("OpenVINO failed: {}".format(_last_line(error))) from error
        return self._answer

    def layer_times(self) -> Dict[str, float]:
        """Mean milliseconds of each layer that was run, in a model that is profiled."""
        import openvino

        ran = openvino.ProfilingInfo.Status.EXECUTED
        times = {}  # type: Dict[str, float]
        for layer in self._request.profiling_info:
            if layer.status == ran:
                name, spent = layer.node_name, layer.real_time.total_seconds()
                times[name] = times.get(name, 0.0) + 1000 * spent
        return times


class _Job(NamedTuple):
    """One picture of a batch under way."""

    request: _Request
    results: np.ndarray
    place: int


def _compute_type(precision: str) -> str:
    """The type a graph of `precision` computes in here: f16 only where the processor has it."""
    import openvino

    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    wanted = COMPUTE_TYPES[precision]
    return wanted if wanted == "f32" or "FP16" in capabilities else "f32"


def _config(compute: str, hint: str, profiled: bool) -> Dict[str, Any]:
    return {
        "PERF_COUNT": profiled,
        "INFERENCE_PRECISION_HINT": compute,
        "PERFORMANCE_HINT": hint,
        "INFERENCE_NUM_THREADS": processors(),
    }


def _import(blob: bytes, compute: str, hint: str, profiled: bool, path: str) -> Any:
    import io

    import openvino

    try:
        config = _config(compute, hint, profiled)
        return openvino.Core().import_model(io.BytesIO(blob), "CPU", config)
    except RuntimeError as error:
        raise EngineError(
            "OpenVINO can't load {}: {}; build it again".format(path, _last_line(error))
        ) from error


def _last_line(error: Exception) -> str:
    # The first lines are addresses in OpenVINO's own source.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
