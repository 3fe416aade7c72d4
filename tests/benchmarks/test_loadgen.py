"""MLPerf's LoadGen and our own clock on one real engine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import loadgen
from benchmarks.latency import Timed, Turn, WarmUp
from benchmarks.progress import Console
from benchmarks.scenarios import QUICK
from engines import onnx_runtime
from engines.engine import Engine, EngineError

GRAPH = Path(loadgen.__file__).parent / "device" / "known" / "model.fp32.onnx"


def test_loadgen_agrees_with_us(quiet: Console, capfd: pytest.CaptureFixture[str]) -> None:
    with onnx_runtime.load_graph(str(GRAPH), optimize=False) as engine:
        _, height, width, _ = engine.input.shape
        pixels = np.zeros((4, int(height or 0), int(width or 0), 3), np.uint8)
        asked = []
        infer = engine.infer
        engine.infer = lambda p: asked.append(len(p)) or infer(p)  # type: ignore
        found = loadgen.compare(engine, "known", pixels, QUICK._replace(queries=960), quiet)
    assert found["engine"] == "known"
    assert found["version"][0].isdigit()
    assert found["n"] == 960
    assert set(asked) == {1}
    assert len(asked) >= 2 * 960  # LoadGen asks the engine itself
    low, high = found["ci95"]
    assert low <= found["ratio"] <= high
    # The network takes so little that the calls are a part of it, and a machine that runs tests
    # has other things to do: a factor is all that can be asked here.
    assert 0.3 < found["ratio"] < 3
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("longer", "agrees"), [(1.0, True), (1.04, True), (1.1, False)])
def test_they_disagree_where_more_than_five_percent_are_shown(
    longer: float, agrees: bool, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = {"a": Timed(WarmUp(2, 1.0, True), [Turn(0.0, 0.02, [0.004] * 5, [], 5)])}
    monkeypatch.setattr(loadgen, "unavailable", lambda: None)
    monkeypatch.setattr(loadgen, "measure", lambda *_: timed)
    said = {loadgen.PERCENTILE: 4e6 * longer, loadgen.QUERIES: 5, loadgen.VERSION: "6.0.17 @ d614"}
    monkeypatch.setattr(loadgen, "_run", lambda *_: said)
    found = loadgen.compare(Engine, "a", np.zeros(0), QUICK, quiet)  # type: ignore[arg-type]
    assert found == {
        "engine": "a",
        "version": "6.0.17",
        "ours_ms": 4.0,
        "loadgen_ms": 4.0 * longer,
        "ratio": pytest.approx(1 / longer),
        "ci95": [pytest.approx(1 / longer)] * 2,
        "n": 5 * loadgen.PAIRS,
        "agrees": agrees,
    }


def test_p90_is_of_the_rank_that_loadgen_takes() -> None:
    """Of ten the longest; an interpolated one would be lower."""
    durations = [0.02, 0.05, 0.01, 0.045, 0.03, 0.025, 0.04, 0.005, 0.035, 0.015]
    assert loadgen._p90(durations) == 50.0
    left = iter(durations)

    class Sleeping(Engine):
        def infer(self, pictures: np.ndarray) -> np.ndarray:
            time.sleep(next(left))
            return pictures

    pixels = np.zeros((2, 1, 1, 3), np.uint8)
    assert loadgen._run(Sleeping(), pixels, 10)[loadgen.PERCENTILE] >= 50e6


def test_interval_is_of_the_pairs() -> None:
    """Of 12 the third from either end, whatever the outer ones are."""
    ratios = np.array([7.0, 1.02, 1.0, 0.99, 1.01, 0.1, 1.0, 0.98, 1.03, 1.0, 1.05, 0.95])
    assert len(ratios) == loadgen.PAIRS
    assert loadgen._median_interval(ratios) == (1.0, [0.98, 1.03])


def test_interval_holds_the_median_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    bounds = [loadgen._median_interval(random.lognormal(0, 1, 12))[1] for _ in range(4000)]
    assert 0.95 < np.mean([low <= 1 <= high for low, high in bounds]) < 0.97


class Failing(Engine):
    """An engine whose 20th answer fails, as long as it is broken."""

    def __init__(self, fail: Callable[[], None]) -> None:
        self.asked, self.broken, self._fail = 0, True, fail

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        self.asked += 1
        if self.broken and self.asked == 20:
            self._fail()
        return pictures


def raise_error() -> None:
    raise EngineError("broken")


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def check_failure(fail: Callable[[], None], raised: type[BaseException]) -> None:
    engine = Failing(fail)
    pixels = np.zeros((2, 1, 1, 3), np.uint8)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(raised):
        loadgen._run(engine, pixels, 50)
    assert engine.asked == 20  # nothing is asked of it after that
    engine.broken = False
    assert loadgen._run(engine, pixels, 50)[loadgen.QUERIES] == 50
    assert signal.getsignal(signal.SIGINT) is before


def test_a_failure_under_loadgen_is_raised_and_the_next_run_goes_well() -> None:
    """Let through, it would crash the process, and so would Ctrl-C."""
    check_failure(raise_error, EngineError)


def test_ctrl_c_under_loadgen_is_raised_and_the_next_run_goes_well() -> None:
    """In a process of its own: Ctrl-C is the main thread's, where a test may not run."""
    code = (
        "import test_loadgen as t; t.check_failure(t.press_ctrl_c, KeyboardInterrupt); print('ok')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:."},
    )
    assert done.stdout.splitlines()[-1:] == ["ok"], done.stderr


def test_loadgen_obeys_no_file_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quick(Engine):
        def infer(self, pictures: np.ndarray) -> np.ndarray:
            return pictures

    (tmp_path / "audit.config").write_text("*.*.max_query_count = 7\n*.*.min_query_count = 7\n")
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros((2, 1, 1, 3), np.uint8)
    assert loadgen._run(Quick(), pixels, 50)[loadgen.QUERIES] == 50
    assert [path.name for path in tmp_path.iterdir()] == ["audit.config"]


def test_without_loadgen(quiet: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadgen, "MODULE", "no_such_module")
    with onnx_runtime.load_graph(str(GRAPH), optimize=False) as engine:
        found = loadgen.compare(engine, "known", np.zeros((1, 1, 1, 3), np.uint8), QUICK, quiet)
    assert found == {"reason": "pip install mlcommons-loadgen"}


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (':::MLLOG {"key": "loadgen_version", "va', "can't be read"),
        (':::MLLOG {"key": "loadgen_version", "value": "6"}\n', "lacks result_90.00"),
        ("", "is the disk full"),
        (None, "can't be read"),
    ],
)
def test_log_that_is_not_whole(tmp_path: Path, log: str | None, words: str) -> None:
    path = tmp_path / "mlperf_log_detail.txt"
    if log is not None:
        path.write_text(log)
    with pytest.raises(EngineError, match=words):
        loadgen._details(path)
