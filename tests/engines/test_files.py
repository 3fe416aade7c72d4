"""engines.files: a file is the old one or the new one, whatever happens in between."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.files import replacing, sha256_of, write_bytes, write_json, write_text
from pipeline.errors import PipelineError
from pipeline.files import read_json

REPOSITORY = Path(__file__).parents[2]
OLD, NEW = b"the old one\n", b"the new one\n"

# A writer that stops half-way through, and says so.
HALF_WAY = """
import sys, time
from pathlib import Path
from engines.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"hal")
    print("half-way", flush=True)
    time.sleep(60)
"""

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(OLD)
    return path


def only(path: Path) -> bool:
    """Whether nothing else lies in the folder of `path`."""
    return [p.name for p in path.parent.iterdir()] == [path.name]


def test_takes_the_place_of_the_old_file(old: Path) -> None:
    with replacing(old) as temporary:
        assert temporary.parent == old.parent
        assert temporary.suffix == old.suffix
        temporary.write_bytes(NEW)
        assert old.read_bytes() == OLD
    assert old.read_bytes() == NEW
    assert only(old)


def test_makes_the_folders_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "onnx" / "deep" / "amax.json"
    write_bytes(path, NEW)
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_failed_block_leaves_the_old_file_and_nothing_else(old: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), replacing(old) as temporary:
        temporary.write_bytes(b"hal")
        raise error
    assert old.read_bytes() == OLD
    assert only(old)


def test_block_that_writes_nothing_is_an_error(old: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(old):
        pass
    assert old.read_bytes() == OLD


def test_killed_writer_leaves_the_old_file_and_hinders_no_later_one(old: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HALF_WAY, str(old)], stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half-way\n"
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
    assert old.read_bytes() == OLD
    assert not only(old)  # what the killed process left
    with replacing(old) as temporary:
        # A writer that adds to what it finds would otherwise mix both.
        assert not temporary.exists()
        temporary.write_bytes(NEW)
    assert old.read_bytes() == NEW
    assert only(old)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failing_system_call_leaves_the_old_file(
    old: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    if call == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(old, NEW)
    monkeypatch.undo()
    assert old.read_bytes() == OLD
    assert only(old)


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("not allowed to mount a small disk")
    try:
        path = disk / "model.onnx"
        path.write_bytes(OLD)
        with pytest.raises(OSError, match="No space left"):
            write_bytes(path, bytes(1 << 20))
        assert path.read_bytes() == OLD
        assert only(path)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        done.append(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}")
        fsync(descriptor)

    def watched_replace(path: Path, target: Path) -> Path:
        done.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_bytes(old, NEW)
    assert done == [f"fsync {old.parent}/.tmp-{old.name}", "rename", f"fsync {old.parent}"]


def test_relative_path_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bytes(Path("plain"), NEW)
    assert (tmp_path / "plain").read_bytes() == NEW


def test_bytes_of_a_name_that_is_no_utf8_come_out_as_they_were(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xff")
    write_text(tmp_path / "labels.txt", f"{name}\nsch\u00f6n\n")
    assert (tmp_path / "labels.txt").read_bytes() == b"caf\xe9 \xff\nsch\xc3\xb6n\n"


@settings(max_examples=50, deadline=None)
@given(value=JSON_VALUES)
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_json_holds_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "names.json", [name])
    assert read_json(tmp_path / "names.json") == [name]
    json.loads((tmp_path / "names.json").read_bytes())  # for any other reader, too


def test_nan_is_refused_and_nothing_is_written(old: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(old, {"top1": float("nan")})
    assert old.read_bytes() == OLD
    assert only(old)


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"\0" * 100, b"[" * 100_000, b"9" * 10_000]
)
def test_damaged_json_is_named_with_what_to_do(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "amax.json"
    path.write_bytes(damaged)
    with pytest.raises(PipelineError) as caught:
        read_json(path)
    message = str(caught.value)
    assert str(path) in message
    assert "damaged" in message
    assert "run its stage again" in message
    assert "\n" not in message


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="absent.json: No such file"):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(data[:size])
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data[:size]).hexdigest()
