"""Real pictures for every test that needs some: solar cells of the installed ELPV package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.progress import Console
from pipeline.dataset import Dataset, scan
from pipeline.elpv import installed_pictures

PER_CLASS = 40
# As the command line sets it; some tests import TensorFlow before.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


@pytest.fixture(scope="session")
def cells() -> dict[str, list[Path]]:
    """Every solar cell of the package by its class; never to be written to."""
    folder, classes = installed_pictures()
    by_class: dict[str, list[Path]] = {"defective": [], "functional": []}
    for name, label in sorted(classes.items()):
        by_class[label].append(folder / name)
    return by_class


@pytest.fixture(scope="session")
def pictures(cells: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 2 classes with 40 real pictures each, shared by all tests: only read it."""
    root = tmp_path_factory.mktemp("cells")
    for label, files in cells.items():
        (root / label).mkdir()
        for file in files[::20][:PER_CLASS]:
            shutil.copyfile(file, root / label / file.name)
    return root


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


@pytest.fixture(scope="session")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras classifier that is as quick as can be."""
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
    file: Path = tmp_path_factory.mktemp("model") / "own.keras"
    model.save(file)
    return file


@pytest.fixture(scope="session")
def finished(pictures: Path, own_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`edgetrt run` with `own_model`, shared by all tests: only read it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    home = tmp_path_factory.mktemp("home")
    flags = ["--image-dir", str(pictures), "--testing-percentage", "25",
             "--how-many-training-steps", "20", "--architecture", str(own_model),
             "--calibration-images", "8", "--engine", "onnxruntime,openvino",
             "--precision", "fp32", "--quick"]  # fmt: skip
    environment = {**os.environ, "HOME": str(home)}
    del environment["TF_CPP_MIN_LOG_LEVEL"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", "--run", str(folder), "--json", *flags],
        capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=300,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Finished(folder, home, flags, done.stdout, done.stderr)
