"""What `Engine.infer` adds to the calls of TensorRT and CUDA that it can't do without."""

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List

import numpy as np

from benchmarks.ratios.command import progress, scratch
from benchmarks.ratios.figure import Figure, ratio
from engines.catalogue import load_engine
from engines.orders import Order, fulfil
from engines.tensorrt import standard
from engines.tensorrt.dialects import dialect_of
from engines.tensorrt.logger import log_of
from engines.tensorrt.memory import Device

GRAPH = Path(__file__).parents[1] / "device" / "known" / "model.fp32.onnx"
ROUNDS, QUERIES = 20, 200


def measure(_pictures: Path) -> List[Figure]:
    """Time single pictures through an engine, and through the bare calls, in turns.

    The network is a small one: with a larger one the same microseconds are a smaller share. Nothing
    is measured where TensorRT has no GPU.
    """
    reason = standard.none_runs()
    if reason is not None:
        progress("overhead: not measured, {}".format(reason))
        return []
    order = Order(standard.BACKEND, "fp32", standard.target_here())
    with scratch() as folder:
        sidecar, _ = fulfil(order, GRAPH, folder, {})
        with load_engine(folder, sidecar) as engine:
            _, height, width, _ = engine.input.shape
            picture = np.zeros((1, int(height or 0), int(width or 0), 3), np.uint8)
            with _bare(folder / sidecar["file"]) as bare:
                ways = [lambda: engine.infer(picture), lambda: bare(picture)]
                ours: List[float] = []
                theirs: List[float] = []
                for _ in range(ROUNDS):
                    for way, seconds in zip(ways, (ours, theirs)):
                        seconds.append(_timed(way) * 1e3)
    return [ratio("infer against the bare calls", "ms", ours, theirs, 1.02, at_least=False)]


def _timed(work: Callable[[], Any]) -> float:
    work()
    start = time.perf_counter()
    for _ in range(QUERIES):
        work()
    return (time.perf_counter() - start) / QUERIES


@contextmanager
def _bare(plan: Path) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """The calls themselves, for one picture: nothing is checked, nothing is kept general."""
    import pycuda.driver as cuda
    import tensorrt

    with Device().current():
        runtime = tensorrt.Runtime(log_of(tensorrt).logger)
        engine = runtime.deserialize_cuda_engine(plan.read_bytes())
        context = engine.create_execution_context()
        tensors = dialect_of(tensorrt).tensors(engine)
        shapes: List[Any] = [(1, *spec.shape[1:]) for spec in (tensors.input, tensors.output)]
        source, result = (cuda.pagelocked_empty(shape, np.float32) for shape in shapes)
        memory = [cuda.mem_alloc(int(array.nbytes)) for array in (source, result)]
        there, back = map(int, memory)
        tensors.set_shape(context, shapes[0])
        bindings = tensors.bind(context, there, back)  # None where they have names
        stream = cuda.Stream()

        def infer(picture: np.ndarray) -> np.ndarray:
            source[...] = picture
            cuda.memcpy_htod_async(there, source, stream)
            if bindings is None:
                context.execute_async_v3(stream.handle)
            else:
                context.execute_async_v2(bindings, stream.handle)
            cuda.memcpy_dtoh_async(result, back, stream)
            stream.synchronize()
            answer: np.ndarray = result.copy()
            return answer

        yield infer
