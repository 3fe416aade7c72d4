"""tests/gpu on the doubles of TensorRT and pycuda: every dialect, no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from play import environment

TESTS = Path(__file__).parent
# Each way to call TensorRT, on a board that has it: by index, by name, typed by flags or by graph.
BOARDS = {
    "TX2": ("8.2.1", "6.2"),
    "Xavier": ("8.5.2", "7.2"),
    "Orin": ("10.3.0", "8.7"),
    "GeForce 40": ("11.4.0.106", "8.9"),
}


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1 that knows of one GPU."""
    folder = tmp_path_factory.mktemp("driver")
    source, library = TESTS / "doubles" / "libcuda.c", folder / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return folder


@pytest.mark.parametrize("board", BOARDS)
def test_everything_that_needs_a_gpu(board: str, driver: Path) -> None:
    version, compute_capability = BOARDS[board]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS / "gpu"],
        env=environment(version, EDGETRT_DOUBLE_CC=compute_capability, LD_LIBRARY_PATH=str(driver)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_without_a_gpu_it_is_not_green() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS / "gpu"],
        env={**os.environ, "LD_LIBRARY_PATH": "", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "nothing was tested" in done.stdout + done.stderr
