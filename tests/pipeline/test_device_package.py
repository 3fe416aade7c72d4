"""The device program is one file that old interpreters run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.device_package import package

OLD = ("3.6", "3.7", "3.8", "3.9")  # Pythons of JetPack 4 and 5, and what lies between


def oldest_interpreter() -> tuple[str, str] | None:
    """The oldest Python at hand that is older than the host's, and its version."""
    for version in OLD:
        root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
        installed = [str(place) for place in root.glob(f"versions/{version}.*/bin/python")]
        others = shutil.which(f"python{version}")
        # pyenv's own command of that name does nothing where another version is chosen.
        if others and "shims" not in others:
            installed.append(others)
        if installed:
            return installed[0], version
    return None


def test_holds_what_a_device_needs_and_no_more(tmp_path: Path) -> None:
    size = package(tmp_path / "device.pyz")
    with zipfile.ZipFile(tmp_path / "device.pyz") as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
    assert {"__main__.py", "engines/tensorrt/v8.py", "benchmarks/device/known/answers.npz"} <= names
    assert not [name for name in names if "pipeline" in name or "ratios" in name or "pyc" in name]
    assert size < 1_000_000


def test_command_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device-package", "--out", str(tmp_path / "here" / "device.pyz")]) == 0
    assert "python3 device.pyz doctor" in capsys.readouterr().err


def test_says_that_numpy_is_missing(tmp_path: Path) -> None:
    package(tmp_path / "device.pyz")
    command = [sys.executable, "-S", str(tmp_path / "device.pyz"), "doctor"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("edgetrt-device: numpy can't be imported (")
    assert done.stderr.count("\n") == 1


def test_says_that_python_is_too_old(tmp_path: Path) -> None:
    """JetPack 4 calls Python 2.7 `python`, which has to read the first lines at least."""
    package(tmp_path / "device.pyz")
    with zipfile.ZipFile(tmp_path / "device.pyz") as archive:
        begins = archive.read("__main__.py").decode()
    too_old = begins.replace("sys.version_info", "(2, 7)", 1)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    real = [[str(python), str(tmp_path / "device.pyz")]
            for python in root.glob("versions/2.7.*/bin/python")]  # fmt: skip
    for command in ([sys.executable, "-c", too_old], *real):
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            done.stderr == "edgetrt-device needs Python 3.6 or newer: python3 edgetrt-device.pyz\n"
        )


def test_runs_under_the_oldest_interpreter_at_hand(tmp_path: Path) -> None:
    found = oldest_interpreter()
    if found is None:
        pytest.skip(f"no Python {', '.join(OLD)} here")
    python, version = found
    opencv = "opencv-python-headless<4.3" if version == "3.6" else "opencv-python-headless"
    # pip from a fresh environment: that of an old Python may be too old for the index.
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True)
    inside = str(tmp_path / "venv" / "bin" / "python")
    install = [inside, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "numpy", opencv]
    subprocess.run(install, check=True, capture_output=True)
    package(tmp_path / "device.pyz")

    def device(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [inside, str(tmp_path / "device.pyz"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)

    assert device("--help").returncode == 0
    told = device("doctor")
    assert told.returncode == 0, told.stderr
    assert f"python {version}." in told.stdout
    checks = device("selftest").stdout
    assert re.search(r"^ok +decoding", checks, re.MULTILINE), checks
    assert "TensorRT is not installed" in checks
    wrong = device("build", "--run", "nowhere")
    assert wrong.returncode == 2
    assert "is no run" in wrong.stderr
