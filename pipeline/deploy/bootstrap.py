"""Starting the device program on a device: nothing is expected there but a shell and Python 3."""

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from pipeline.deploy.inventory import Device

NO_PROGRAM = (126, 127)  # exit codes of a shell that can't start one (POSIX, 2.8.2)
LAUNCH = Path(__file__).with_name("launch.py")
# Two words of what a login shell may do differently: it only starts sh, which finds Python.
FIND_PYTHON = 'p=$1; shift; case $p in "~/"*) p=$HOME/${p#??};; esac; exec "$p" -c "$@"'


@dataclass(frozen=True)
class Program:
    """The device program: its bytes, and their SHA-256 in hexadecimal."""

    data: bytes
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> "Program":
        """The program of these bytes."""
        return cls(data, hashlib.sha256(data).hexdigest())


def command(device: Device, program: Program) -> str:
    """What the device's shell runs: `launch.py`, which becomes the program's agent."""
    words = ["sh", "-c", FIND_PYTHON, "sh", device.python, LAUNCH.read_text("utf-8"), device.root,
             program.sha256, str(len(program.data)), "agent"]  # fmt: skip
    return shlex.join(words)
