"""What changes where pictures are resized as DeepStream does it, not by `engines.preprocess`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engines import onnx_runtime
from engines.preprocess import decode
from pipeline.dataset import Dataset, Picture, read
from pipeline.loader import batches

BATCH = 8


class Difference(NamedTuple):
    """What bilinear interpolation does to the probabilities of the FP32 graph.

    pictures: how many it was measured on.
    smallest, largest: of them, as "width x height".
    mean_change, largest_change: of a probability, over all classes.
    flips: pictures whose likeliest class becomes another one.
    """

    pictures: int
    smallest: str
    largest: str
    mean_change: float
    largest_change: float
    flips: int

    def __str__(self) -> str:
        sizes = " to ".join(dict.fromkeys((self.smallest, self.largest)))
        return (
            f"on {self.pictures} test pictures ({sizes} pixels), in FP32, bilinear resizing moves "
            f"a probability by {self.mean_change:.4f} on average and {self.largest_change:.4f} at "
            f"most; the likeliest class changes in {self.flips}"
        )


def measure(
    dataset: Dataset, pictures: Sequence[Picture], graph: Path, size: tuple[int, int]
) -> Difference:
    """Hold the answers of `graph` for pictures resized both ways against each other.

    Bilinear interpolation is OpenCV's INTER_LINEAR here: of a picture that shrinks, both weigh
    the four pixels around a point, and pass over the others.

    Args:
        pictures: at least one.
        size: height and width that the graph takes.

    Raises:
        PipelineError: a picture is gone or has changed since the scan.
    """
    changes, flips, areas = [], 0, {}
    with onnx_runtime.load_graph(str(graph)) as engine:
        for start in range(0, len(pictures), BATCH):
            some = pictures[start : start + BATCH]
            whole = [decode(read(dataset, picture)) for picture in some]
            ours = engine.infer(next(batches(dataset, some, size, BATCH)))
            theirs = engine.infer(np.stack([_bilinear(picture, size) for picture in whole]))
            changes.append(np.abs(theirs - ours))
            flips += int((theirs.argmax(1) != ours.argmax(1)).sum())
            areas.update({p.shape[0] * p.shape[1]: f"{p.shape[1]} x {p.shape[0]}" for p in whole})
    moved = np.concatenate(changes)
    ends = areas[min(areas)], areas[max(areas)]
    return Difference(len(pictures), *ends, float(moved.mean()), float(moved.max()), flips)


def _bilinear(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    resized: np.ndarray = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized
