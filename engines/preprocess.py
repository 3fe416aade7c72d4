"""Picture file -> pixels: the only decoder and resizer in the house.

Training, calibration, comparison and the device all take their pixels from here. The recipe has a
name, `RECIPE`, and these rules:

* RGB, 8 bits per channel: grey is repeated, CMYK converted, of 16 bits the upper 8 are kept.
* Alpha is dropped: a transparent pixel shows the colour that is stored under it.
* Turned upright as its EXIF orientation asks, whichever the format.
* A JPEG at least four times as large as the target is decoded at 1/2, 1/4 or 1/8 of its size.
* Squashed to the target, no crop: INTER_AREA if no axis grows, else INTER_LINEAR_EXACT.

OpenCV decodes and resizes. Where its versions differ, or let a damaged file pass in silence, the
file's own bytes are asked: orientation, completeness, checksums, animation.

Sources: PNG (ISO/IEC 15948), JPEG (ITU-T T.81), Exif 2.3, WebP container (RFC 9649), and
Microsoft's description of BITMAPINFOHEADER.
"""

import functools
import os
import re
import stat
import struct
import tempfile
import zlib
from typing import Any, Iterator, NamedTuple, Tuple, Union

import numpy as np

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_PIXELS = 150_000_000
MAX_FILE_BYTES = 256 * 2**20
RECIPE = "rgb8-exif-squash-area/1"  # changes whenever any picture's pixels change

_Path = Union[str, "os.PathLike[str]"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A marker with a meaning: no stuffed zero (FF00), no fill byte (FFFF), no restart (FFD0..FFD7).
_JPEG_MARKER = re.compile(b"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_END = 0xD9
_JPEG_APP1 = 0xE1
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, all Huffman-coded
_JPEG_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_EXIF_PREFIX = b"Exif\0\0"
_EXIF_ORIENTATION = 0x0112
# Orientation -> cv2.flip code (1 left-right, 0 up-down, -1 both); 5..8 are transposed first.
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}


class PictureError(Exception):
    """A picture can't be used; the message is a short reason and names no path."""


class _Header(NamedTuple):
    """What a file says about its picture: size as stored (not yet upright), grey or colour."""

    format: str
    height: int
    width: int
    grey: bool


def load(path: _Path, height: int, width: int) -> np.ndarray:
    """Read a picture file as the pixels that an engine takes.

    Returns:
        uint8 array (height, width, 3), RGB, 0..255, C-contiguous.

    Raises:
        PictureError: as `read_picture` and `decode`.
    """
    return pixels(read_picture(path), height, width)


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


def picture_size(data: bytes) -> Tuple[str, int, int]:
    """Read format and size from a picture file's header; nothing is decoded.

    Returns:
        "JPEG", "PNG", "BMP" or "WebP"; height; width. In pixels, as stored: the picture is
        `width` high if its EXIF orientation lays it on its side.

    Raises:
        PictureError: none of these formats, or a header that is cut off or damaged.
    """
    header = _read_header(data)
    return header.format, header.height, header.width


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
    shrinks = picture.shape[0] >= height and picture.shape[1] >= width
    # Plain INTER_LINEAR may round differently on ARM and x86, and in one channel and three.
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR_EXACT
    return cv2.resize(picture, (width, height), interpolation=method)


def _decode(data: bytes, height: int, width: int) -> np.ndarray:
    """Decode to OpenCV's own layout, upright: uint8, grey (H, W) or BGR (H, W, 3)."""
    cv2 = _cv2()
    header = _read_header(data)
    if header.height * header.width > MAX_PIXELS:
        raise PictureError(
            "{}x{} pixels are more than {} million".format(
                header.width, header.height, MAX_PIXELS // 10**6
            )
        )
    orientation = _check_whole(data, header.format)
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


def _read_header(data: bytes) -> _Header:
    if not data:
        raise PictureError("empty file")
    if data.startswith(_PNG_SIGNATURE):
        name, read = "PNG", _png_header
    elif data.startswith(b"\xff\xd8\xff"):
        name, read = "JPEG", _jpeg_header
    elif data.startswith(b"BM"):
        name, read = "BMP", _bmp_header
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        name, read = "WebP", _webp_header
    else:
        raise PictureError("not a JPEG, PNG, BMP or WebP file")
    try:
        header = read(data)
    except struct.error:
        raise PictureError("truncated " + name) from None
    if header.height <= 0 or header.width <= 0:
        raise PictureError("damaged " + name)
    return header


def _check_whole(data: bytes, name: str) -> int:
    """Raise PictureError unless the file is whole; return its EXIF orientation, 1..8."""
    check = {"PNG": _check_png, "JPEG": _check_jpeg, "BMP": _check_bmp, "WebP": _check_webp}[name]
    try:
        return check(data)
    except struct.error:
        raise PictureError("truncated " + name) from None


def _png_header(data: bytes) -> _Header:
    name, width, height, _, colour = struct.unpack_from(">4sIIBB", data, 12)
    if name != b"IHDR":
        raise PictureError("damaged PNG")
    return _Header("PNG", height, width, grey=colour in (0, 4))


def _check_png(data: bytes) -> int:
    view, position, orientation = memoryview(data), len(_PNG_SIGNATURE), 1
    while True:
        length, name = struct.unpack_from(">I4s", data, position)
        start = position + 8
        end = start + length
        (checksum,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(view[position + 4 : end]) != checksum:
            raise PictureError("damaged PNG")
        if name == b"IEND":
            return orientation
        if name == b"acTL":
            raise PictureError("animated PNG")
        if name == b"eXIf":
            orientation = _exif_orientation(data[start:end])
        position = end + 4


def _jpeg_segments(data: bytes) -> Iterator[Tuple[int, int, int]]:
    """Give marker, start and end of each segment up to the end of the picture.

    Coded pixels lie between segments, and are passed over in the search for the next marker.
    """
    position = 2
    while True:
        match = _JPEG_MARKER.search(data, position)
        if match is None:
            raise PictureError("truncated JPEG")
        start = match.end()
        marker = data[start - 1]
        if marker == _JPEG_END:
            return
        (length,) = struct.unpack_from(">H", data, start)
        position = start + length
        yield marker, start + 2, position


def _jpeg_header(data: bytes) -> _Header:
    for marker, start, _ in _jpeg_segments(data):
        if marker in _JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, start)
            if bits != 8:
                raise PictureError("JPEG of {} bits".format(bits))
            return _Header("JPEG", height, width, grey=channels == 1)
        if marker in _JPEG_OTHER_FRAMES:
            raise PictureError("lossless, hierarchical or arithmetic-coded JPEG")
    raise PictureError("damaged JPEG")


def _check_jpeg(data: bytes) -> int:
    # libjpeg paints what is missing grey and goes on, so the end marker must be there.
    orientation = 1
    for marker, start, end in _jpeg_segments(data):
        if marker == _JPEG_APP1 and data.startswith(_EXIF_PREFIX, start):  # XMP is APP1 too
            orientation = _exif_orientation(data[start:end])
    return orientation


def _bmp_header(data: bytes) -> _Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return _Header("BMP", abs(height), width, grey=False)  # a negative height: top row first


def _check_bmp(data: bytes) -> int:
    header = _bmp_header(data)
    pixels_at, size = struct.unpack_from("<II", data, 10)
    bits, compression = struct.unpack_from("<HI", data, 24 if size == 12 else 28)
    if size != 12 and compression not in (0, 3):  # plain, bit fields
        raise PictureError("compressed BMP")
    row_bytes = (header.width * bits + 31) // 32 * 4
    if pixels_at + row_bytes * header.height > len(data):
        raise PictureError("truncated BMP")
    return 1


def _webp_header(data: bytes) -> _Header:
    name = data[12:16]
    if name == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return _Header("WebP", height & 0x3FFF, width & 0x3FFF, grey=False)
    if name == b"VP8L" and data[20:21] == b"\x2f":
        (sizes,) = struct.unpack_from("<I", data, 21)
        return _Header("WebP", (sizes >> 14 & 0x3FFF) + 1, (sizes & 0x3FFF) + 1, grey=False)
    if name == b"VP8X":
        # Two little-endian numbers of 24 bits.
        width, width_high, height, height_high = struct.unpack_from("<HBHB", data, 24)
        height, width = height | height_high << 16, width | width_high << 16
        return _Header("WebP", height + 1, width + 1, grey=False)
    raise PictureError("damaged WebP" if len(data) >= 30 else "truncated WebP")


def _check_webp(data: bytes) -> int:
    position, end = 12, 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise PictureError("truncated WebP")
    orientation = 1
    while position < end:
        name, length = struct.unpack_from("<4sI", data, position)
        start = position + 8
        if start + length > end:
            raise PictureError("truncated WebP")
        if name == b"ANIM":
            raise PictureError("animated WebP")
        if name == b"EXIF":
            orientation = _exif_orientation(data[start : start + length])
        position = start + length + length % 2  # chunks are padded to even lengths
    return orientation


def _exif_orientation(exif: bytes) -> int:
    """Read the orientation, 1..8, from EXIF data; 1 (upright) if it has none that is valid."""
    tiff = exif[len(_EXIF_PREFIX) :] if exif.startswith(_EXIF_PREFIX) else exif
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, value = struct.unpack_from(order + "H6xH", tiff, directory + 2 + 12 * entry)
            if tag == _EXIF_ORIENTATION and 1 <= value <= 8:
                return value
    except struct.error:
        pass  # cut off: as good as none
    return 1
