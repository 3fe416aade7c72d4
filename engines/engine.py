"""The one interface that every engine answers to."""

import os
from abc import ABC, abstractmethod
from typing import Any, Dict, Iterable, Iterator, NamedTuple, Optional, Tuple

import numpy as np

PIXELS = np.dtype(np.uint8)


class EngineError(Exception):
    """An engine could not be built, loaded or run; the message says why and what to do."""


class TensorSpec(NamedTuple):
    """Name, shape and element type of an engine's input or output.

    shape: one entry per axis; None where any size goes (the batch).
    dtype: a numpy type name, such as "float32".
    """

    name: str
    shape: Tuple[Optional[int], ...]
    dtype: str


class Engine(ABC):
    """A classifier that is ready to run.

    Attributes:
        backend: "tensorflow", "onnxruntime", "openvino", "tensorrt-rtx" or "tensorrt".
        precision: "fp32", "fp16" or "int8", as the engine was asked for.
        input: pixels, (None, height, width, 3), RGB, 0..255.
        output: probabilities, (None, classes); or bottlenecks, where the graph ends there.
    """

    backend: str
    precision: str
    input: TensorSpec
    output: TensorSpec

    @abstractmethod
    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """Run one batch.

        Args:
            pictures: (N, height, width, 3), uint8, RGB, 0..255, as `engines.preprocess`
                gives them. N >= 1.

        Returns:
            float32 array (N, classes): probabilities that sum to 1 in each row.

        Raises:
            EngineError: the shape does not fit the engine, or the backend failed.
        """

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Run many batches, in order, as fast as the backend can.

        An engine that can work on several batches at a time overrides this.

        Args:
            batches: each as for `infer`.

        Yields:
            What `infer` returns, for each batch in turn.
        """
        for pictures in batches:
            yield self.infer(pictures)

    def layer_times(self, pictures: np.ndarray, runs: int = 10) -> Dict[str, float]:
        """Mean milliseconds that each layer takes of an `infer`, by the backend's own profiler.

        The profiler runs beside the engine, which is as quick afterwards as before. Names are the
        backend's: it fuses layers and adds some of its own.

        Args:
            pictures: as for `infer`.
            runs: how many are averaged, after one that is not.

        Returns:
            The layers that were run; {} where the backend can't tell.

        Raises:
            EngineError: as `infer`, or the profiler failed.
        """
        return {}

    def close(self) -> None:  # noqa: B027 - most engines hold nothing that needs it
        """Give back what the engine holds; it can't be used afterwards."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def check_pictures(self, pictures: np.ndarray) -> None:
        """Raise EngineError unless `pictures` is what `infer` takes."""
        wanted = self.input.shape[1:]
        if pictures.ndim != 4 or pictures.shape[1:] != wanted or not len(pictures):
            raise EngineError(
                "{} takes pictures of shape (N, {}, {}, {}); received {}".format(
                    self.backend, *wanted, pictures.shape
                )
            )
        if pictures.dtype != PIXELS:
            raise EngineError(
                "{} takes uint8 pixels; received {}".format(self.backend, pictures.dtype)
            )


def processors() -> int:
    """How many processors this process may use; every CPU engine uses that many threads."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
