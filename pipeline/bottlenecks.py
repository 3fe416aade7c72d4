"""Pictures -> bottlenecks: computed once by an exported backbone, then kept."""

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.progress import Console
from engines.engine import Engine
from engines.preprocess import RECIPE
from pipeline import loader
from pipeline.dataset import Dataset, Picture
from pipeline.last_layer import Labelled

BATCH = 8  # pictures handed to the engine at a time; small, so that decoding never runs far ahead


class BottleneckCache:
    """Bottlenecks on disk, by picture: rows that are only ever added.

    `features.f32` holds the rows, float32 in the machine's byte order; `index.bin` holds for
    each row the SHA-256 of its picture and the CRC-32 of both. A row counts once its index
    entry is whole and the CRC fits, so a process killed at any moment loses at most the rows it
    was about to write, and a damaged row is computed again.
    """

    def __init__(self, folder: Path, width: int) -> None:
        """Open the cache in `folder` for rows of `width` features, making it if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        self._width = width
        self._features = folder / "features.f32"
        self._index = folder / "index.bin"
        for file in (self._features, self._index):
            file.touch()
        self._rows = self._good_rows()

    def missing(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Those of `pictures` that have no row yet."""
        return [p for p in pictures if bytes.fromhex(p.sha256) not in self._rows]

    def append(self, pictures: Sequence[Picture], features: np.ndarray) -> None:
        """Add a row for each picture: features (N, width) float32."""
        features = np.ascontiguousarray(features, np.float32)
        with self._features.open("ab") as rows:
            rows.write(features.tobytes())
        with self._index.open("ab") as index:
            index.write(b"".join(map(_entry, pictures, features)))
        for picture in pictures:
            self._rows[bytes.fromhex(picture.sha256)] = self._length
            self._length += 1

    def labelled(self, pictures: Sequence[Picture], classes: Sequence[str]) -> Labelled:
        """The rows of `pictures` with their class numbers; nothing is copied off the disk."""
        number = {name: place for place, name in enumerate(classes)}
        return Labelled(
            self._table(),
            np.array([self._rows[bytes.fromhex(p.sha256)] for p in pictures], np.int64),
            np.array([number[p.label] for p in pictures], np.int64),
        )

    def _table(self) -> np.ndarray:
        if not self._length:
            return np.empty((0, self._width), np.float32)
        return np.memmap(self._features, np.float32, "r", shape=(self._length, self._width))

    def _good_rows(self) -> dict[bytes, int]:
        """Place of each picture's row; whatever hangs over at the end of the files is cut off."""
        row, entry = self._width * 4, ENTRY.itemsize
        index = np.fromfile(self._index, ENTRY, self._index.stat().st_size // entry)
        self._length = min(len(index), self._features.stat().st_size // row)
        for file, size in ((self._features, row), (self._index, entry)):
            if file.stat().st_size != self._length * size:
                with file.open("r+b") as opened:
                    opened.truncate(self._length * size)
        table = self._table()
        return {
            bytes(index[place]["sha256"]): place
            for place in range(self._length)
            if _checksum(bytes(index[place]["sha256"]), table[place]) == index[place]["crc32"]
        }


ENTRY = np.dtype([("sha256", "V32"), ("crc32", "<u4")])


def _entry(picture: Picture, row: np.ndarray) -> bytes:
    digest = bytes.fromhex(picture.sha256)
    return digest + _checksum(digest, row).to_bytes(4, "little")


def _checksum(digest: bytes, row: np.ndarray) -> int:
    return zlib.crc32(row.tobytes(), zlib.crc32(digest))


def compute(
    dataset: Dataset,
    pictures: Sequence[Picture],
    engine: Engine,
    backbone_sha256: str,
    folder: Path,
    console: Console,
) -> tuple[BottleneckCache, int]:
    """See that every picture's bottleneck is in the cache, computing those that are not.

    Args:
        engine: runs the backbone's graph: pixels in, bottlenecks (N, width) out.
        backbone_sha256: of that graph's file. With the recipe for pixels it names the cache:
            another backbone or recipe never meets these rows.
        folder: where the caches of this run lie.

    Returns:
        The cache, and how many bottlenecks were computed now.
    """
    key = hashlib.sha256(f"{RECIPE}\n{backbone_sha256}".encode()).hexdigest()[:16]
    cache = BottleneckCache(folder / key, int(engine.output.shape[1] or 0))
    missing = cache.missing(pictures)
    height, width = engine.input.shape[1:3]
    pixels = loader.batches(dataset, missing, (int(height or 0), int(width or 0)), BATCH)
    with console.progress("bottlenecks", len(missing), "pictures") as advance:
        for some, features in zip(_groups(missing), engine.stream(pixels), strict=True):
            cache.append(some, features)
            advance(len(some))
    return cache, len(missing)


def _groups(pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
    return (pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH))
