"""The whole way on real pictures, as a person goes it: through the command line."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
import pytest

from benchmarks.scenarios import DEFAULT

TENSORRT_RTX = {"tensorrt-rtx-fp32-sm86", "tensorrt-rtx-fp16-sm86", "tensorrt-rtx-int8-sm86"}


def edgetrt(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=tempfile.gettempdir(),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("runs") / "cells"
    edgetrt("run", "--image-dir", pictures, "--run", folder, "--testing-percentage", 25,
            "--how-many-training-steps", 100, "--calibration-images", 16,
            "--target", "sm86", "--quick", "--json")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def report(run: Path) -> dict:
    return json.loads((run / "report" / "report.json").read_text())


def test_report_says_what_became_of_each_engine(report: dict) -> None:
    status = {engine["name"]: engine["status"] for engine in report["engines"]}
    ran = [n for n in status if n.startswith(("tensorflow", "onnxruntime", "openvino"))]
    assert len(ran) == 7
    assert {status[name] for name in ran} == {"ran"}
    assert {status[name] for name in TENSORRT_RTX} == {"built"}
    for engine in report["engines"]:
        measured = engine["status"] == "ran"
        assert (engine["accuracy"] is not None) == measured
        assert set(engine["scenarios"]) == (set(DEFAULT) if measured else set())
        assert measured or engine["reason"]


def test_full_precision_agrees_with_tensorflow(report: dict) -> None:
    for engine in report["engines"]:
        if engine["precision"] == "fp32" and engine["status"] == "ran":
            assert engine["accuracy"]["agreement"] == 1.0, engine["name"]


def test_graphs_are_as_tensorrt_wants_them(run: Path) -> None:
    graph = onnx.load(run / "onnx" / "model.fp32.onnx")
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 13)]
    assert graph.ir_version == 7
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("Transpose") == 1
    assert kinds.count("Mul") == 1  # the pixels' scaling; batch norm is folded away
    assert (run / "onnx" / "amax.json").exists()


def test_second_time_nothing_is_done_again(run: Path, pictures: Path) -> None:
    done = edgetrt("retrain", "--image-dir", pictures, "--run", run, "--testing-percentage", 25,
                   "--how-many-training-steps", 100)  # fmt: skip
    assert "skipped" in done.stderr
    assert "skipped" in edgetrt("compare", "--run", run, "--quick").stderr


@pytest.mark.parametrize("engine", ["tensorflow", "openvino-int8", "onnxruntime-fp16"])
def test_classify(run: Path, pictures: Path, engine: str) -> None:
    some = sorted(pictures.glob("*/*.png"))[:2]
    done = edgetrt("classify", "--run", run, "--engine", engine, "--json", *some)
    for answer in json.loads(done.stdout):
        assert sum(top["probability"] for top in answer["top"]) == pytest.approx(1, abs=1e-3)


def test_engine_that_was_changed_is_not_loaded(run: Path, pictures: Path) -> None:
    file = run / "engines" / "openvino-fp16.blob"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    picture = next(pictures.glob("*/*.png"))
    done = edgetrt("classify", "--run", run, "--engine", "openvino-fp16", picture, code=1)
    file.write_bytes(good)
    assert "build it again" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["retrain", "--image-dir", "nowhere", "--run", "edgetrt-no-run"], "does not exist"),
        (
            ["retrain", "--image-dir", ".", "--run", "edgetrt-no-run", "--learning-rate", "nan"],
            "above 0",
        ),
        (
            ["retrain", "--image-dir", ".", "--run", "edgetrt-no-run", "--learning-rate", "-1"],
            "above 0",
        ),
        (
            ["retrain", "--image-dir", ".", "--run", "edgetrt-no-run", "--learning-rate", "0"],
            "above 0",
        ),
        (["export", "--run", "nowhere"], "edgetrt retrain"),
        (["build", "--run", "nowhere", "--precision", "int4"], "int8"),
        (["classify", "--run", "nowhere", "a.png"], "edgetrt retrain"),
        (["frobnicate"], "invalid choice"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], words: str) -> None:
    done = edgetrt(*arguments, code=2)
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
