"""The processes of a device that is played on this machine: those whose HOME is its own."""

import contextlib
import os
import signal
import time
from pathlib import Path


def kill_all(home: Path, listener: int | None) -> None:
    """kill -9 every process of a device, and its SSH server, until none is left.

    Args:
        home: the HOME that its processes have.
        listener: the process id of its sshd. What sshd starts for a session wipes its
            environment; it is found as a descendant.
    """
    deadline = time.monotonic() + 20
    while found := _living(home, listener):
        for pid in found:
            send(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(found)} of {home} do not die")
        time.sleep(0.01)


def of_device(home: Path) -> dict[int, list[str]]:
    """The command lines of the processes that have this HOME, by process id."""
    return {pid: _read(pid, "cmdline") for pid in _pids() if _has_home(pid, home)}


def resident(pid: int) -> int:
    """Kilobytes of memory that a process has; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4
    except (OSError, ValueError, IndexError):
        return 0


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _living(home: Path, listener: int | None) -> set[int]:
    parents = {pid: parent for pid in _pids() if (parent := _parent(pid)) is not None}
    found = {pid for pid in parents if _has_home(pid, home)}
    if listener in parents:
        found.add(listener)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _has_home(pid: int, home: Path) -> bool:
    return f"HOME={home}" in _read(pid, "environ")


def _read(pid: int, name: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []


def _parent(pid: int) -> int | None:
    """A process's parent; None for one that is gone, or dead and not yet reaped."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(parent)
