"""A command that is cut off at any moment leaves nothing broken, and the next one goes on."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from tests.conftest import Finished

REPOSITORY = Path(__file__).parents[1]
TIMEOUT = 120  # seconds; a healthy command takes a tenth
INTERRUPTED = "edgetrt: interrupted; the same command goes on where it can"
INT, TERM, KILL, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP


class Moment(NamedTuple):
    """When to send a signal.

    stage: is done again, if it was done before.
    sign: files in the run folder one of which changes, or what stands on stderr.
    delay: seconds to wait then.
    """

    stage: str
    sign: str
    delay: float
    number: signal.Signals


MOMENTS = [
    Moment("retrain", "retrain: 80 pictures", 0.3, INT),  # while TensorFlow is imported
    Moment("retrain", "retrain: 80 pictures", 1.0, TERM),
    Moment("retrain", "bottlenecks/*/index.bin", 0, KILL),
    Moment("retrain", "logs/retrain/*/*/*", 0, KILL),
    Moment("retrain", "logs/retrain/*/*/*", 0, INT),
    Moment("retrain", "model/*", 0, KILL),
    Moment("retrain", "model/*", 0, TERM),
    Moment("export", "retrain: done", 0.05, INT),
    Moment("export", "retrain: nothing changed", 1.0, TERM),  # while TensorFlow is imported
    Moment("export", "onnx/*", 0, KILL),
    Moment("quantize", "bottlenecks/backbone.int8.onnx", 0, TERM),
    Moment("quantize", "onnx/*", 0, KILL),
    Moment("quantize", "onnx/*", 0, INT),
    Moment("build", "engines/*", 0, KILL),
    Moment("build", "engines/*", 0, TERM),
    Moment("compare", "accuracy: 16/16", 0.1, INT),
    Moment("compare", "report/*", 0, KILL),
]


def start(folder: Path, flags: list[str], stderr: Path) -> subprocess.Popen[bytes]:
    with stderr.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run", "--run", str(folder), *flags],
            stdout=subprocess.PIPE, stderr=file, cwd=REPOSITORY,
        )  # fmt: skip


def wait_for(sign: str, folder: Path, stderr: Path, process: subprocess.Popen[bytes]) -> None:
    def look() -> object:
        if ": " in sign:
            return sign in stderr.read_text()
        stamps = {}
        for path in folder.glob(sign):
            with suppress(FileNotFoundError):  # renamed just now
                if path.stat().st_size:
                    stamps[path] = path.stat().st_mtime_ns
        return stamps.items()

    def seen() -> object:
        return look() if ": " in sign else look() - before  # type: ignore[operator]

    before = look()
    while not seen():
        assert process.poll() is None, f"ended before '{sign}': {stderr.read_text()}"
        time.sleep(0.001)


def forget(folder: Path, stage: str) -> None:
    """Make as if `stage` never ended."""
    if (folder / "run.json").exists():
        document = json.loads((folder / "run.json").read_text())
        document["stages"].pop(stage, None)
        (folder / "run.json").write_text(json.dumps(document))


def stages(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())["stages"]


def assert_whole(folder: Path) -> None:
    """What is recorded is there; what is there can be read."""
    for record in stages(folder).values():
        for file, digest in record["outputs"].items():
            assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest, file
    for file in folder.rglob("[!.]*.json"):
        json.loads(file.read_text())


def accuracies(folder: Path) -> dict:
    engines = json.loads((folder / "report" / "report.json").read_text())["engines"]
    return {engine["name"]: engine["accuracy"] for engine in engines}


def temporaries(folder: Path) -> list[Path]:
    return list(folder.rglob(".tmp-*"))


def test_run_that_is_cut_off_again_and_again_ends_as_an_undisturbed_one(
    finished: Finished, tmp_path: Path
) -> None:
    folder, stderr = tmp_path / "run", tmp_path / "stderr"
    rows = 0  # of bottlenecks that a killed command left
    for moment in MOMENTS:
        forget(folder, moment.stage)
        with start(folder, finished.briefly, stderr) as process:
            wait_for(moment.sign, folder, stderr, process)
            time.sleep(moment.delay)
            process.send_signal(moment.number)
            stdout, _ = process.communicate(timeout=TIMEOUT)
        told = stderr.read_text().splitlines()
        assert stdout == b"", moment
        assert_whole(folder)
        if moment.number == KILL:
            assert process.returncode == -KILL, moment
        else:
            assert process.returncode == 128 + moment.number, moment
            assert told.pop() == INTERRUPTED
            assert not temporaries(folder), moment
        assert not [line for line in told if "rror" in line or "edgetrt:" in line], moment
        if moment.sign.endswith("index.bin"):
            [index] = folder.glob(moment.sign)
            rows = index.stat().st_size // 36
            assert 0 < rows < 80
        elif rows:  # what the killed command had computed is not computed again
            assert f"bottlenecks: {80 - rows}/{80 - rows} pictures" in "\n".join(told)
            rows = 0

    with start(folder, finished.briefly, stderr) as process:
        stdout, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, stderr.read_text()
    assert b"report" in stdout
    assert not temporaries(folder)
    for file in (
        "dataset.json", "model/frozen.pb", "model/labels.txt", "model/test.json",
        *(f"onnx/model.{variant}.onnx" for variant in ("fp32", "fp16", "int8", "int8-fp16")),
        "onnx/amax.json",
    ):  # fmt: skip
        assert (folder / file).read_bytes() == (finished.folder / file).read_bytes(), file
    assert accuracies(folder) == accuracies(finished.folder)
    assert stages(folder)["retrain"]["results"]["computed"] == 0


# Without the pipeline


# Catches whatever can be caught.
STUBBORN = """
import time
from pipeline.interrupts import end_on_signals
end_on_signals()
print("ready", flush=True)
for _ in range(600):
    try:
        time.sleep(0.1)
    except BaseException:
        pass
"""

# Native code that does not come back to Python; numbers 1 and 2 are silenced meanwhile.
NATIVE = """
import ctypes, os
from pipeline.interrupts import end_on_signals
end_on_signals()
print("ready", flush=True)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
ctypes.CDLL(None).sleep(60)
"""

# A file that is written when the signal comes, as a thread works on the next.
WRITING = """
import sys, time
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from engines.files import replacing
from pipeline.interrupts import end_on_signals
end_on_signals()
with ThreadPoolExecutor(2) as pool, replacing(Path(sys.argv[1])) as temporary:
    pool.submit(time.sleep, 60)
    temporary.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""

BAR = r"""
import os, time
from pipeline.interrupts import end_on_signals
from benchmarks.progress import Console
end_on_signals()
with Console().progress("scan", 5, "pictures") as advance:
    advance(1)
    time.sleep(0.3)
    os.write(1, b"ready\n")  # what is printed goes above the bar
    time.sleep(60)
"""


def ready(script: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": REPOSITORY, **options},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("script", [STUBBORN, NATIVE], ids=["stubborn", "native"])
@pytest.mark.parametrize("number", [INT, TERM, HUP])
def test_signal_ends_the_process_at_once_with_one_line(script: str, number: signal.Signals) -> None:
    with ready(script) as process:
        sent = time.monotonic()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=TIMEOUT)
        assert time.monotonic() - sent < 5
    assert process.returncode == 128 + number
    assert (stdout, stderr.decode()) == (b"", INTERRUPTED + "\n")


@pytest.mark.parametrize("number", [INT, TERM])
def test_file_that_is_being_written_is_removed(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "model.onnx").write_bytes(b"old")
    with ready(WRITING, str(tmp_path / "model.onnx")) as process:
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(number)
        _, stderr = process.communicate(timeout=TIMEOUT)
    assert stderr.decode() == INTERRUPTED + "\n"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_signal_that_is_ignored_stays_ignored() -> None:
    def ignore() -> None:
        signal.signal(HUP, signal.SIG_IGN)  # as nohup does

    with ready(STUBBORN, preexec_fn=ignore) as process:
        process.send_signal(HUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(TERM)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + TERM


def test_terminal_has_its_cursor_back() -> None:
    ours, theirs = pty.openpty()
    with ready(BAR, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        process.send_signal(INT)
        process.communicate(timeout=TIMEOUT)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "\x1b[?25l" in shown  # hidden by the bar
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert shown.endswith(f"\r\n{INTERRUPTED}\r\n")
