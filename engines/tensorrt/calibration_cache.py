"""The file in which TensorRT keeps INT8 calibration, written and read without TensorRT.

Text: one line "TRT-<version>-<algorithm>", then for each tensor "<name>: <scale>", the scale as
the eight hexadecimal digits of a float32, its most significant byte first; it is amax / 127.
TensorRT up to 10 takes such a file instead of pictures, and calibrates anew where the first line
is not exactly its own. Source: NVIDIA's samples/sampleINT8/README.md, TensorRT 8.5.1.
"""

import hashlib
import json
import math
import re
import struct
import unicodedata
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from engines.engine import EngineError
from engines.files import write_bytes, write_json

ALGORITHMS = ("EntropyCalibration2", "MinMaxCalibration")
INT8_MAX = 127

_HEADER = re.compile(r"TRT-[0-9]{4,6}-[A-Za-z0-9]+")
_SCALE = re.compile(r"[0-9a-fA-F]{8}")


def header(version: str, algorithm: str = ALGORITHMS[0]) -> str:
    """The first line of a cache, such as "TRT-8201-EntropyCalibration2".

    Args:
        version: of TensorRT, 8 or 10, at least three numbers: "8.2.1", "10.3.0.26".
        algorithm: one of `ALGORITHMS`.

    Raises:
        EngineError: it is no such version or algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise EngineError(
            "a calibration algorithm is one of {}; received {!r}".format(
                ", ".join(ALGORITHMS), algorithm
            )
        )
    # TensorRT 10 counts in ten thousands, to have room for its two-digit minor versions.
    match = re.fullmatch(r"(?:8\.([0-9])|10\.([0-9]{1,2}))\.([0-9]{1,2})(?:\.[0-9]+)?", version)
    if match is None:
        raise EngineError(
            "calibration caches are for TensorRT 8 and 10, with a version such as 8.2.1 or "
            "10.3.0; received {!r}".format(version)
        )
    eight, ten, patch = match.groups()
    major = 8000 if ten is None else 100000
    return "TRT-{}-{}".format(major + 100 * int(eight or ten) + int(patch), algorithm)


def to_bytes(amax: Mapping[str, float], version: str, algorithm: str = ALGORITHMS[0]) -> bytes:
    """A cache that holds the largest absolute value of each tensor, in the given order.

    Args:
        amax: by the tensor's name in the ONNX graph; finite and above 0.
        version, algorithm: as for `header`.

    Raises:
        EngineError: a name would break the file, or a value has no scale in float32.
    """
    lines = [header(version, algorithm)]
    for name, value in amax.items():
        _check_name(name)
        try:
            scale = struct.pack(">f", value / INT8_MAX)
        except OverflowError:
            scale = struct.pack(">f", math.inf)
        _check_scale(name, struct.unpack(">f", scale)[0])
        lines.append("{}: {}".format(name, scale.hex()))
    return "".join(line + "\n" for line in lines).encode("utf-8")


def read(data: bytes) -> Tuple[str, Dict[str, float]]:
    """What a cache holds: its first line, and amax of each tensor by name.

    Raises:
        EngineError: it is damaged, or no calibration cache.
    """
    first, lines = _split(data)
    amax = {}  # type: Dict[str, float]
    for number, line in enumerate(lines, 2):
        name, separator, digits = line.rpartition(": ")
        if not separator or not _SCALE.fullmatch(digits):
            raise EngineError(
                "the calibration cache is damaged: line {} is no tensor and scale".format(number)
            )
        _check_name(name)
        if name in amax:
            raise EngineError("the calibration cache has {!r} twice".format(name))
        (scale,) = struct.unpack(">f", bytes.fromhex(digits))
        if scale != 0:  # so TensorRT writes of a constant that is all zeros
            _check_scale(name, scale)
        amax[name] = scale * INT8_MAX
    return first, amax


def fits(data: bytes, version: str, algorithm: str = ALGORITHMS[0]) -> Optional[str]:
    """Why a cache can't be used by this TensorRT; None if it can.

    Whether it is for the graph at hand it can't tell: that has no room in the format.

    Args:
        data: the whole file; a damaged one does not fit.
        version, algorithm: as for `header`.
    """
    wanted = header(version, algorithm)
    try:
        found, _ = read(data)
    except EngineError as error:
        return str(error)
    if found != wanted:
        return "it was written for {}; this is {}".format(found, wanted)
    return None


def keep(path: Path, data: bytes, version: str, algorithm: str, onnx_sha256: str) -> None:
    """Write a cache, and beside it a .json that says for which TensorRT and graph it holds.

    Args:
        path: such as onnx/calibration.cache.
        version, algorithm: as for `header`.
        onnx_sha256: of the graph, in hexadecimal; the cache's own format has no room for it.
    """
    write_bytes(path, data)
    note = {
        "schema": 1,
        "version": version,
        "algorithm": algorithm,
        "onnx_sha256": onnx_sha256,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    write_json(path.with_suffix(".json"), note)


def why_not(path: Path, version: str, algorithm: str, onnx_sha256: str) -> Optional[str]:
    """Why the cache that `keep` wrote can't be used for a graph; None if it can."""
    try:
        data = path.read_bytes()
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        found = note["onnx_sha256"], note["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return "it, or the .json beside it, can't be read ({})".format(error)
    if found[1] != hashlib.sha256(data).hexdigest():
        return "it is not the file that was written"
    if found[0] != onnx_sha256:
        return "it was made for another graph"
    return fits(data, version, algorithm)


def _split(data: bytes) -> Tuple[str, List[str]]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise EngineError("this is no calibration cache: it is not UTF-8 text") from None
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines or not _HEADER.fullmatch(lines[0]):
        raise EngineError("this is no calibration cache: it does not begin with TRT-<version>")
    return lines[0], lines[1:]


def _check_name(name: str) -> None:
    # Cc are the control characters, line ends among them; Cs can't be written as UTF-8.
    if not name or any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise EngineError(
            "a calibration cache can't hold a tensor named {!a}; rename it in the ONNX graph, "
            "without control characters".format(name)
        )


def _check_scale(name: str, scale: float) -> None:
    if not 0 < scale < math.inf:
        raise EngineError(
            "a calibration cache holds scales above 0; that of {!a} is {}".format(name, scale)
        )
