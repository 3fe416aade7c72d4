"""What `Engine.infer` adds to the calls of TensorRT and CUDA that it can't do without."""

import time
from pathlib import Path
from typing import Any, Callable, List

import numpy as np

from benchmarks.ratios.command import progress, scratch
from benchmarks.ratios.figure import Figure, ratio
from engines.catalogue import load_engine, runs_here
from engines.orders import Order, fulfil
from engines.tensorrt import standard

GRAPH = Path(__file__).parents[1] / "device" / "known" / "model.fp32.onnx"
ROUNDS, QUERIES = 20, 200


def measure(_pictures: Path) -> List[Figure]:
    """Time single pictures through an engine, and through the bare calls, in turns.

    The network is a small one: with a larger one the same microseconds are a smaller share. Nothing
    is measured where TensorRT has no GPU.
    """
    if not runs_here(standard.BACKEND):
        progress("overhead: not measured, {}".format(standard.none_runs()))
        return []
    order = Order(standard.BACKEND, "fp32", standard.target_here())
    with scratch() as folder:
        sidecar, _ = fulfil(order, GRAPH, folder, {})
        with load_engine(folder, sidecar) as engine:
            _, height, width, _ = engine.input.shape
            picture = np.zeros((1, int(height or 0), int(width or 0), 3), np.uint8)
            with Bare(folder / sidecar["file"]) as bare:
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


class Bare:
    """The calls themselves, for one picture: nothing is checked, nothing is kept general."""

    def __init__(self, plan: Path) -> None:
        import pycuda.driver as cuda
        import tensorrt

        self._cuda, self._trt = cuda, tensorrt
        cuda.init()
        device = cuda.Device(0)
        retain = getattr(device, "retain_primary_context", None)
        self._context = retain() if retain else device.make_context()
        if retain is None:
            cuda.Context.pop()
        self._plan = plan.read_bytes()

    def __enter__(self) -> Callable[[np.ndarray], np.ndarray]:
        from engines.tensorrt.logger import log_of

        cuda, trt = self._cuda, self._trt
        self._context.push()
        self._runtime = trt.Runtime(log_of(trt).logger)
        engine = self._engine = self._runtime.deserialize_cuda_engine(self._plan)
        run = self._run = engine.create_execution_context()
        stream = cuda.Stream()
        named = hasattr(engine, "num_io_tensors")
        if named:
            names = [engine.get_tensor_name(i) for i in range(2)]
            if engine.get_tensor_mode(names[0]) != trt.TensorIOMode.INPUT:
                names.reverse()
            shapes = [tuple(engine.get_tensor_shape(name)) for name in names]
            run.set_input_shape(names[0], (1, *shapes[0][1:]))
        else:
            places = sorted(range(2), key=lambda i: not engine.binding_is_input(i))
            shapes = [tuple(engine.get_binding_shape(i)) for i in places]
            run.set_binding_shape(places[0], (1, *shapes[0][1:]))
        host = [cuda.pagelocked_empty((1, *shape[1:]), np.float32) for shape in shapes]
        gpu = [cuda.mem_alloc(int(array.nbytes)) for array in host]
        where = [int(memory) for memory in gpu]
        if named:
            for name, address in zip(names, where):
                run.set_tensor_address(name, address)
        else:
            bindings = [address for _, address in sorted(zip(places, where))]

        def infer(picture: np.ndarray) -> np.ndarray:
            host[0][...] = picture
            cuda.memcpy_htod_async(where[0], host[0], stream)
            if named:
                run.execute_async_v3(stream.handle)
            else:
                run.execute_async_v2(bindings, stream.handle)
            cuda.memcpy_dtoh_async(host[1], where[1], stream)
            stream.synchronize()
            answer: np.ndarray = host[1].copy()
            return answer

        self._kept = gpu, host, stream
        return infer

    def __exit__(self, *exc: Any) -> None:
        del self._kept, self._run, self._engine, self._runtime
        self._context.pop()
