"""A folder is whole or not there, and nobody's files are lost for it."""

import json
import os
from pathlib import Path

import pytest

from pipeline import out_folder
from pipeline.errors import UsageError
from pipeline.out_folder import MARK, write

KIND = "export-example"
OLD, NEW = {"a.txt": b"old", "in/b.bin": b"\0"}, {"a.txt": b"new", "c.txt": b"c"}


def put(folder: Path, files: dict[str, bytes], kind: str = KIND) -> None:
    write(folder, kind, {"run": "demo"}, files)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MARK]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def only(folder: Path) -> bool:
    """Whether nothing temporary lies beside a folder."""
    return os.listdir(folder.parent) == [folder.name]


def test_is_written_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    put(folder, OLD)
    assert contents(folder) == OLD and only(folder)
    assert json.loads((folder / MARK).read_text())["made_from"] == {"run": "demo"}
    put(folder, NEW)
    assert contents(folder) == NEW and only(folder)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    put(folder, NEW)
    assert contents(folder) == NEW


@pytest.mark.parametrize("name", [".", "..", "in/.."])
def test_a_folder_without_a_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "out"
    here.mkdir()
    monkeypatch.chdir(here)
    if name == ".":
        put(Path(name), NEW)
        assert contents(here) == NEW and only(here)
        return
    (here / "in").mkdir()  # neither folder is empty
    with pytest.raises(UsageError, match="did not write"):
        put(Path(name), NEW)
    assert contents(tmp_path) == {}


def test_what_is_made_of_our_files_goes_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    put(folder, OLD)
    (folder / "a.txt_b1_gpu0_fp16.engine").write_bytes(b"built on the device")
    put(folder, NEW)
    assert contents(folder) == NEW


def foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"old")


def changed(folder: Path) -> None:
    put(folder, OLD)
    (folder / "a.txt").write_bytes(b"edited by hand")


def added(folder: Path) -> None:
    put(folder, OLD)
    (folder / "in" / "notes.txt").write_bytes(b"mine")


def linked(folder: Path) -> None:
    put(folder, OLD)
    (folder / "a.txt").rename(folder.parent / "elsewhere")
    (folder / "a.txt").symlink_to(folder.parent / "elsewhere")


def of_another_command(folder: Path) -> None:
    put(folder, OLD, "export-other")


def with_a_damaged_mark(folder: Path) -> None:
    put(folder, OLD)
    (folder / MARK).write_text("[1]")


def a_file(folder: Path) -> None:
    folder.write_bytes(b"no folder")


def a_link(folder: Path) -> None:
    (folder.parent / "theirs").mkdir()
    folder.symlink_to(folder.parent / "theirs")


@pytest.mark.parametrize(
    "make",
    [foreign, changed, added, linked, of_another_command, with_a_damaged_mark, a_file, a_link],
)
def test_nothing_of_others_is_written_over(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "out"
    make(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="another --out"):
        put(folder, NEW)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("at", range(5))
def test_a_failure_leaves_the_old_folder(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write or rename fails: two files, the mark, and two renames."""
    folder = tmp_path / "out"
    put(folder, OLD)
    steps = iter(range(5))

    def failing(real):  # type: ignore[no-untyped-def]
        def step(*args):  # type: ignore[no-untyped-def]
            if next(steps) == at:
                raise OSError(28, "No space left on device")
            return real(*args)

        return step

    monkeypatch.setattr(out_folder, "write_bytes", failing(out_folder.write_bytes))
    monkeypatch.setattr(out_folder, "write_json", failing(out_folder.write_json))
    rename = Path.rename
    moves: list[Path] = []

    def failing_rename(path: Path, to: Path) -> Path:
        # Putting the old folder back is not one of the steps.
        if path not in moves and len(moves) < 2 and path.name != f".tmp-old-{folder.name}":
            moves.append(path)
            if next(steps) == at:
                raise OSError(5, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", failing_rename)
    # The files' own renames are `Path.replace`.
    with pytest.raises(OSError):
        put(folder, NEW)
    assert contents(folder) == OLD and only(folder)


def test_a_link_in_the_place_of_the_temporary_is_not_written_through(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.txt").write_bytes(b"precious")
    for name in (".tmp-out", ".tmp-old-out"):
        (tmp_path / name).symlink_to(elsewhere)
        put(tmp_path / "out", NEW)
        assert not (tmp_path / "out").is_symlink()
    assert contents(tmp_path / "out") == NEW
    assert contents(elsewhere) == {"a.txt": b"precious"}


def test_what_a_killed_command_left_is_mended(tmp_path: Path) -> None:
    folder, old, new = (tmp_path / name for name in ("out", ".tmp-old-out", ".tmp-out"))
    put(folder, OLD)
    folder.rename(old)  # as between the two renames
    foreign(new)
    with pytest.raises(UsageError):
        put(folder, NEW, "export-other")
    assert contents(folder) == OLD
    put(folder, NEW)
    assert contents(folder) == NEW and only(folder)
