"""A folder of files that is either whole or not there, and never put over somebody else's."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines import __version__
from engines.files import TEMPORARY, sha256_of, write_bytes, write_json
from engines.text import printable
from pipeline.errors import UsageError

MARK = "edgetrt.json"  # by which a folder is known as ours: what made it, and its files' SHA-256
SCHEMA = 1
DERIVED = (".engine",)  # what a user's program makes of our files, and makes again


def check_replaceable(folder: Path, kind: str) -> None:
    """Raise UsageError unless `write` may put something in the place of `folder`.

    It may where nothing or an empty folder is, and where every file is still as `write` left it.

    Args:
        kind: as for `write`; what another command wrote is not replaced.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{printable(folder)} is no folder; choose another --out")
    if not folder.exists() or next(folder.iterdir(), None) is None:
        return
    known = _files_of(folder / MARK, kind)
    if known is None:
        raise UsageError(
            f"{printable(folder)} holds files that this command did not write, and is not written "
            "over; choose another --out"
        )
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if name == MARK or path.suffix in DERIVED:
            continue
        if path.is_symlink() or not path.is_file() or known.get(name) != sha256_of(path):
            raise UsageError(
                f"{printable(path)} is not as this command wrote it, and would be lost; move it "
                "away, or choose another --out"
            )


def write(
    folder: Path, kind: str, made_from: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
    """Write `files` into a new folder, then put that in the place of `folder`.

    Whoever looks sees the whole old folder or the whole new one, or for the moment between two
    renames none. What a killed command left is removed by the next one.

    Args:
        kind: which command writes it, such as "export-triton".
        made_from: what it is made from, as JSON values.
        files: content by path inside the folder.

    Raises:
        UsageError: see `check_replaceable`.
        OSError: it can't be written; `folder` is then as it was.
    """
    if folder.name in ("", ".."):  # the current folder, or one above it
        folder = folder.resolve()
    new, old = (folder.with_name(f"{TEMPORARY}{word}{folder.name}") for word in ("", "old-"))
    if old.exists() and not folder.exists():  # killed between the two renames
        old.rename(folder)
    check_replaceable(folder, kind)
    for leftover in (new, old):
        _remove(leftover)
    try:
        for name, data in files.items():  # this also makes the folders above
            write_bytes(new / name, data)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        mark = {"schema": SCHEMA, "edgetrt": __version__, "kind": kind, "made_from": made_from}
        write_json(new / MARK, {**mark, "files": digests})
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        _sync(folder.parent)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        for leftover in (new, old):
            _remove(leftover)


def _files_of(mark: Path, kind: str) -> dict[str, str] | None:
    """SHA-256 of the files that a mark lists; None if it is none of this kind."""
    if mark.is_symlink() or not mark.is_file():
        return None
    try:
        found = json.loads(mark.read_text("utf-8"))
        ours = found["schema"] == SCHEMA and found["kind"] == kind
        files: dict[str, str] = dict(found["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return files if ours else None


def _remove(folder: Path) -> None:
    """Remove a leftover as far as can be; of a link the link, which must not be written through."""
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
