"""pipeline.bottlenecks: a row is the right one or computed again, whatever happens to the files."""

import hashlib
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.progress import Console
from engines.engine import Engine, EngineError, TensorSpec
from engines.preprocess import load
from pipeline import bottlenecks
from pipeline.bottlenecks import BottleneckCache, compute
from pipeline.dataset import Dataset, Picture
from pipeline.errors import PipelineError

REPOSITORY = Path(__file__).parents[2]
WIDTH = 5
BACKBONE = "ab" * 32

# Adds rows until it is killed; the values of a row follow from its picture.
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/pipeline")
from test_bottlenecks import WIDTH, BottleneckCache, picture, rows
cache = BottleneckCache(Path(sys.argv[1]), WIDTH)
print("writing", flush=True)
for number in range(0, 1_000_000, 4):
    some = [picture(n) for n in range(number, number + 4)]
    cache.append(some, rows(some))
"""


class Averages(Engine):
    """A backbone whose bottlenecks are the mean of each row of pixels; counts its pictures."""

    backend, precision = "numpy", "fp32"

    def __init__(self, size: int = 16) -> None:
        self.input = TensorSpec("pixels", (None, size, size, 3), "uint8")
        self.output = TensorSpec("bottlenecks", (None, size), "float32")
        self.computed = 0

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        self.check_pictures(pictures)
        self.computed += len(pictures)
        means: np.ndarray = pictures.mean((2, 3), dtype=np.float32)
        return means


def picture(number: int) -> Picture:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Picture(f"class/{number}.png", digest, "class", "train", (1, 1))


def rows(pictures: Sequence[Picture]) -> np.ndarray:
    """The right row of each picture."""
    digests = [np.frombuffer(bytes.fromhex(p.sha256)[: 2 * WIDTH], "<u2") for p in pictures]
    return np.array(digests, np.float32).reshape(len(pictures), WIDTH)


def filled(folder: Path, pictures: Sequence[Picture]) -> BottleneckCache:
    cache = BottleneckCache(folder, WIDTH)
    for start in range(0, len(pictures), 3):
        cache.append(pictures[start : start + 3], rows(pictures[start : start + 3]))
    return cache


def check(cache: BottleneckCache, pictures: Sequence[Picture]) -> None:
    """Every picture has its own row or none; once the missing ones are added, all have."""
    missing = cache.missing(pictures)
    held = [p for p in pictures if p not in missing]
    labelled = cache.labelled(held, ["class"])
    assert np.array_equal(labelled.table[labelled.rows], rows(held))
    cache.append(missing, rows(missing))
    assert cache.missing(pictures) == []
    labelled = cache.labelled(pictures, ["class"])
    assert np.array_equal(labelled.table[labelled.rows], rows(pictures))


@pytest.fixture
def engine() -> Averages:
    return Averages()


@pytest.fixture
def run_again(dataset: Dataset, engine: Averages, tmp_path: Path) -> Callable[..., BottleneckCache]:
    """Compute what is missing, in the cache of one backbone."""

    def again(pictures: Sequence[Picture], backbone: str = BACKBONE) -> BottleneckCache:
        before = engine.computed
        cache, computed = compute(
            dataset, pictures, engine, backbone, tmp_path, Console(quiet=True)
        )
        assert engine.computed - before == computed
        return cache

    return again


# Computing


def test_rows_are_what_the_engine_gives(
    dataset: Dataset, engine: Averages, run_again: Callable[..., BottleneckCache]
) -> None:
    labelled = run_again(dataset.pictures).labelled(dataset.pictures, dataset.classes)
    for place, one in enumerate(dataset.pictures):
        pixels = load(Path(dataset.root) / one.path, 16, 16)
        assert np.array_equal(labelled.table[labelled.rows[place]], engine.infer(pixels[None])[0])
        assert dataset.classes[labelled.labels[place]] == one.label
    assert labelled.table.dtype == np.float32
    assert labelled.labels.dtype == np.int64


def test_second_time_nothing_is_computed(
    dataset: Dataset, engine: Averages, run_again: Callable[..., BottleneckCache]
) -> None:
    run_again(dataset.pictures)
    run_again(dataset.pictures)
    assert engine.computed == len(dataset.pictures) == 80


def test_ten_new_pictures_compute_ten(
    dataset: Dataset, engine: Averages, run_again: Callable[..., BottleneckCache]
) -> None:
    run_again(dataset.pictures[10:])
    cache = run_again(dataset.pictures)
    assert engine.computed == 80
    labelled = cache.labelled(dataset.pictures, dataset.classes)
    first = load(Path(dataset.root) / dataset.pictures[0].path, 16, 16)
    assert np.array_equal(labelled.table[labelled.rows[0]], engine.infer(first[None])[0])


def test_renamed_picture_keeps_its_row(
    dataset: Dataset, engine: Averages, run_again: Callable[..., BottleneckCache]
) -> None:
    run_again(dataset.pictures)
    moved = [replace(one, path=f"elsewhere/{one.path}") for one in dataset.pictures]
    assert run_again(moved).missing(moved) == []
    assert engine.computed == 80


def test_another_backbone_never_meets_these_rows(
    dataset: Dataset, engine: Averages, run_again: Callable[..., BottleneckCache]
) -> None:
    run_again(dataset.pictures)
    run_again(dataset.pictures, "cd" * 32)
    assert engine.computed == 160


def test_another_recipe_for_pixels_never_meets_these_rows(
    dataset: Dataset,
    engine: Averages,
    run_again: Callable[..., BottleneckCache],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_again(dataset.pictures)
    monkeypatch.setattr(bottlenecks, "RECIPE", "another/1")
    run_again(dataset.pictures)
    assert engine.computed == 160


def test_failure_keeps_what_was_computed_before(
    dataset: Dataset, tmp_path: Path, quiet: Console
) -> None:
    class Failing(Averages):
        def infer(self, pictures: np.ndarray) -> np.ndarray:
            if self.computed >= 40:
                raise EngineError("no")
            return super().infer(pictures)

    with pytest.raises(EngineError):
        compute(dataset, dataset.pictures, Failing(), BACKBONE, tmp_path, quiet)
    _, computed = compute(dataset, dataset.pictures, Averages(), BACKBONE, tmp_path, quiet)
    assert computed == 40


def test_changed_picture_is_an_error_not_a_wrong_row(
    dataset: Dataset, tmp_path: Path, quiet: Console
) -> None:
    lying = replace(dataset.pictures[0], sha256="00" * 32)
    with pytest.raises(PipelineError, match="has changed since it was scanned"):
        compute(dataset, [lying], Averages(), BACKBONE, tmp_path, quiet)


def test_engine_that_gives_too_little_is_an_error(
    dataset: Dataset, tmp_path: Path, quiet: Console
) -> None:
    class Forgetful(Averages):
        def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            return iter(list(super().stream(batches))[:-1])

    with pytest.raises(ValueError, match="shorter"):
        compute(dataset, dataset.pictures, Forgetful(), BACKBONE, tmp_path, quiet)


def test_memory_does_not_grow_with_the_pictures(
    dataset: Dataset, tmp_path: Path, quiet: Console
) -> None:
    size = 448
    everything = len(dataset.pictures) * size * size * 3
    tracemalloc.start()
    try:
        compute(dataset, dataset.pictures, Averages(size), BACKBONE, tmp_path, quiet)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < everything / 1.5


def test_rows_stay_on_the_disk(tmp_path: Path) -> None:
    width, count = 1280, 4000
    pictures = [picture(n) for n in range(count)]
    cache = BottleneckCache(tmp_path, width)
    cache.append(pictures, np.ones((count, width), np.float32))
    tracemalloc.start()
    try:
        labelled = BottleneckCache(tmp_path, width).labelled(pictures, ["class"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(labelled.table, np.memmap)
    assert peak < count * width * 4 / 8


# Files that come to harm


def test_rows_survive_closing(tmp_path: Path) -> None:
    pictures = [picture(n) for n in range(10)]
    filled(tmp_path, pictures)
    again = BottleneckCache(tmp_path, WIDTH)
    assert again.missing([*pictures, picture(10)]) == [picture(10)]
    check(again, pictures)


def test_empty_cache(tmp_path: Path) -> None:
    cache = BottleneckCache(tmp_path / "deep" / "cache", WIDTH)
    assert cache.missing([picture(0)]) == [picture(0)]
    assert cache.labelled([], ["class"]).table.shape == (0, WIDTH)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_files_cut_off_anywhere(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    pictures = [picture(n) for n in range(8)]
    filled(folder, pictures)
    for name in data.draw(st.sets(st.sampled_from(["features.f32", "index.bin"]), min_size=1)):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    check(BottleneckCache(folder, WIDTH), pictures)
    check(BottleneckCache(folder, WIDTH), pictures)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bits_anywhere(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    pictures = [picture(n) for n in range(8)]
    filled(folder, pictures)
    name = data.draw(st.sampled_from(["features.f32", "index.bin"]))
    harmed = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(harmed) - 1))
    harmed[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(harmed)
    cache = BottleneckCache(folder, WIDTH)
    assert len(cache.missing(pictures)) == 1
    check(cache, pictures)
    check(BottleneckCache(folder, WIDTH), pictures)


def test_digest_that_flips_into_that_of_another_picture(tmp_path: Path) -> None:
    one = picture(0)
    other = replace(one, sha256=f"{int(one.sha256, 16) ^ 1:064x}")
    filled(tmp_path, [one])
    index = bytearray((tmp_path / "index.bin").read_bytes())
    index[31] ^= 1
    (tmp_path / "index.bin").write_bytes(index)
    assert BottleneckCache(tmp_path, WIDTH).missing([one, other]) == [one, other]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_piece_that_is_lost_from_the_middle(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    pictures = [picture(n) for n in range(8)]
    filled(folder, pictures)
    name = data.draw(st.sampled_from(["features.f32", "index.bin"]))
    whole = (folder / name).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    # As after a power cut: the length is there, the contents are not.
    lost = bytes(end - start) if data.draw(st.booleans()) else b""
    (folder / name).write_bytes(whole[:start] + lost + whole[end:])
    check(BottleneckCache(folder, WIDTH), pictures)


@pytest.mark.parametrize("name", ["features.f32", "index.bin"])
def test_one_file_is_gone(tmp_path: Path, name: str) -> None:
    pictures = [picture(n) for n in range(8)]
    filled(tmp_path, pictures)
    (tmp_path / name).unlink()
    cache = BottleneckCache(tmp_path, WIDTH)
    assert cache.missing(pictures) == pictures
    check(cache, pictures)


def test_killed_between_the_rows_and_their_index(tmp_path: Path) -> None:
    pictures = [picture(n) for n in range(8)]
    filled(tmp_path, pictures[:5])
    index = (tmp_path / "index.bin").read_bytes()
    filled(tmp_path, pictures[5:])
    (tmp_path / "index.bin").write_bytes(index)
    cache = BottleneckCache(tmp_path, WIDTH)
    assert cache.missing(pictures) == pictures[5:]
    check(cache, pictures)


def test_killed_writer(tmp_path: Path) -> None:
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=REPOSITORY
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
            grown = (tmp_path / "index.bin").stat().st_size + 36 * 40
            while (tmp_path / "index.bin").stat().st_size < grown:
                assert writer.poll() is None
            writer.send_signal(signal.SIGKILL)
        pictures = [picture(n) for n in range(40)]
        cache = BottleneckCache(tmp_path, WIDTH)
        assert cache.missing(pictures) == []
        check(cache, pictures)


def test_failed_write_is_made_good_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [picture(n) for n in range(8)]
    cache = filled(tmp_path, pictures[:4])

    def fail(*_arguments: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(bottlenecks, "_entry", fail)
        cache.append(pictures[4:], rows(pictures[4:]))
    check(BottleneckCache(tmp_path, WIDTH), pictures)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(garbage=st.binary(max_size=400), other=st.binary(max_size=400))
def test_garbage(tmp_path: Path, garbage: bytes, other: bytes) -> None:
    (tmp_path / "features.f32").write_bytes(garbage)
    (tmp_path / "index.bin").write_bytes(other)
    check(BottleneckCache(tmp_path, WIDTH), [picture(n) for n in range(3)])
