"""What `Engine.infer` adds to the calls of each runtime that it can't do without."""

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List

import numpy as np

from benchmarks.ratios.command import edgetrt, progress, scratch
from benchmarks.ratios.figure import Figure, ratio
from engines import onnx_runtime, openvino
from engines.catalogue import load_engine, read_sidecars
from engines.engine import Engine
from engines.orders import Order, fulfil
from engines.tensorrt import standard
from engines.tensorrt.dialects import dialect_of
from engines.tensorrt.logger import log_of
from engines.tensorrt.memory import Device, as_bytes, cuda_calls

GRAPH = Path(__file__).parents[1] / "device" / "known" / "model.fp32.onnx"
MOST = 1.02
ROUNDS, QUERIES = 20, 200
# A query takes milliseconds on a processor: many short turns, as something else may want it too.
CPU_ROUNDS, CPU_QUERIES = 200, 5

Infer = Callable[[np.ndarray], np.ndarray]


def measure(pictures: Path) -> List[Figure]:
    """Time single pictures through engines, and through the bare calls, in turns.

    On processors the network is the demo's. On a GPU, if TensorRT has one, it is a small one:
    with a larger one the same microseconds are a smaller share.

    Args:
        pictures: a folder with one folder of pictures for each class.
    """
    return _on_processor(pictures) + _on_gpu()


def _on_processor(pictures: Path) -> List[Figure]:
    figures = []
    with scratch() as run:
        edgetrt("retrain", "--image-dir", pictures, "--run", run, "--how-many-training-steps", 1)
        edgetrt("export", "--run", run)
        edgetrt("quantize", "--run", run)
        edgetrt("build", "--run", run, "--engine", ",".join(BARE), "--precision", "fp32,int8")
        for sidecar in read_sidecars(run / "engines"):
            progress("overhead: {}".format(sidecar["name"]))
            with load_engine(run / "engines", sidecar) as engine:
                figures.append(_compare(engine, bare_calls(engine), CPU_ROUNDS, CPU_QUERIES))
    return figures


def _on_gpu() -> List[Figure]:
    reason = standard.none_runs()
    if reason is not None:
        progress("overhead: TensorRT is not measured, {}".format(reason))
        return []
    order = Order(standard.BACKEND, "fp32", standard.target_here())
    with scratch() as folder:
        sidecar, _ = fulfil(order, GRAPH, folder, {})
        plan = folder / sidecar["file"]
        with load_engine(folder, sidecar) as engine, _bare_tensorrt(plan) as bare:
            return [_compare(engine, bare, ROUNDS, QUERIES)]


def _compare(engine: Engine, bare: Infer, rounds: int, queries: int) -> Figure:
    """The two in turns, each first in every other round."""
    _, height, width, _ = engine.input.shape
    random = np.random.RandomState(0)
    picture = random.randint(0, 256, (1, int(height or 0), int(width or 0), 3)).astype(np.uint8)
    ours: List[float] = []
    theirs: List[float] = []
    ways = [(engine.infer, ours), (bare, theirs)]
    for _ in range(rounds):
        for infer, milliseconds in ways:
            milliseconds.append(_timed(infer, picture, queries) * 1e3)
        ways.reverse()
    name = "{}-{}: infer against the bare calls".format(engine.backend, engine.precision)
    return ratio(name, "ms", ours, theirs, MOST, at_least=False)


def _timed(infer: Infer, picture: np.ndarray, queries: int) -> float:
    infer(picture)
    start = time.perf_counter()
    for _ in range(queries):
        infer(picture)
    return (time.perf_counter() - start) / queries


def bare_calls(engine: Engine) -> Infer:
    """The calls of ONNX Runtime or OpenVINO that an engine of theirs can't do without."""
    return BARE[engine.backend](engine)


def _bare_onnx_runtime(engine: Any) -> Infer:
    """The engine's own session: two of the same file may differ by more than is measured here."""
    session, source, outputs = engine._session, engine.input.name, [engine.output.name]

    def infer(picture: np.ndarray) -> np.ndarray:
        answer: np.ndarray = session.run(outputs, {source: picture.astype(np.float32)})[0]
        return answer

    return infer


def _bare_openvino(engine: Any) -> Infer:
    """A request of the engine's own compiled model, its pixels copied to where it reads them.

    `request.infer()` would be one call less, and is slower where processors are busy elsewhere.
    """
    request = engine._for("LATENCY").create_infer_request()
    pixels, answer = request.get_input_tensor().data, request.get_output_tensor().data

    def infer(picture: np.ndarray) -> np.ndarray:
        np.copyto(pixels, picture)
        request.start_async()
        request.wait()
        found: np.ndarray = answer.copy()
        return found

    return infer


BARE = {onnx_runtime.BACKEND: _bare_onnx_runtime, openvino.BACKEND: _bare_openvino}


@contextmanager
def _bare_tensorrt(plan: Path) -> Iterator[Infer]:
    """The calls themselves, for one picture: nothing is checked, nothing is kept general."""
    import tensorrt

    cuda = cuda_calls()
    with Device():
        runtime = tensorrt.Runtime(log_of(tensorrt).logger)
        engine = runtime.deserialize_cuda_engine(plan.read_bytes())
        context = engine.create_execution_context()
        tensors = dialect_of(tensorrt).tensors(engine)
        shapes: List[Any] = [(1, *spec.shape[1:]) for spec in (tensors.input, tensors.output)]
        source, result = (cuda.pagelocked_empty(shape, np.float32) for shape in shapes)
        pixels, answers = map(as_bytes, (source, result))
        memory = [cuda.mem_alloc(len(room)) for room in (pixels, answers)]
        there, back = map(int, memory)
        tensors.set_shape(context, shapes[0])
        bindings = tensors.bind(context, there, back)  # None where they have names
        stream = cuda.Stream()

        def infer(picture: np.ndarray) -> np.ndarray:
            source[...] = picture
            cuda.memcpy_htod_async(there, pixels, stream)
            if bindings is None:
                context.execute_async_v3(stream.handle)
            else:
                context.execute_async_v2(bindings, stream.handle)
            cuda.memcpy_dtoh_async(answers, back, stream)
            stream.synchronize()
            answer: np.ndarray = result.copy()
            return answer

        yield infer
