"""Devices on this machine: each an OpenSSH server with a home folder and a Python of its own."""

import fcntl
import hashlib
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import processes
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

SSHD = Path("/usr/sbin/sshd")
USER = pwd.getpwuid(os.getuid()).pw_name
# What a device has of Python packages where TensorRT would be.
PACKAGES = ("numpy", "numpy.libs", "onnxruntime", "cv2", "opencv_python_headless.libs",
            "flatbuffers", "packaging", "google")  # fmt: skip
# What every Python there finds in its environment: see tests/conftest.py.
EVERY = "export PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1"
CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PermitUserEnvironment no
PasswordAuthentication {password}
KbdInteractiveAuthentication no
MaxStartups 100
LogLevel ERROR
SetEnv HOME={folder}/home PATH={folder}/bin:/usr/bin:/bin
ForceCommand cd "$HOME" && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""


def need(program: Path, package: str) -> None:
    """Install a package of Debian's if its program is missing and we may.

    Without it the test is skipped; where continuous integration runs, it fails.
    """
    if not program.exists() and os.getuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        with Path(tempfile.gettempdir(), "edgetrt-tests-install.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the tests run in several processes
            for command in [] if program.exists() else (["apt-get", "update", "-qq"], install):
                environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
                subprocess.run(command, capture_output=True, env=environment)
    if not program.exists():
        cannot(f"{program} is missing; as root: apt-get install {package}")


def cannot(reason: str) -> None:
    """Skip a test that this machine can't do; where continuous integration runs, it fails."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def need_sshd() -> None:
    """Install the SSH server if need be; see `need`."""
    need(SSHD, "openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks itself up


def new_key(file: Path) -> str:
    """Write a private key as OpenSSH has it; returns the public one's line."""
    key = ed25519.Ed25519PrivateKey.generate()
    file.touch(0o600)
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


def free_port() -> int:
    """A port that nobody has, and that no outgoing connection takes while a device is down.

    None is given twice: the host remembers whose key it saw there.
    """
    for port in _ports:
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError("no free port")


# Each process of the tests has its own: another's device may be down just now.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_ports = iter(random.sample(range(20000 + 3000 * (WORKER % 4), 23000 + 3000 * (WORKER % 4)), 3000))


def device_python(folder: Path) -> Path:
    """A virtual environment with only the packages that a device has.

    Returns:
        Its interpreter.
    """
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True
    )
    packages = next(folder.glob("lib/python3*/site-packages"))
    import numpy

    installed = Path(numpy.__file__).parents[1]
    for name in PACKAGES:
        if (installed / name).exists():
            (packages / name).symlink_to(installed / name)
    (packages / "sitecustomize.py").symlink_to(
        Path(__file__).parent / "device_python" / "sitecustomize.py"
    )
    return folder / "bin" / "python3"


class Stopped(NamedTuple):
    """An agent that stands still before a change of its disk."""

    pid: int
    change: str


class Device:
    """A device: what `ssh` sees of one, and what its owner does to it.

    Attributes:
        name: for an inventory.
        folder: everything of this device; its HOME is `home` in there.
        root: ~/edgetrt.
        port: of its SSH server, on 127.0.0.1.
        serving: port that its owner has the server on.
        known_host: its line of a known_hosts file.
    """

    def __init__(
        self, folder: Path, name: str, python: Path, authorized: str, password: str = "no"
    ) -> None:
        """Prepare a device; it is off.

        Args:
            folder: empty.
            python: what its `python3` is.
            authorized: line of the key that may log in.
            password: "yes": or with the password of the account.
        """
        self.folder, self.name = folder, name
        self.home = folder / "home"
        self.root = self.home / "edgetrt"
        self.port, self.serving = free_port(), free_port()
        self._sshd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self.home.mkdir()
        self.host_key = new_key(folder / "host_key")
        (folder / "authorized_keys").write_text(authorized + "\n")
        (folder / "sshd_config").write_text(
            CONFIG.format(folder=folder, port=self.port, password=password)
        )
        (folder / "bin").mkdir()
        wrapper = folder / "bin" / "python3"
        wrapper.write_text(f'#!/bin/sh\n{EVERY}\n. {folder}/python.sh\nexec {python} "$@"\n')
        wrapper.chmod(0o755)
        self.mend()

    @property
    def known_host(self) -> str:
        return known_host(self, self.port)

    @property
    def target(self) -> str:
        """As `--device` takes it."""
        return f"{USER}@127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a program that the owner starts on the device has."""
        return {"HOME": str(self.home), "PATH": f"{self.folder}/bin:/usr/bin:/bin", "USER": USER}

    # Power

    def start(self) -> None:
        """Start the SSH server; returns when it answers."""
        log = (self.folder / "sshd.log").open("ab")
        with log:
            self._sshd = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while not _listens(self.port):
            if self._sshd.poll() is not None or time.monotonic() > deadline:
                raise OSError((self.folder / "sshd.log").read_text() or "sshd does not answer")
            time.sleep(0.01)

    def serve(self, *flags: str) -> None:
        """Start the device's server as its owner would; returns when it is ready."""
        from watching import ready

        log = (self.folder / "serve.log").open("ab")
        program = self.root / "current" / "program.pyz"
        with log:
            self._server = subprocess.Popen(
                [str(self.folder / "bin" / "python3"), str(program), "serve",
                 "--root", str(self.root), "--port", str(self.serving), *flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
                cwd=self.home, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not ready(self.serving):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"the server does not start:\n{self.serve_log()}")
            time.sleep(0.05)

    def serve_log(self) -> str:
        file = self.folder / "serve.log"
        return file.read_text("utf-8", "replace")[-4000:] if file.exists() else ""

    def kill_everything(self) -> None:
        """The power is cut: kill -9 of every process of the device."""
        processes.kill_all(self.home, self._sshd.pid if self._sshd else None)
        for process in (self._sshd, self._server):
            if process is not None:
                process.wait()
        self._sshd = None

    def reboot(self) -> None:
        """The power is back: its SSH server, and its own server if it had one, start again."""
        self.kill_everything()
        self.start()
        if self._server is not None:
            self.serve()

    # Faults

    def inject(self, shell: str) -> None:
        """Run a line of shell before each Python that is started on the device from now on."""
        (self.folder / "python.sh").write_text(shell + "\n")

    def mend(self) -> None:
        """Take back `inject` and `stop_at`."""
        self.inject("")
        for name in ("stop-at", "stopped"):
            (self.folder / name).unlink(missing_ok=True)

    def stop_at(self, change: int) -> None:
        """Have the next agent stand still before its so-manyth change of the disk."""
        for name in ("stopped", "changes"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "stop-at").write_text(str(change))

    def stopped(self) -> Stopped | None:
        """The agent, if it stands still."""
        try:
            pid, _, change = (self.folder / "stopped").read_text().partition(" ")
        except OSError:
            return None
        return Stopped(int(pid), change) if change else None

    def go_on(self) -> None:
        """Let the agent go on that `stopped` tells of."""
        stopped = self.stopped()
        if stopped is not None:
            (self.folder / "stop-at").unlink(missing_ok=True)
            (self.folder / "stopped").unlink(missing_ok=True)
            processes.send(stopped.pid, signal.SIGCONT)

    def changes(self) -> list[str]:
        """The changes of the disk that the last agent made, in order."""
        file = self.folder / "changes"
        return file.read_text().splitlines() if file.exists() else []

    def forget_program(self) -> None:
        """Have the device need the device program anew, as after an update of edgetrt."""
        program = (self.root / "current" / "program.pyz").read_bytes()
        (self.root / "files" / hashlib.sha256(program).hexdigest()).unlink()

    def agents(self) -> list[int]:
        """Process ids of the agents at work here."""
        found = processes.of_device(self.home)
        return [pid for pid, words in found.items() if "agent" in words[:4]]

    def current(self) -> str | None:
        """Which release `current` names; None before the first."""
        try:
            return Path(os.readlink(self.root / "current")).name
        except FileNotFoundError:
            return None

    def history(self) -> list[dict[str, Any]]:
        """What happened to the device's releases, newest last."""
        found: list[dict[str, Any]] = json.loads((self.root / "history.json").read_text())
        return found

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The device's program, as its owner would call it."""
        program = self.root / "current" / "program.pyz"
        return subprocess.run(
            [str(self.folder / "bin" / "python3"), str(program), *arguments],
            capture_output=True, text=True, env=self.environment, timeout=60, cwd=self.home,
        )  # fmt: skip


def known_host(device: Device, port: int) -> str:
    """The line of a known_hosts file for a device behind a port of this machine."""
    return f"[127.0.0.1]:{port} {device.host_key}\n"


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        trial.settimeout(1)
        return trial.connect_ex(("127.0.0.1", port)) == 0
