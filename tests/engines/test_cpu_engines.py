"""ONNX Runtime and OpenVINO: one interface, the same answers."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from engines import onnx_runtime, openvino
from engines.engine import Engine, EngineError

REPOSITORY = Path(__file__).parents[2]
BACKENDS = pytest.mark.parametrize("backend", [onnx_runtime, openvino], ids=lambda m: m.BACKEND)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `save_means`; for pictures of 8 x 6."""
    return save_means(tmp_path_factory.mktemp("graph") / "means.onnx", 8, 6)


def save_means(file: Path, height: int, width: int) -> Path:
    """Softmax of each picture's mean red, green and blue, so that every answer is known."""
    model = onnx.parser.parse_model(
        """<ir_version: 7, opset_import: ["": 13]>
        means (float[batch, HEIGHT, WIDTH, 3] pixels) => (float[batch, 3] probabilities)
        <float scale = {0.01}> {
            sums = ReduceMean <axes = [1, 2], keepdims = 0> (pixels)
            logits = Mul (sums, scale)
            probabilities = Softmax <axis = -1> (logits)
        }""".replace("HEIGHT", str(height)).replace("WIDTH", str(width))
    )
    onnx.save(model, file)
    return file


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 6, 3)).astype(np.uint8)


def expected(pixels: np.ndarray) -> np.ndarray:
    powers = np.exp(0.01 * pixels.astype(np.float64).mean((1, 2)))
    return powers / powers.sum(1, keepdims=True)


@BACKENDS
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_built_engine_answers(
    backend: ModuleType, precision: str, graph: Path, tmp_path: Path
) -> None:
    file = tmp_path / ("engine" + backend.SUFFIX)
    assert backend.build(str(graph), str(file), precision, "cpu")["options"]["threads"] >= 1
    with backend.load(file.read_bytes(), str(file), precision) as engine:
        assert (engine.backend, engine.precision) == (backend.BACKEND, precision)
        assert engine.input.shape == (None, 8, 6, 3)
        assert engine.output.shape == (None, 3)
        for count in (1, 2, 7):
            pixels = pictures(count, count)
            found = engine.infer(pixels)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected(pixels), atol=2e-3)


@BACKENDS
def test_stream_is_in_order_and_whole(backend: ModuleType, graph: Path) -> None:
    batches = [pictures(count, count) for count in (1, 5, 2, 40, 1, 3)]
    with backend.load_graph(str(graph)) as engine:
        for _ in range(3):
            found = list(engine.stream(iter(batches)))
            assert [len(part) for part in found] == [len(part) for part in batches]
            for part, pixels in zip(found, batches, strict=True):
                np.testing.assert_allclose(part, expected(pixels), atol=1e-4)
        assert list(engine.stream(iter([]))) == []


@BACKENDS
def test_results_stay_when_the_next_query_comes(backend: ModuleType, graph: Path) -> None:
    with backend.load_graph(str(graph)) as engine:
        first = engine.infer(pictures(1, 1))
        kept = first.copy()
        engine.infer(pictures(1, 2))
        np.testing.assert_array_equal(first, kept)


@BACKENDS
def test_streams_of_one_engine_may_take_turns(backend: ModuleType, graph: Path) -> None:
    sides = [[pictures(3, 10 * side + n) for n in range(9)] for side in (0, 1)]
    with backend.load_graph(str(graph)) as engine:
        both = zip(*(engine.stream(iter(side)) for side in sides), strict=True)
        for wanted, got in zip(zip(*sides, strict=True), both, strict=True):
            for pixels, found in zip(wanted, got, strict=True):
                np.testing.assert_allclose(found, expected(pixels), atol=1e-4)


@BACKENDS
def test_stream_survives_a_source_that_fails(backend: ModuleType, graph: Path) -> None:
    def source() -> Iterator[np.ndarray]:
        yield pictures(5)
        raise KeyError("the disk is gone")

    with backend.load_graph(str(graph)) as engine:
        with pytest.raises(KeyError):
            list(engine.stream(source()))
        abandoned = engine.stream(iter([pictures(5), pictures(5), pictures(5)]))
        next(abandoned)
        abandoned.close()
        pixels = pictures(4)
        np.testing.assert_allclose(engine.infer(pixels), expected(pixels), atol=1e-4)


@BACKENDS
@pytest.mark.parametrize("count", [1, 3])
def test_layers_are_timed_beside_the_engine(
    backend: ModuleType, count: int, tmp_path: Path
) -> None:
    file = tmp_path / ("engine" + backend.SUFFIX)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 256, 256, 3)).astype(np.uint8)
    backend.build(str(save_means(tmp_path / "means.onnx", 256, 256)), str(file), "fp32", "cpu")
    kept = sorted(tmp_path.iterdir())
    with backend.load(file.read_bytes(), str(file), "fp32") as engine:
        before = engine.infer(pixels)
        start = time.perf_counter()
        layers = engine.layer_times(pixels, runs=20)
        elapsed = 1000 * (time.perf_counter() - start)
        # Names of the graph; where the softmax takes no whole microsecond, OpenVINO leaves it out.
        assert re.search("softmax|probabilities|sums", " ".join(layers), re.IGNORECASE)
        assert all(spent >= 0 for spent in layers.values())
        assert 0 < 20 * sum(layers.values()) < elapsed
        np.testing.assert_array_equal(engine.infer(pixels), before)
    assert sorted(tmp_path.iterdir()) == kept


def test_first_run_is_not_in_the_layers_times() -> None:
    def event(category: str, name: str, begin: int, spent: int) -> dict[str, Any]:
        return {"cat": category, "name": name, "ts": begin, "dur": spent}

    events = [
        event("Session", "model_loading_uri", 0, 5000),
        event("Node", "a_kernel_time", 6001, 900),
        event("Session", "model_run", 6000, 1000),
        *(event("Node", "a_kernel_time", begin, 100) for begin in (7001, 8001)),
        *(event("Node", "b_kernel_time", begin, 20) for begin in (7101, 7121, 8101, 8121)),
        event("Node", "b_fence_after", 8141, 7),
        *(event("Session", "model_run", begin, 200) for begin in (7000, 8000)),
    ]
    assert onnx_runtime._layer_times(events, 2) == pytest.approx({"a": 0.1, "b": 0.04})


def test_engine_whose_file_is_gone_can_be_profiled(graph: Path, tmp_path: Path) -> None:
    file = tmp_path / "engine.onnx"
    onnx_runtime.build(str(graph), str(file), "fp32", "cpu")
    with onnx_runtime.load(file.read_bytes(), str(file), "fp32") as engine:
        file.unlink()
        assert engine.layer_times(pictures(1))


def test_backend_without_a_profiler_tells_no_layers() -> None:
    class Silent(Engine):
        def infer(self, pictures: np.ndarray) -> np.ndarray:
            return np.ones((len(pictures), 1), np.float32)

    assert Silent().layer_times(pictures(1)) == {}


@BACKENDS
@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((1, 6, 8, 3), np.uint8), "takes pictures of shape"),
        (np.zeros((0, 8, 6, 3), np.uint8), "takes pictures of shape"),
        (np.zeros((8, 6, 3), np.uint8), "takes pictures of shape"),
        (np.zeros((1, 8, 6, 3), np.float32), "takes uint8"),
    ],
)
def test_pictures_that_do_not_fit(
    backend: ModuleType, graph: Path, pixels: np.ndarray, words: str
) -> None:
    with backend.load_graph(str(graph)) as engine:
        with pytest.raises(EngineError, match=words):
            engine.infer(pixels)
        with pytest.raises(EngineError, match=words):
            list(engine.stream(iter([pixels])))
        with pytest.raises(EngineError, match=words):
            engine.layer_times(pixels)


@BACKENDS
@pytest.mark.parametrize("data", [b"", b"no engine", bytes(1000)])
def test_file_that_is_no_engine(backend: ModuleType, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "engine"
    file.write_bytes(data)
    with pytest.raises(EngineError, match=f"{backend.__name__.split('.')[-1][:4]}|engine"):
        backend.load(file.read_bytes(), str(file), "fp32")
    with pytest.raises(EngineError):
        backend.build(str(file), str(tmp_path / "built"), "fp32", "cpu")


def test_closing_right_after_the_last_result_does_not_hang(graph: Path) -> None:
    # With OpenVINO's AsyncInferQueue this hung within 40 rounds.
    script = (
        "import sys, numpy\n"
        "from engines import openvino\n"
        "pictures = numpy.zeros((4, 8, 6, 3), numpy.uint8)\n"
        "for _ in range(100):\n"
        "    with openvino.load_graph(sys.argv[1]) as engine:\n"
        "        list(engine.stream(iter([pictures, pictures])))\n"
        "print('ended')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(graph)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "ended\n", done.stderr
