"""A device program that does what a test says, and the line to it."""

import io
import select
import shlex
import subprocess
import zipfile
from typing import Any

from pipeline.deploy import bootstrap
from pipeline.deploy.bootstrap import Program
from pipeline.deploy.inventory import Device

PRELUDE = """\
import hashlib, json, os, signal, sys, time
lines = sys.stdin.buffer
def say(**event):
    sys.stdout.write(json.dumps(event) + "\\n")
    sys.stdout.flush()
def step(name, state="start", text=""):
    say(event="step", step=name, state=state, text=text)
def line():
    while True:
        text = lines.readline()
        if not text:
            sys.exit(1)
        if text.strip():
            return json.loads(text)
def fetch(sha256, size, offset=0):
    say(event="send", sha256=sha256, size=size, offset=offset)
    header = line()
    assert header == {"sha256": sha256, "offset": offset, "length": size - offset}, header
    return lines.read(header["length"])
request = line()
root = sys.argv[-1]
"""


def program(script: str) -> Program:
    """A device program that reads the request, and then does as the script says.

    The script has `request` and `root`, and `say`, `step`, `fetch` and `line` to speak with.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), PRELUDE + script)
    return Program.of(buffer.getvalue())


class LocalChannel:
    """A program of this machine behind what `paramiko.Channel` shows of one far away."""

    def __init__(self, command: str, **more: Any) -> None:
        self.process = subprocess.Popen(
            shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, bufsize=0, **more,
        )  # fmt: skip
        self.timeout: float | None = None
        self.active = True
        self.sent = 0
        self.cut_after: int | None = None  # bytes to the device

    def settimeout(self, timeout: float | None) -> None:
        self.timeout = timeout

    def send(self, data: bytes) -> int:
        assert self.process.stdin is not None
        if self.cut_after is not None and self.sent + len(data) > self.cut_after:
            self.active = False
            self.process.stdin.close()
            raise OSError("Socket is closed")
        self.sent += len(data)
        return self.process.stdin.write(data) or 0

    def recv(self, size: int) -> bytes:
        assert self.process.stdout is not None
        if not self.active:
            return b""
        if not select.select([self.process.stdout], [], [], self.timeout)[0]:
            raise TimeoutError
        return self.process.stdout.read(size)

    def recv_stderr(self, size: int) -> bytes:
        assert self.process.stderr is not None
        return self.process.stderr.read(size)

    def recv_stderr_ready(self) -> bool:
        assert self.process.stderr is not None
        return bool(select.select([self.process.stderr], [], [], 0)[0])

    def exit_status_ready(self) -> bool:
        return self.process.poll() is not None

    def recv_exit_status(self) -> int:
        return max(self.process.wait(), -1)

    def shutdown_write(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def get_transport(self) -> "LocalChannel":
        return self

    def is_active(self) -> bool:
        return self.active

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        self.process.kill()
        self.process.wait()


def start(device: Device, agent: Program, **more: Any) -> LocalChannel:
    """Start an agent as on the device, here."""
    return LocalChannel(bootstrap.command(device, agent), **more)
