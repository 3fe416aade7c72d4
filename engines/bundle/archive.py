"""The bundle's file: a ZIP in one exact form, so that there is nothing to lie with.

Any unzip opens it. Every member is stored, not compressed: the bytes depend on no version of
zlib, and no member can be larger than the file. The manifest comes first, then its signature if
there is one, then the files in the order of the manifest, without gaps. The reader takes nothing
but the very headers that the writer would have written, so that links, encrypted or compressed
members, second copies, hidden bytes and sizes that don't agree are all refused as one.

Source of the format: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.4.
"""

import hashlib
import io
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from engines.bundle.manifest import (
    MANIFEST,
    MAX_BYTES,
    MAX_FILES,
    MAX_PATH,
    SIGNATURE,
    BundleError,
    Manifest,
    parse,
)
from engines.bundle.signature import MAX_SIGNATURE

SUFFIX = ".edgetrt"
PIECE = 1 << 20  # bytes that are read at a time

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION = 20  # of the format that is needed to read it
_MADE_BY = 3 << 8 | _VERSION  # Unix: the attributes are a file's mode
_TIME, _DATE = 0, 1 << 5 | 1  # midnight, 1980-01-01: the earliest there is
_MODE = (stat.S_IFREG | 0o644) << 16
_MAX = 2**32 - 1


class _Member(NamedTuple):
    name: str
    size: int
    crc: int
    offset: int  # of its header

    @property
    def start(self) -> int:
        """Where its bytes begin."""
        return self.offset + _LOCAL.size + len(self.name)

    def local(self) -> bytes:
        """Its header."""
        name = self.name.encode("ascii")
        return _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, *self._common(), len(name), 0) + name

    def central(self) -> bytes:
        """Its entry in the directory at the end."""
        name = self.name.encode("ascii")
        fields = (_MADE_BY, _VERSION, 0, 0, *self._common(), len(name), 0, 0, 0, 0)
        return _CENTRAL.pack(b"PK\1\2", *fields, _MODE, self.offset) + name

    def _common(self) -> Tuple[int, ...]:
        return _TIME, _DATE, self.crc, self.size, self.size


def write(to: BinaryIO, members: Iterable[Tuple[str, BinaryIO]]) -> None:
    """Write a bundle.

    Args:
        to: empty, and can be sought in.
        members: names and contents: the manifest, its signature if there is one, and the files in
            the order of the manifest.

    Raises:
        BundleError: it would be 4 GiB or larger.
    """
    directory: List[_Member] = []
    for name, source in members:
        offset, size, crc = to.tell(), 0, 0
        to.write(_Member(name, 0, 0, offset).local())
        for piece in _pieces(source):
            to.write(piece)
            size, crc = size + len(piece), zlib.crc32(piece, crc)
        end = to.tell()
        if end > _MAX:
            raise BundleError(
                "a bundle holds at most 4 GiB; leave out what the device can do without"
            )
        directory.append(_Member(name, size, crc, offset))
        to.seek(offset)
        to.write(directory[-1].local())
        to.seek(end)
    to.write(_directory(directory, to.tell()))


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.read(PIECE), b"")


def _directory(members: List[_Member], offset: int) -> bytes:
    entries = b"".join(member.central() for member in members)
    count = len(members)
    return entries + _END.pack(b"PK\5\6", 0, 0, count, count, len(entries), offset, 0)


class Bundle:
    """A bundle's file, open for reading; use it as a context manager.

    Several threads may read from it at the same time.

    Attributes:
        manifest: checked, and it agrees with what the file holds.
        manifest_bytes: as they were signed.
        signature: None: it is not signed. Nothing here verifies it: see `engines.bundle.signature`.
    """

    def __init__(self, path: Path) -> None:
        """Open it; nothing but its directory, manifest and signature is read.

        Raises:
            BundleError: it is no bundle, damaged, or of another schema.
            OSError: it can't be read.
        """
        self.path = path
        # A pipe of this name must not make us wait.
        self._file = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            members = self._members()
            self._by_name: Dict[str, _Member] = {member.name: member for member in members}
            self.manifest_bytes = self._small(MANIFEST, MAX_BYTES)
            self.signature: Optional[bytes] = None
            if SIGNATURE in self._by_name:
                self.signature = self._small(SIGNATURE, MAX_SIGNATURE)
            self.manifest: Manifest = parse(self.manifest_bytes)
            head = [MANIFEST] + ([] if self.signature is None else [SIGNATURE])
            wanted = [(file.path, file.size) for file in self.manifest.files]
            if [m.name for m in members[: len(head)]] != head or wanted != [
                (m.name, m.size) for m in members[len(head) :]
            ]:
                raise self._damaged("its files are not those of its manifest")
        except BaseException:
            self.close()
            raise

    def open(self, path: str) -> BinaryIO:
        """A stream of a file's bytes, exactly as many as the manifest says.

        Their hash is not checked: `check` does that.

        Raises:
            BundleError: there is no such file.
        """
        self.manifest.file(path)
        return self._stream(self._by_name[path])

    def check(self) -> None:
        """Read the whole file and compare every byte's hash.

        Raises:
            BundleError: names the first file that differs.
        """
        for member in self._by_name.values():
            digest, crc = hashlib.sha256(), 0
            with self._stream(member) as stream:
                for piece in _pieces(stream):
                    digest.update(piece)
                    crc = zlib.crc32(piece, crc)
            listed = member.name not in (MANIFEST, SIGNATURE)
            if crc != member.crc or (
                listed and digest.hexdigest() != self.manifest.file(member.name).sha256
            ):
                raise self._damaged("{} is not what was bundled".format(member.name))

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def _members(self) -> List[_Member]:
        """What the directory lists; each lies where it says, with no byte between them."""
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError("{} is no file".format(self.path))
        end = _END.unpack(self._read(status.st_size - _END.size, _END.size))
        count, size, offset = end[4], end[5], end[6]
        most = (MAX_FILES + 2) * (_CENTRAL.size + MAX_PATH)
        if size > most or offset + size + _END.size != status.st_size:
            raise self._damaged("its directory is not where it ends")
        directory = self._read(offset, size)
        members, position, expected = [], 0, 0
        while position < size:
            member = self._member(directory, position)
            if member.offset != expected:
                raise self._damaged("its files overlap or have gaps")
            header = member.local()
            if self._read(member.offset, len(header)) != header:
                raise self._damaged("{!r} contradicts its directory".format(member.name[:MAX_PATH]))
            members.append(member)
            position += _CENTRAL.size + len(member.name)
            expected = member.start + member.size
        if expected != offset or len(members) != count or len({m.name for m in members}) != count:
            raise self._damaged("its directory does not fit its files")
        if _directory(members, offset) != directory + self._read(offset + size, _END.size):
            raise self._damaged("its directory is not as edgetrt writes it")
        return members

    def _member(self, directory: bytes, position: int) -> _Member:
        try:
            entry = _CENTRAL.unpack_from(directory, position)
            start = position + _CENTRAL.size
            name = directory[start : start + entry[10]].decode("ascii")
        except (struct.error, UnicodeDecodeError):
            raise self._damaged("its directory can't be read") from None
        return _Member(name, entry[9], entry[7], entry[16])

    def _small(self, name: str, most: int) -> bytes:
        if name not in self._by_name:
            raise self._damaged("it has no {}".format(name))
        member = self._by_name[name]
        if member.size > most:
            raise self._damaged("its {} has {} bytes".format(name, member.size))
        return self._read(member.start, member.size)

    def _stream(self, member: _Member) -> BinaryIO:
        return io.BufferedReader(_Part(self, member.start, member.size), 1 << 16)

    def _read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes."""
        data = os.pread(self._file, count, offset) if offset >= 0 else b""
        while data and len(data) < count:
            more = os.pread(self._file, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        if len(data) != count:
            raise self._damaged("it is cut off, or no bundle")
        return data

    def _damaged(self, reason: str) -> BundleError:
        return BundleError(
            "{} is damaged or no bundle: {}; make or fetch it again".format(self.path, reason)
        )


class _Part(io.RawIOBase):
    """Some bytes of a bundle's file, read at their own pace."""

    def __init__(self, bundle: Bundle, start: int, size: int) -> None:
        self._bundle, self._position, self._end = bundle, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._end - self._position)
        buffer[:count] = self._bundle._read(self._position, count)
        self._position += count
        return count
