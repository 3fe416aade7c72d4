"""pipeline.dataset and pipeline.loader: a file is a good picture, or listed with why not."""

import json
import os
import shutil
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.progress import Console
from engines import preprocess
from pipeline import dataset as module
from pipeline import loader
from pipeline.dataset import SPLITS, Dataset, Picture, in_threads, read, scan, split_of
from pipeline.errors import PipelineError, UsageError

# File names that break programs which take them for text, options, markup or separators.
HOSTILE_NAMES = [
    "with space.png",
    "'quotes\"`.png",
    "new\nline.png",
    "-rf.png",
    "$(touch x);&|<>*?[].png",
    "back\\slash.png",
    "schl\u00f6ssle \u5b57 \U0001f600.png",
    "right\u202eto left.png",
    os.fsdecode(b"caf\xe9 \xff\xfe.png"),
    os.fsdecode(b"surrogate \xed\xa0\x80.png"),
    "x" * 251 + ".png",
    "UPPER.PNG",
]


def scanned(
    root: Path, previous: Dataset | None = None, testing: float = 10, validation: float = 10
) -> Dataset:
    return scan(root, testing, validation, 0, Console(quiet=True), previous)


def reasons(dataset: Dataset) -> dict[str, str]:
    return {rejected.path: rejected.reason for rejected in dataset.rejected}


def paths(dataset: Dataset) -> set[str]:
    return {picture.path for picture in dataset.pictures}


def any_picture(root: Path, label: str = "functional") -> Path:
    return min((root / label).iterdir())


def changed(source: Path, target: Path, at: int) -> Path:
    """A copy of a picture that is another picture: one pixel is."""
    pixels: Any = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    pixels.flat[at] ^= 1
    target.write_bytes(cv2.imencode(target.suffix.lower(), pixels)[1].tobytes())
    return target


def giant_png() -> bytes:
    """A good PNG of a few kilobytes that says it has 90 thousand by 90 thousand pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 90_000, 90_000, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the calls that read and decode."""
    count: Counter[str] = Counter()

    def counting(name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(argument: Any) -> Any:
            count[name] += 1
            return function(argument)

        return call

    for name in ("read_picture", "decode"):
        monkeypatch.setattr(module, name, counting(name, getattr(preprocess, name)))
    return count


def refused(root: Path) -> str:
    with pytest.raises(UsageError) as caught:
        scanned(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is found


def test_every_real_picture_is_good(pictures: Path, dataset: Dataset) -> None:
    assert dataset.classes == ["defective", "functional"]
    assert paths(dataset) == {str(p.relative_to(pictures)) for p in pictures.glob("*/*.png")}
    assert dataset.rejected == []
    assert dataset.root == str(pictures)
    for picture in dataset.pictures:
        assert picture.label == Path(picture.path).parts[0]
        status = (pictures / picture.path).stat()
        assert picture.stamp == (status.st_size, status.st_mtime_ns)
    counts = dataset.counts()
    assert {name: sum(count.values()) for name, count in counts.items()} == {
        "defective": 40,
        "functional": 40,
    }
    assert sum(len(dataset.split(s)) for s in SPLITS) == 80


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".bmp", ".webp", ".JPG", ".WebP"])
def test_formats(own_pictures: Path, suffix: str) -> None:
    target = changed(any_picture(own_pictures), own_pictures / "functional" / f"new{suffix}", 0)
    assert f"functional/{target.name}" in paths(scanned(own_pictures))


def test_folders_inside_a_class_belong_to_it(own_pictures: Path) -> None:
    inner = own_pictures / "functional" / "2024" / "line 3"
    inner.mkdir(parents=True)
    (own_pictures / "functional" / "cell0004.png").rename(inner / "deep.png")
    found = {p.path: p.label for p in scanned(own_pictures).pictures}
    assert found["functional/2024/line 3/deep.png"] == "functional"


def test_dot_files_are_passed_over(own_pictures: Path) -> None:
    before = scanned(own_pictures)
    for path in (".DS_Store", ".cache/x.png", "functional/._cell.png", "functional/.git/x.png"):
        (own_pictures / path).parent.mkdir(exist_ok=True)
        (own_pictures / path).write_bytes(b"junk")
    assert scanned(own_pictures) == before


def broken_files(folder: Path, good: bytes) -> dict[str, str]:
    """Put one file of every useless kind into `folder`; what must be said of each."""
    for name, data in {
        "empty.png": b"",
        "truncated.png": good[: len(good) // 2],
        "text.jpg": b"This is no picture.\n" * 50,
        "flipped.png": good[:5000] + bytes([good[5000] ^ 1]) + good[5001:],
        "giant.png": giant_png(),
        "notes.txt": b"notes",
        "no suffix": good,
    }.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.png")
    (folder / "dead link.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "link to a folder").symlink_to(folder.parent)
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inner.png").write_bytes(b"junk")
    return {
        "empty.png": "empty file",
        "truncated.png": "truncated PNG",
        "text.jpg": "not a JPEG, PNG, BMP or WebP file",
        "flipped.png": "damaged PNG",
        "giant.png": "90000x90000 pixels",
        "notes.txt": "not named as a JPEG, PNG, BMP or WebP picture",
        "no suffix": "not named as",
        "pipe.png": "not a regular file",
        "dead link.png": "No such file",
        "loop.png": "symbolic link",
        "link to a folder": "folder",
        "folder.png/inner.png": "not a JPEG",
    }


def test_useless_files_are_listed_with_the_reason(
    own_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scanned(own_pictures)
    folder = own_pictures / "functional"
    expected = broken_files(folder, any_picture(own_pictures).read_bytes())
    after = scanned(own_pictures)
    assert after.pictures == before.pictures
    found = reasons(after)
    assert found.keys() == {f"functional/{name}" for name in expected}
    for name, reason in expected.items():
        assert reason in found[f"functional/{name}"]
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert f"{len(expected)} file(s) left out" in warnings[0]


def test_file_that_must_not_be_read_is_listed_and_tried_again(
    own_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden = any_picture(own_pictures)

    def opened(path: str, flags: int) -> int:
        if path == forbidden:
            raise PermissionError(13, "Permission denied")
        return os.open(path, flags)

    with monkeypatch.context() as patched:
        patched.setattr(preprocess, "_open_without_waiting", lambda p, f: opened(Path(p), f))  # type: ignore[arg-type]
        first = scanned(own_pictures)
    assert reasons(first) == {f"functional/{forbidden.name}": "Permission denied"}
    # A change of the permissions changes neither size nor time.
    assert scanned(own_pictures, first).rejected == []


def test_folder_that_must_not_be_read_is_listed(
    own_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden = own_pictures / "functional" / "forbidden"
    forbidden.mkdir()
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if Path(path) == forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert "folder" in reasons(scanned(own_pictures))["functional/forbidden"]


def test_same_picture_in_two_classes_leaves_no_copy(own_pictures: Path) -> None:
    source = any_picture(own_pictures)
    for copy in ("defective/copy.png", "defective/copy2.png"):
        shutil.copyfile(source, own_pictures / copy)
    found = scanned(own_pictures)
    assert reasons(found) == {
        "defective/copy.png": (
            f"the same picture stands in another class: functional/{source.name}"
        ),
        "defective/copy2.png": (
            f"the same picture stands in another class: functional/{source.name}"
        ),
        f"functional/{source.name}": (
            "the same picture stands in another class: defective/copy.png"
        ),
    }


def test_same_picture_twice_in_a_class_is_kept_once(own_pictures: Path) -> None:
    source = any_picture(own_pictures)
    for name in ("a.png", "z.png"):
        shutil.copyfile(source, own_pictures / "functional" / name)
    found = scanned(own_pictures)
    assert reasons(found) == {
        f"functional/{source.name}": "the same picture as functional/a.png",
        "functional/z.png": "the same picture as functional/a.png",
    }
    assert "functional/a.png" in paths(found)


def test_reasons_stay_short_however_many_copies_there_are() -> None:
    many = [("ab"[n % 2], f"{n}.png", "same") for n in range(20_000)]
    assert max(map(len, module._duplicates(many).values())) < 100


# Names


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_hostile_names(own_pictures: Path, tmp_path: Path, name: str) -> None:
    changed(any_picture(own_pictures), own_pictures / "functional" / "new.png", 7)
    (own_pictures / "functional" / "new.png").rename(own_pictures / "functional" / name)
    found = scanned(own_pictures)
    picture = next(p for p in found.pictures if p.path == f"functional/{name}")
    found.save(tmp_path / "dataset.json")
    loaded = Dataset.load(tmp_path / "dataset.json")
    assert loaded == found
    assert loaded.fingerprint() == found.fingerprint()
    assert read(loaded, picture) == (own_pictures / "functional" / name).read_bytes()


@pytest.mark.parametrize("name", ["caf\xe9 's", os.fsdecode(b"caf\xe9"), "- \u202e", " "])
def test_hostile_class_names(own_pictures: Path, tmp_path: Path, name: str) -> None:
    (own_pictures / "functional").rename(own_pictures / name)
    found = scanned(own_pictures)
    assert found.classes == sorted([name, "defective"])
    found.save(tmp_path / "dataset.json")
    assert Dataset.load(tmp_path / "dataset.json") == found


@pytest.mark.parametrize("separator", ["\n", "\r", "\x0b", "\x1c", "\x85", "\u2028"])
def test_class_name_that_is_no_line_is_refused(own_pictures: Path, separator: str) -> None:
    (own_pictures / "functional").rename(own_pictures / f"func{separator}tional")
    assert "line break" in refused(own_pictures)


# What is not enough


def test_folder_that_is_none(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(tmp_path / "file")


def test_fewer_than_two_classes(own_pictures: Path) -> None:
    shutil.rmtree(own_pictures / "functional")
    (own_pictures / ".hidden").mkdir()
    assert "1 class folder(s); at least two" in refused(own_pictures)
    assert "0 class folder(s); at least two" in refused(own_pictures / "defective")


def test_class_without_pictures(own_pictures: Path) -> None:
    (own_pictures / "empty").mkdir()
    assert "class 'empty'" in refused(own_pictures)


def test_class_with_only_broken_files_gives_one_as_the_reason(own_pictures: Path) -> None:
    (own_pictures / "broken").mkdir()
    (own_pictures / "broken" / "a\nb.png").write_bytes(b"x")
    message = refused(own_pictures)
    assert "class 'broken'" in message
    assert "broken/a\\nb.png: not a JPEG" in message


def test_class_whose_name_begins_another(own_pictures: Path) -> None:
    (own_pictures / "func").mkdir()
    (own_pictures / "functional" / "broken.png").write_bytes(b"x")
    message = refused(own_pictures)
    assert "class 'func'" in message
    assert "broken.png" not in message


def test_few_pictures_are_warned_of(own_pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted((own_pictures / "functional").iterdir())[20:]:
        path.unlink()
    scanned(own_pictures)
    assert capsys.readouterr().err == ""
    any_picture(own_pictures).unlink()
    scanned(own_pictures)
    assert "class 'functional' has 19 picture(s): with fewer than 20" in capsys.readouterr().err


def test_loose_pictures_are_told_of(own_pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_pictures / "SOURCE.txt").write_text("mine")
    scanned(own_pictures)
    assert "beside the class folders" not in capsys.readouterr().err
    for name in ("b.JPG", "a.png"):
        (own_pictures / name).write_bytes(b"whatever it is")
    scanned(own_pictures)
    assert "2 picture(s) lie beside the class folders and belong to none, such as a.png" in (
        capsys.readouterr().err
    )


def test_the_example_of_what_is_left_out_is_a_picture(
    own_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_pictures / "defective" / "Thumbs.db").write_bytes(b"x")
    (own_pictures / "functional" / "z.jpg").write_bytes(b"x")
    scanned(own_pictures)
    assert "2 file(s) left out, such as functional/z.jpg: " in capsys.readouterr().err


def test_no_picture_in_the_test_split(own_pictures: Path) -> None:
    with pytest.raises(UsageError, match=r"test split \(1e-09 %\); raise --testing-percentage"):
        scanned(own_pictures, testing=1e-9)


def test_no_picture_in_the_training_split(own_pictures: Path) -> None:
    with pytest.raises(UsageError, match="class 'defective' .* has no training picture: all 40"):
        scanned(own_pictures, testing=99.99999, validation=0)


def test_no_picture_in_the_validation_split_is_warned_of(
    own_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scanned(own_pictures, validation=0).split("validation") == []
    assert "validation split" in capsys.readouterr().err


def test_source_of_the_pictures_is_kept_but_not_without_end(own_pictures: Path) -> None:
    assert scanned(own_pictures).source is None
    (own_pictures / "SOURCE.txt").write_bytes(b"Licence: CC BY 4.0 \xff\n")
    assert scanned(own_pictures).source == "Licence: CC BY 4.0 \ufffd"
    with (own_pictures / "SOURCE.txt").open("ab") as file:
        file.truncate(1 << 40)  # holds nothing, but would fill any memory
    source = scanned(own_pictures).source
    assert source is not None
    assert len(source) <= 2000


# Splits


@settings(max_examples=200)
@given(
    name=st.text(min_size=1),
    testing=st.floats(0, 100),
    validation=st.floats(0, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_is_the_same_every_time(
    name: str, testing: float, validation: float, seed: int
) -> None:
    name = os.fsdecode(name.encode("utf-8", "surrogatepass"))
    split = split_of(name, testing, validation, seed)
    assert split == split_of(name, testing, validation, seed)
    # More for the test split never takes a picture out of it.
    if split == "test":
        assert split_of(name, min(testing + 1, 100), validation, seed) == "test"
    if testing == 100:
        assert split == "test"
    if testing == validation == 0:
        assert split == "train"


def test_split_is_known_forever() -> None:
    # By hand: `printf 0/cell0001.png | sha256sum` begins with 9cae, which is 61 % of ffff. Another
    # result would move pictures of every run that there is.
    expected = ["train", "validation", "test", "test", "train", "train"]
    names = [f"cell{number:04}.png" for number in range(1, 7)]
    assert [split_of(name, 25, 25, 0) for name in names] == expected


def test_shares_are_those_asked_for() -> None:
    count = Counter(split_of(f"picture {n}", 20, 10, 0) for n in range(20_000))
    # Six standard deviations.
    assert count["test"] == pytest.approx(4000, abs=6 * (20_000 * 0.2 * 0.8) ** 0.5)
    assert count["validation"] == pytest.approx(2000, abs=6 * (20_000 * 0.1 * 0.9) ** 0.5)


def test_another_seed_gives_another_split() -> None:
    first, second = ([split_of(f"{n}.png", 50, 0, seed) for n in range(400)] for seed in (0, 1))
    same = sum(a == b for a, b in zip(first, second, strict=True))
    assert 140 < same < 260  # independent: about half


def test_pictures_of_one_object_share_a_split() -> None:
    name = "a\nb_nohash_"
    assert len({split_of(f"{name}{n}\n.png", 33, 33, 0) for n in range(50)}) == 1


def splits(dataset: Dataset) -> dict[str, str]:
    return {Path(picture.path).name: picture.split for picture in dataset.pictures}


def test_pictures_keep_their_split_when_others_are_added(own_pictures: Path) -> None:
    before = splits(scanned(own_pictures))
    for number in range(30):
        source = any_picture(own_pictures, "defective")
        changed(source, own_pictures / "functional" / f"Added {number}.png", number)
    after = splits(scanned(own_pictures))
    assert len(after) == len(before) + 30
    assert after.items() >= before.items()


def test_pictures_keep_their_split_when_the_folder_is_renamed_or_spelled_differently(
    own_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = scanned(own_pictures)
    monkeypatch.chdir(own_pictures.parent)
    (own_pictures.parent / "link").symlink_to(own_pictures)
    for spelling in ("pictures", "./pictures/../pictures/", "link"):
        assert scanned(Path(spelling)) == before
    moved = own_pictures.rename(own_pictures.parent / "somewhere else")
    (moved / "functional").rename(moved / "fine")
    assert splits(scanned(moved)) == splits(before)


# Scanning again


def test_nothing_unchanged_is_read_again(own_pictures: Path, decoded: Counter[str]) -> None:
    broken_files(own_pictures / "functional", any_picture(own_pictures).read_bytes())
    for copy in ("defective/copy.png", "functional/copy.png"):
        shutil.copyfile(any_picture(own_pictures), own_pictures / copy)
    first = scanned(own_pictures)
    assert decoded["decode"] == 80 + 2 + 5  # two copies, five broken files that can be read
    decoded.clear()
    assert scanned(own_pictures, first) == first
    assert decoded["decode"] == 0
    assert decoded["read_picture"] == 4  # of the kinds that can't be read: empty, pipe, links


def test_scan_after_save_and_load_reads_nothing_again(
    own_pictures: Path, tmp_path: Path, decoded: Counter[str]
) -> None:
    (own_pictures / "functional" / "broken.png").write_bytes(b"x")
    first = scanned(own_pictures)
    first.save(tmp_path / "dataset.json")
    decoded.clear()
    assert scanned(own_pictures, Dataset.load(tmp_path / "dataset.json")) == first
    assert not decoded


def test_changed_picture_is_noticed(own_pictures: Path, decoded: Counter[str]) -> None:
    first = scanned(own_pictures)
    path = any_picture(own_pictures)
    decoded.clear()
    changed(path, path, 3)
    second = scanned(own_pictures, first)
    assert decoded["decode"] == 1
    assert second.fingerprint() != first.fingerprint()
    assert splits(second) == splits(first)


def test_picture_that_breaks_and_heals_is_noticed(own_pictures: Path) -> None:
    path = any_picture(own_pictures)
    data = path.read_bytes()
    first = scanned(own_pictures)
    path.write_bytes(data[:-20])
    broken = scanned(own_pictures, first)
    assert reasons(broken) == {f"functional/{path.name}": "truncated PNG"}
    path.write_bytes(data)
    healed = scanned(own_pictures, broken)
    assert healed.fingerprint() == first.fingerprint()


def test_copy_that_is_removed_lets_the_other_back_in(own_pictures: Path) -> None:
    first = scanned(own_pictures)
    shutil.copyfile(any_picture(own_pictures), own_pictures / "defective" / "copy.png")
    both = scanned(own_pictures, first)
    assert len(both.rejected) == 2
    (own_pictures / "defective" / "copy.png").unlink()
    assert scanned(own_pictures, both) == first


def test_what_is_known_of_another_folder_does_not_count(
    own_pictures: Path, dataset: Dataset, decoded: Counter[str]
) -> None:
    scanned(own_pictures, dataset)
    assert decoded["decode"] == 80


# dataset.json


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schema": 2}', '{"schema": 1}', "\0"])
def test_damaged_dataset(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(PipelineError, match=r"dataset\.json is damaged") as caught:
        Dataset.load(tmp_path / "dataset.json")
    assert "remove it" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("pictures", "split", "training"),
        ("pictures", "label", "unknown"),
        ("pictures", "sha256", "zz" * 32),
        ("pictures", "sha256", "ab"),
        ("pictures", "sha256", None),
        ("pictures", "stamp", 5),
        ("pictures", "stamp", [1]),
        ("pictures", "stamp", ["a", "b"]),
        ("pictures", "stamp", [1, float("inf")]),
        ("pictures", "path", 5),
        ("pictures", "extra", 5),
        ("rejected", "reason", 5),
        ("rejected", "stamp", None),
        ("rejected", "extra", 5),
    ],
)
def test_dataset_with_a_wrong_value(
    dataset: Dataset, tmp_path: Path, part: str, key: str, value: object
) -> None:
    file = tmp_path / "dataset.json"
    rejected = module.Rejected("functional/x.txt", "not named", "", (1, 2))
    replace(dataset, rejected=[rejected]).save(file)
    document = json.loads(file.read_text())
    document[part][0][key] = value
    file.write_text(json.dumps(document))
    with pytest.raises(PipelineError, match="is damaged"):
        Dataset.load(file)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_anywhere_is_an_error_or_a_dataset(
    dataset: Dataset, tmp_path: Path, data: st.DataObject
) -> None:
    """Cut off, or with a byte changed: an error for people, or something that works."""
    file = tmp_path / "dataset.json"
    small = replace(
        dataset,
        pictures=dataset.pictures[:2],
        rejected=[module.Rejected("functional/x.txt", "not named", "", (1, 2))],
    )
    small.save(file)
    text = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(text) - 1))
    if data.draw(st.booleans()):
        del text[place:]
    else:
        text[place] = data.draw(st.integers(0, 255))
    file.write_bytes(text)
    try:
        loaded = Dataset.load(file)
    except PipelineError:
        return
    loaded.counts()
    loaded.save(file)
    assert Dataset.load(file) == loaded
    scanned(Path(dataset.root), loaded)


def test_fingerprint_tells_every_change(dataset: Dataset) -> None:
    first, *others = dataset.pictures
    prints = {dataset.fingerprint(), replace(dataset, pictures=others).fingerprint()}
    for change in ({"path": "x"}, {"sha256": "0"}, {"label": "x"}, {"split": "x"}):
        prints.add(replace(dataset, pictures=[replace(first, **change), *others]).fingerprint())  # type: ignore[arg-type]
    assert len(prints) == 6
    touched = replace(first, stamp=(0, 0))
    assert replace(dataset, pictures=[touched, *others]).fingerprint() in prints


# Reading


def test_read_gives_the_bytes_of_the_scan(pictures: Path, dataset: Dataset) -> None:
    picture = dataset.pictures[0]
    assert read(dataset, picture) == (pictures / picture.path).read_bytes()


@pytest.mark.parametrize("harm", ["changed", "gone", "emptied"])
def test_read_of_a_harmed_picture(own_pictures: Path, harm: str) -> None:
    found = scanned(own_pictures)
    path = own_pictures / found.pictures[0].path
    if harm == "changed":
        changed(path, path, 0)
    elif harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"")
    with pytest.raises(PipelineError, match="run edgetrt retrain again") as caught:
        read(found, found.pictures[0])
    assert path.name in str(caught.value)


def test_loader_gives_every_picture_in_order(dataset: Dataset) -> None:
    some = dataset.pictures[:7]
    batches = list(loader.batches(dataset, some, (64, 48), 3))
    assert [batch.shape for batch in batches] == [(3, 64, 48, 3), (3, 64, 48, 3), (1, 64, 48, 3)]
    assert {batch.dtype for batch in batches} == {np.dtype(np.uint8)}
    alone = [preprocess.load(Path(dataset.root) / picture.path, 64, 48) for picture in some]
    assert np.array_equal(np.concatenate(batches), alone)


def test_loader_reports_a_changed_picture(own_pictures: Path) -> None:
    found = scanned(own_pictures)
    path = own_pictures / found.pictures[5].path
    changed(path, path, 0)
    with pytest.raises(PipelineError, match="has changed since it was scanned"):
        list(loader.batches(found, found.pictures, (32, 32), 2))


def test_loader_of_nothing(dataset: Dataset) -> None:
    assert list(loader.batches(dataset, [], (32, 32), 2)) == []


# Threads


def test_threads_keep_the_order_and_never_run_far_ahead() -> None:
    taken = 0

    def items() -> Any:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield number

    for place, result in enumerate(in_threads(lambda n: n * n, items(), ahead=5)):
        assert result == place * place
        assert taken <= place + 6
    assert taken == 200


def test_threads_pass_on_the_first_failure_and_stop() -> None:
    worked: list[int] = []

    def work(number: int) -> int:
        worked.append(number)
        if number == 3:
            raise PipelineError("three")
        return number

    results = in_threads(work, range(1000), ahead=4)
    with pytest.raises(PipelineError, match="three"):
        list(results)
    assert len(worked) < 20


def test_threads_end_when_nobody_wants_more() -> None:
    before = threading.active_count()
    results = in_threads(lambda n: n, range(1000))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_picture_is_what_it_says() -> None:
    picture = Picture("a/b.png", "00", "a", "test", (1, 2))
    with pytest.raises(AttributeError):
        picture.split = "train"  # type: ignore[misc]
