"""Running edgetrt as its users do: as a command, in a process of its own."""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile, mkdtemp
from typing import Any, Iterator, List, NamedTuple


class Finished(NamedTuple):
    """A command that succeeded.

    result: what it printed with --json; None without.
    seconds: wall time, from its start to its end.
    peak_bytes: the most memory that a process of it held (resident set).
    """

    result: Any
    seconds: float
    peak_bytes: int


def edgetrt(*arguments: Any) -> Finished:
    """Run `edgetrt ARGUMENTS --json --quiet`.

    Raises:
        RuntimeError: it failed; holds what it printed to stderr.
    """
    words = [str(word) for word in arguments]
    done = timed([sys.executable, "-m", "pipeline.cli", *words, "--json", "--quiet"])
    return done._replace(result=json.loads(done.result))


def timed(command: List[str]) -> Finished:
    """Run any command to its end; its result is what it printed to stdout.

    Raises:
        RuntimeError: it failed; holds what it printed to stderr.
    """
    with TemporaryFile() as printed, TemporaryFile() as complaint, NamedTemporaryFile() as took:
        launcher = [sys.executable, str(Path(__file__).with_name("launch.py")), took.name]
        if subprocess.call(launcher + command, stdout=printed, stderr=complaint):
            complaint.seek(0)
            reason = complaint.read().decode(errors="replace").strip()
            raise RuntimeError("{} failed: {}".format(" ".join(command), reason))
        printed.seek(0)
        return Finished(printed.read().decode(), **json.loads(took.read().decode()))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for runs, removed at the end."""
    folder = Path(mkdtemp(prefix="edgetrt-ratios-"))
    try:
        yield folder
    finally:
        shutil.rmtree(str(folder))


def progress(text: str) -> None:
    """Say on stderr what is being measured now."""
    print(text, file=sys.stderr, flush=True)
