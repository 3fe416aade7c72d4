"""Implicit INT8, up to TensorRT 10: the builder finds the ranges itself, from pictures or a cache.

Where the graph has Q/DQ pairs nothing of this is needed.
"""

import hashlib
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from engines.cache import cache_file, forget_oldest
from engines.engine import EngineError
from engines.files import sha256_of
from engines.preprocess import load_good
from engines.settings import Settings
from engines.tensorrt import calibration_cache
from engines.tensorrt.memory import Device

# What `Settings.int8` calls them -> TensorRT's class, and its name in a cache.
CLASSES = {
    "entropy": ("IInt8EntropyCalibrator2", "EntropyCalibration2"),
    "minmax": ("IInt8MinMaxCalibrator", "MinMaxCalibration"),
}
BATCH = 8  # pictures at a time


def fingerprint(settings: Settings) -> str:
    """SHA-256 of what a calibration rests on: the pictures' contents, or the cache's.

    Raises:
        EngineError: a picture can't be read.
    """
    paths = settings.calibration_pictures
    if not paths and settings.calibration_cache and Path(settings.calibration_cache).is_file():
        paths = (settings.calibration_cache,)
    digest = hashlib.sha256()
    try:
        for path in paths:
            digest.update(sha256_of(Path(path)).encode())
    except OSError as error:
        raise EngineError("{}: {}".format(error.filename, error.strerror)) from error
    return digest.hexdigest()


@contextmanager
def calibration(
    trt: Any, settings: Settings, onnx_path: str
) -> Iterator[Callable[[Tuple[int, ...]], Any]]:
    """Calibrate the build that happens inside.

    What was found on pictures is kept in the user's cache folder, for the next build from the
    same ones.

    Yields:
        A function from a picture's shape (height, width, 3) to the calibrator, to be called once.

    Raises:
        EngineError: there are neither pictures nor a cache that fits.
    """
    version, algorithm = trt.__version__, CLASSES[settings.int8][1]
    digest = sha256_of(Path(onnx_path))
    fits = (version, algorithm, digest)
    pictures = settings.calibration_pictures
    if pictures:
        place = cache_file("calibration", version, algorithm, digest, fingerprint(settings))
        reason = calibration_cache.why_not(place, *fits)
    else:
        place = Path(settings.calibration_cache or "")
        reason = calibration_cache.why_not(place, *fits)
        if reason is not None:
            raise EngineError(_advice(settings, version, reason))
    if reason is None:
        data = place.read_bytes()
        yield lambda shape: _make_calibrator(trt, settings.int8, [], shape, data, None)
        return
    device, made = Device(), []  # type: Device, List[Any]

    def make(shape: Tuple[int, ...]) -> Any:
        reads = [partial(load_good, path, *shape[:2]) for path in pictures]
        made.append(_make_calibrator(trt, settings.int8, reads, shape, None, device))
        return made[0]

    with device:
        yield make
        if made[0].written:
            with suppress(OSError):  # the next build calibrates again, and nothing else
                calibration_cache.keep(place, made[0].written, *fits)
                forget_oldest(place)


def _advice(settings: Settings, version: str, reason: str) -> str:
    path = settings.calibration_cache
    text = "INT8 by a calibrator needs training pictures"
    if settings.int8 == "entropy":
        short = ".".join(version.split(".")[:3])
        text += ", or what edgetrt quantize --calibration-cache {} writes".format(short)
    return text + ("" if path is None else "; {} can't be used: {}".format(path, reason))


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
                self._buffer.upload(stream)
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
