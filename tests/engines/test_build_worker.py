"""The process that builds: one at a time on a GPU, and it says what it waits for."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from engines.tensorrt import worker


def test_a_build_waits_for_another_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ASKED_AGAIN", 0.01)
    told: list[str] = []
    asked, entered = threading.Event(), threading.Event()

    def progress(phase: str, done: int, of: int) -> None:
        told.append(phase)
        asked.set()

    def wait() -> None:
        with worker._alone(tmp_path / "cache" / "gpu.lock", progress):
            entered.set()

    lock = tmp_path / "cache" / "gpu.lock"
    lock.parent.mkdir()
    other = threading.Thread(target=wait)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        other.start()
        assert asked.wait(10)
        assert not entered.is_set()
    assert entered.wait(10)
    other.join()
    assert set(told) == {"waits for another build on this GPU"}


def test_who_is_alone_waits_for_nobody(tmp_path: Path) -> None:
    told: list[str] = []
    with worker._alone(tmp_path / "gpu.lock", lambda *step: told.append(step[0])):
        pass
    assert not told
