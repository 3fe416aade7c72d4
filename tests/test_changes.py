"""What has changed since a stage was done is noticed, and what has not is not done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import cli
from pipeline.dataset import split_of

if TYPE_CHECKING:
    from tests.conftest import Finished

Edgetrt = Callable[..., str]
ONE = ("--scenario", "single-stream")  # where how fast they are is not the question


@pytest.fixture
def edgetrt(capfd: pytest.CaptureFixture[str]) -> Edgetrt:
    """Run a command in this process, and give what it says on stderr."""

    def call(*arguments: object, code: int = 0) -> str:
        capfd.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == code
        return capfd.readouterr().err

    return call


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def report_of(run: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((run / "report" / "report.json").read_text())
    return report


def name_in_test() -> Iterator[str]:
    """File names that belong to the test split of a run with 25 % of it and seed 0."""
    for number in range(1000):
        if split_of(f"new{number}.png", 25, 10, 0) == "test":
            yield f"new{number}.png"


def test_report_follows_the_test_pictures_and_their_classes(
    edgetrt: Edgetrt, finished: Finished, run: Path, own_pictures: Path, cells: dict
) -> None:
    flags = ["--image-dir", own_pictures, "--run", run, *finished.briefly[2:]]
    edgetrt("run", *flags)
    before = report_of(run)["dataset"]
    # Test pictures alone: the model, and with it every graph and engine, stays as it was.
    for name, cell in zip(name_in_test(), cells["functional"][1:4], strict=False):
        shutil.copyfile(cell, own_pictures / "functional" / name)
    (own_pictures / "functional" / "broken.png").write_bytes(b"no picture")
    said = edgetrt("run", *flags)
    assert "export: nothing changed" in said
    after = report_of(run)
    assert after["dataset"]["test"] == before["test"] + 3
    assert after["dataset"]["rejected"] == 1
    assert all(e["accuracy"]["n"] == before["test"] + 3 for e in after["engines"])

    (own_pictures / "functional").rename(own_pictures / "good")
    edgetrt("run", *flags)
    assert report_of(run)["dataset"]["classes"] == ["defective", "good"]
    assert "compare: nothing changed" in edgetrt("run", *flags)


def test_model_is_never_tested_on_another_split_than_its_own(
    edgetrt: Edgetrt, finished: Finished, run: Path
) -> None:
    flags = ["--image-dir", finished.flags[1], "--run", run, *finished.flags[2:8]]
    said = edgetrt("retrain", *flags, "--seed", 7, "--learning-rate", "1e38", code=1)
    assert "diverged" in said
    for stage in ("export", "quantize", "compare"):
        said = edgetrt(stage, "--run", run, code=2)
        assert "another split, than the model was trained on; run: edgetrt retrain" in said
    assert "retrain: nothing changed" in edgetrt("retrain", *flags)
    assert "compare: nothing changed" in edgetrt("compare", "--run", run, "--quick")


def test_report_has_every_engine_whatever_was_built_last(edgetrt: Edgetrt, run: Path) -> None:
    for backend in ("openvino", "onnxruntime"):
        edgetrt("build", "--run", run, "--engine", backend, "--precision", "fp32")
    edgetrt("compare", "--run", run, "--quick", *ONE)
    edgetrt("build", "--run", run, "--engine", "openvino", "--precision", "fp16")
    edgetrt("build", "--run", run, "--engine", "onnxruntime", "--precision", "fp32")
    edgetrt("compare", "--run", run, "--quick", *ONE)
    names = [engine["name"] for engine in report_of(run)["engines"]]
    assert names == ["tensorflow-fp32", "onnxruntime-fp32", "openvino-fp32", "openvino-fp16"]


def test_other_engines_are_other_work(edgetrt: Edgetrt, run: Path) -> None:
    flags = ["--run", run, "--precision", "fp32", "--engine"]
    assert "skipped" not in edgetrt("build", *flags, "openvino")
    assert "skipped" in edgetrt("build", *flags, "openvino")
    assert "skipped" not in edgetrt("build", *flags, "openvino,onnxruntime")


def test_on_another_machine_engines_are_built_and_measured_again(
    edgetrt: Edgetrt, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = report_of(run)["engines"][1]["scenarios"]["single-stream"]["samples"]
    other = {"cpu": "another", "processors": 64, "gpus": []}
    for module in ("build", "compare"):
        monkeypatch.setattr(f"pipeline.{module}.machine", lambda: other)
    flags = ["--run", run, "--engine", "onnxruntime,openvino", "--precision", "fp32"]
    said = edgetrt("build", *flags)
    assert "up to date" not in said
    assert "build: onnxruntime-fp32: " in said
    edgetrt("compare", "--run", run, "--quick", *ONE)
    assert report_of(run)["environment"]["cpu"] == "another"
    assert report_of(run)["engines"][1]["scenarios"]["single-stream"]["samples"] != before


def test_no_engine_stays_that_could_not_be_built_again(
    edgetrt: Edgetrt, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["build", "--run", run, "--engine", "onnxruntime,openvino", "--precision", "fp32"]
    (run / "engines" / "onnxruntime-fp32.json").unlink()
    (run / "engines" / "openvino-fp32.json").unlink()
    monkeypatch.setattr("engines.openvino.unavailable", lambda: "OpenVINO is gone")
    edgetrt(*flags)
    left = {path.name for path in (run / "engines").iterdir()}
    assert left == {"onnxruntime-fp32.json", "onnxruntime-fp32.onnx", "openvino-fp32.json"}


def test_command_in_the_report_makes_it_again(edgetrt: Edgetrt, finished: Finished) -> None:
    [command] = report_of(finished.folder)["reproduce"]
    for flag in ("--calibration-images 8", "--method percentile", "--precision fp32",
                 "--engine onnxruntime,openvino --", "--target sm86,sm89"):  # fmt: skip
        assert flag in command
    assert "--no-int8-head" not in command


def test_damaged_sidecar_heals(edgetrt: Edgetrt, run: Path) -> None:
    file = run / "engines" / "onnxruntime-fp32.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps({**whole, "file": "../run.json"}))
    picture = next((Path(p) for p in run.parent.glob("*.png")), run / "model" / "labels.txt")
    said = edgetrt("classify", "--run", run, "--engine", "onnxruntime", picture, code=1)
    assert "is damaged; build it again" in said
    edgetrt("build", "--run", run, "--engine", "onnxruntime,openvino", "--precision", "fp32")
    assert json.loads(file.read_text())["file"] == "onnxruntime-fp32.onnx"
