"""What is kept for later builds and starts, and that it does not grow for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.cache import MOST, cache_file, forget_oldest
from engines.files import write_bytes


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "edgetrt").mkdir()
    return tmp_path / "edgetrt"


def put(path: Path, age: float) -> Path:
    path.write_bytes(b"x")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_names_hold_no_path(home: Path) -> None:
    file = cache_file("timing", "10.3.0", "../../etc", "NVIDIA Tegra X2/1")
    assert file.parent == home
    assert file.name == "timing-10_3_0-_etc-NVIDIA_Tegra_X2_1.cache"


def test_who_has_no_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    file = cache_file("timing", "8.2.1")
    with pytest.raises(OSError, match="Not a directory"):
        file.read_bytes()
    with pytest.raises(OSError, match="Not a directory"):
        write_bytes(file, b"x")
    forget_oldest(file)


def test_the_oldest_of_a_kind_go(home: Path) -> None:
    files = [put(cache_file("runtime", "1.7", str(age)), age) for age in range(MOST + 3)]
    notes = [put(file.with_suffix(".json"), 0) for file in files]
    others = [put(cache_file("timing", str(age)), 1000 + age) for age in range(3)]
    foreign = put(home / "runtime-of-somebody.txt", 5000)
    forget_oldest(files[0])
    assert [file for file in files if file.exists()] == files[:MOST]
    assert [note for note in notes if note.exists()] == notes[:MOST]
    assert all(file.exists() for file in (*others, foreign))


def test_fewer_stay(home: Path) -> None:
    files = [put(cache_file("runtime", str(age)), age) for age in range(MOST)]
    forget_oldest(files[0])
    assert all(file.exists() for file in files)


def test_a_folder_that_is_gone_is_no_error(home: Path) -> None:
    home.rmdir()
    forget_oldest(cache_file("runtime", "1"))
