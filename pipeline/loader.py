"""Pictures -> batches of pixels, decoded ahead of whoever uses them."""

from collections.abc import Iterator, Sequence

import numpy as np

from engines.preprocess import pixels
from pipeline.dataset import Dataset, Picture, in_threads, read


def batches(
    dataset: Dataset, pictures: Sequence[Picture], size: tuple[int, int], batch: int
) -> Iterator[np.ndarray]:
    """The pixels of `pictures`, in order.

    Threads decode some pictures ahead; the number held in memory does not grow with the number
    of pictures.

    Args:
        size: height and width to resize to.
        batch: pictures at a time; the last batch may be smaller.

    Yields:
        uint8 arrays (N, height, width, 3), RGB, 0..255.

    Raises:
        PipelineError: a picture is gone or has changed since the scan.
    """

    def decode(some: Sequence[Picture]) -> np.ndarray:
        array = np.empty((len(some), *size, 3), np.uint8)
        for place, picture in enumerate(some):
            array[place] = pixels(read(dataset, picture), *size)
        return array

    groups = (pictures[start : start + batch] for start in range(0, len(pictures), batch))
    yield from in_threads(decode, groups, ahead=8)
