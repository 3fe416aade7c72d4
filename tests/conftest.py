"""Real pictures for every test that needs some: solar cells of the installed ELPV package."""

import shutil
from pathlib import Path

import pytest

from pipeline.dataset import Dataset, scan
from pipeline.elpv import installed_pictures
from pipeline.progress import Console

PER_CLASS = 40


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
