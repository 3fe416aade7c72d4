"""The doubles of TensorRT and pycuda: right use gives right numbers, wrong use fails."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from networks import batches, by_hand, pixels, run, weights
from onnx import ModelProto, TensorProto
from play import environment, play
from snapshot import snapshot

from engines.tensorrt import calibration_cache
from pipeline import calibration
from pipeline.half import to_fp16
from pipeline.qdq import insert_qdq, quantized_inputs
from pipeline.surgery import set_constant

VERSIONS = ("8.2.1", "8.4.1", "8.5.2", "8.6.1", "10.3.0", "10.13.3.9", "11.4.0.106")
BODY = "c = Conv (x, w)  r = Relu (c)  last = Conv (r, v)"
MODEL = by_hand(BODY, 5, {"w": weights(4, 3, 3, 3) / 64, "v": weights(5, 4, 1, 1, seed=1)})
MODEL.graph.node[1].name = "first"
PICTURES = pixels(4, 8)
BATCH = (1, 2, 4)  # smallest, best, largest


@pytest.fixture(params=("8.2.1", "8.6.1", "10.13.3.9"))
def version(request: pytest.FixtureRequest) -> str:
    """One version for each way to call TensorRT that has calibrators."""
    return str(request.param)


@pytest.fixture
def trt(version: str) -> Iterator[Any]:
    with play(version) as module:
        yield module


@pytest.fixture
def cuda() -> Iterator[Any]:
    """pycuda with a context that is current."""
    with play("10.13.3.9"):
        yield from _current()


@pytest.fixture
def gpu(trt: Any) -> Iterator[Any]:
    """The same, beside `trt`."""
    yield from _current()


def _current() -> Iterator[Any]:
    import pycuda.driver

    pycuda.driver.init()
    context = pycuda.driver.Device(0).make_context()
    yield pycuda.driver
    context.pop()


class Bench:
    """What a program does to build and run, each step by itself."""

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.logger, self.said = _the_logger(trt)
        self.said.clear()
        self.builder = trt.Builder(self.logger)
        self.config = self.builder.create_builder_config()
        if hasattr(self.config, "set_memory_pool_limit"):
            self.config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 28)
        else:
            self.config.max_workspace_size = 1 << 28

    def parse(self, model: ModelProto | bytes, *flags: str) -> Any:
        """A network, in which refusals are left to be seen as `self.parser.num_errors`."""
        known = self.trt.NetworkDefinitionCreationFlag
        wanted = [f for f in ("EXPLICIT_BATCH", *flags) if hasattr(known, f)]
        network = self.builder.create_network(sum(1 << int(getattr(known, f)) for f in wanted))
        self.parser = self.trt.OnnxParser(network, self.logger)
        data = model if isinstance(model, bytes) else model.SerializeToString()
        assert self.parser.parse(data) == (self.parser.num_errors == 0)
        return network

    def add_profile(self, *sizes: int) -> int:
        profile = self.builder.create_optimization_profile()
        profile.set_shape("pixels", *((size, 8, 8, 3) for size in sizes or BATCH))
        return int(self.config.add_optimization_profile(profile))

    def flag(self, *names: str) -> Bench:
        for name in names:
            self.config.set_flag(getattr(self.trt.BuilderFlag, name))
        return self

    def build(self, model: ModelProto = MODEL, *flags: str) -> bytes | None:
        """A plan for batches of 1 to 4."""
        network = self.parse(model, *flags)
        assert self.add_profile() == 0
        plan = self.builder.build_serialized_network(network, self.config)
        return None if plan is None else bytes(plan)

    def load(self, plan: bytes | None) -> Any:
        assert plan is not None, self.said
        self.runtime = self.trt.Runtime(self.logger)
        return self.runtime.deserialize_cuda_engine(plan)

    def heard(self, level: str) -> str:
        return "\n".join(text for severity, text in self.said if severity == level)


_loggers: dict[Any, tuple[Any, list[tuple[str, str]]]] = {}


def _the_logger(trt: Any) -> tuple[Any, list[tuple[str, str]]]:
    """The one that a process can have, and what it was told."""
    if trt not in _loggers:
        said: list[tuple[str, str]] = []
        _loggers[trt] = _logger(trt, said), said
    return _loggers[trt]


class Lane:
    """A context, a stream and memory, and one call for both ways to run."""

    def __init__(self, trt: Any, cuda: Any, engine: Any, rows: int = len(PICTURES)) -> None:
        self.trt, self.cuda = trt, cuda
        self.context = engine.create_execution_context()
        self.named = hasattr(engine, "num_io_tensors")
        self.stream = cuda.Stream()
        self.source = cuda.pagelocked_empty((rows, 8, 8, 3), np.float32)
        self.answer = cuda.pagelocked_zeros((rows, 2), np.float32)
        self.there = cuda.mem_alloc(self.source.nbytes), cuda.mem_alloc(self.answer.nbytes)

    def shape(self, *shape: int) -> bool:
        if self.named:
            return bool(self.context.set_input_shape("pixels", shape))
        return bool(self.context.set_binding_shape(0, shape))

    def enqueue(self, source: int | None = None, stream: int | None = None) -> bool:
        addresses = [int(self.there[0]) if source is None else source, int(self.there[1])]
        handle = self.stream.handle if stream is None else stream
        if not self.named:
            return bool(self.context.execute_async_v2(addresses, handle))
        for name, address in zip(("pixels", "probabilities"), addresses, strict=True):
            assert self.context.set_tensor_address(name, address)
        return bool(self.context.execute_async_v3(handle))

    def start(self, pictures: np.ndarray) -> None:
        self.source[: len(pictures)] = pictures
        self.cuda.memcpy_htod_async(self.there[0], self.source[: len(pictures)], self.stream)
        assert self.shape(*pictures.shape)
        assert self.enqueue()
        self.cuda.memcpy_dtoh_async(self.answer, self.there[1], self.stream)

    def run(self, pictures: np.ndarray) -> np.ndarray:
        self.start(pictures)
        self.stream.synchronize()
        return self.answer[: len(pictures)].copy()


def _logger(trt: Any, said: list[tuple[str, str]]) -> Any:
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            said.append((severity.name, message))

    return Logger()


def quantize(model: ModelProto, method: str = "max", pictures: np.ndarray = PICTURES) -> ModelProto:
    amax = calibration.largest_values(model, batches(pictures))
    wanted = list(quantized_inputs(model))
    return insert_qdq(model, calibration.thresholds(model, batches(pictures), amax, wanted, method))


def close(found: np.ndarray, model: ModelProto, pictures: np.ndarray = PICTURES) -> bool:
    return np.allclose(found, run(model, pictures)[0], atol=1e-6)


# Not by chance


@pytest.mark.parametrize("module", ["tensorrt", "pycuda", "pycuda.driver", "cuda_double"])
def test_double_has_to_be_asked_for(module: str) -> None:
    asked = environment("8.2.1")
    for there in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"], env=asked, capture_output=True, text=True
        )
        assert (done.returncode == 0) == there, done.stderr
        asked.pop("EDGETRT_DOUBLE", None)
    assert "ImportError" in done.stderr and "test double" in done.stderr


def test_double_has_no_name_that_no_version_has() -> None:
    classes: dict[str, set[str]] = {}
    for version in VERSIONS:
        for name, parts in snapshot(version)["classes"].items():
            known = classes.setdefault(name, set())
            for part in ("enum", "methods", "properties", "constants", "nested"):
                known.update(parts.get(part, ()))
    with play("8.2.1"):
        double = sys.modules["tensorrt_double"]
        for name in double.__all__:
            made = getattr(double, name)
            if isinstance(made, type):
                own = {one for one in vars(made) if not one.startswith("_")}
                assert own <= classes[name], (name, own - classes[name])
            else:
                assert any(name in snapshot(version)["module"] for version in VERSIONS)


# CUDA


def test_nothing_happens_before_it_is_waited_for(cuda: Any) -> None:
    host, back = cuda.pagelocked_empty(8, np.uint8), cuda.pagelocked_zeros(8, np.uint8)
    host[:] = range(8)
    there, stream, event = cuda.mem_alloc(8), cuda.Stream(), cuda.Event()
    cuda.memcpy_htod_async(there, host, stream)
    cuda.memcpy_dtoh_async(back, there, stream)
    event.record(stream)
    assert not back.any()
    event.synchronize()
    assert (back == host).all()


def test_pinned_memory_that_is_reused_too_early_is_sent_wrong(cuda: Any) -> None:
    host, there, stream = cuda.pagelocked_zeros(8, np.uint8), cuda.mem_alloc(8), cuda.Stream()
    cuda.memcpy_htod_async(there, host, stream)
    host[:] = 7
    stream.synchronize()
    back = np.zeros(8, np.uint8)
    cuda.memcpy_dtoh(back, there)
    assert (back == 7).all()


def test_synchronous_copy_does_not_wait_for_streams(cuda: Any) -> None:
    host, there, stream = cuda.pagelocked_zeros(8, np.uint8), cuda.mem_alloc(8), cuda.Stream()
    cuda.memcpy_htod_async(there, host, stream)
    back = np.empty(8, np.uint8)
    cuda.memcpy_dtoh(back, there)
    assert (back != 0).all()


def test_event_is_reached_when_what_came_before_is_done(cuda: Any) -> None:
    host, there, stream = cuda.pagelocked_zeros(8, np.uint8), cuda.mem_alloc(8), cuda.Stream()
    cuda.memcpy_htod_async(there, host, stream)
    event = cuda.Event().record(stream)
    first, second = np.empty(8, np.uint8), cuda.pagelocked_zeros(8, np.uint8)
    second[:] = 5
    cuda.memcpy_htod_async(there, second, stream)
    event.synchronize()
    cuda.memcpy_dtoh(first, there)
    assert not first.any()
    stream.synchronize()
    cuda.memcpy_dtoh(first, there)
    assert (first == 5).all()


def test_event_recorded_again_is_reached_later(cuda: Any) -> None:
    host, there, stream = cuda.pagelocked_zeros(8, np.uint8), cuda.mem_alloc(8), cuda.Stream()
    event = cuda.Event().record(stream)
    cuda.memcpy_htod_async(there, host, stream)
    event.record(stream).synchronize()
    back = np.empty(8, np.uint8)
    cuda.memcpy_dtoh(back, there)
    assert not back.any()


def test_streams_wait_for_events_of_others(cuda: Any) -> None:
    host, back = cuda.pagelocked_zeros(8, np.uint8), cuda.pagelocked_empty(8, np.uint8)
    there, up, down = cuda.mem_alloc(8), cuda.Stream(), cuda.Stream()
    cuda.memcpy_htod_async(there, host, up)
    down.wait_for_event(cuda.Event().record(up))
    cuda.memcpy_dtoh_async(back, there, down)
    down.synchronize()
    assert not back.any()


def test_asking_for_an_event_lets_the_gpu_get_on(cuda: Any) -> None:
    host, there, stream = cuda.pagelocked_zeros(8, np.uint8), cuda.mem_alloc(8), cuda.Stream()
    for _ in range(3):
        cuda.memcpy_htod_async(there, host, stream)
    event = cuda.Event().record(stream)
    assert not event.query()
    assert any(event.query() for _ in range(4))
    assert stream.is_done()


def test_events_measure_time(cuda: Any) -> None:
    stream, start, end = cuda.Stream(), cuda.Event(), cuda.Event()
    with pytest.raises(cuda.LogicError):
        start.time_till(end)
    start.record(stream)
    end.record(stream)
    with pytest.raises(cuda.RuntimeError, match="not ready"):
        start.time_till(end)
    end.synchronize()
    assert 0 <= start.time_till(end) < 1000
    assert start.time_till(end) == end.time_since(start)


NEEDS_CONTEXT: dict[str, Callable[[Any], Any]] = {
    "mem_alloc": lambda cuda: cuda.mem_alloc(8),
    "mem_get_info": lambda cuda: cuda.mem_get_info(),
    "pagelocked_empty": lambda cuda: cuda.pagelocked_empty(8, np.uint8),
    "Stream": lambda cuda: cuda.Stream(),
    "Event": lambda cuda: cuda.Event(),
    "memcpy_htod": lambda cuda: cuda.memcpy_htod(1, np.zeros(8)),
    "memcpy_dtoh": lambda cuda: cuda.memcpy_dtoh(np.zeros(8), 1),
    "memcpy_htod_async": lambda cuda: cuda.memcpy_htod_async(1, np.zeros(8)),
    "synchronize": lambda cuda: cuda.Context.synchronize(),
    "pop": lambda cuda: cuda.Context.pop(),
}


@pytest.mark.parametrize("name", NEEDS_CONTEXT)
def test_without_a_current_context_nothing_works(name: str) -> None:
    with play("8.2.1"):
        import pycuda.driver as cuda

        with pytest.raises(cuda.LogicError, match="initialization"):
            cuda.Device(0)
        cuda.init()
        context = cuda.Device(0).retain_primary_context()  # which does not push
        with pytest.raises(cuda.LogicError, match="invalid device context"):
            NEEDS_CONTEXT[name](cuda)
        context.push()
        with pytest.raises(cuda.LogicError, match="invalid device context"):
            in_thread(lambda: NEEDS_CONTEXT[name](cuda))
        cuda.Context.pop()


def in_thread(work: Callable[[], Any]) -> Any:
    """What `work` gives in another thread, or raises there."""
    found: list[Any] = []

    def inside() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def test_context_works_in_every_thread_that_pushes_it(cuda: Any) -> None:
    context = cuda.Context.get_current()
    there = cuda.mem_alloc(8)

    def work() -> None:
        context.push()
        cuda.memcpy_htod(there, np.full(8, 3, np.uint8))
        context.pop()

    in_thread(work)
    back = np.zeros(8, np.uint8)
    cuda.memcpy_dtoh(back, there)
    assert (back == 3).all()


WRONG_COPIES: dict[str, tuple[Callable[[Any, Any, Any], Any], type[Exception] | None, str]] = {
    "past the end": (
        lambda cuda, there, _: cuda.memcpy_htod(there, np.zeros(17, np.uint8)),
        None, "illegal memory access"),
    "made-up address": (
        lambda cuda, *_: cuda.memcpy_dtoh(np.zeros(8, np.uint8), 12345),
        None, "illegal memory access"),
    "address of the processor": (
        lambda cuda, _, pinned: cuda.memcpy_htod(pinned.ctypes.data, pinned),
        None, "illegal memory access"),
    "numpy number": (
        lambda cuda, there, pinned: cuda.memcpy_htod(np.int64(int(there)), pinned),
        TypeError, "int64"),
    "not pinned": (
        lambda cuda, there, _: cuda.memcpy_htod_async(there, np.zeros(8), cuda.Stream()),
        None, "not pinned"),
    "not contiguous": (
        lambda cuda, there, pinned: cuda.memcpy_htod(there, pinned[::2]),
        ValueError, "contiguous"),
    "read-only": (
        lambda cuda, there, _: cuda.memcpy_dtoh(bytes(8), there),
        BufferError, "read-only"),
    "no bytes": (lambda cuda, *_: cuda.mem_alloc(0), None, "0 bytes"),
    "numpy size": (lambda cuda, *_: cuda.mem_alloc(np.int64(8)), TypeError, "int64"),
    "not mapped": (
        lambda cuda, _, pinned: pinned.base.get_device_pointer(), None, "DEVICEMAP"),
    "second GPU": (lambda cuda, *_: cuda.Device(1), None, "ordinal"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_COPIES)
def test_wrong_copies_fail(cuda: Any, name: str) -> None:
    work, error, words = WRONG_COPIES[name]
    there, pinned = cuda.mem_alloc(16), cuda.pagelocked_zeros(16, np.uint8)
    with pytest.raises(error or cuda.LogicError, match=words):
        work(cuda, there, pinned)


def test_memory_belongs_to_its_context(cuda: Any) -> None:
    there = cuda.mem_alloc(8)
    other = cuda.Device(0).make_context()
    with pytest.raises(cuda.LogicError, match="another context"):
        cuda.memcpy_htod(there, bytes(8))
    other.pop()
    cuda.memcpy_htod(there, bytes(8))


def test_freed_memory_is_gone(cuda: Any) -> None:
    there = cuda.mem_alloc(8)
    address = int(there)
    there.free()
    with pytest.raises(cuda.LogicError, match="illegal memory access"):
        cuda.memcpy_htod(address, bytes(8))
    with pytest.raises(cuda.LogicError):
        there.free()
    assert int(cuda.mem_alloc(8)) != address


def test_memory_freed_before_its_copy_is_an_error_when_waited_for(cuda: Any) -> None:
    stream, host, there = cuda.Stream(), cuda.pagelocked_zeros(8, np.uint8), cuda.mem_alloc(8)
    cuda.memcpy_htod_async(there, host, stream)
    del host
    with pytest.raises(cuda.LogicError, match="freed before the copy"):
        stream.synchronize()
    host = cuda.pagelocked_zeros(8, np.uint8)
    cuda.memcpy_htod_async(there, host, stream)
    del there
    with pytest.raises(cuda.LogicError, match="illegal memory access"):
        stream.synchronize()


def test_memory_ends() -> None:
    with play("8.2.1", EDGETRT_DOUBLE_MEMORY="1000"):
        for cuda in _current():
            kept = cuda.mem_alloc(600)
            assert cuda.mem_get_info() == (400, 1000)
            with pytest.raises(cuda.MemoryError, match="out of memory"):
                cuda.mem_alloc(401)
            with pytest.raises(cuda.MemoryError):  # a TX2 shares its memory
                cuda.pagelocked_empty(401, np.uint8)
            del kept
            assert cuda.mem_get_info() == (1000, 1000)


def test_memory_freed_in_a_thread_without_the_context_leaks(cuda: Any) -> None:
    there = cuda.mem_alloc(512)
    in_thread(there.free)
    assert cuda.mem_get_info()[1] - cuda.mem_get_info()[0] == 512


def test_mapped_memory_is_the_same_on_both_sides(cuda: Any) -> None:
    shared = cuda.pagelocked_zeros((2, 4), np.uint8, "C", cuda.host_alloc_flags.DEVICEMAP)
    address = shared.base.get_device_pointer()
    cuda.memcpy_htod(address, np.full(8, 9, np.uint8))
    assert (shared == 9).all()
    shared[:] = 4
    back = np.zeros(8, np.uint8)
    cuda.memcpy_dtoh(back, address)
    assert (back == 4).all()


@pytest.mark.parametrize("where", ["main", "thread"])
def test_context_left_on_the_stack_aborts_the_process(where: str) -> None:
    script = (
        "import threading, pycuda.driver as cuda\n"
        "cuda.init()\n"
        "context = cuda.Device(0).retain_primary_context()\n"
        f"where = {where!r}\n"
        "if where == 'main':\n"
        "    context.push()\n"
        "else:\n"
        "    thread = threading.Thread(target=context.push)\n"
        "    thread.start(); thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment("8.2.1"), capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGABRT
    assert "context stack was not empty" in done.stderr


def test_boards() -> None:
    for version, settings, capability, integrated in (
        ("8.2.1", {}, (6, 2), 1),
        ("10.13.3.9", {}, (8, 7), 1),
        ("10.13.3.9", {"EDGETRT_DOUBLE_CC": "8.6"}, (8, 6), 0),
    ):
        with play(version, **settings):
            import pycuda.driver as cuda

            cuda.init()
            device = cuda.Device(0)
            assert device.compute_capability() == capability
            assert device.get_attribute(cuda.device_attribute.INTEGRATED) == integrated
            assert device.name()


def test_pycuda_2019_has_no_primary_context() -> None:
    for release, there in (("2019.1", False), ("2020.1", True)):
        with play("8.2.1", EDGETRT_DOUBLE_PYCUDA=release):
            import pycuda.driver as cuda

            assert hasattr(cuda.Device, "retain_primary_context") == there


# Building and running


@pytest.mark.parametrize("version", VERSIONS)
def test_numbers_are_those_of_the_graph(version: str, trt: Any, gpu: Any) -> None:
    bench = Bench(trt)
    engine = bench.load(bench.build())
    lane = Lane(trt, gpu, engine)
    assert close(lane.run(PICTURES), MODEL)
    assert close(lane.run(PICTURES[:1]), MODEL, PICTURES[:1])
    assert lane.named == (version not in ("8.2.1", "8.4.1"))
    assert not bench.heard("ERROR") and not bench.heard("WARNING")


def test_answer_is_not_there_before_it_is_waited_for(trt: Any, gpu: Any) -> None:
    bench = Bench(trt)
    lane = Lane(trt, gpu, bench.load(bench.build()))
    lane.start(PICTURES)
    assert not lane.answer.any()
    lane.source[:] = 0  # too early
    lane.stream.synchronize()
    assert close(lane.answer, MODEL, np.zeros_like(PICTURES))


def test_engine_tells_what_it_takes(trt: Any) -> None:
    bench = Bench(trt)
    engine = bench.load(bench.build())
    wanted = [(1, 8, 8, 3), (2, 8, 8, 3), (4, 8, 8, 3)]
    if hasattr(engine, "num_bindings"):
        assert [engine.get_binding_name(i) for i in range(engine.num_bindings)] == [
            "pixels", "probabilities"]  # fmt: skip
        assert engine.binding_is_input(0) and not engine.binding_is_input(1)
        assert engine.get_binding_shape(1) == (-1, 2)
        assert engine.get_profile_shape(0, 0) == wanted
    if hasattr(engine, "num_io_tensors"):
        assert engine.get_tensor_mode("probabilities") == trt.TensorIOMode.OUTPUT
        assert engine.get_tensor_shape("pixels") == (-1, 8, 8, 3)
        assert engine.get_tensor_profile_shape("pixels", 0) == wanted
        assert engine.get_tensor_dtype("pixels") == trt.DataType.FLOAT
    context = engine.create_execution_context()
    if hasattr(context, "set_binding_shape"):
        assert context.get_binding_shape(1) == (-1, 2)
        assert context.set_binding_shape(0, (3, 8, 8, 3))
        assert context.get_binding_shape(1) == (3, 2)


def test_static_engine_needs_no_shape(trt: Any, gpu: Any) -> None:
    model = ModelProto()
    model.CopyFrom(MODEL)
    bench = Bench(trt)
    network = bench.parse(model)
    network.get_input(0).shape = (4, 8, 8, 3)
    engine = bench.load(bytes(bench.builder.build_serialized_network(network, bench.config)))
    lane = Lane(trt, gpu, engine)
    lane.source[:] = PICTURES
    gpu.memcpy_htod(lane.there[0], lane.source)
    assert lane.enqueue()
    gpu.memcpy_dtoh_async(lane.answer, lane.there[1], lane.stream)
    lane.stream.synchronize()
    assert close(lane.answer, MODEL)
    assert not lane.shape(1, 8, 8, 3)


def broken(alter: Callable[[ModelProto], Any], model: ModelProto = MODEL) -> ModelProto:
    changed = ModelProto()
    changed.CopyFrom(model)
    alter(changed)
    return changed


def _int32_bias(model: ModelProto) -> None:
    set_constant(model, "bias", np.ones(4, np.int32))
    set_constant(model, "bias_scale", np.float32(0.1))
    set_constant(model, "bias_zero", np.int32(0))
    node = onnx.helper.make_node(
        "DequantizeLinear", ["bias", "bias_scale", "bias_zero"], ["b"], name="bias node"
    )
    model.graph.node.insert(0, node)
    model.graph.node[2].input.append("b")


def _unknown_op(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Det"


QDQ = quantize(MODEL)
REFUSED: dict[str, tuple[bytes | ModelProto, str, int]] = {
    "garbage": (b"no graph", "Failed to parse", -1),
    "truncated": (MODEL.SerializeToString()[:-7], "Failed to parse", -1),
    "operator": (broken(_unknown_op), "Plugin not found", 1),
    "zero point": (
        broken(lambda m: set_constant(m, "x/zero_point", np.int8(5)), QDQ),
        "Non-zero zero point", 1),
    "scale": (
        broken(lambda m: set_constant(m, "x/scale", np.float32(0)), QDQ), "positive", 1),
    "integer bias": (broken(_int32_bias), "input has type Int32", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_parser_refuses(trt: Any, name: str) -> None:
    model, words, node = REFUSED[name]
    bench = Bench(trt)
    bench.parse(model)
    assert bench.parser.num_errors == 1
    error = bench.parser.get_error(0)
    assert words in error.desc() and error.node() == node
    assert words in bench.heard("ERROR")
    if hasattr(error, "node_operator") and name == "operator":
        assert (error.node_name(), error.node_operator()) == ("first", "Det")


def test_explicit_batch_is_to_be_asked_for() -> None:
    for version, errors in (("8.2.1", 1), ("10.13.3.9", 0)):
        with play(version) as trt:
            bench = Bench(trt)
            parser = trt.OnnxParser(bench.builder.create_network(), bench.logger)
            parser.parse(MODEL.SerializeToString())
            assert parser.num_errors == errors
            assert not errors or "EXPLICIT_BATCH" in parser.get_error(0).desc()


def test_bytes_as_input_are_new() -> None:
    def bytes_in(model: ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        cast = onnx.helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT)
        model.graph.node[0].input[0] = "floats"
        model.graph.node.insert(0, cast)

    for version, errors in (("8.2.1", 1), ("10.13.3.9", 0)):
        with play(version) as trt:
            bench = Bench(trt)
            bench.parse(broken(bytes_in))
            assert bench.parser.num_errors == errors


@pytest.mark.parametrize(("version", "flags"), [("8.2.1", ()), ("10.13.3.9", ("STRONGLY_TYPED",))])
def test_builder_refuses_what_lacks_a_profile(version: str, flags: tuple, trt: Any) -> None:
    bench = Bench(trt)
    network = bench.parse(MODEL, *flags)
    assert bench.builder.build_serialized_network(network, bench.config) is None
    assert "no optimization profile has been defined" in bench.heard("ERROR")
    bench.config.add_optimization_profile(bench.builder.create_optimization_profile())
    assert bench.builder.build_serialized_network(network, bench.config) is None
    assert "pixels is missing dimensions in profile 0" in bench.heard("ERROR")
    assert bench.add_profile(1, 8, 4) == -1


def test_workspace_is_to_be_given_on_8_2() -> None:
    with play("8.2.1") as trt:
        bench = Bench(trt)
        bench.config.max_workspace_size = 0
        assert bench.build() is None
        assert "Could not find any implementation for node first" in bench.heard("ERROR")


def test_strong_types_and_flags_exclude_each_other() -> None:
    with play("10.13.3.9") as trt:
        for flag in ("FP16", "INT8"):
            bench = Bench(trt).flag(flag)
            assert bench.build(MODEL, "STRONGLY_TYPED") is None
            assert f"k{flag}" in bench.heard("ERROR")


def test_strong_types_are_not_mixed() -> None:
    mixed = broken(lambda m: set_constant(m, "w", weights(4, 3, 3, 3).astype(np.float16)))
    with play("11.4.0.106") as trt:
        bench = Bench(trt)
        assert bench.build(mixed) is None
        assert bench.heard("ERROR")


def test_weak_types_need_their_flag(trt: Any) -> None:
    bench = Bench(trt)
    assert bench.build(QDQ) is None
    assert "int8 is not configured in the builder" in bench.heard("ERROR")
    assert Bench(trt).flag("INT8").build(QDQ) is not None


@pytest.mark.parametrize("version", ["8.2.1", "10.13.3.9"])
def test_fp16_flag_has_the_numbers_of_fp16(version: str, trt: Any, gpu: Any) -> None:
    bench = Bench(trt).flag("FP16")
    found = Lane(trt, gpu, bench.load(bench.build())).run(PICTURES)
    assert close(found, to_fp16(MODEL))
    assert not np.array_equal(found, run(MODEL, PICTURES)[0])


def test_slow_precisions_are_warned_of() -> None:
    for capability, flag, words in (
        ("6.2", "INT8", "without native Int8"),
        ("6.2", "FP16", ""),
        ("6.1", "FP16", "without native FP16"),
    ):
        with play("8.2.1", EDGETRT_DOUBLE_CC=capability) as trt:
            bench = Bench(trt).flag(flag)
            assert bench.build(QDQ if flag == "INT8" else MODEL) is not None
            assert words in bench.heard("WARNING")
            assert bool(words) == bool(bench.heard("WARNING"))
            assert bench.builder.platform_has_fast_int8 == (capability == "6.1")


# Calibration


class Feed:
    """What a calibrator is asked, and what it answers."""

    def __init__(
        self,
        cuda: Any,
        cache: bytes | None = None,
        size: int = 2,
        pictures: np.ndarray = PICTURES,
    ) -> None:
        self.cuda, self.cache, self.size = cuda, cache, size
        self.parts = list(batches(pictures, size)())
        self.memory = cuda.mem_alloc(pictures[:size].size * 4)
        self.calls: list[str] = []
        self.written: bytes | None = None

    def calibrator(self, trt: Any, kind: str) -> Any:
        feed = self
        base: Any = getattr(trt, kind)

        class Calibrator(base):
            def __init__(self) -> None:
                base.__init__(self)

            def get_batch_size(self) -> int:
                feed.calls.append("size")
                return feed.size

            def get_batch(self, names: list[str]) -> list[int] | None:
                assert names == ["pixels"]
                feed.calls.append("batch")
                return feed.next()

            def read_calibration_cache(self) -> bytes | None:
                feed.calls.append("read")
                return feed.cache

            def write_calibration_cache(self, cache: Any) -> None:
                feed.calls.append("write")
                feed.written = bytes(cache)

        return Calibrator()

    def next(self) -> list[int] | None:
        if not self.parts:
            return None
        self.cuda.memcpy_htod(self.memory, self.parts.pop(0).astype(np.float32))
        return [int(self.memory)]


KINDS = {"IInt8EntropyCalibrator2": "entropy", "IInt8MinMaxCalibrator": "max"}
# Dark pictures and a bright one, which entropy clips and the largest value does not.
DARK = np.random.default_rng(0).exponential(4, (64, 8, 8, 3)).clip(0, 255).astype(np.uint8)
DARK[0] = 250
POINTWISE = by_hand(BODY, 5, {"w": weights(4, 3, 1, 1) / 64, "v": weights(5, 4, 1, 1, seed=1)})


@pytest.mark.parametrize("kind", KINDS)
def test_calibrator_sees_the_pictures(version: str, trt: Any, gpu: Any, kind: str) -> None:
    feed = Feed(gpu, pictures=DARK)
    bench = Bench(trt).flag("INT8")
    bench.config.int8_calibrator = feed.calibrator(trt, kind)
    plan = bench.build(POINTWISE)
    assert feed.calls == ["size", "read", *["batch"] * 33, "write"]
    found = Lane(trt, gpu, bench.load(plan)).run(PICTURES)
    for method in KINDS.values():
        wanted = quantize(POINTWISE, method, DARK)
        assert close(found, wanted) == (method == KINDS[kind])

    header, ranges = calibration_cache.read(feed.written or b"")
    algorithm = "EntropyCalibration2" if kind == "IInt8EntropyCalibrator2" else "MinMaxCalibration"
    assert header == calibration_cache.header(version, algorithm)
    tensors = calibration.float_tensors(POINTWISE)
    assert list(ranges)[: len(tensors)] == tensors
    for tensor, amax in calibration.largest_values(POINTWISE, batches(DARK)).items():
        assert kind == "IInt8EntropyCalibrator2" or ranges[tensor] == pytest.approx(amax)
        assert ranges[tensor] <= amax * 1.000001

    again = Feed(gpu, feed.written)
    second = Bench(trt).flag("INT8")
    second.config.int8_calibrator = again.calibrator(trt, kind)
    repeated = Lane(trt, gpu, second.load(second.build(POINTWISE))).run(PICTURES)
    assert again.calls == ["size", "read"]
    assert np.allclose(repeated, found, atol=1e-6)


def test_ranges_in_a_cache_are_used(version: str, trt: Any, gpu: Any) -> None:
    """Ten times too large, as no picture would give them."""
    amax = {t: 10 * v for t, v in calibration.largest_values(MODEL, batches(PICTURES)).items()}
    bench = Bench(trt).flag("INT8")
    feed = Feed(gpu, calibration_cache.to_bytes(amax, version))
    bench.config.int8_calibrator = feed.calibrator(trt, "IInt8EntropyCalibrator2")
    found = Lane(trt, gpu, bench.load(bench.build())).run(PICTURES)
    wanted = insert_qdq(MODEL, {tensor: amax[tensor] for tensor in quantized_inputs(MODEL)})
    assert close(found, wanted)


@pytest.mark.parametrize(
    "cache",
    [b"TRT-7000-EntropyCalibration2\npixels: 3c010204\n", b"TRT-8201-EntropyCalibration2\nx",
     b"\xff", b"TRT-8201-MinMaxCalibration\npixels: 3c010204\n"],
)  # fmt: skip
def test_cache_that_does_not_fit_is_made_anew(cache: bytes) -> None:
    with play("8.2.1") as trt:
        for gpu in _current():
            bench, feed = Bench(trt).flag("INT8"), Feed(gpu, cache)
            bench.config.int8_calibrator = feed.calibrator(trt, "IInt8EntropyCalibrator2")
            assert bench.build() is not None
            assert feed.written and feed.written.startswith(b"TRT-8201-EntropyCalibration2\npix")
            assert "calibration cache is" in bench.heard("WARNING")


def test_tensor_missing_from_a_cache_stays_float(version: str, trt: Any, gpu: Any) -> None:
    amax = calibration.largest_values(MODEL, batches(PICTURES))
    del amax["r"]
    bench = Bench(trt).flag("INT8")
    feed = Feed(gpu, calibration_cache.to_bytes(amax, version))
    bench.config.int8_calibrator = feed.calibrator(trt, "IInt8EntropyCalibrator2")
    bench.config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    engine = bench.load(bench.build())
    assert "Missing scale and zero-point for tensor r" in bench.heard("WARNING")
    inspector = engine.create_engine_inspector()
    layers = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    quantized = {layer["Inputs"][0]["Name"] for layer in layers["Layers"]
                 if layer["LayerType"] == "QuantizeLinear" and layer["Inputs"]}  # fmt: skip
    assert "x" in quantized and not quantized & {"r", "v"}
    found = Lane(trt, gpu, engine).run(PICTURES)
    assert not np.allclose(found, run(MODEL, PICTURES)[0], atol=1e-6)


def test_cache_of_another_graph_has_no_ranges(version: str, trt: Any, gpu: Any) -> None:
    bench = Bench(trt).flag("INT8")
    feed = Feed(gpu, calibration_cache.to_bytes({"elsewhere": 1.0}, version))
    bench.config.int8_calibrator = feed.calibrator(trt, "IInt8EntropyCalibrator2")
    assert bench.build() is None
    assert "no scaling factors detected" in bench.heard("ERROR")


def test_int8_without_ranges_fails(trt: Any) -> None:
    bench = Bench(trt).flag("INT8")
    assert bench.build() is None
    assert "Calibrator is not being used" in bench.heard("WARNING")
    assert "no scaling factors detected" in bench.heard("ERROR")


def test_ranges_can_be_set_by_hand(trt: Any, gpu: Any) -> None:
    bench = Bench(trt).flag("INT8")
    network = bench.parse(MODEL)
    bench.add_profile()
    amax = calibration.largest_values(MODEL, batches(PICTURES))
    for place in range(network.num_layers):
        tensor = network.get_layer(place).get_output(0)
        assert tensor.set_dynamic_range(-amax[tensor.name], amax[tensor.name])
    plan = bench.builder.build_serialized_network(network, bench.config)
    assert close(Lane(trt, gpu, bench.load(bytes(plan))).run(PICTURES), QDQ)


def test_calibrator_without_pictures_has_no_ranges(trt: Any, gpu: Any) -> None:
    bench, feed = Bench(trt).flag("INT8"), Feed(gpu)
    feed.parts.clear()
    bench.config.int8_calibrator = feed.calibrator(trt, "IInt8EntropyCalibrator2")
    assert bench.build() is None
    assert "no scaling factors detected" in bench.heard("ERROR")
    assert feed.written is None


def test_exception_in_a_calibrator_is_only_printed(
    trt: Any, gpu: Any, capfd: pytest.CaptureFixture
) -> None:
    bench, feed = Bench(trt).flag("INT8"), Feed(gpu)

    def fail() -> list[int]:
        raise OSError("the picture is gone")

    feed.next = fail  # type: ignore[method-assign]
    bench.config.int8_calibrator = feed.calibrator(trt, "IInt8EntropyCalibrator2")
    assert bench.build() is None
    assert "Exception caught in get_batch(): the picture is gone" in capfd.readouterr().err


def test_pictures_have_to_be_on_the_gpu(trt: Any, gpu: Any) -> None:
    host = PICTURES[:2].astype(np.float32)
    for address, words in (
        (lambda feed: host.ctypes.data, "illegal memory access"),
        (lambda feed: int(feed.memory) + 512, "illegal memory access"),
        (lambda feed: feed.memory, "not one int"),
    ):
        bench, feed = Bench(trt).flag("INT8"), Feed(gpu)
        feed.next = lambda feed=feed, address=address: [address(feed)]  # type: ignore
        bench.config.int8_calibrator = feed.calibrator(trt, "IInt8EntropyCalibrator2")
        assert bench.build() is None
        assert words in bench.heard("ERROR")


def test_calibrators_batch_is_the_profiles(trt: Any, gpu: Any) -> None:
    bench, feed = Bench(trt).flag("INT8"), Feed(gpu, size=4)
    bench.config.int8_calibrator = feed.calibrator(trt, "IInt8EntropyCalibrator2")
    assert bench.build() is None
    assert "batches of 4, the profile of 2" in bench.heard("ERROR")
    profile = bench.builder.create_optimization_profile()
    profile.set_shape("pixels", *[(4, 8, 8, 3)] * 3)
    second, feed = Bench(trt).flag("INT8"), Feed(gpu, size=4)
    second.config.int8_calibrator = feed.calibrator(trt, "IInt8EntropyCalibrator2")
    assert second.config.set_calibration_profile(profile)
    assert second.build() is not None
    assert feed.calls == ["size", "read", "batch", "batch", "write"]


# Engine files


def test_engine_fits_its_version_and_gpu_only() -> None:
    plans = {}
    for made in ("8.2.1", "8.6.1", "10.13.3.9"):
        with play(made, EDGETRT_DOUBLE_CC="8.7") as trt:
            plans[made] = Bench(trt).build()
    for version, capability, made, words in (
        ("8.2.1", "8.7", "8.6.1", "Version tag does not match. Note: Current Version: 205"),
        ("10.13.3.9", "8.7", "8.6.1", "expecting library version 10.13.3.9 got 8.6.1"),
        ("8.6.1", "8.6", "8.6.1", "incompatible device, expecting compute 8.6 got compute 8.7"),
    ):
        with play(version, EDGETRT_DOUBLE_CC=capability) as trt:
            bench = Bench(trt)
            assert bench.load(plans[made]) is None
            assert words in bench.heard("ERROR")


def test_engine_file_that_is_none(trt: Any) -> None:
    bench = Bench(trt)
    plan = bench.build() or b""
    for data, words in (
        (b"", "Magic tag does not match"),
        (b"no engine" * 100, "Magic tag does not match"),
        (plan[:-1], "Unexpected end"),
        (plan + b"x", "Unexpected end"),
    ):
        bench.said.clear()
        assert bench.load(data) is None
        assert words in bench.heard("ERROR")
        assert "deserializ" in bench.heard("ERROR")


@pytest.mark.parametrize("place", [50, -1, -500])
def test_tampered_engine_is_run(trt: Any, place: int) -> None:
    bench = Bench(trt)
    plan = bytearray(bench.build() or b"")
    plan[place] ^= 1
    with pytest.raises(BaseException, match="changed") as caught:
        bench.load(bytes(plan))
    assert not isinstance(caught.value, Exception)


def test_engine_too_large_for_the_gpu() -> None:
    with play("8.2.1") as trt:
        bench = Bench(trt)
        plan = bench.build() or b""
        size = bench.load(plan).device_memory_size
    with play("8.2.1", EDGETRT_DOUBLE_MEMORY=str(len(plan) - 1)) as trt:
        bench = Bench(trt)
        assert bench.build() is None and "OutOfMemory" in bench.heard("ERROR")
        assert bench.load(plan) is None and "out of memory" in bench.heard("ERROR")
    with play("8.2.1", EDGETRT_DOUBLE_MEMORY=str(len(plan) + size)) as trt:
        engine = Bench(trt).load(plan)
        first = engine.create_execution_context()
        assert first is not None
        assert engine.create_execution_context() is None
        del first
        assert engine.create_execution_context() is not None


# Execution contexts


@pytest.fixture
def lane(trt: Any, gpu: Any) -> Iterator[Lane]:
    bench = Bench(trt)
    made = Lane(trt, gpu, bench.load(bench.build()))
    made.bench = bench  # type: ignore[attr-defined]
    yield made


def errors(lane: Any) -> str:
    return str(lane.bench.heard("ERROR"))


def test_shape_comes_first(lane: Lane) -> None:
    assert not lane.enqueue()
    assert "not all input dimensions are specified" in errors(lane)


@pytest.mark.parametrize(
    "shape", [(0, 8, 8, 3), (5, 8, 8, 3), (1, 9, 8, 3), (1, 8, 8), (1, 3, 8, 8)]
)
def test_shape_has_to_fit_the_profile(lane: Lane, shape: tuple[int, ...]) -> None:
    assert lane.shape(4, 8, 8, 3)
    assert not lane.shape(*shape)
    assert errors(lane)
    assert not lane.enqueue()


def test_addresses_come_first(lane: Lane) -> None:
    assert lane.shape(4, 8, 8, 3)
    if lane.named:
        assert not lane.context.execute_async_v3(lane.stream.handle)
        assert "Address is not set for input tensor pixels" in errors(lane)
    else:
        assert not lane.context.execute_async_v2([int(lane.there[0])], lane.stream.handle)


def test_addresses_and_stream_have_to_be_real(lane: Lane) -> None:
    assert lane.shape(4, 8, 8, 3)
    assert not lane.enqueue(source=lane.source.ctypes.data)
    assert not lane.enqueue(source=int(lane.there[1]))  # too small
    assert not lane.enqueue(stream=1)
    assert lane.enqueue()


def test_engine_and_stream_belong_to_one_cuda_context(lane: Lane) -> None:
    assert lane.shape(4, 8, 8, 3)
    other = lane.cuda.Device(0).make_context()
    stream = lane.cuda.Stream()
    assert not lane.enqueue()
    assert "another CUDA context" in errors(lane)
    other.pop()
    assert not lane.enqueue(stream=stream.handle)
    in_another_thread = in_thread(lambda: lane.enqueue())
    assert not in_another_thread  # no context is current there


def test_two_threads_need_two_execution_contexts(lane: Lane) -> None:
    context = lane.cuda.Context.get_current()
    lane.start(PICTURES)

    def work() -> None:
        context.push()
        try:
            lane.shape(1, 8, 8, 3)
        finally:
            context.pop()

    with pytest.raises(BaseException, match="two threads") as caught:
        in_thread(work)
    assert not isinstance(caught.value, Exception)
    lane.stream.synchronize()
    in_thread(work)  # one after the other is fine


def test_one_stream_at_a_time(lane: Lane) -> None:
    lane.start(PICTURES)
    other = lane.cuda.Stream()
    assert not lane.enqueue(stream=other.handle)
    assert lane.enqueue()
    lane.stream.synchronize()
    assert lane.enqueue(stream=other.handle)


def test_context_destroyed_before_its_run(lane: Lane) -> None:
    lane.start(PICTURES)
    del lane.context
    with pytest.raises(lane.cuda.LogicError, match="destroyed before its run"):
        lane.stream.synchronize()


def test_memory_freed_before_its_run(lane: Lane) -> None:
    lane.start(PICTURES)
    lane.there[0].free()
    with pytest.raises(lane.cuda.LogicError, match="illegal memory access"):
        lane.stream.synchronize()


def _profiler(trt: Any, times: list[tuple[str, float]]) -> Any:
    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.append((layer_name, ms))

    return Profiler()


def test_profiler_is_given_every_layer(lane: Lane) -> None:
    times: list[tuple[str, float]] = []
    lane.context.profiler = _profiler(lane.trt, times)
    lane.run(PICTURES)
    assert [name for name, _ in times][:3] == ["node_of_x", "first", "node_of_r"]
    assert len(times) == len(MODEL.graph.node)
    assert all(0 <= ms < 1000 for _, ms in times)
    if hasattr(lane.context, "enqueue_emits_profile"):
        times.clear()
        lane.context.enqueue_emits_profile = False
        lane.start(PICTURES)
        assert not lane.context.report_to_profiler()
        lane.stream.synchronize()
        assert not times
        assert lane.context.report_to_profiler()
        assert len(times) == len(MODEL.graph.node)


def test_inspector_tells_what_it_was_built_to_tell(trt: Any) -> None:
    for verbosity in ("DETAILED", "LAYER_NAMES_ONLY", "NONE"):
        bench = Bench(trt)
        bench.config.profiling_verbosity = getattr(trt.ProfilingVerbosity, verbosity)
        inspector = bench.load(bench.build()).create_engine_inspector()
        layers = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        assert layers["Bindings"] == ["pixels", "probabilities"]
        if verbosity == "NONE":
            assert not layers["Layers"]
        elif verbosity == "DETAILED":
            assert layers["Layers"][1]["LayerType"] == "Conv"
            assert layers["Layers"][1]["Outputs"][0]["Dimensions"] == [-1, 4, 6, 6]
        else:
            assert layers["Layers"][1] == "first"


# The rest of building


def _monitor(trt: Any, calls: list, go_on: Callable[[], bool]) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, *given: Any) -> None:
            calls.append(("start", *given))

        def step_complete(self, *given: Any) -> bool:
            calls.append(("step", *given))
            return go_on()

        def phase_finish(self, *given: Any) -> None:
            calls.append(("finish", *given))

    return Monitor()


def test_progress_is_shown_and_can_end_the_build() -> None:
    with play("10.13.3.9") as trt:
        calls: list = []
        bench = Bench(trt)
        bench.config.progress_monitor = _monitor(trt, calls, lambda: True)
        assert bench.build() is not None
        count = len(MODEL.graph.node)
        assert calls[0] == ("start", "Building engine", None, 1)
        assert calls[1] == ("start", "Computing profile costs", "Building engine", count)
        assert [call[2] for call in calls if call[0] == "step"] == list(range(count))
        assert [call[1] for call in calls[-2:]] == ["Computing profile costs", "Building engine"]

        calls.clear()
        bench = Bench(trt)
        bench.config.progress_monitor = _monitor(trt, calls, lambda: len(calls) < 5)
        assert bench.build() is None
        assert "BuildCanceled" in bench.heard("ERROR")
        assert len([call for call in calls if call[0] == "finish"]) == 2


def test_timing_cache_is_kept(trt: Any) -> None:
    bench = Bench(trt)
    cache = bench.config.create_timing_cache(b"")
    empty = bytes(cache.serialize())
    assert bench.config.set_timing_cache(cache, False)
    bench.build()
    kept = bytes(bench.config.get_timing_cache().serialize())
    assert len(kept) > len(empty)
    count = len(MODEL.graph.node)
    assert f"{count} layers timed, 0 from the timing cache" in bench.heard("INFO")
    second = Bench(trt)
    second.config.set_timing_cache(second.config.create_timing_cache(kept), False)
    second.build()
    assert f"0 layers timed, {count} from the timing cache" in second.heard("INFO")
    assert bench.config.create_timing_cache(b"no cache") is None
    assert "Magic tag" in bench.heard("ERROR")


def test_timing_cache_of_another_gpu_is_refused() -> None:
    with play("8.6.1", EDGETRT_DOUBLE_CC="8.6") as trt:
        bench = Bench(trt)
        bench.build()
        kept = bytes(bench.config.get_timing_cache().serialize())
    with play("8.6.1", EDGETRT_DOUBLE_CC="8.9") as trt:
        bench = Bench(trt)
        cache = bench.config.create_timing_cache(kept)
        assert not bench.config.set_timing_cache(cache, False)
        assert bench.config.set_timing_cache(cache, True)


def test_process_has_one_logger(trt: Any) -> None:
    said: list[list[tuple[str, str]]] = [[], [], []]
    loggers = [_logger(trt, one) for one in said]
    first = trt.Builder(loggers[0])
    second = trt.Runtime(loggers[1])
    assert "differs from one already registered" in said[0][0][1]
    assert second.deserialize_cuda_engine(b"no engine") is None
    assert len(said[0]) > 1 and not said[1]
    del first, second
    assert trt.Runtime(loggers[2]).deserialize_cuda_engine(b"no engine") is None
    assert said[2]


def test_build_can_be_killed_like_one_without_memory() -> None:
    script = (
        "import tensorrt as trt\n"
        "builder = trt.Builder(trt.Logger())\n"
        "builder.build_serialized_network(builder.create_network(), "
        "builder.create_builder_config())\n"
    )
    for kill, code in (("0", 0), ("1", -signal.SIGKILL)):
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment("8.2.1", EDGETRT_DOUBLE_KILL=kill),
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


def test_hexadecimal_of_a_cache() -> None:
    """The reference's own example: 1/127 is written 3c010204."""
    assert struct.pack(">f", 1 / 127).hex() == "3c010204"
