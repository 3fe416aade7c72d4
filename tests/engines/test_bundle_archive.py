"""A bundle's file is a stranger's: nothing but what edgetrt writes is opened."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import bundles
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.bundle.archive import Bundle, write
from engines.bundle.manifest import MANIFEST, SIGNATURE, BundleError

FILES = bundles.contents()
GOOD = bundles.small(b"signature")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.edgetrt"


def refused(file: Path, data: bytes, reason: str = ".") -> None:
    """It is not opened, or at least found out before anything of it is used."""
    file.write_bytes(data)
    with pytest.raises(BundleError, match=reason), Bundle(file) as bundle:
        bundle.check()


def test_what_goes_in_comes_out(file: Path) -> None:
    file.write_bytes(GOOD)
    with Bundle(file) as bundle:
        assert bundle.signature == b"signature"
        assert bundle.manifest_bytes == bundles.encode(bundle.manifest.data)
        bundle.check()
        for path, data in FILES.items():
            with bundle.open(path) as stream:
                assert stream.read(5) + stream.read() == data
                assert stream.read(1) == b""
        with pytest.raises(BundleError, match=r"no manifest\.json"):
            bundle.open(MANIFEST)
    file.write_bytes(bundles.small())
    with Bundle(file) as bundle:
        assert bundle.signature is None


def test_any_unzip_reads_it(file: Path) -> None:
    file.write_bytes(GOOD)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[:2] == [MANIFEST, SIGNATURE]
        assert names[2:] == sorted(FILES)
        assert {path: archive.read(path) for path in FILES} == FILES
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == stat.S_IFREG | 0o644
            assert (info.compress_type, info.extra, info.comment) == (zipfile.ZIP_STORED, b"", b"")


def test_many_readers_at_once(file: Path) -> None:
    file.write_bytes(GOOD)
    wrong: list[str] = []
    with Bundle(file) as bundle:

        def read(path: str) -> None:
            for _ in range(20):
                with bundle.open(path) as stream:
                    found = b"".join(iter(lambda: stream.read(100), b""))
                if found != FILES[path]:
                    wrong.append(path)

        readers = [threading.Thread(target=read, args=(path,)) for path in FILES]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert not wrong


def zipped(**lies: Any) -> bytes:
    """A bundle as Python's zipfile makes it, but for some lies about golden/0.png."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        members = [(MANIFEST, bundles.encode(bundles.describe(FILES))), *sorted(FILES.items())]
        for name, data in members:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            if name == "golden/0.png":
                data = lies.pop("data", data)
                for key, value in lies.items():
                    setattr(info, key, value)
            archive.writestr(info, data)
    return out.getvalue()


def test_a_zip_by_others_is_taken_where_it_is_the_same(file: Path) -> None:
    assert zipped() == bundles.small()


@pytest.mark.parametrize(
    ("lies", "reason"),
    [
        ({"external_attr": (stat.S_IFLNK | 0o777) << 16, "data": b"/etc/passwd"}, "not as edgetrt"),
        ({"external_attr": (stat.S_IFREG | 0o4755) << 16}, "not as edgetrt writes it"),
        ({"external_attr": 0x10}, "not as edgetrt writes it"),
        ({"compress_type": zipfile.ZIP_DEFLATED}, "contradicts"),
        ({"compress_type": zipfile.ZIP_DEFLATED, "data": bytes(50 << 20)}, "contradicts"),
        ({"compress_type": zipfile.ZIP_LZMA}, "contradicts"),
        ({"extra": b"\1\0\4\0abcd"}, "contradicts"),
        ({"comment": b"hello"}, "overlap|fit|read|not as"),
        ({"date_time": (2026, 1, 1, 0, 0, 0)}, "contradicts"),
        ({"filename": "../golden/0.png"}, "not those of its manifest"),
        ({"filename": "/etc/passwd"}, "not those of its manifest"),
        ({"filename": "golden/1.png"}, "not those of its manifest"),
        ({"filename": "licences/edgetrt.txt"}, "does not fit"),
        ({"filename": "golden/é.png"}, "can't be read"),
        ({"filename": "golden/"}, "not those of its manifest|not as edgetrt"),
        ({"data": b"other"}, "not those of its manifest"),
        ({"data": FILES["golden/0.png"][:-1] + b"x"}, "not what was bundled"),
    ],
)
def test_members_that_lie(lies: dict[str, Any], reason: str, file: Path) -> None:
    with pytest.warns(UserWarning) if "edgetrt.txt" in str(lies) else nullcontext():
        data = zipped(**lies)
    refused(file, data, reason)


def replaced(data: bytes, signature: bytes, offset: int, form: str, *values: int) -> bytes:
    """`data` with a field changed in the first record of a kind."""
    at = data.index(signature) + offset
    return data[:at] + struct.pack("<" + form, *values) + data[at + struct.calcsize("<" + form) :]


def both(offset: int, form: str, *values: int) -> bytes:
    """A field changed in the first local header and its entry of the directory alike."""
    data = replaced(GOOD, b"PK\3\4", offset, form, *values)
    return replaced(data, b"PK\1\2", offset + 2, form, *values)


@pytest.mark.parametrize(
    "data",
    [
        both(4, "H", 45), both(6, "H", 1), both(6, "H", 8), both(6, "H", 0x800), both(8, "H", 8),
        both(14, "I", 0), both(18, "II", 10**9, 10**9), both(18, "II", 2**32 - 1, 2**32 - 1),
        both(18, "II", 10, 10), both(18, "II", 0, 0), both(26, "H", 0), both(26, "H", 60_000),
        replaced(GOOD, b"PK\1\2", 42, "I", 100), replaced(GOOD, b"PK\1\2", 24, "I", 1),
        replaced(GOOD, b"PK\3\4", 22, "I", 1), replaced(GOOD, b"PK\5\6", 4, "H", 1),
        replaced(GOOD, b"PK\5\6", 8, "HH", 3, 3), replaced(GOOD, b"PK\5\6", 10, "H", 65535),
        replaced(GOOD, b"PK\5\6", 12, "I", 2**32 - 1), replaced(GOOD, b"PK\5\6", 16, "I", 0),
        replaced(GOOD, b"PK\5\6", 16, "I", 2**32 - 1), replaced(GOOD, b"PK\5\6", 20, "H", 1),
        GOOD + b"x", b"x" + GOOD, GOOD + GOOD, GOOD[:-22] + b"\0" * 22 + GOOD[-22:],
        GOOD[:-1] + b"\1" + b"c", b"", b"PK", b"PK\5\6" + bytes(18), bytes(22), bytes(10_000),
    ],
)  # fmt: skip
def test_headers_that_lie(data: bytes, file: Path) -> None:
    refused(file, data, "damaged or no bundle")


def test_files_other_than_the_manifests(file: Path) -> None:
    manifest = bundles.encode(bundles.describe(FILES))
    less = {path: data for path, data in FILES.items() if path != "golden/0.png"}
    for files in (less, FILES | {"golden/1.png": b"x"}, FILES | {"engines/x.json": b"{}"}):
        refused(file, bundles.pack(manifest, files), "not those of its manifest")
    swapped = FILES | {"golden/0.png": bytes(len(FILES["golden/0.png"]))}
    refused(file, bundles.pack(manifest, swapped), "golden/0.png is not what was bundled")


def test_order_and_copies(file: Path) -> None:
    manifest = bundles.encode(bundles.describe(FILES))

    def members(*names: str) -> bytes:
        known = FILES | {MANIFEST: manifest, SIGNATURE: b"s"}
        out = io.BytesIO()
        write(out, [(name, io.BytesIO(known[name])) for name in names])
        return out.getvalue()

    files = sorted(FILES)
    refused(file, members(SIGNATURE, MANIFEST, *files), "not those of its manifest")
    refused(file, members(*files, MANIFEST), "not those of its manifest")
    refused(file, members(MANIFEST, *files, SIGNATURE), "not those of its manifest")
    refused(file, members(MANIFEST, *files[::-1]), "not those of its manifest")
    refused(file, members(MANIFEST, MANIFEST, *files), "does not fit")
    refused(file, members(MANIFEST, *files, files[-1]), "does not fit")
    refused(file, members(*files), "no manifest.json")
    refused(file, members(), "no manifest.json")


def test_too_large_a_head(file: Path) -> None:
    manifest = bundles.encode(bundles.describe(FILES))
    refused(file, bundles.pack(manifest + b" " * (16 << 20), FILES), "its manifest.json has")
    refused(file, bundles.pack(manifest, FILES, bytes(73)), "its manifest.sig has 73 bytes")


def test_old_and_new_schemas(file: Path) -> None:
    for schema, reason in ((0, "older edgetrt"), (2, "newer edgetrt")):
        refused(file, bundles.pack(bundles.encode({"schema": schema}), FILES), reason)


def test_no_file_at_all(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="is no file"):
        Bundle(tmp_path / "pipe")
    with pytest.raises(BundleError, match="is no file"):
        Bundle(tmp_path)
    with pytest.raises(FileNotFoundError):
        Bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("part", range(0, len(GOOD), len(GOOD) // 40))
def test_cut_off(part: int, file: Path) -> None:
    refused(file, GOOD[:part], "damaged or no bundle")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_any_other_byte_is_found_out(file: Path, data: st.DataObject) -> None:
    """No byte of the file but the manifest's and signature's own can change unseen."""
    place = data.draw(st.integers(0, len(GOOD) - 1) | st.integers(len(GOOD) - 1000, len(GOOD) - 1))
    other = data.draw(st.integers(1, 255)) ^ GOOD[place]
    refused(file, GOOD[:place] + bytes([other]) + GOOD[place + 1 :])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_end_is_refused(file: Path, noise: bytes, kept: int) -> None:
    end = GOOD[-kept:] if kept else b""
    refused(file, noise + end, "damaged or no bundle")


def test_a_directory_of_a_gigabyte_is_not_read(file: Path) -> None:
    size = 1 << 30
    with file.open("wb") as out:
        out.truncate(size)  # takes no room on the disk
        out.seek(size)
        out.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1000, 1000, size, 0, 0))
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="its directory is not where it ends"):
            Bundle(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_memory_is_bounded(file: Path) -> None:
    """Opening, checking and reading 300 MiB takes no 50."""
    script = (
        "import resource, sys, hashlib\n"
        "from pathlib import Path\n"
        "from engines.bundle.archive import Bundle\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with Bundle(Path(sys.argv[1])) as bundle:\n"
        "    bundle.check()\n"
        "    large = bundle.manifest.file('golden/large')\n"
        "    with bundle.open(large.path) as stream:\n"
        "        assert sum(map(len, iter(lambda: stream.read(1 << 20), b''))) == large.size\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    size = 300 << 20
    files = FILES | {"golden/large": bytes(size)}
    file.write_bytes(bundles.pack(bundles.encode(bundles.describe(files)), files))
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 50_000  # KiB


def test_a_file_that_is_changed_while_it_is_read(file: Path) -> None:
    file.write_bytes(GOOD)
    with Bundle(file) as bundle:
        with file.open("r+b") as other:
            other.truncate(len(GOOD) // 2)
        with pytest.raises(BundleError, match="cut off"):
            bundle.check()
