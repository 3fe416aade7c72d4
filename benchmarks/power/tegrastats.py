"""Power of a Jetson by what NVIDIA's `tegrastats` prints, where sysfs can't be read."""

import re
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Dict, List, Optional, Tuple

from benchmarks.power.rails import choose
from benchmarks.power.source import PowerSource, Rail

PROGRAM = "usr/bin/tegrastats"
MILLISECONDS = 100  # from line to line
FIRST_LINE = 5.0  # seconds that it may take
LONGEST = 1 << 14  # bytes of a line

# NAME now/average in mW since it was started; the unit is written from L4T 34 on, a third value
# from 39 on. "RAM 13983/62780MB" is none, nor is "CPU@77.281C/77.281C". A rail without load
# may read a little below 0.
RAIL = re.compile(
    r"(?<!\S)([A-Za-z][A-Za-z0-9_]{0,63}) (-?[0-9]{1,9})(?:mW)?(?:/-?[0-9]{1,9}(?:mW)?){1,2}(?!\S)"
)
UNUSED = "NC"  # name of a channel that nothing is wired to


def parse(line: str) -> Dict[str, float]:
    """Watts of each rail in a line of tegrastats, at the moment it was printed."""
    return {
        name: int(milliwatts) / 1000 for name, milliwatts in RAIL.findall(line) if name != UNUSED
    }


class Tegrastats(PowerSource):
    """Runs tegrastats from the first reading on until it is closed."""

    def __init__(self, program: Path, rails: List[Rail]) -> None:
        """Nothing is started yet.

        Args:
            program: tegrastats.
            rails: all that it prints.
        """
        super().__init__("tegrastats", rails)
        self._names = [rail.name for rail in rails if rail.included]
        self._output = Output(program)

    def read(self) -> Dict[str, float]:
        """Read "power_w"; each line is given once, so that none counts as two samples."""
        watts = parse(self._output.newest())
        if not all(name in watts for name in self._names):
            return {}
        return {"power_w": sum(watts[name] for name in self._names)}

    def close(self) -> None:
        """End tegrastats."""
        self._output.close()


class Output:
    """The newest line of a running tegrastats."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._thread: Optional[threading.Thread] = None
        self._line = ""
        self._ended = False

    def newest(self) -> str:
        """The last line, if it was not given yet; else "". Starts the program, once."""
        if self._ended:
            return ""
        if self._thread is None:
            self._start()
        line, self._line = self._line, ""
        return line

    def close(self) -> None:
        """End the program; it is not started again."""
        self._ended = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._thread is not None:
            self._thread.join(1.0)  # what it started may hold the pipe open
        self._line = ""

    def _start(self) -> None:
        try:
            self._process = subprocess.Popen(
                [str(self._program), "--interval", str(MILLISECONDS)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            self._ended = True
            return
        self._thread = threading.Thread(
            target=self._follow, args=(self._process.stdout,), name="tegrastats", daemon=True
        )
        self._thread.start()

    def _follow(self, lines: IO[bytes]) -> None:
        with lines:
            for line in iter(lambda: lines.readline(LONGEST), b""):
                self._line = line.decode("ascii", "replace")


def find(root: Path) -> Tuple[Optional[PowerSource], Optional[str]]:
    """Tegrastats, if it prints rails that make a whole; else why not, or None without a program."""
    program = root / PROGRAM
    if not program.is_file():
        return None, None
    names = _rails(program)
    if not names:
        return None, "tegrastats prints no power rails"
    rails = choose(names)
    if any(rail.included for rail in rails):
        return Tegrastats(program, rails), None
    return None, "the rails that tegrastats prints do not make a whole: " + ", ".join(names)


def _rails(program: Path) -> List[str]:
    """The rails in its first line that has any."""
    output, end = Output(program), time.monotonic() + FIRST_LINE
    try:
        while time.monotonic() < end:
            names = list(parse(output.newest()))
            if names:
                return names
            time.sleep(MILLISECONDS / 1000 / 4)
        return []
    finally:
        output.close()
