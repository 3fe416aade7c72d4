"""The pipeline on a machine that has the GPU itself: build, compare and classify from a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ONE = ("--scenario", "single-stream")  # where how fast they are is not the question


class Host:
    """A run, and the command line on it."""

    def __init__(self, run: Path, pictures: Path) -> None:
        self.run, self.pictures = run, pictures

    def __call__(self, command: str, *arguments: object, code: int = 0) -> tuple[Any, str]:
        """What a command prints as JSON, and what it says."""
        words = [command, "--run", str(self.run), "--json", *map(str, arguments)]
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *words],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else None, done.stderr

    def engines(self, *flags: str) -> dict[str, dict[str, Any]]:
        report, _ = self("compare", "--quick", *flags)
        return {engine["name"]: engine for engine in report["engines"]}


@pytest.fixture(scope="module")
def host(finished: Any, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """With engines of the model that `finished` trained."""
    run: Path = tmp_path_factory.mktemp("host") / "run"
    shutil.copytree(finished.folder, run)
    return Host(run, pictures)


def test_build_compare_classify(host: Host, backend: str, precisions: list[str]) -> None:
    host("build", "--engine", backend, "--precision", ",".join(precisions), "--batch", "1,2,8")
    engines = host.engines()
    ours = [name for name in engines if name.startswith(backend)]
    assert len(ours) == len(precisions)
    for name in ours:
        engine = engines[name]
        assert engine["status"] == "ran", engine["reason"]
        assert engine["accuracy"]["agreement"] > 0.9
        assert engine["batch"] == [1, 2, 8]
        found, _ = host("classify", "--engine", name, next(host.pictures.glob("*/*.png")))
        assert len(found[0]["top"]) == 2
    report = json.loads((host.run / "report" / "report.json").read_text())
    assert "--batch 1,2,8" in report["reproduce"][0]
    page = (host.run / "report" / "index.html").read_text()
    assert "batch 1, 2, 8" in page
    _, said = host("compare", "--quick")
    assert "skipped" in said


def test_int8_by_a_calibrator(host: Host, backend: str, precisions: list[str]) -> None:
    if backend != "tensorrt" or "int8" not in precisions:
        pytest.skip("no INT8 by TensorRT here")
    import tensorrt

    if not hasattr(tensorrt, "IInt8EntropyCalibrator2"):
        pytest.skip("this TensorRT has no calibrators")
    host("build", "--engine", backend, "--precision", "int8", "--int8", "entropy")
    [engine] = [e for name, e in host.engines(*ONE).items() if "-int8-entropy-" in name]
    assert engine["status"] == "ran", engine["reason"]
    assert engine["int8"] == "entropy"
    assert engine["accuracy"]["agreement"] > 0.9


def test_a_forced_engine_is_marked_wherever_it_is_shown(
    host: Host, backend: str, precisions: list[str]
) -> None:
    if "int8" in precisions:
        pytest.skip("this GPU has INT8 instructions")
    _, said = host("build", "--engine", backend, "--precision", "int8", code=1)
    assert "no INT8 instructions" in said
    host("build", "--engine", backend, "--precision", "int8", "--force")
    [engine] = [e for name, e in host.engines(*ONE).items() if f"{backend}-int8" in name]
    assert engine["status"] == "ran"
    assert "built by force" in engine["reason"]
    assert "built by force" in (host.run / "report" / "index.html").read_text()


def test_what_could_not_be_built_before_is_not_shown_for_ever(host: Host, backend: str) -> None:
    stale = {"name": f"{backend}-fp32", "schema": 2, "status": "unavailable"}
    (host.run / "engines" / f"{backend}-fp32.json").write_text(json.dumps(stale))
    (host.run / "engines" / "openvino-fp16.json").write_text('{"schema": 1}')
    host("build", "--engine", backend, "--precision", "fp32", "--batch", "1,1,4")
    assert f"{backend}-fp32" not in host.engines(*ONE)
