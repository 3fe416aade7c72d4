"""The device program with the streams and locales that a bare device has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from known import KNOWN

PROGRAM = [sys.executable, "-m", "benchmarks.device"]
HOME = Path(__file__).parents[2]


def run(
    *arguments: object, streams: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    words = [*PROGRAM, *map(str, arguments)]
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", *words]
    env = {**os.environ, "PYTHONPATH": str(HOME), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=HOME)


@pytest.fixture(scope="module")
def lion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run whose first class has a name beyond ASCII, with an engine."""
    folder = tmp_path_factory.mktemp("lion")
    (folder / "onnx").mkdir()
    (folder / "model").mkdir()
    shutil.copy(KNOWN / "model.fp32.onnx", folder / "onnx")
    (folder / "model" / "labels.txt").write_text("Löwe\nzebra\nape\n", "utf-8")
    built = run("build", "--run", folder, "--engine", "onnxruntime", "--precision", "fp32")
    assert built.returncode == 0, built.stderr
    yield folder


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_names_that_the_terminal_has_no_letters_for(lion: Path, errors: str) -> None:
    command = ["classify", "--run", lion, "--engine", "onnxruntime-fp32", KNOWN / "picture.png"]
    done = run(*command, PYTHONIOENCODING=f"ascii:{errors}")
    assert done.returncode == 0, done.stderr
    assert "L\\xf6we" in done.stdout


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_streams_that_are_closed(streams: str) -> None:
    done = run("doctor", streams=streams)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
