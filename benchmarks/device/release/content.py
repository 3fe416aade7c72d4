"""Files by their SHA-256: what releases share lies on the disk once, and is never sent twice."""

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, List, NamedTuple, Optional, Set

from engines.bundle.manifest import File
from engines.engine import EngineError
from engines.files import TEMPORARY, remove, replacing, sha256_of

PIECE = 1 << 20  # bytes that are read at a time


class DamagedError(EngineError):
    """What arrived is not what was promised; nothing of it was kept."""


class CutOffError(EngineError):
    """The bytes ended before their time; what arrived was kept, to go on there."""


class Missing(NamedTuple):
    """A file that is not here, and how many bytes of it are."""

    file: File
    offset: int


class Content:
    """The folder of files by their SHA-256. Whoever changes it holds the lock of its root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the file of that SHA-256 lies, if it is here."""
        return self.folder / sha256

    def partial(self, sha256: str) -> Path:
        """Where the part of it lies that has arrived."""
        return self.folder / (TEMPORARY + sha256)

    def look(self, file: File) -> Optional[Missing]:
        """What is missing of a file; None if it is here. Its bytes are read and hashed."""
        path = self.path(file.sha256)
        if _size(path) == file.size and sha256_of(path) == file.sha256:
            return None
        offset = _size(self.partial(file.sha256))
        return Missing(file, offset if 0 <= offset <= file.size else 0)

    def receive(
        self, missing: Missing, stream: BinaryIO, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Take in what is missing of a file; it is kept only if its hash is the right one.

        Args:
            stream: gives the bytes from `missing.offset` on, as many at a time as it has; no more
                than there are of the file are read.
            progress: told how many bytes have just arrived.

        Raises:
            CutOffError: the stream ended too early.
            DamagedError: its hash is wrong.
            OSError: it can't be written.
        """
        file, partial = missing.file, self.partial(missing.file.sha256)
        digest, left = hashlib.sha256(), file.size - missing.offset
        try:
            # Unbuffered: what has arrived stays if this process dies.
            with partial.open("r+b" if missing.offset else "wb", 0) as out:
                before = missing.offset
                while before:
                    piece = out.read(min(before, PIECE))
                    if not piece:
                        break
                    digest.update(piece)
                    before -= len(piece)
                out.truncate(out.tell())
                while left:
                    piece = stream.read(min(left, PIECE))
                    if not piece:
                        raise CutOffError(
                            "{} is cut off: {} of its {} bytes are missing; the next deployment "
                            "goes on there".format(file.path, left, file.size)
                        )
                    _write(out, piece)
                    digest.update(piece)
                    left -= len(piece)
                    progress(len(piece))
                os.fsync(out.fileno())
        except OSError as error:
            if error.filename is None:
                error.filename = str(partial)
            raise
        if digest.hexdigest() != file.sha256:
            remove(partial)
            raise DamagedError(
                "{} was damaged on its way: its SHA-256 is not the manifest's".format(file.path)
            )
        partial.replace(self.path(file.sha256))
        sync(self.folder)

    def add(self, source: Path) -> str:
        """Take in a file that is on this machine; gives its SHA-256."""
        sha256 = sha256_of(source)
        path = self.path(sha256)
        if _size(path) < 0 or sha256_of(path) != sha256:
            with replacing(path) as temporary:
                temporary.write_bytes(source.read_bytes())
        return sha256

    def link(self, sha256: str, to: Path) -> None:
        """Make `to` the file of that SHA-256: a hard link, or a copy where there are none.

        Nothing is done if it is that already.
        """
        source = self.path(sha256)
        if not to.is_file() or to.is_symlink() or not _is_same(source, to, sha256):
            hard_link(source, to)

    def check(self) -> None:
        """See that there are files only.

        Raises:
            EngineError: there is a folder among them.
        """
        for path in self._all():
            if path.is_dir():
                raise EngineError("{} is a folder, where only files are; move it away".format(path))

    def sweep(self, needed: Set[str], old: float) -> None:
        """Remove all files, also partial ones, but those needed and those younger than `old`.

        Args:
            needed: their SHA-256.
            old: seconds. A clock that was put back makes a file seem old, which it may well be.
        """
        for path in self._all():
            name = path.name[len(TEMPORARY) :] if path.name.startswith(TEMPORARY) else path.name
            if name not in needed and abs(time.time() - path.lstat().st_mtime) > old:
                remove(path)

    def _all(self) -> List[Path]:
        return list(self.folder.iterdir()) if self.folder.is_dir() else []

    def forget(self, sha256: str) -> None:
        """Remove a file, and what has arrived of it; releases that have it keep it."""
        remove(self.path(sha256))
        remove(self.partial(sha256))


def hard_link(source: Path, to: Path) -> None:
    """Put a hard link to `source` in the place of `to`; a copy, where the disk knows no links."""
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = to.with_name(TEMPORARY + to.name)
    remove(temporary)
    try:
        os.link(str(source), str(temporary))
    except OSError:  # not on FAT, nor beyond so and so many; a full disk refuses the copy too
        with replacing(to) as copy:
            shutil.copyfile(str(source), str(copy))
        return
    temporary.replace(to)
    remove(temporary)  # rename does nothing if both are the same file already
    sync(to.parent)


def sync(folder: Path) -> None:
    """Bring to the disk what is in a folder under which name."""
    descriptor = os.open(str(folder), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Bring a folder to the disk with all that is in it."""
    for place, _, files in os.walk(str(folder), topdown=False):
        for name in files:
            if not os.path.islink(os.path.join(place, name)):  # noqa: PTH114, PTH118
                sync(Path(place, name))
        sync(Path(place))


def _write(out: Any, data: bytes) -> None:
    left = memoryview(data)
    while left:  # a disk that is about to be full takes a part
        left = left[out.write(left) :]


def _is_same(source: Path, to: Path, sha256: str) -> bool:
    return to.stat().st_ino == source.stat().st_ino or sha256_of(to) == sha256


def _size(path: Path) -> int:
    """A regular file's size; -1 if there is none."""
    return path.stat().st_size if path.is_file() and not path.is_symlink() else -1
