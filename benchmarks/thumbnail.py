"""A picture small enough to be carried in a report."""

import base64
from pathlib import Path

from engines.engine import EngineError
from engines.picture_file import PictureError
from engines.preprocess import decode, read_picture, resize

LONGER_SIDE = 160  # pixels, at most
QUALITY = 80  # of JPEG


def thumbnail(path: Path) -> str:
    """A JPEG of at most `LONGER_SIDE` pixels either way, upright, as base64.

    Raises:
        EngineError: the file is no picture.
    """
    import cv2

    try:
        picture = decode(read_picture(path))
    except PictureError as error:
        raise EngineError("{}: {}".format(path, error)) from error
    scale = min(1.0, LONGER_SIDE / max(picture.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    shown = cv2.cvtColor(resize(picture, height, width), cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(jpeg.tobytes()).decode("ascii")
