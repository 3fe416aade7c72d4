"""benchmarks.progress: lines for people, on stderr and nowhere else."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import progress
from benchmarks.progress import Console

REPOSITORY = Path(__file__).parents[2]

ON_A_TERMINAL = """
from benchmarks.progress import Console
console = Console()
with console.progress("bottlenecks", 8, "pictures") as advance:
    for _ in range(4):
        advance(2)
    console.say("between")
print("result")
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that it is; tests move it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Console().say("retrain: done")
    Console().warn("few pictures")
    assert capsys.readouterr() == ("", "retrain: done\nwarning: few pictures\n")


def test_quiet_still_warns(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    console.say("retrain: done")
    console.warn("few pictures")
    with console.progress("scan", 3, "pictures") as advance:
        advance(3)
    assert capsys.readouterr() == ("", "warning: few pictures\n")


def test_warning_stays_on_one_line_and_sends_no_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Console().warn("class 'a\nb\x1b[2J' and '" + os.fsdecode(b"caf\xe9") + "' of M\u00fcnchen")
    assert capsys.readouterr().err == (
        "warning: class 'a\\nb\\x1b[2J' and 'caf\\udce9' of M\u00fcnchen\n"
    )


def test_log_tells_count_rate_and_time_left_now_and_then(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Console().progress("scan", 100, "pictures") as advance:
        for _ in range(4):
            clock[0] += 5
            advance(20)
        clock[0] += 5
        advance(20)
    assert capsys.readouterr().err.splitlines() == [
        "scan: 40/100 pictures, 4.0 pictures/s, 15 s left",
        "scan: 80/100 pictures, 4.0 pictures/s, 5 s left",
        "scan: 100/100 pictures, 4.0 pictures/s",
    ]


def test_log_of_something_quick_is_one_line(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Console().progress("scan", 3, "pictures") as advance:
        for _ in range(3):
            clock[0] += 0.5
            advance(1)
    assert capsys.readouterr().err == "scan: 3/3 pictures, 2.0 pictures/s\n"


def test_nothing_to_do_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress("bottlenecks", 0, "pictures"):
        pass
    assert capsys.readouterr() == ("", "")


def test_failure_comes_through_and_claims_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(ValueError, match="damaged"),
        Console().progress("scan", 3, "pictures") as advance,
    ):
        advance(1)
        raise ValueError("damaged")
    assert capsys.readouterr().err == ""


def test_bar_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    ran = subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=REPOSITORY,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        check=True,
    )
    os.close(theirs)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(ours, 1 << 16).decode())
    os.close(ours)
    assert ran.stdout == b"result\n"
    assert "8/8" in shown
    assert "pictures/s" in shown
    assert "between" in shown


def test_more_than_was_thought(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress("from-file", 3, "turns") as advance:
        for _ in range(5):
            advance(1)
    assert capsys.readouterr().err.splitlines()[-1].startswith("from-file: 5/5 turns, ")
