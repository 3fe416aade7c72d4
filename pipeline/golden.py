"""Golden cases: which pictures a bundle proves an engine with, and what they must give."""

import struct
from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np

from benchmarks.progress import Console
from engines import onnx_runtime
from engines.engine import Engine
from engines.preprocess import pixels
from pipeline.dataset import Dataset, Picture, read
from pipeline.errors import PipelineError
from pipeline.run import Run

# How far an engine's probabilities may be from those of ONNX Runtime on the graph as it stands.
# Measured with OpenVINO on the golden pictures of the solar cells: 1e-5, 0.0007 and 0.005; on all
# of their 637 test pictures, which is why golden ones are chosen: 1e-5, 0.009 and 0.05.
TOLERANCE = {"fp32": 0.005, "fp16": 0.02, "int8": 0.08}
CANDIDATES = 4  # pictures that are looked at for each one that is chosen
DIGITS = 6  # of a probability
MIXED = "int8-fp16"  # the graph that TensorRT from 10 on takes for INT8

T = TypeVar("T")


class Case(NamedTuple):
    """A golden picture.

    name: of its file, such as "0.png".
    data: the file's bytes.
    probabilities: for each precision, one for each class.
    """

    name: str
    data: bytes
    probabilities: dict[str, list[float]]


def choose(
    run: Run, dataset: Dataset, precisions: list[str], count: int, console: Console
) -> list[Case]:
    """Choose golden pictures and ask ONNX Runtime for their probabilities.

    They are test pictures, spread over the classes that the network answers, and among those the
    ones that all graphs of the run agree about most: what moves a picture on the brink from one
    side to the other is no fault of an engine. One more is made of three of them, one in each
    channel, as grey pictures look the same in any order of channels. Where all of them together
    could not show an engine to be wrong, a warning says so.

    Args:
        precisions: "fp32", "fp16", "int8": whose graphs the run has.
        count: how many pictures, at least 1.

    Raises:
        PipelineError: a picture is gone or has changed, or a graph does not run.
    """
    with _Graphs(run, precisions) as graphs:
        candidates = _candidates(dataset, CANDIDATES * count)
        files = [read(dataset, picture) for picture in candidates]
        shown = np.stack([pixels(data, *graphs.size) for data in files])
        answers = graphs.answers(shown)
        chosen = _steadiest(answers, count)
        colours = _in_colours(shown[chosen])
        coloured = graphs.answers(colours)
        reversed_ = graphs.expected(colours[..., ::-1])
        # The one of these that shows the order of its channels best.
        moved = [np.abs(reversed_[p] - coloured[p]).max(1) for p in precisions]
        best = int((np.min(moved, 0) - _spread(coloured)).argmax())
    expected = {
        name: np.concatenate([answers[name][chosen], coloured[name][best : best + 1]])
        for name in precisions
    }
    swapped = {name: reversed_[name][best] for name in precisions}
    for fault in blind_spots(expected, swapped):
        console.warn(f"golden pictures: {fault}")
    names = [f"{number}{_suffix(candidates[place])}" for number, place in enumerate(chosen)]
    data = [files[place] for place in chosen]
    return [
        Case(name, file, {p: _rounded(expected[p][number]) for p in precisions})
        for number, (name, file) in enumerate(
            [*zip(names, data, strict=True), (f"{len(names)}.bmp", bmp(colours[best]))]
        )
    ]


def blind_spots(expected: dict[str, np.ndarray], swapped: dict[str, np.ndarray]) -> list[str]:
    """What could be wrong with an engine without golden cases showing it, in words.

    Args:
        expected: for each precision, the probabilities of all cases, (cases, classes); the last
            case is the one in colours.
        swapped: what that one gives with its channels in reverse, (classes,).
    """
    passing: dict[str, list[str]] = defaultdict(list)
    for precision, answers in expected.items():
        faults = {
            "classes in another order": answers - np.roll(answers, 1, axis=1),
            "the same answer to every picture": answers - answers[0],
            "blue and red exchanged": answers[-1] - swapped[precision],
        }
        for fault, difference in faults.items():
            if np.abs(difference).max() <= TOLERANCE[precision]:
                passing[fault].append(precision.upper())
    return [
        f"an engine with {fault} would pass in {', '.join(precisions)}"
        for fault, precisions in passing.items()
    ]


def bmp(picture: np.ndarray) -> bytes:
    """An uncompressed file of a picture (H, W, 3), RGB: the same bytes by any version of anything.

    Source of the format: Microsoft's description of BITMAPFILEHEADER and BITMAPINFOHEADER.
    """
    height, width, _ = picture.shape
    row = (3 * width + 3) // 4 * 4
    rows = np.zeros((height, row), np.uint8)
    rows[:, : 3 * width] = picture[:, :, ::-1].reshape(height, 3 * width)
    header = struct.pack("<2sI4xI", b"BM", 54 + rows.size, 54)
    # A negative height: the top row comes first.
    info = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, rows.size, 2835, 2835, 0, 0)
    return header + info + rows.tobytes()


class _Graphs:
    """The run's graphs, as they are: ONNX Runtime changes nothing to make them faster.

    Attributes:
        size: height and width of the pictures that they take.
    """

    def __init__(self, run: Run, precisions: list[str]) -> None:
        self._precisions = precisions
        self._engines: dict[str, Engine] = {
            name: onnx_runtime.load_graph(str(run.onnx(name)), name, optimize=False)
            for name in precisions
        }
        if "int8" in precisions:
            # By this processor's quicker arithmetic, solar cells differ by up to 0.11; by the
            # graph that is half FP16, by up to 0.23.
            self._engines["fast"] = onnx_runtime.load_graph(str(run.onnx("int8")), "int8")
            if run.onnx(MIXED).is_file():
                mixed = onnx_runtime.load_graph(str(run.onnx(MIXED)), "int8", optimize=False)
                self._engines[MIXED] = mixed
        _, height, width, _ = self._engines[precisions[0]].input.shape
        self.size = int(height or 0), int(width or 0)

    def answers(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Of every graph, the probabilities (N, classes) of pictures (N, H, W, 3)."""
        return {name: self._ask(name, pictures) for name in self._engines}

    def expected(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """The same of the precisions alone."""
        return {name: self._ask(name, pictures) for name in self._precisions}

    def _ask(self, name: str, pictures: np.ndarray) -> np.ndarray:
        # One by one: a large network's layers for all of them would fill the memory.
        return np.concatenate([self._engines[name].infer(picture[None]) for picture in pictures])

    def __enter__(self) -> "_Graphs":
        return self

    def __exit__(self, *exc: object) -> None:
        for engine in self._engines.values():
            engine.close()


def _candidates(dataset: Dataset, count: int) -> list[Picture]:
    """Test pictures, if there are any, from every class in turn.

    Their order is that of their contents, which says nothing of how they look.
    """
    found = dataset.split("test") or dataset.split("validation") or dataset.pictures
    by_class: dict[object, list[Picture]] = defaultdict(list)
    for picture in sorted(found, key=lambda picture: picture.sha256):
        by_class[picture.label].append(picture)
    if not by_class:
        raise PipelineError("the run has no pictures; golden ones can't be chosen")
    return _in_turn(by_class.values())[:count]


def _steadiest(answers: dict[str, np.ndarray], count: int) -> list[int]:
    """Places of the pictures that graphs agree about most, from every likeliest class in turn."""
    spread = _spread(answers).round(4)
    by_class: dict[object, list[int]] = defaultdict(list)
    likeliest = next(iter(answers.values())).argmax(1)
    for place in np.argsort(spread, kind="stable"):
        by_class[likeliest[place]].append(int(place))
    return _in_turn(by_class.values())[:count]


def _spread(answers: dict[str, np.ndarray]) -> np.ndarray:
    """For each picture, how far apart a class's probabilities are from graph to graph at most."""
    spread: np.ndarray = np.ptp(np.stack(list(answers.values())), axis=0).max(1)
    return spread


def _in_turn(groups: Iterable[list[T]]) -> list[T]:
    """The first of each group, then the second of each, and so on."""
    return [item for row in zip_longest(*groups) for item in row if item is not None]


def _in_colours(pictures: np.ndarray) -> np.ndarray:
    """Pictures with a channel from each of three."""
    following = [np.roll(pictures[..., channel], channel, axis=0) for channel in range(3)]
    return np.stack(following, axis=-1)


def _suffix(picture: Picture) -> str:
    return PurePosixPath(picture.path).suffix.lower()


def _rounded(probabilities: np.ndarray) -> list[float]:
    return [round(min(max(float(p), 0.0), 1.0), DIGITS) for p in probabilities]
