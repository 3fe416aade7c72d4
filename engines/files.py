"""Files that are either whole or not there: temporary name, fsync, rename."""

import ctypes
import hashlib
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, Optional, Set

TEMPORARY = ".tmp-"  # how the name of a file begins that is not whole yet
_temporaries: Set[Path] = set()  # those being written now


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in `path`'s folder that takes its place when the block succeeds.

    The temporary name keeps the suffix (some writers go by it) and is the same every time, so
    that what a killed process left is removed by the next one. If the block raises, `path`
    is as it was.

    Raises:
        OSError: it can't be written; names a file, which the system does not where a disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY + path.name)
    remove(temporary)
    _temporaries.add(temporary)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)  # the name that the person knows
        raise
    finally:
        remove(temporary)
        _temporaries.discard(temporary)
    _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        path.unlink()


def remove_temporaries() -> None:
    """Remove what is being written now: the process is about to end.

    Python's lock is held all the while, which os.unlink gives up: another thread would go on, and
    open the next file or miss this one.
    """
    unlink = ctypes.PyDLL(None).unlink
    for temporary in tuple(_temporaries):
        unlink(os.fsencode(str(temporary)))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; bytes of file names that are no UTF-8 come out as they were."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any, indent: Optional[int] = 1) -> None:
    """Write `value` as JSON (NaN refused: it is no JSON).

    Args:
        indent: None for all on one line, where there are many numbers.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; the file is read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is on the disk.
    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
