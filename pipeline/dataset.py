"""A folder of labelled pictures: which pictures are good, their classes and their split."""

import hashlib
import os
import re
import stat
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from engines.preprocess import PICTURE_SUFFIXES, PictureError, decode, read_picture
from pipeline.errors import PipelineError, UsageError, printable
from pipeline.files import read_json, write_json
from pipeline.progress import Console

SCHEMA = 1
SPLITS = ("train", "validation", "test")
FEW_PICTURES = 20  # fewer in a class than this and no figure about it means much
SOURCE_FILE = "SOURCE.txt"  # where a picture folder says where its pictures come from

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
    """

    path: str
    sha256: str
    label: str
    split: str
    stamp: tuple[int, int]


@dataclass(frozen=True)
class Rejected:
    """A file that was left out, and why."""

    path: str
    reason: str


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
    unusable: dict[str, tuple[int, int, str]] = field(default_factory=dict)

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
            pictures = [Picture(**{**p, "stamp": tuple(p["stamp"])}) for p in document["pictures"]]
            rejected = [Rejected(**r) for r in document["rejected"]]
            return Dataset(**{**document, "pictures": pictures, "rejected": rejected})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PipelineError(
                f"{path} is damaged ({error}); remove it and run: edgetrt retrain"
            ) from error


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

    def verify(item: tuple[str, Path]) -> tuple[str, str, tuple[int, int], str, str]:
        label, path = item
        relative = path.relative_to(root).as_posix()
        stamp = _stamp(path)
        if (relative, stamp) in known:
            digest, reason = known[relative, stamp]
        else:
            digest, reason = _verify(path)
        return label, relative, stamp, digest, reason

    found = []
    with console.progress("scan", len(files), "pictures") as advance:
        for checked in in_threads(verify, files):
            found.append(checked)
            advance(1)

    reasons = {path: reason for _, path, _, _, reason in found if reason}
    reasons.update(_duplicates([(c, p, d) for c, p, _, d, reason in found if not reason]))
    pictures = [
        Picture(path, digest, label, split_of(Path(path).name, testing, validation, seed), stamp)
        for label, path, stamp, digest, _ in found
        if path not in reasons
    ]
    dataset = Dataset(
        root=str(root.resolve()),
        classes=classes,
        pictures=pictures,
        rejected=[Rejected(path, reasons[path]) for _, path, *_ in found if path in reasons],
        source=_source(root),
        unusable={p: (*stamp, reason) for _, p, stamp, _, reason in found if reason},
    )
    _check(dataset, testing, console)
    return dataset


def in_threads(work: Callable[[T], R], items: Iterable[T], ahead: int = 32) -> Iterator[R]:
    """`map` over as many threads as there are processors, at most `ahead` items in flight.

    Memory stays the same however many items there are; results come in order.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
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


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent) / name


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (-1, -1)  # a link to nothing: never taken for known
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (-1, -1)


def _verify(path: Path) -> tuple[str, str]:
    """SHA-256 and "" of a good picture; "" and the reason of another file."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return "", "not named as a JPEG, PNG, BMP or WebP picture"
    try:
        data = read_picture(path)
        decode(data)
    except PictureError as error:
        return "", str(error)
    return hashlib.sha256(data).hexdigest(), ""


def _known(previous: Dataset) -> dict[tuple[str, tuple[int, int]], tuple[str, str]]:
    known = {(p.path, p.stamp): (p.sha256, "") for p in previous.pictures}
    for path, (size, time, reason) in previous.unusable.items():
        known[path, (size, time)] = ("", reason)
    return {key: value for key, value in known.items() if key[1] != (-1, -1)}


def _duplicates(good: list[tuple[str, str, str]]) -> dict[str, str]:
    """Reason for each picture (label, path, digest) that stands more than once."""
    copies = defaultdict(list)
    for label, path, digest in good:
        copies[digest].append((label, path))
    reasons = {}
    for same in copies.values():
        if len({label for label, _ in same}) > 1:
            for _, path in same:
                others = ", ".join(other for _, other in same if other != path)
                reasons[path] = f"the same picture stands in another class: {others}"
        else:
            for _, path in same[1:]:
                reasons[path] = f"the same picture as {same[0][1]}"
    return reasons


def _source(root: Path) -> str | None:
    file = root / SOURCE_FILE
    return file.read_text("utf-8", "replace")[:2000].strip() if file.is_file() else None


def _check(dataset: Dataset, testing: float, console: Console) -> None:
    root = printable(dataset.root)
    counts = dataset.counts()
    for name, count in counts.items():
        total = sum(count.values())
        if not total:
            reason = next((r for r in dataset.rejected if r.path.startswith(f"{name}/")), None)
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
            console.warn(f"class '{name}' has only {total} pictures; fewer than {FEW_PICTURES}")
    if not dataset.split("test"):
        raise UsageError(
            f"none of the {len(dataset.pictures)} pictures in {root} fell into the test split "
            f"({testing:g} %); raise --testing-percentage or add pictures"
        )
    if not dataset.split("validation"):
        console.warn("no picture fell into the validation split; its accuracy is not measured")
    if dataset.rejected:
        first = dataset.rejected[0]
        console.warn(
            f"{len(dataset.rejected)} file(s) left out, such as {first.path}: {first.reason}; "
            "all are listed in dataset.json"
        )
