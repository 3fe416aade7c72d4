"""Running engines: right answers however they are asked for, and a clear word when they can't."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known import ON_DOUBLE, Build, Built

from benchmarks.device.selftest import ALLOWED
from engines.catalogue import load_engine, module_of
from engines.engine import Engine, EngineError
from engines.settings import DEFAULT
from engines.tensorrt.runner import TensorRTEngine


def many(answers: dict[str, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` pictures, and what FP32 answers."""
    place = np.arange(count) % len(answers["pictures"])
    return answers["pictures"][place], answers["fp32"][place]


def test_answers_are_right_in_every_precision(
    built: Built, answers: dict[str, np.ndarray], graph_of: Callable[[str], str]
) -> None:
    for precision, sidecar in built[1].items():
        with load_engine(built[0], sidecar) as engine:
            found = engine.infer(answers["pictures"])
            assert np.abs(found - answers[graph_of(precision)]).max() <= ALLOWED[precision]
            assert np.abs(found.sum(1) - 1).max() < 1e-3


@pytest.mark.parametrize("count", [1, 5, 32, 33, 70])
def test_any_number_of_pictures(engine: Engine, answers: dict[str, Any], count: int) -> None:
    pictures, wanted = many(answers, count)
    found = engine.infer(pictures)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= ALLOWED["fp32"]


def test_static_engine_takes_fewer_and_more(
    build: Build, answers: dict[str, np.ndarray], tmp_path: Path
) -> None:
    sidecar = build(tmp_path, "fp32", DEFAULT._replace(batch=(4, 4, 4)))
    with load_engine(tmp_path, sidecar) as engine:
        for count in (1, 4, 6):
            pictures, wanted = many(answers, count)
            assert np.abs(engine.infer(pictures) - wanted).max() <= ALLOWED["fp32"]


def test_stream_keeps_the_order(engine: Engine, answers: dict[str, np.ndarray]) -> None:
    pictures, wanted = many(answers, 100)
    ends = [3, 4, 36, 37, 90, 100]  # one batch is larger than the engine's largest
    batches = [pictures[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    found = list(engine.stream(iter(batches)))
    assert [len(part) for part in found] == [len(batch) for batch in batches]
    assert np.abs(np.concatenate(found) - wanted).max() <= ALLOWED["fp32"]


def test_stream_that_is_left_early(engine: Engine, answers: dict[str, np.ndarray]) -> None:
    pictures, wanted = many(answers, 8)
    stream = engine.stream(pictures[i : i + 1] for i in range(8))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert np.abs(engine.infer(pictures) - wanted).max() <= ALLOWED["fp32"]


def test_infer_while_a_stream_is_at_work(engine: Engine, answers: dict[str, Any]) -> None:
    pictures, wanted = many(answers, 8)
    for number, found in enumerate(engine.stream(pictures[i : i + 1] for i in range(8))):
        assert np.abs(found - wanted[number]).max() <= ALLOWED["fp32"]
        other = engine.infer(pictures[::-1])
        assert np.abs(other - wanted[::-1]).max() <= ALLOWED["fp32"]


def test_threads_do_not_disturb_each_other(engine: Engine, answers: dict[str, Any]) -> None:
    pictures, wanted = many(answers, 8)
    apart: list[float] = []

    def work(first: int) -> None:
        for turn in range(6):
            place = (first + turn) % 8
            found = engine.infer(pictures[place : place + 1])
            apart.append(float(np.abs(found - wanted[place]).max()))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(apart) == 24
    assert max(apart) <= ALLOWED["fp32"]


@pytest.fixture
def recorded(built: Built) -> Iterator[TensorRTEngine]:
    """The engine with its batches recorded as CUDA graphs."""
    with load_engine(built[0], built[1]["fp32"]) as loaded:
        assert isinstance(loaded, TensorRTEngine)
        loaded.graphs = True
        yield loaded


def test_graphs_answer_as_calls_do(recorded: TensorRTEngine, answers: dict[str, Any]) -> None:
    pictures, wanted = many(answers, 40)
    for start, count in [(0, 1), (1, 1), (2, 1), (3, 8), (4, 8), (5, 1), (6, 8), (7, 40), (0, 40)]:
        found = recorded.infer(pictures[start : start + count])
        assert np.abs(found - wanted[start : start + count]).max() <= ALLOWED["fp32"]
    found = np.concatenate(list(recorded.stream(pictures[i : i + 5] for i in range(0, 40, 5))))
    assert np.abs(found - wanted).max() <= ALLOWED["fp32"]
    timed, times = recorded.infer_timed(pictures[:1])
    assert np.abs(timed - wanted[:1]).max() <= ALLOWED["fp32"]
    assert times.compute > 0
    assert recorded.layer_times(pictures[:1])


def test_graphs_in_threads(recorded: TensorRTEngine, answers: dict[str, Any]) -> None:
    pictures, wanted = many(answers, 8)

    def work(place: int) -> float:
        found = [recorded.infer(pictures[place : place + 1]) for _ in range(5)]
        return float(np.abs(np.concatenate(found) - wanted[place]).max())

    with ThreadPoolExecutor(3) as pool:
        assert max(pool.map(work, range(8))) <= ALLOWED["fp32"]


def test_what_can_not_be_recorded_is_an_error(
    recorded: TensorRTEngine, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old:
        """A driver from before CUDA 10.1."""

    pictures, wanted = many(answers, 1)
    recorded.infer(pictures)
    monkeypatch.setattr("engines.tensorrt.graph.ctypes.CDLL", lambda name: Old())
    with pytest.raises(EngineError, match="no CUDA graphs"):
        recorded.infer(pictures)
    recorded.graphs = False
    assert np.abs(recorded.infer(pictures) - wanted).max() <= ALLOWED["fp32"]


def test_the_gpu_is_timed(engine: TensorRTEngine, answers: dict[str, np.ndarray]) -> None:
    found, times = engine.infer_timed(answers["pictures"])
    assert np.abs(found - answers["fp32"]).max() <= ALLOWED["fp32"]
    assert times.compute > 0
    assert min(times) >= 0


@pytest.mark.parametrize(
    "pictures",
    [
        np.zeros((0, 40, 40, 3), np.uint8),
        np.zeros((1, 41, 40, 3), np.uint8),
        np.zeros((40, 40, 3), np.uint8),
        np.zeros((1, 40, 40, 3), np.float32),
    ],
    ids=["none", "shape", "axes", "dtype"],
)
def test_wrong_pictures_are_refused(
    engine: TensorRTEngine, answers: dict[str, np.ndarray], pictures: np.ndarray
) -> None:
    for way in (engine.infer, engine.infer_timed, lambda p: list(engine.stream([p]))):
        with pytest.raises(EngineError, match="takes"):
            way(pictures)
    assert np.abs(engine.infer(answers["pictures"]) - answers["fp32"]).max() <= ALLOWED["fp32"]


def test_an_engine_that_was_changed_is_not_loaded(built: Built, tmp_path: Path) -> None:
    sidecar = built[1]["fp32"]
    data = bytearray((built[0] / sidecar["file"]).read_bytes())
    data[-1] ^= 1
    (tmp_path / sidecar["file"]).write_bytes(data)
    with pytest.raises(EngineError, match="not the file that was built"):
        load_engine(tmp_path, sidecar)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "sm37"}, "built for sm37; this GPU is sm"),
        ({"depends": {"tensorrt": "7.1.3"}}, "built by TensorRT 7.1.3; this is"),
    ],
    ids=["gpu", "version"],
)
def test_an_engine_for_something_else_is_refused(
    built: Built, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        load_engine(built[0], {**built[1]["fp32"], **change})


@pytest.mark.parametrize("kind", ["foreign", "truncated", "empty"])
def test_what_is_no_engine_is_an_error(
    built: Built, backend: str, tmp_path: Path, kind: str
) -> None:
    good = (built[0] / built[1]["fp32"]["file"]).read_bytes()
    data = {"foreign": b"no engine" * 50, "truncated": good[: len(good) // 2], "empty": b""}
    with pytest.raises(EngineError, match=r"can't load .*engine\.plan"):
        module_of(backend).load(data[kind], "engine.plan", "fp32")


@pytest.mark.skipif(not ON_DOUBLE, reason="a real GPU's memory is not ours to fill")
def test_full_memory_is_an_error_and_nothing_more(
    engine: Engine, answers: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETRT_DOUBLE_MEMORY", "1000")
    with pytest.raises(EngineError, match="memory"):
        engine.infer(answers["pictures"])
    monkeypatch.delenv("EDGETRT_DOUBLE_MEMORY")
    assert np.abs(engine.infer(answers["pictures"]) - answers["fp32"]).max() <= ALLOWED["fp32"]


@pytest.mark.skipif(not ON_DOUBLE, reason="a real GPU's memory is not ours to fill")
def test_full_memory_is_no_reason_to_build_again(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETRT_DOUBLE_MEMORY", "1000")
    with pytest.raises(EngineError, match="can't load .*memory.*end other programs on it"):
        load_engine(built[0], built[1]["fp32"])


def test_loading_again_and_again_leaves_nothing(built: Built, answers: dict[str, Any]) -> None:
    for _ in range(5):
        with load_engine(built[0], built[1]["fp32"]) as engine:
            engine.infer(answers["pictures"][:1])


def test_engines_at_the_same_time(built: Built, answers: dict[str, np.ndarray]) -> None:
    copy = dict(built[1]["fp32"])
    with load_engine(built[0], copy) as a, load_engine(built[0], copy) as b:
        first = a.infer(answers["pictures"])
        assert np.array_equal(first, b.infer(answers["pictures"]))
        assert np.array_equal(first, a.infer(answers["pictures"]))
