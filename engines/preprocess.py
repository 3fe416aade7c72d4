"""Picture file -> pixels: the only decoder and resizer in the house.

Training, calibration, comparison and the device all take their pixels from here. The recipe has a
name, `RECIPE`, and these rules:

* RGB, 8 bits per channel: grey is repeated, CMYK converted, of 16 bits the upper 8 are kept.
* Alpha is dropped: a transparent pixel shows the colour that is stored under it.
* Turned upright as its EXIF orientation asks, whichever the format.
* A JPEG at least four times as large as the target is decoded at 1/2, 1/4 or 1/8 of its size.
* Squashed to the target, no crop: INTER_AREA if an axis shrinks to half or less and none grows,
  else INTER_LINEAR_EXACT.

OpenCV decodes and resizes. Where its versions differ, or let a damaged file pass in silence, the
file's own bytes are asked, in `engines.picture_file`.
"""

import functools
import os
import stat
import tempfile
from typing import Any, Union

import numpy as np

from engines.engine import EngineError
from engines.picture_file import PictureError, check_whole, read_header

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_PIXELS = 150_000_000
MAX_FILE_BYTES = 256 * 2**20
RECIPE = "rgb8-exif-squash/2"  # changes whenever any picture's pixels change

_Path = Union[str, "os.PathLike[str]"]

# Orientation -> cv2.flip code (1 left-right, 0 up-down, -1 both); 5..8 are transposed first.
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}


def load(path: _Path, height: int, width: int) -> np.ndarray:
    """Read a picture file as the pixels that an engine takes.

    Returns:
        uint8 array (height, width, 3), RGB, 0..255, C-contiguous.

    Raises:
        PictureError: as `read_picture` and `decode`.
    """
    return pixels(read_picture(path), height, width)


def load_good(path: _Path, height: int, width: int) -> np.ndarray:
    """`load` for a file that must be a picture.

    Raises:
        EngineError: it is none; names the file.
    """
    try:
        return load(path, height, width)
    except PictureError as error:
        raise EngineError("{}: {}".format(path, error)) from error


def pixels(data: bytes, height: int, width: int) -> np.ndarray:
    """Do what `load` does with a file's bytes, for callers that also hash them."""
    # Grey stays one channel to the end: the pixels are the same, for less time.
    return _rgb(resize(_decode(data, height, width), height, width))


def read_picture(path: _Path) -> bytes:
    """Read a regular file; never waits for a pipe or a device.

    Raises:
        PictureError: missing, unreadable, empty, over `MAX_FILE_BYTES` or not a regular file.
    """
    try:
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PictureError("not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise PictureError("larger than {} MiB".format(MAX_FILE_BYTES // 2**20))
            data = file.read(status.st_size)
    except OSError as error:
        raise PictureError(error.strerror or "cannot be read") from error
    except ValueError as error:  # a NUL byte in the path
        raise PictureError(str(error)) from error
    if not data:
        raise PictureError("empty file")
    return data


def decode(data: bytes, height: int = 0, width: int = 0) -> np.ndarray:
    """Decode a picture file's bytes; what follows the picture's end is ignored.

    Args:
        data: a JPEG, PNG, BMP or WebP file.
        height: with `width`, the size that the picture will be resized to. A JPEG that is at
            least four times as large comes back smaller, but no less than twice as large.
        width: see `height`.

    Returns:
        uint8 array (H, W, 3), RGB, 0..255, upright, C-contiguous.

    Raises:
        PictureError: not a picture, cut off, damaged, animated or over `MAX_PIXELS`.
    """
    return _rgb(_decode(data, height, width))


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Squash a uint8 picture, (H, W, 3) or grey (H, W), to height x width; no crop.

    Returns:
        uint8 array (height, width[, 3]); `picture` itself if it has that size already.
    """
    cv2 = _cv2()
    if picture.shape[:2] == (height, width):
        return picture
    rows, columns = picture.shape[0] / height, picture.shape[1] / width
    # Down to half the size, linear interpolation passes over no pixel, takes a quarter of the
    # time, and gave classifiers of the same accuracy. Plain INTER_LINEAR may round differently
    # on ARM and x86, and in one channel and three.
    shrinks = min(rows, columns) >= 1 and max(rows, columns) >= 2
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR_EXACT
    return cv2.resize(picture, (width, height), interpolation=method)


def _decode(data: bytes, height: int, width: int) -> np.ndarray:
    """Decode to OpenCV's own layout, upright: uint8, grey (H, W) or BGR (H, W, 3)."""
    cv2 = _cv2()
    header = read_header(data)
    if header.height * header.width > MAX_PIXELS:
        raise PictureError(
            "{}x{} pixels are more than {} million".format(
                header.width, header.height, MAX_PIXELS // 10**6
            )
        )
    orientation = check_whole(data, header.format)
    on_its_side = orientation >= 5
    flags = cv2.IMREAD_GRAYSCALE if header.grey else cv2.IMREAD_COLOR
    if header.format == "JPEG" and height and width:
        rows, columns = (width, height) if on_its_side else (height, width)
        flags |= _reduction(min(header.height // rows, header.width // columns))
    try:
        picture = _imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise PictureError("cannot be decoded") from error
    if picture is None:
        raise PictureError("cannot be decoded")
    if on_its_side:
        picture = cv2.transpose(picture)
    if orientation in _FLIPS:
        picture = cv2.flip(picture, _FLIPS[orientation])
    return picture


def _reduction(ratio: int) -> int:
    """Choose the IMREAD_REDUCED flag for a JPEG `ratio` times as large as its target, or 0.

    libjpeg then skips most of the inverse DCT. What remains for INTER_AREA is 2:1 or more, which
    keeps the pixels close to those of a full decode.
    """
    cv2 = _cv2()
    if ratio >= 16:
        return cv2.IMREAD_REDUCED_GRAYSCALE_8
    if ratio >= 8:
        return cv2.IMREAD_REDUCED_GRAYSCALE_4
    if ratio >= 4:
        return cv2.IMREAD_REDUCED_GRAYSCALE_2
    return 0


def _imdecode(data: bytes, flags: int) -> Any:
    cv2 = _cv2()
    reduced = flags >= cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_IGNORE_ORIENTATION
    if reduced and tuple(int(number) for number in cv2.__version__.split(".")[:2]) < (4, 5):
        # Here imdecode takes no notice of the flag (JetPack 4 has OpenCV 4.1), but imread does.
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
            file.write(data)
            file.flush()
            return cv2.imread(file.name, flags)
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _rgb(picture: np.ndarray) -> np.ndarray:
    cv2 = _cv2()
    return cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB if picture.ndim == 2 else cv2.COLOR_BGR2RGB)


@functools.lru_cache(maxsize=None)
def _cv2() -> Any:
    """Import OpenCV and silence its log: what is wrong with a picture is in PictureError.

    Its thread pool is left as it is: decoding, and resizing to the size of a network's input,
    run on the caller's thread alone.
    """
    import cv2

    logging = getattr(cv2.utils, "logging", None)  # none before OpenCV 4.6
    if logging:
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    return cv2


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
