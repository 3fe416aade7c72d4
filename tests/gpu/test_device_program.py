"""The device program from its one file, as it is used on a board."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from known import CLASSES

from benchmarks.scenarios import DEFAULT
from engines.catalogue import PRECISIONS
from pipeline.device_package import package


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("program") / "edgetrt-device.pyz"
    package(out)
    return out


class Device:
    """A folder on the device, and the program there."""

    def __init__(self, program: Path, run: Path) -> None:
        self.program, self.run = program, run

    def __call__(self, command: str, *arguments: object, code: int = 0) -> tuple[Any, str]:
        """What a command prints as JSON, and what it says."""
        on_run = [] if command in ("doctor", "selftest") else ["--run", str(self.run)]
        done = subprocess.run(
            [sys.executable, str(self.program), command, *on_run, "--json", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=self.run.parent,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if done.stdout else None, done.stderr


@pytest.fixture(scope="module")
def device(program: Path, run: Path, backend: str, precisions: list[str]) -> Device:
    """With an engine for each precision."""
    found = Device(program, run)
    found("build", "--engine", backend, "--precision", ",".join(precisions))
    return found


def test_doctor_and_selftest(device: Device, backend: str) -> None:
    found, _ = device("doctor")
    assert found["backends"][backend]["runs"]
    checks, _ = device("selftest")
    passed = {check["name"] for check in checks if check["passed"]}
    assert any(name.startswith(f"{backend}-fp32-sm") for name in passed)
    assert "decoding" in passed


def test_build_again_is_nothing_to_do(device: Device, backend: str) -> None:
    _, said = device("build", "--engine", backend, "--precision", "fp32")
    assert "is up to date" in said


def test_classify(device: Device, backend: str, precisions: list[str]) -> None:
    pictures = sorted((device.run / "pictures").glob("*/*.png"))
    for precision in precisions:
        [sidecar] = (device.run / "engines").glob(f"{backend}-{precision}-sm*.json")
        found, _ = device("classify", "--engine", sidecar.stem, *pictures)
        right = [p["top"][0]["label"] == Path(p["path"]).parent.name for p in found]
        assert sum(right) >= len(right) - 1
    found, _ = device("classify", pictures[0])
    assert found[0]["engine"].startswith(backend)


def test_benchmark(device: Device, backend: str, precisions: list[str]) -> None:
    report, _ = device("benchmark", "--quick", "--pictures", device.run / "pictures")
    assert report == json.loads((device.run / "report" / "device.json").read_text())
    ours = [row for row in report["engines"] if row["name"].startswith(backend)]
    assert len(ours) == len(precisions)
    for row in ours:
        assert set(row["scenarios"]) == set(DEFAULT)
        assert row["scenarios"]["single-stream"]["n"] >= 60
        assert row["gpu_ms"]["compute"] > 0
        assert row["accuracy"]["n"] == 8
        assert row["accuracy"]["top1"] >= 7 / 8
        assert len(row["accuracy"]["confusion"]) == len(CLASSES)


def test_benchmark_with_graphs(device: Device, backend: str, precisions: list[str]) -> None:
    report, _ = device("benchmark", "--quick", "--cuda-graph")
    recorded = [row for row in report["engines"] if row["name"].endswith(" (graph)")]
    assert len(recorded) == len(precisions)
    assert all(row["name"].startswith(backend) and row["accuracy"] is None for row in recorded)


def test_int8_is_refused_where_there_is_none(
    device: Device, backend: str, precisions: list[str]
) -> None:
    if "int8" in precisions:
        pytest.skip("this GPU has INT8 instructions")
    _, said = device("build", "--engine", backend, "--precision", "int8", code=1)
    assert "no INT8 instructions" in said
    assert "use --precision fp16" in said


def test_a_calibrator_without_effect_is_told(
    device: Device, backend: str, precisions: list[str], tmp_path: Path
) -> None:
    if "int8" in precisions:
        pytest.skip("this GPU has INT8 instructions")
    for name in ("onnx", "model", "dataset.json"):
        (tmp_path / name).symlink_to(device.run / name)
    flags = ["--int8", "entropy", "--pictures", device.run / "pictures", "--engine", backend]
    made, said = Device(device.program, tmp_path)("build", *flags)
    assert [engine["precision"] for engine in made] == [p for p in PRECISIONS if p in precisions]
    assert "--int8 entropy has no effect: " in said
    assert "no INT8 instructions" in said


def test_all_that_the_gpu_is_made_for(
    device: Device, backend: str, precisions: list[str], tmp_path: Path
) -> None:
    for name in ("onnx", "model"):
        (tmp_path / name).symlink_to(device.run / name)
    made, _ = Device(device.program, tmp_path)("build", "--engine", backend)
    assert [engine["precision"] for engine in made] == [p for p in PRECISIONS if p in precisions]
    assert {engine["status"] for engine in made} == {"built"}


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("dataset.json", '{"pictures": 3}', "dataset.json can't be read"),
        ("dataset.json", "[" * 100_000, "dataset.json can't be read"),
        ("dataset.json", '{"pictures": []}', "none of the run's test pictures"),
        ("model/labels.txt", "one\n", "they are of different models"),
    ],
)
def test_damaged_runs(device: Device, tmp_path: Path, file: str, text: str, words: str) -> None:
    run = Path(shutil.copytree(device.run, tmp_path / "run"))
    (run / file).write_text(text)
    picture = next((run / "pictures").glob("*/*.png"))
    if file == "dataset.json":
        _, said = Device(device.program, run)("benchmark", "--pictures", run / "pictures", code=2)
    else:
        _, said = Device(device.program, run)("classify", picture, code=1)
    assert words in said


def test_a_bad_picture_is_named(device: Device, tmp_path: Path) -> None:
    run = Path(shutil.copytree(device.run, tmp_path / "run"))
    picture = next((run / "pictures").glob("*/0.png"))
    picture.write_bytes(picture.read_bytes()[:100])
    _, said = Device(device.program, run)("benchmark", "--pictures", run / "pictures", code=1)
    assert str(picture) in said


def test_names_that_the_terminal_can_not_show(device: Device, tmp_path: Path) -> None:
    run = Path(shutil.copytree(device.run, tmp_path / "run"))
    (run / "model" / "labels.txt").write_text("hell\né\n中\n", encoding="utf-8")
    picture = next((run / "pictures").glob("*/*.png"))
    command = [sys.executable, str(device.program), "classify", "--run", str(run), str(picture)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "\\xe9" in done.stdout


def test_two_builds_in_one_folder(device: Device) -> None:
    with (device.run / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _, said = device("build", code=2)
    assert "another command is at work" in said


def test_wrong_use(device: Device, backend: str, tmp_path: Path) -> None:
    _, said = device("classify", "--engine", "nothing", "a.png", code=2)
    assert "there is none of that name" in said
    _, said = device("build", "--precision", "int4", code=2)
    assert "fp32, fp16, int8" in said
    if backend == "tensorrt":
        flags = ["--int8", "entropy", "--pictures", device.run / "pictures"]
        _, said = device("build", *flags, "--calibration-images", "0", code=2)
        assert "at least 1; received 0" in said
    _, said = device("build", "--batch", "4,2,1", code=2)
    assert "growing numbers" in said
    _, said = device("benchmark", "--scenario", "from-file", code=2)
    assert "needs --pictures" in said
    _, said = device("classify", tmp_path / "missing.png", code=1)
    assert "missing.png" in said
    _, said = Device(device.program, tmp_path)("build", code=2)
    assert "is no run" in said


@pytest.mark.parametrize("path", ["../../secret.png", "/secret.png", "secret\0.png"])
def test_a_picture_outside_its_folder_is_refused(path: str, device: Device, tmp_path: Path) -> None:
    dataset = json.loads((device.run / "dataset.json").read_text())
    dataset["pictures"][0]["path"] = path
    for name in ("onnx", "model"):
        (tmp_path / name).symlink_to(device.run / name)
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    _, said = Device(device.program, tmp_path)("benchmark", "--pictures", tmp_path, code=1)
    assert "outside its folder" in said


def test_program_is_the_same_each_time(program: Path, tmp_path: Path) -> None:
    package(tmp_path / "again.pyz")
    assert (tmp_path / "again.pyz").read_bytes() == program.read_bytes()
    assert os.access(program, os.X_OK)
