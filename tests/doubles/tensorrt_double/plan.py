"""A serialized engine: a header that says what it fits, and the graph to execute."""

import json
import struct
import zlib
from typing import Any, NamedTuple

from cuda_double import _gpu

from .messages import error
from .played import VERSIONS, played

MAGIC = b"DOUBLE\x00\x01"
_SIZES = struct.Struct("<8sIII")  # magic, bytes of JSON, bytes of ONNX, checksum of both

Profile = dict[str, list[list[int]]]  # for each dynamic input smallest, best and largest shape


class RanTamperedEngine(BaseException):
    """What was loaded is not what was built: the real TensorRT would run whatever is in it.

    Not an `Exception`, so that nobody catches it by chance.
    """


class Header(NamedTuple):
    """What is known about an engine.

    verbosity: name of the ProfilingVerbosity it was built with.
    """

    version: str
    compute_capability: list[int]
    profiles: list[Profile]
    verbosity: str


def pack(header: Header, onnx: bytes) -> bytes:
    """The bytes of an engine."""
    text = json.dumps(header._asdict()).encode()
    body = text + onnx
    return _SIZES.pack(MAGIC, len(text), len(onnx), zlib.crc32(body)) + body


def unpack(plan: bytes) -> tuple[Header, bytes] | None:
    """Header and graph; None, with errors logged, where it does not fit here.

    Raises:
        RanTamperedEngine: the graph is not the one that was built.
    """
    wrong = _wrong(plan)
    if wrong is not None:
        error(wrong)
        error("4: [runtime.cpp::deserializeCudaEngine::50] Error Code 4: Internal Error "
              "(Engine deserialization failed.)")  # fmt: skip
        return None
    _, text_size, _, checksum = _SIZES.unpack_from(plan)
    body = plan[_SIZES.size :]
    if zlib.crc32(body) != checksum:
        raise RanTamperedEngine("an engine file was changed and loaded nevertheless")
    return Header(**json.loads(body[:text_size])), body[text_size:]


def _wrong(plan: bytes) -> str | None:
    serialization = "1: [stdArchiveReader.cpp::StdArchiveReader] Error Code 1: Serialization "
    if len(plan) < _SIZES.size or plan[:8] != MAGIC:
        return serialization + (
            "(Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)"
        )
    _, text_size, onnx_size, _ = _SIZES.unpack_from(plan)
    if len(plan) != _SIZES.size + text_size + onnx_size:
        return serialization + "(Serialization assertion failed.Unexpected end of the plan)"
    try:
        header = json.loads(plan[_SIZES.size :][:text_size])
        built, capability = header["version"], header["compute_capability"]
    except (ValueError, KeyError):
        raise RanTamperedEngine("an engine's header was changed") from None
    if built != played().version:
        return _other_version(built, serialization)
    here = list(_gpu.board().compute_capability)
    if capability != here:
        expected, received = (".".join(map(str, numbers)) for numbers in (here, capability))
        return (
            "6: The engine plan file is generated on an incompatible device, expecting compute "
            f"{expected} got compute {received}, please rebuild."
        )
    return None


def _other_version(built: str, serialization: str) -> str:
    if played().numbers < (8, 5):
        number: Any = VERSIONS[built].serialization if built in VERSIONS else "unknown"
        return serialization + (
            "(Serialization assertion stdVersionRead == serializationVersion failed."
            "Version tag does not match. Note: "
            f"Current Version: {played().serialization}, Serialized Engine Version: {number})"
        )
    return (
        "6: The engine plan file is not compatible with this version of TensorRT, expecting "
        f"library version {played().version} got {built}, please rebuild."
    )
