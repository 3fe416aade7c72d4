"""Run on the device by `python -c`: take the device program if it is not there, and become it.

    ROOT SHA256 SIZE ARGUMENTS...

ROOT: edgetrt's folder, may begin with "~/". SHA256 and SIZE: of the program ROOT/files/SHA256.
Writes {"event": "program"} if the program is wanted, whose bytes then come on standard input, and
{"event": "ready"} before it becomes the program. Errors are events as the program's own.
Any Python 3 must be able to read this file, to say that it is too old.
"""

import hashlib
import json
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

TEMPORARY = ".tmp-program-"  # and the number of the process that writes it


def launch(root: str, sha256: str, size: str, *arguments: str) -> None:
    """Become the program."""
    home = Path(root).expanduser()
    program = home / "files" / sha256
    if not is_whole(program, sha256):
        say(event="program")
        receive(program, sha256, int(size))
    if find_spec("numpy") is None:
        text = "{} has no numpy (apt-get install python3-numpy); --python names another one"
        fail(text.format(sys.executable))
    say(event="ready")  # for the request, which is the program's to read
    words = [sys.executable, str(program)]
    words += list(arguments)
    os.execv(sys.executable, words + ["--root", str(home)])  # noqa: S606, RUF005


def is_whole(program: Path, sha256: str) -> bool:
    """Whether the program is there, and undamaged."""
    try:
        return hashlib.sha256(program.read_bytes()).hexdigest() == sha256
    except FileNotFoundError:
        return False


def receive(program: Path, sha256: str, size: int) -> None:
    """Take the program from standard input, and not a byte more."""
    program.parent.mkdir(0o700, parents=True, exist_ok=True)
    for leftover in program.parent.glob(TEMPORARY + "*"):
        if not Path("/proc", leftover.name[len(TEMPORARY) :]).exists():  # it was killed
            with suppress(FileNotFoundError):  # another one was quicker
                leftover.unlink()
    digest = hashlib.sha256()
    temporary = program.with_name(TEMPORARY + str(os.getpid()))
    try:
        with temporary.open("wb") as file:
            while size:
                piece = os.read(0, min(size, 65536))
                if not piece:
                    sys.exit(1)  # the host is gone
                digest.update(piece)
                file.write(piece)
                size -= len(piece)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            fail("the device program came damaged; run the same again")
        temporary.rename(program)
    finally:
        if temporary.exists():
            temporary.unlink()


def say(**event: str) -> None:
    """Tell the host."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def fail(text: str) -> None:
    """Tell the host why this is the end."""
    say(event="error", step="program", kind="failed", text=text)
    sys.exit(1)


if __name__ == "__main__":
    if sys.version_info < (3, 6):  # noqa: UP036 - the device's, not the host's
        fail("Python {}.{} is too old; --python names one from 3.6 on".format(*sys.version_info))
    try:
        launch(*sys.argv[1:])
    except OSError as error:
        fail("{}: {}".format(error.filename or "the device program", error.strerror))
