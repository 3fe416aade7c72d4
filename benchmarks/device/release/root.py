"""The folder on a device in which all its releases are, and the lock of whoever changes it."""

import fcntl
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from engines.engine import EngineError

DEFAULT = Path("~/edgetrt")


class BusyError(EngineError):
    """Another command is changing the releases of this device."""


def prepare(root: Path) -> None:
    """Make the folder if it is missing; it holds what GPUs execute, so it is its owner's alone.

    Raises:
        EngineError: it is someone else's, or no folder.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        root.mkdir(mode=0o700)
    except FileExistsError:
        check(root)
    mode = stat.S_IMODE(root.stat().st_mode)
    if mode & 0o077:
        root.chmod(mode & 0o700)


def check(root: Path) -> None:
    """See that the folder is ours.

    Raises:
        EngineError: it is someone else's, or no folder.
        FileNotFoundError: there is nothing of that name.
    """
    itself, target = root.lstat(), root.stat()
    if not stat.S_ISDIR(target.st_mode):
        raise EngineError("{} is no folder; choose another --root".format(root))
    # Through a link that others can change, they could put in what they like.
    if itself.st_uid != os.geteuid() or target.st_uid != os.geteuid():
        raise EngineError(
            "{} belongs to another user (uid {}); choose another --root".format(
                root, itself.st_uid if itself.st_uid != os.geteuid() else target.st_uid
            )
        )


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep everyone else from changing anything here, as long as this process lives at most.

    Raises:
        BusyError: somebody is at it.
        EngineError: the folder can't be used.
    """
    prepare(root)
    file = os.open(str(root / "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 20, 0).decode("ascii", "replace")
            who = " (process {})".format(holder) if holder.isdigit() else ""
            raise BusyError(
                "another deployment is at work in {}{}; wait for it to end".format(root, who)
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(file)
