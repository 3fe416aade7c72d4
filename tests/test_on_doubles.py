"""tests/gpu on the doubles of TensorRT, pycuda and CUDA's driver: every dialect, no GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from known import KNOWN
from play import environment

if TYPE_CHECKING:
    from tests.conftest import Finished

TESTS = Path(__file__).parent
# Each way to call TensorRT, on a board that has it: by index, by name, typed by flags or by graph.
BOARDS = {
    "TX2": ("8.2.1", "6.2"),
    "Xavier": ("8.5.2", "7.2"),
    "Orin": ("10.3.0", "8.7"),
    "GeForce 40": ("11.4.0.106", "8.9"),
}
# What of tests/gpu runs with pycuda on each board, and what without. Only running and calibrating
# differ, and GPUs with memory of their own from Jetsons, where nothing is copied.
WITH = {"TX2": "", "Orin": "", "GeForce 40": "test_running.py"}
WITHOUT = {"TX2": "test_running.py", "Xavier": "", "GeForce 40": ""}
RUNS = {
    **{board: (board, tests, {}) for board, tests in WITH.items()},
    **{
        f"{board} without pycuda": (board, tests, {"EDGETRT_DOUBLE_NO_PYCUDA": "1"})
        for board, tests in WITHOUT.items()
    },
}
# The pipeline beside TensorRT asks no more than its files of the device; two boards show that.
WITH_PIPELINE = ("Xavier without pycuda", "GeForce 40 without pycuda")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1 that knows of one GPU."""
    folder = tmp_path_factory.mktemp("driver")
    source, library = TESTS / "doubles" / "libcuda.c", folder / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return folder


@pytest.fixture(scope="session")
def outcomes(
    driver: Path, shared: Path, finished: Finished
) -> dict[str, subprocess.CompletedProcess[str]]:
    """What pytest says of each of `RUNS`; two at a time.

    `finished` is what those with the pipeline find in `shared`.
    """

    def on(run: str) -> subprocess.CompletedProcess[str]:
        board, tests, settings = RUNS[run]
        version, capability = BOARDS[board]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            str(TESTS / "gpu" / tests),
        ]
        if run not in WITH_PIPELINE:
            command += ["--ignore", str(TESTS / "gpu" / "test_host.py")]
        known = environment(version, EDGETRT_DOUBLE_CC=capability, LD_LIBRARY_PATH=str(driver),
                            EDGETRT_TESTS_SHARED=str(shared), **settings)  # fmt: skip
        return subprocess.run(command, env=known, capture_output=True, text=True, timeout=900)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(RUNS, pool.map(on, RUNS), strict=True))


@pytest.mark.parametrize("run", RUNS)
def test_everything_that_needs_a_gpu(
    run: str, outcomes: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    done = outcomes[run]
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def device(
    arguments: list[object], environment: dict[str, str], code: int
) -> subprocess.CompletedProcess[str]:
    """Run the device program from this checkout."""
    command = [sys.executable, "-m", "benchmarks.device", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=TESTS.parent, timeout=100
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with the known network."""
    shutil.copytree(KNOWN, tmp_path / "run" / "onnx")
    (tmp_path / "run" / "model").mkdir()
    (tmp_path / "run" / "model" / "labels.txt").write_text("a\nb\nc\n")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def bundle(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `edgetrt bundle` makes of a run."""
    file = tmp_path_factory.mktemp("bundle") / "model.edgetrt"
    command = [sys.executable, "-m", "pipeline.cli", "bundle", "--unsigned"]
    flags = ["--run", str(finished.folder), "--out", str(file)]
    subprocess.run([*command, *flags], check=True, cwd=TESTS.parent, timeout=100)
    return file


@pytest.mark.parametrize("board", ["TX2", "Orin"])
def test_bundle_is_deployed(board: str, bundle: Path, driver: Path, tmp_path: Path) -> None:
    version, capability = BOARDS[board]
    known = environment(version, EDGETRT_DOUBLE_CC=capability, LD_LIBRARY_PATH=str(driver),
                        XDG_CACHE_HOME=str(tmp_path / "cache"))  # fmt: skip
    given = ["install", bundle, "--allow-unsigned", "--root", tmp_path / "root", "--json"]
    found = json.loads(device(given, known, 0).stdout)
    precisions = ["fp32", "fp16"] if board == "TX2" else ["fp32", "fp16", "int8"]
    sm = "sm" + capability.replace(".", "")
    assert set(found["engines"]) == {f"tensorrt-{precision}-{sm}" for precision in precisions}
    assert {engine["status"] for engine in found["engines"].values()} == {"passed"}
    assert found["engine"] in found["engines"]
    assert not json.loads(device(given, known, 0).stdout)["changed"]
    if board == "TX2":
        refused = device([*given, "--precision", "int8"], known, 1)
        assert "has no INT8 instructions" in refused.stderr


def test_nobody_reads_what_the_device_program_prints() -> None:
    command = [sys.executable, "-m", "benchmarks.device", "doctor"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=TESTS.parent
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141
    assert said == b""


def test_tensorrt_without_a_gpu(run: Path) -> None:
    known = environment("8.2.1")
    done = device(["build", "--run", run, "--engine", "tensorrt"], known, 1)
    assert "there is no NVIDIA GPU" in done.stderr
    assert "no NVIDIA GPU" in device(["doctor"], known, 0).stdout


def test_tensorrt_without_pycuda(run: Path, driver: Path, tmp_path: Path) -> None:
    known = environment(
        "8.2.1", EDGETRT_DOUBLE_CC="6.2", EDGETRT_DOUBLE_NO_PYCUDA="1",
        LD_LIBRARY_PATH=str(driver), XDG_CACHE_HOME=str(tmp_path / "cache"),
    )  # fmt: skip
    device(["build", "--run", run, "--engine", "tensorrt", "--precision", "fp16"], known, 0)
    layers = json.loads((run / "engines" / "layers" / "tensorrt-fp16-sm62.json").read_text())
    assert layers["milliseconds"]
    chosen = ["--engine", "tensorrt-fp16-sm62", run / "onnx" / "picture.png"]
    answer = device(["classify", "--run", run, *chosen], known, 0).stdout
    with_pycuda = {name: value for name, value in known.items() if "NO_PYCUDA" not in name}
    assert device(["classify", "--run", run, *chosen], with_pycuda, 0).stdout == answer


@pytest.mark.parametrize(("settings", "module"), [
    ({}, "pycuda.driver"), ({"EDGETRT_DOUBLE_NO_PYCUDA": "1"}, "engines.tensorrt.driver"),
])  # fmt: skip
def test_way_to_cuda(settings: dict[str, str], module: str, driver: Path) -> None:
    known = environment("8.2.1", EDGETRT_DOUBLE_CC="6.2", LD_LIBRARY_PATH=str(driver), **settings)
    script = "from engines.tensorrt import memory; print(memory.cuda_calls().__name__)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=known, cwd=TESTS.parent, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == module


def test_engines_of_one_board_on_another(run: Path, driver: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")

    def board(version: str, capability: str) -> dict[str, str]:
        return environment(
            version, EDGETRT_DOUBLE_CC=capability, LD_LIBRARY_PATH=str(driver), XDG_CACHE_HOME=cache
        )

    flags = ["--run", run, "--engine", "tensorrt", "--precision", "fp32"]
    device(["build", *flags], board("8.2.1", "6.2"), 0)
    picture = run / "onnx" / "picture.png"
    chosen = ["--run", run, "--engine", "tensorrt-fp32-sm62", picture]
    device(["classify", *chosen], board("8.2.1", "6.2"), 0)
    done = device(["classify", *chosen], board("8.2.1", "7.2"), 2)
    assert "it was built for sm62; this GPU is sm72" in done.stderr
    done = device(["classify", *chosen], board("8.5.2", "6.2"), 2)
    assert "it was built by TensorRT 8.2.1; this is 8.5.2" in done.stderr
    # What is loaded without that check, TensorRT itself refuses, and it is still no crash.
    [plan] = (run / "engines").glob("*.plan")
    script = (
        "import sys\n"
        "from engines.engine import EngineError\n"
        "from engines.tensorrt import standard\n"
        "try: standard.load(open(sys.argv[1], 'rb').read(), sys.argv[1], 'fp32')\n"
        "except EngineError as error: print(error)"
    )
    for known in (board("8.2.1", "7.2"), board("8.5.2", "6.2")):
        command = [sys.executable, "-c", script, str(plan)]
        said = subprocess.run(
            command, capture_output=True, text=True, env=known, cwd=TESTS.parent, check=True
        )
        assert "TensorRT can't load" in said.stdout
        assert "build it again" in said.stdout


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
