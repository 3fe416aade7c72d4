"""Real pictures for every test that needs some: solar cells of the installed ELPV package."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.progress import Console
from pipeline.dataset import Dataset, scan
from pipeline.elpv import installed_pictures

PER_CLASS = 40
# Where a pytest that a test starts finds what was made already.
SHARED = "EDGETRT_TESTS_SHARED"
# As the command line sets it; some tests import TensorFlow before.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# The tests run in as many processes as there are processors. OpenBLAS's threads would only wait in
# each other's way: with them `import numpy` alone takes twice the processor's time.
os.environ["OPENBLAS_NUM_THREADS"] = "1"


# The files that take longest, longest first: begun last, one would keep all others waiting.
LONG = ("test_on_doubles.py", "test_interrupts.py", "test_rtx_matrix.py", "test_killed.py",
        "test_end_to_end.py", "test_fleet.py", "test_report_in_browser.py", "test_resources.py",
        "test_line_cut.py", "test_release_crash.py", "test_bad_input.py", "test_changes.py",
        "test_accuracy_guard.py", "test_release_agent.py", "test_deploying.py",
        "test_graph.py", "test_rollout.py", "test_qdq.py", "test_backbones.py")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what is made once for all processes of a test run; see `once`."""
    if SHARED in os.environ:
        return Path(os.environ[SHARED])
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """A folder that the first process to ask for it makes, while the others wait."""
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def cells() -> dict[str, list[Path]]:
    """Every solar cell of the package by its class; never to be written to."""
    folder, classes = installed_pictures()
    by_class: dict[str, list[Path]] = {"defective": [], "functional": []}
    for name, label in sorted(classes.items()):
        by_class[label].append(folder / name)
    return by_class


@pytest.fixture(scope="session")
def pictures(cells: dict[str, list[Path]], shared: Path) -> Path:
    """A folder of 2 classes with 40 real pictures each, shared by all tests: only read it."""

    def make(root: Path) -> None:
        for label, files in cells.items():
            (root / label).mkdir()
            for file in files[::20][:PER_CLASS]:
                shutil.copyfile(file, root / label / file.name)

    return once(shared / "cells", make)


@pytest.fixture
def own_pictures(pictures: Path, tmp_path: Path) -> Path:
    """A copy of `pictures` that a test may change."""
    return Path(shutil.copytree(pictures, tmp_path / "pictures"))


@pytest.fixture(scope="session")
def dataset(pictures: Path) -> Dataset:
    """The scan of `pictures`."""
    return scan(pictures, 10, 10, 0, Console(quiet=True))


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


class Finished(NamedTuple):
    """A run that went through all stages undisturbed, and what it printed.

    home: the person's home folder, which was empty before.
    """

    folder: Path
    home: Path
    flags: list[str]
    stdout: str
    stderr: str

    @property
    def briefly(self) -> list[str]:
        """The flags for another run, where how fast the engines are is not the question."""
        return [*self.flags, "--scenario", "single-stream"]


@pytest.fixture(scope="session")
def own_model(shared: Path) -> Path:
    """A Keras classifier that is as quick as can be."""
    return once(shared / "model", _make_model) / "own.keras"


def _make_model(folder: Path) -> None:
    from engines.tensorflow_graph import import_tensorflow

    import_tensorflow()
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    model.save(folder / "own.keras")


@pytest.fixture(scope="session")
def finished(
    pictures: Path, own_model: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """`edgetrt run` with `own_model`, for all tests of this process: only read it."""
    flags = ["--image-dir", str(pictures), "--testing-percentage", "25",
             "--how-many-training-steps", "20", "--architecture", str(own_model),
             "--calibration-images", "8", "--engine", "onnxruntime,openvino",
             "--precision", "fp32", "--quick"]  # fmt: skip

    def make(folder: Path) -> None:
        environment = {**os.environ, "HOME": str(folder / "home")}
        del environment["TF_CPP_MIN_LOG_LEVEL"]
        (folder / "home").mkdir()
        command = [sys.executable, "-m", "pipeline.cli", "run", "--run", str(folder / "run")]
        with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
            done = subprocess.run(
                [*command, "--json", *flags], stdout=stdout, stderr=stderr,
                cwd=Path(__file__).parents[1], timeout=300, env=environment,
            )  # fmt: skip
        assert done.returncode == 0, (folder / "stderr").read_text()

    made = once(shared / "finished", make)
    # Two processes may not work with one run at a time.
    folder = Path(shutil.copytree(made / "run", tmp_path_factory.mktemp("finished") / "run"))
    said = ((made / name).read_text() for name in ("stdout", "stderr"))
    return Finished(folder, made / "home", flags, *said)
