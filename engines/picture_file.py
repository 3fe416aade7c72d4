"""What a picture file's own bytes say: format, size, completeness, orientation, animation.

Nothing is decoded here. Sources: PNG (ISO/IEC 15948), JPEG (ITU-T T.81), Exif 2.3, WebP container
(RFC 9649), and Microsoft's description of BITMAPINFOHEADER.
"""

import re
import struct
import zlib
from typing import Iterator, NamedTuple, Tuple

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A marker with a meaning: no stuffed zero (FF00), no fill byte (FFFF), no restart (FFD0..FFD7).
_JPEG_MARKER = re.compile(b"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_END = 0xD9
_JPEG_APP1 = 0xE1
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, all Huffman-coded
_JPEG_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_EXIF_PREFIX = b"Exif\0\0"
_EXIF_ORIENTATION = 0x0112


class PictureError(Exception):
    """A picture can't be used; the message is a short reason and names no path."""


class Header(NamedTuple):
    """What a file says about its picture: size as stored (not yet upright), grey or colour."""

    format: str
    height: int
    width: int
    grey: bool


def read_header(data: bytes) -> Header:
    """What a file says at its start.

    Returns:
        format "JPEG", "PNG", "BMP" or "WebP"; height and width in pixels, as stored: the picture
        is `width` high if its EXIF orientation lays it on its side.

    Raises:
        PictureError: none of these formats, or a header that is cut off or damaged.
    """
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


def check_whole(data: bytes, name: str) -> int:
    """Raise PictureError unless the file is whole; return its EXIF orientation, 1..8."""
    check = {"PNG": _check_png, "JPEG": _check_jpeg, "BMP": _check_bmp, "WebP": _check_webp}[name]
    try:
        return check(data)
    except struct.error:
        raise PictureError("truncated " + name) from None


def _png_header(data: bytes) -> Header:
    name, width, height, _, colour = struct.unpack_from(">4sIIBB", data, 12)
    if name != b"IHDR":
        raise PictureError("damaged PNG")
    return Header("PNG", height, width, grey=colour in (0, 4))


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


def _jpeg_header(data: bytes) -> Header:
    for marker, start, _ in _jpeg_segments(data):
        if marker in _JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, start)
            if bits != 8:
                raise PictureError("JPEG of {} bits".format(bits))
            return Header("JPEG", height, width, grey=channels == 1)
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


def _bmp_header(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return Header("BMP", abs(height), width, grey=False)  # a negative height: top row first


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


def _webp_header(data: bytes) -> Header:
    name = data[12:16]
    if name == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WebP", height & 0x3FFF, width & 0x3FFF, grey=False)
    if name == b"VP8L" and data[20:21] == b"\x2f":
        (sizes,) = struct.unpack_from("<I", data, 21)
        return Header("WebP", (sizes >> 14 & 0x3FFF) + 1, (sizes & 0x3FFF) + 1, grey=False)
    if name == b"VP8X":
        # Two little-endian numbers of 24 bits.
        width, width_high, height, height_high = struct.unpack_from("<HBHB", data, 24)
        height, width = height | height_high << 16, width | width_high << 16
        return Header("WebP", height + 1, width + 1, grey=False)
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
