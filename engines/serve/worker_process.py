"""A worker as its supervisor has it: started, listened to, stopped."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

from engines.engine import EngineError
from engines.serve.options import TOKEN_VARIABLE, ServeOptions

RELEASES = "releases"
PROGRAM, FILES = "program.pyz", "files"
DIES = 5.0  # seconds that a killed worker may take to be gone
LOADS = 600.0  # seconds that a worker may take to be ready: TensorRT starts slowly on small boards

_SHA256 = re.compile("[0-9a-f]{64}")

# The folder or zip file that this program is. What lies in the current folder is not run.
HOME = str(Path(__file__).resolve().parents[2])
START = """
import sys
from pathlib import Path
sys.path[0] = sys.argv[1]
from engines.serve.worker import main
sys.exit(main(Path(sys.argv[4]), int(sys.argv[6])))
"""


class Link(NamedTuple):
    """The link to the release that is to be served.

    made: what tells it from one that is put in its place, even to the same release: that has
        another engine to be served then.
    """

    release: str
    made: Tuple[int, int] = (0, 0)


class Worker:
    """A process that serves a release.

    Attributes:
        ready: whether it has proven its engine, and serves.
        engine: which one; "" before it is ready.
    """

    def __init__(
        self, root: Path, link: Link, options: ServeOptions, listener: Any, restarts: int
    ) -> None:
        """Start it, by the release's own program where there is one.

        Raises:
            EngineError: it can't be started.
        """
        self.link, self.begun = link, time.monotonic()
        self.engine = ""
        self.ready = False
        folder = root.resolve() / RELEASES / link.release
        program = _program(folder)
        number = listener.fileno()
        command = [sys.executable, str(program)]
        if program is None:
            command = [sys.executable, "-c", START, HOME]
            if not folder.is_dir():
                raise EngineError("{} is gone; deploy it again".format(folder))
        environment = {k: v for k, v in os.environ.items() if k != TOKEN_VARIABLE}
        try:
            self._process: Any = subprocess.Popen(
                [*command, "serve-worker", "--release", str(folder), "--fd", str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[number],
                env=environment,
            )
        except OSError as error:
            raise EngineError("a worker can't be started: {}".format(error)) from error
        os.set_blocking(self.output.fileno(), False)
        self._said = b""
        with suppress(OSError):  # it is dead already; its end will be seen
            line = json.dumps({"options": options._asdict(), "restarts": restarts})
            self._pipe.write(line.encode() + b"\n")
            self._pipe.flush()

    @property
    def release(self) -> str:
        """What it serves."""
        return self.link.release

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def output(self) -> Any:
        """Where it tells what becomes of it."""
        return self._process.stdout

    @property
    def _pipe(self) -> Any:
        return self._process.stdin

    def hear(self) -> Optional[str]:
        """Take notice of what the worker says; returns how it failed, if it did."""
        with suppress(BlockingIOError):
            self._said += self.output.read() or b""
        told: Dict[str, Any] = {}
        if b"\n" in self._said:
            with suppress(ValueError):
                told = json.loads(self._said.split(b"\n", 1)[0].decode("utf-8"))
        if told.get("event") == "ready":
            self.ready, self.engine = True, str(told.get("engine"))
        if self._process.poll() is not None:
            if told.get("event") == "failed":
                return str(told.get("text"))
            return "its worker ended with {}".format(_end(self._process.returncode))
        if not self.ready and time.monotonic() - self.begun > LOADS:
            self.kill()
            return "its worker was not ready within {:.0f} s".format(LOADS)
        return None

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Let it answer what it has accepted, and end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        # A driver that hangs keeps even a killed process; that must not stop the others.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(DIES)
        self.close()

    def close(self) -> None:
        """Let go of the pipes of a process that has ended."""
        with suppress(OSError):
            self._pipe.close()
        self.output.close()


def _program(folder: Path) -> Optional[Path]:
    """The program of a release, by a path at which there never is another; None without one."""
    try:
        sha256 = json.loads((folder / "release.json").read_text("utf-8"))["program"]
        named = [folder.parents[1] / FILES / sha256] if _SHA256.fullmatch(sha256) else []
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        named = []
    found = [path for path in [*named, (folder / PROGRAM).resolve()] if path.is_file()]
    return found[0] if found else None


def _end(code: int) -> str:
    return "signal {}".format(-code) if code < 0 else "exit code {}".format(code)
