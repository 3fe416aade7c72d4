"""A folder of labelled pictures: which pictures are good, their classes and their split."""

import hashlib
import os
import re
import stat
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.progress import Console
from engines.engine import processors
from engines.files import write_json
from engines.picture_file import PictureError
from engines.preprocess import PICTURE_SUFFIXES, decode, read_picture
from engines.text import printable
from pipeline.errors import PipelineError, UsageError
from pipeline.files import read_json

SCHEMA = 1
SPLITS = ("train", "validation", "test")
FEW_PICTURES = 20  # fewer in a class than this and no figure about it means much
SOURCE_FILE = "SOURCE.txt"  # where a picture folder says where its pictures come from
MAX_DEPTH = 250  # of folders inside a class; os.walk calls itself for each
MAX_SOURCE = 2000  # characters of it that are kept

Stamp = tuple[int, int]
UNREAD: Stamp = (-1, -1)  # of a file that wasn't read: the next scan tries it again

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Picture:
    """One good picture.

    path: relative to the dataset's root, with "/" between folders.
    sha256: of the file's bytes, in hexadecimal.
    label: the name of its class.
    split: "train", "validation" or "test".
    stamp: size in bytes and time of last change in ns; a file that keeps both isn't read again.
        It is the time that no program can set (st_ctime).
    """

    path: str
    sha256: str
    label: str
    split: str
    stamp: Stamp


@dataclass(frozen=True)
class Rejected:
    """A file that was left out, and why.

    sha256: of a good picture that stands more than once; empty for any other file.
    stamp: as a picture's, or `UNREAD`.
    """

    path: str
    reason: str
    sha256: str
    stamp: Stamp


@dataclass(frozen=True)
class Dataset:
    """What a scan of a picture folder found.

    classes: sorted; a picture's class number is its place here.
    source: where the pictures come from and their licence, from the folder's SOURCE.txt.
    """

    root: str
    classes: list[str]
    pictures: list[Picture]
    rejected: list[Rejected]
    source: str | None = None

    def split(self, name: str) -> list[Picture]:
        """The pictures of one split, in the order of the scan."""
        return [picture for picture in self.pictures if picture.split == name]

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of pictures for each class and split."""
        count = Counter((p.label, p.split) for p in self.pictures)
        return {c: {s: count[c, s] for s in SPLITS} for c in self.classes}

    def fingerprint(self) -> str:
        """SHA-256 over every picture's path, content, class and split."""
        digest = hashlib.sha256()
        for p in self.pictures:
            line = f"{p.path}\0{p.sha256}\0{p.label}\0{p.split}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write it as JSON to `path`."""
        write_json(path, {"schema": SCHEMA, **asdict(self)})

    @staticmethod
    def load(path: Path) -> "Dataset":
        """Read what `save` wrote.

        Raises:
            PipelineError: it is missing or damaged.
        """
        document = read_json(path)
        try:
            if document.pop("schema") != SCHEMA:
                raise ValueError("unknown schema")
            pictures = [Picture(**_file_fields(p)) for p in document.pop("pictures")]
            rejected = [Rejected(**_file_fields(r)) for r in document.pop("rejected")]
            dataset = Dataset(pictures=pictures, rejected=rejected, **document)
            known = set(dataset.classes)
            for picture in pictures:
                _check_picture(picture, known)
            return dataset
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PipelineError(
                f"{path} is damaged ({error}); remove it and run: edgetrt retrain"
            ) from error


def _file_fields(entry: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Picture or Rejected from their JSON; TypeError or ValueError if damaged."""
    size, changed = entry["stamp"]
    if not (isinstance(size, int) and isinstance(changed, int)):
        raise TypeError("a stamp is two whole numbers")
    if not all(isinstance(value, str) for key, value in entry.items() if key != "stamp"):
        raise TypeError("a text is expected")
    return {**entry, "stamp": (size, changed)}


def _check_picture(picture: Picture, classes: set[str]) -> None:
    bytes_of_digest = len(bytes.fromhex(picture.sha256))
    if bytes_of_digest != 32 or picture.split not in SPLITS or picture.label not in classes:
        raise ValueError(f"picture {printable(picture.path)}")


def split_of(name: str, testing: float, validation: float, seed: int) -> str:
    """The split a picture belongs to, by its file name alone.

    Neither its folder nor the other pictures count, so it never moves when pictures are added
    or the folder is renamed. What follows "_nohash_" in the name doesn't count either: pictures
    of one object that share the part before it stay in one split.

    Args:
        name: file name, without folders.
        testing, validation: percentages, 0..100.
        seed: another seed gives another, independent split.
    """
    group = re.sub(r"_nohash_.*$", "", name, flags=re.DOTALL)
    key = f"{seed}/{group}".encode("utf-8", "surrogateescape")
    percent = int(hashlib.sha256(key).hexdigest()[:13], 16) / 16**13 * 100
    if percent < testing:
        return "test"
    return "validation" if percent < testing + validation else "train"


def scan(
    root: Path,
    testing: float,
    validation: float,
    seed: int,
    console: Console,
    previous: Dataset | None = None,
) -> Dataset:
    """Find and verify every picture below `root`, which has one folder for each class.

    Each picture is decoded for real. Files that are no usable picture, and pictures that stand
    twice, are listed as rejected; of a picture in two classes no copy is kept.

    Args:
        root: folder of class folders. Dot files are passed over.
        testing, validation, seed: see `split_of`.
        previous: what an earlier scan of this folder found; unchanged files are not read again.

    Raises:
        UsageError: no such folder, fewer than two classes, a class without a usable picture,
            a class name that can't stand in a list of labels, or an empty train or test split.
    """
    classes = _class_folders(root)
    known = _known(previous) if previous and previous.root == str(root.resolve()) else {}
    files = [(label, path) for label in classes for path in _files(root / label)]

    def examine(item: tuple[str, Path]) -> tuple[str, str, _Verdict]:
        label, path = item
        relative = path.relative_to(root).as_posix()
        stamp = _stamp(path)
        return label, relative, known.get((relative, stamp)) or _verify(path, stamp)

    found = []
    with console.progress("scan", len(files), "pictures") as advance:
        for examined in in_threads(examine, files):
            found.append(examined)
            advance(1)

    reasons = {path: verdict.reason for _, path, verdict in found if verdict.reason}
    reasons.update(_duplicates([(c, p, v.sha256) for c, p, v in found if not v.reason]))
    pictures = [
        Picture(path, v.sha256, c, split_of(Path(path).name, testing, validation, seed), v.stamp)
        for c, path, v in found
        if path not in reasons
    ]
    rejected = [
        Rejected(path, reasons[path], v.sha256, v.stamp) for _, path, v in found if path in reasons
    ]
    dataset = Dataset(str(root.resolve()), classes, pictures, rejected, _source(root))
    _check(dataset, testing, console)
    loose = sorted(p.name for p in root.iterdir() if p.is_file() and _looks_like_a_picture(p.name))
    if loose:
        console.warn(
            f"{len(loose)} picture(s) lie beside the class folders and belong to none, such as "
            f"{loose[0]}"
        )
    return dataset


def in_threads(work: Callable[[T], R], items: Iterable[T], ahead: int = 32) -> Iterator[R]:
    """`map` over as many threads as there are processors for us, at most `ahead` items in flight.

    Memory stays the same however many items there are; results come in order.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(processors()) as pool:
        pending = deque(pool.submit(work, item) for item in islice(iterator, ahead))
        try:
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(work, item) for item in islice(iterator, 1))
        finally:
            for future in pending:
                future.cancel()


def read(dataset: Dataset, picture: Picture) -> bytes:
    """The bytes of a picture, which must still be those of the scan.

    Raises:
        PipelineError: it is gone or has changed since.
    """
    path = Path(dataset.root) / picture.path
    try:
        data = read_picture(path)
    except PictureError as error:
        raise PipelineError(
            f"{printable(path)}: {error}, though it was a good picture when it was scanned; "
            "run edgetrt retrain again"
        ) from error
    if hashlib.sha256(data).hexdigest() != picture.sha256:
        raise PipelineError(
            f"{printable(path)} has changed since it was scanned; run edgetrt retrain again"
        )
    return data


def _class_folders(root: Path) -> list[str]:
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UsageError(f"--image-dir {printable(root)} {what}")
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        raise UsageError(
            f"{printable(root)} holds {len(classes)} class folder(s); at least two are needed: "
            "one folder for each class, with its pictures inside"
        )
    for name in classes:
        if name.splitlines() != [name]:
            raise UsageError(
                f"class folder '{printable(name)}' has a line break in its name; rename it "
                "(labels are kept one a line)"
            )
    return classes


def _looks_like_a_picture(name: str) -> bool:
    return Path(name).suffix.lower() in (*PICTURE_SUFFIXES, ".gif", ".heic")


def _files(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, in order; and the folders that it can't or won't look into."""
    closed: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=lambda e: closed.append(e.filename)):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(Path(parent).relative_to(folder).parts) == MAX_DEPTH:
            closed.extend(str(Path(parent, name)) for name in folders)
            folders.clear()
        for name in sorted(names + links):
            if not name.startswith("."):
                yield Path(parent) / name
    yield from map(Path, closed)


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return UNREAD
    return (status.st_size, status.st_ctime_ns) if stat.S_ISREG(status.st_mode) else UNREAD


class _Verdict(NamedTuple):
    """What was found of a file: a good picture has no reason, another file no SHA-256."""

    sha256: str
    reason: str
    stamp: Stamp


def _verify(path: Path, stamp: Stamp) -> _Verdict:
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        reason = "not named as a JPEG, PNG, BMP or WebP picture"
        if path.is_dir():
            reason = "a link to a folder, or a folder that can't be read or lies too deep"
        return _Verdict("", reason, UNREAD)
    try:
        data = read_picture(path)
    except PictureError as error:
        return _Verdict("", str(error), UNREAD)
    try:
        decode(data)
    except PictureError as error:
        return _Verdict("", str(error), stamp)
    return _Verdict(hashlib.sha256(data).hexdigest(), "", stamp)


def _known(previous: Dataset) -> dict[tuple[str, Stamp], _Verdict]:
    """What an earlier scan found of each file that it read, by path and stamp."""
    known = {(p.path, p.stamp): _Verdict(p.sha256, "", p.stamp) for p in previous.pictures}
    for r in previous.rejected:
        if r.stamp != UNREAD:
            # Of a good picture the reason is forgotten: its copies may be gone by now.
            known[r.path, r.stamp] = _Verdict(r.sha256, "" if r.sha256 else r.reason, r.stamp)
    return known


def _duplicates(good: list[tuple[str, str, str]]) -> dict[str, str]:
    """Reason for each picture (label, path, digest) that stands more than once."""
    copies = defaultdict(list)
    for label, path, digest in good:
        copies[digest].append((label, path))
    reasons = {}
    for same in copies.values():
        first = dict(reversed(same))  # of each class
        for label, path in same:
            elsewhere = [other for name, other in first.items() if name != label]
            if elsewhere:
                reasons[path] = f"the same picture stands in another class: {elsewhere[0]}"
            elif path != first[label]:
                reasons[path] = f"the same picture as {first[label]}"
    return reasons


def _source(root: Path) -> str | None:
    if not (root / SOURCE_FILE).is_file():
        return None
    with (root / SOURCE_FILE).open(encoding="utf-8", errors="replace") as file:
        return file.read(MAX_SOURCE).strip()


def _check(dataset: Dataset, testing: float, console: Console) -> None:
    root = printable(dataset.root)
    counts = dataset.counts()
    for name, count in counts.items():
        total = sum(count.values())
        if not total:
            reason = next((r for r in dataset.rejected if r.path.split("/")[0] == name), None)
            why = f" ({printable(reason.path)}: {printable(reason.reason)})" if reason else ""
            raise UsageError(
                f"class '{printable(name)}' in {root} has no usable picture{why}; "
                "add some or remove the folder"
            )
        if not count["train"]:
            raise UsageError(
                f"class '{printable(name)}' in {root} has no training picture: all {total} fell "
                "into the other splits; add pictures"
            )
        if total < FEW_PICTURES:
            console.warn(
                f"class '{name}' has {total} picture(s): with fewer than {FEW_PICTURES} little can "
                "be learnt or measured; add some"
            )
    if not dataset.split("test"):
        raise UsageError(
            f"none of the {len(dataset.pictures)} pictures in {root} fell into the test split "
            f"({testing:g} %); raise --testing-percentage or add pictures"
        )
    if not dataset.split("validation"):
        console.warn("no picture fell into the validation split; its accuracy is not measured")
    if dataset.rejected:
        # One that was meant to be a picture says more than what a desktop left there.
        first = next(
            (r for r in dataset.rejected if _looks_like_a_picture(r.path)), dataset.rejected[0]
        )
        console.warn(
            f"{len(dataset.rejected)} file(s) left out, such as {first.path}: {first.reason}; "
            "all are listed in dataset.json"
        )
