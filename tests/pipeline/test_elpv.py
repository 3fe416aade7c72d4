"""pipeline.elpv: the demo's picture folder, from the installed package."""

import os
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from benchmarks.progress import Console
from pipeline import elpv
from pipeline.dataset import SOURCE_FILE
from pipeline.elpv import installed_pictures, lay_out
from pipeline.errors import PipelineError, UsageError

# The package's own figures: probabilities 0, 1/3, 2/3 and 1 stand 1508, 295, 106 and 715 times.
COUNTS = {"functional": 1508 + 295, "defective": 106 + 715}


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pictures in their class folders: only read it."""
    folder = tmp_path_factory.mktemp("elpv") / "deep" / "cells"
    assert lay_out(folder, Console(quiet=True)) == sum(COUNTS.values())
    return folder


@pytest.fixture
def small_package(
    cells: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A package of four pictures in place of the installed one."""
    data = tmp_path / "package" / "data"
    (data / "images").mkdir(parents=True)
    lines = []
    for label, probability in (("defective", 1.0), ("functional", 1 / 3)):
        for file in cells[label][:2]:
            (data / "images" / file.name).write_bytes(file.read_bytes())
            lines.append(f"images/{file.name}  {probability}          mono\n")
    (data / "labels.csv").write_text("".join(lines))
    spec = ModuleSpec("elpv_dataset", None, is_package=True)
    spec.submodule_search_locations = [str(data.parent)]
    monkeypatch.setattr(elpv, "find_spec", lambda _name: spec)
    monkeypatch.setattr(elpv, "PICTURES", 4)
    return data


def test_every_picture_is_in_its_class(laid_out: Path) -> None:
    images, classes = installed_pictures()
    assert Counter(classes.values()) == COUNTS
    for name, label in classes.items():
        assert (laid_out / label / name).stat().st_size == (images / name).stat().st_size
    assert {p.name for p in laid_out.iterdir()} == {*COUNTS, SOURCE_FILE}
    for label, count in COUNTS.items():
        assert len(os.listdir(laid_out / label)) == count


def test_source_names_people_and_licence(laid_out: Path) -> None:
    source = (laid_out / SOURCE_FILE).read_text("utf-8")
    assert "CC BY-NC-SA 4.0" in source
    assert "Deitsch" in source


def test_second_time_writes_only_what_is_missing_or_changed(
    small_package: Path, tmp_path: Path, quiet: Console
) -> None:
    folder = tmp_path / "cells"
    assert lay_out(folder, quiet) == 4
    assert lay_out(folder, quiet) == 0
    gone, changed = sorted(folder.glob("*/*.png"))[:2]
    before = gone.read_bytes(), changed.read_bytes()
    gone.unlink()
    changed.write_bytes(b"x" * len(before[1]))
    assert lay_out(folder, quiet) == 2
    assert (gone.read_bytes(), changed.read_bytes()) == before
    assert len(list((small_package / "images").iterdir())) == 4


def test_goes_on_where_a_killed_one_stopped(
    small_package: Path, tmp_path: Path, quiet: Console
) -> None:
    folder = tmp_path / "cells"
    (folder / "defective").mkdir(parents=True)
    (folder / ".tmp-SOURCE.txt").write_text("half")
    (folder / "defective" / ".tmp-cell0001.png").write_bytes(b"half")
    assert lay_out(folder, quiet) == 4


@pytest.mark.parametrize("foreign", ["holiday.jpg", "cats/cat.png", "functional/mine.png"])
def test_folder_with_something_else_is_refused(
    small_package: Path, tmp_path: Path, quiet: Console, foreign: str
) -> None:
    file = tmp_path / "cells" / foreign
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    with pytest.raises(UsageError, match="holds something else"):
        lay_out(tmp_path / "cells", quiet)
    assert [p for p in (tmp_path / "cells").rglob("*") if p.is_file()] == [file]


def test_picture_in_the_wrong_class_folder_is_refused(
    small_package: Path, tmp_path: Path, quiet: Console
) -> None:
    folder = tmp_path / "cells"
    lay_out(folder, quiet)
    wrong = sorted((folder / "defective").iterdir())[0]
    wrong.rename(folder / "functional" / wrong.name)
    with pytest.raises(UsageError, match=wrong.name):
        lay_out(folder, quiet)


def test_file_is_refused(tmp_path: Path, quiet: Console) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        lay_out(tmp_path / "file", quiet)


def test_missing_package(tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elpv, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="pip install elpv-dataset"):
        lay_out(tmp_path / "cells", quiet)
    assert not (tmp_path / "cells").exists()


@pytest.mark.parametrize(
    "labels",
    [
        None,
        "",
        "images/cell0001.png  1.0  mono\n",
        "images/cell0001.png\n",
        "images/cell0001.png  half  mono\n",
        "\0\n",
    ],
)
def test_damaged_list_of_labels(
    small_package: Path, tmp_path: Path, quiet: Console, labels: str | None
) -> None:
    file = small_package / "labels.csv"
    file.unlink() if labels is None else file.write_text(labels)
    with pytest.raises(PipelineError, match=r"elpv-dataset is not whole .*install it again"):
        lay_out(tmp_path / "cells", quiet)


def test_missing_picture(small_package: Path, tmp_path: Path, quiet: Console) -> None:
    next((small_package / "images").iterdir()).unlink()
    with pytest.raises(PipelineError, match=r"not whole .*No such file"):
        lay_out(tmp_path / "cells", quiet)
