"""The bookkeeping of the goals; the measurements themselves are no tests."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks.ratios import overhead
from benchmarks.ratios.command import edgetrt, scratch, timed
from benchmarks.ratios.figure import amount, mean_difference, ratio
from engines import onnx_runtime, openvino


def test_ratio_is_taken_round_by_round() -> None:
    figure = ratio("speed", "pictures/s", [10, 100, 30], [5, 25, 10], 3)
    assert figure.value == 3
    assert figure.met
    assert not ratio("speed", "pictures/s", [10, 100, 29], [5, 25, 10], 3).met
    assert ratio("memory", "MiB", [11], [10], 1.2, at_least=False).met
    assert not ratio("memory", "MiB", [13], [10], 1.2, at_least=False).met


def test_amount_and_difference() -> None:
    assert amount("help", "s", [0.1, 0.9, 0.2], 0.3).value == 0.2
    assert not amount("help", "s", [0.4], 0.3).met
    figure = mean_difference("INT8 minus FP32", "%", [85, 86], [86, 86], -0.5)
    assert figure.value == -0.5
    assert figure.met


def test_figure_says_whether_its_goal_was_met() -> None:
    missed = ratio("speed", "pictures/s", [2, 4], [1, 1], 3.5)
    assert str(missed) == (
        "speed\n  3 (at least 3.5: MISSED) from 3 (2..4) against 1 (1..1) pictures/s, 2 rounds"
    )
    assert json.loads(json.dumps(missed.as_json()))["met"] is False


@pytest.mark.parametrize("backend", [onnx_runtime, openvino], ids=lambda m: m.BACKEND)
def test_bare_calls_answer_as_the_engine(backend: ModuleType) -> None:
    with backend.load_graph(str(overhead.GRAPH)) as engine:
        bare = overhead.bare_calls(engine)
        pictures = np.random.default_rng(0).integers(
            0, 256, (3, 1, *engine.input.shape[1:])
        ).astype(np.uint8)  # fmt: skip
        for picture in pictures:
            np.testing.assert_array_equal(bare(picture), engine.infer(picture))
        kept = bare(pictures[0])
        bare(pictures[1])
        np.testing.assert_array_equal(kept, bare(pictures[0]))


def test_command_is_timed_and_weighed() -> None:
    script = "import time; time.sleep(0.2); held = bytearray(200 << 20); print('done')"
    ours = bytearray(500 << 20)  # what the caller holds does not count
    done = timed([sys.executable, "-c", script])
    del ours
    assert done.result == "done\n"
    assert 0.2 <= done.seconds < 20
    assert 200 << 20 < done.peak_bytes < 400 << 20


def test_command_that_fails_is_told() -> None:
    with pytest.raises(RuntimeError, match="does not exist"):
        edgetrt("retrain", "--image-dir", "/nowhere", "--run", "/tmp/edgetrt-run")


def test_scratch_is_removed() -> None:
    with pytest.raises(KeyError), scratch() as folder:
        (folder / "run").mkdir()
        raise KeyError
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["speed"], "speed is none of startup"), (["--pictures", "nowhere"], "no such folder")],
)
def test_wrong_use(arguments: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ratios", *arguments],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
