"""Implicit INT8, up to TensorRT 10: the builder finds the ranges itself, from pictures or a cache.

Where the graph has Q/DQ pairs nothing of this is needed.
"""

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from engines.engine import EngineError
from engines.files import sha256_of
from engines.preprocess import load
from engines.settings import Settings
from engines.tensorrt import calibration_cache
from engines.tensorrt.memory import Device

# What `Settings.int8` calls them -> TensorRT's class, and its name in a cache.
CLASSES = {
    "entropy": ("IInt8EntropyCalibrator2", "EntropyCalibration2"),
    "minmax": ("IInt8MinMaxCalibrator", "MinMaxCalibration"),
}
BATCH = 8  # pictures at a time


@contextmanager
def calibration(
    trt: Any, settings: Settings, onnx_path: str
) -> Iterator[Callable[[Tuple[int, ...]], Any]]:
    """Calibrate the build that happens inside, and keep what was found if it succeeds.

    Yields:
        A function from a picture's shape (height, width, 3) to the calibrator, to be called once.

    Raises:
        EngineError: there are neither pictures nor a cache that fits, or a picture can't be read.
    """
    digest = sha256_of(Path(onnx_path))
    cache = _read_cache(settings, trt.__version__, digest)
    made: List[Any] = []

    def make(shape: Tuple[int, ...], device: Optional[Device] = None) -> Any:
        reads = [_reader(path, shape) for path in settings.calibration_pictures]
        made.append(_make_calibrator(trt, settings.int8, reads, shape, cache, device))
        return made[0]

    if cache is not None:
        yield make
        return
    device = Device()
    with device.current():
        yield lambda shape: make(shape, device)
        made[0].free()
        if settings.calibration_cache and made[0].written:
            calibration_cache.keep(
                Path(settings.calibration_cache),
                made[0].written,
                trt.__version__,
                CLASSES[settings.int8][1],
                digest,
            )


def _read_cache(settings: Settings, version: str, onnx_sha256: str) -> Optional[bytes]:
    path = settings.calibration_cache
    reason = "there is none"
    if path and Path(path).exists():
        found = calibration_cache.why_not(
            Path(path), version, CLASSES[settings.int8][1], onnx_sha256
        )
        if found is None:
            return Path(path).read_bytes()
        reason = "{}: {}".format(path, found)
    if settings.calibration_pictures:
        return None
    raise EngineError(
        "INT8 by a calibrator needs a calibration cache ({}) or training pictures; write one with: "
        "edgetrt quantize --calibration-cache {}".format(reason, ".".join(version.split(".")[:3]))
    )


def _reader(path: str, shape: Tuple[int, ...]) -> Callable[[], np.ndarray]:
    return lambda: load(path, shape[0], shape[1])


def _make_calibrator(
    trt: Any,
    kind: str,
    reads: Sequence[Callable[[], np.ndarray]],
    shape: Tuple[int, ...],
    cache: Optional[bytes],
    device: Optional[Device],
) -> Any:
    """A calibrator for the builder, which asks it for a cache, then for batches of pictures.

    Errors in it can't pass through native code; they are kept in its `error`.
    """
    base = getattr(trt, CLASSES[kind][0])

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)  # the binding demands this very call
            self.error = None  # type: Optional[Exception]
            self.written = None  # type: Optional[bytes]
            self._taken = 0
            self._buffer = device.buffer((BATCH, *shape)) if device else None

        def get_batch_size(self) -> int:
            return BATCH

        def get_batch(self, names: List[str]) -> Optional[List[int]]:
            if device is None or self._buffer is None or self._taken >= len(reads):
                return None
            try:
                some = [read() for read in reads[self._taken : self._taken + BATCH]]
                self._taken += len(some)
                # A last batch that is not full is filled up with its own pictures.
                self._buffer.host[:] = np.resize(np.stack(some), (BATCH, *shape))
                stream = device.stream()
                self._buffer.upload(BATCH, stream)
                stream.synchronize()
                return [self._buffer.pointer]
            except Exception as error:
                self.error = error
                return None

        def read_calibration_cache(self) -> Optional[bytes]:
            return cache

        def write_calibration_cache(self, written: Any) -> None:
            self.written = bytes(written)

        def free(self) -> None:
            if self._buffer is not None:
                self._buffer.free()

    return Calibrator()
