"""Which operator set an ONNX graph needs, read without the onnx package, which no device has."""

from typing import Iterator, Tuple, Union

# Numbers of fields in onnx.proto: ModelProto.opset_import, and of OperatorSetIdProto its members.
OPSET_IMPORT, DOMAIN, VERSION = 8, 1, 2
STANDARD = (b"", b"ai.onnx")  # names of ONNX's own operators

# How a field is written: protobuf's wire types.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def opset_of(graph: bytes) -> int:
    """The version of ONNX's own operators that a graph says it needs.

    Args:
        graph: the file.

    Returns:
        The version; 0 where it says none, or is no graph, which the parser tells in its own words.
    """
    found = 0
    try:
        for number, value in _fields(memoryview(graph)):
            if number == OPSET_IMPORT and not isinstance(value, int):
                members = dict(_fields(value))
                domain, version = members.get(DOMAIN, b""), members.get(VERSION, 0)
                if bytes(domain) in STANDARD and isinstance(version, int):
                    found = max(found, version)
    except (LookupError, ValueError, TypeError):
        return 0
    return found


def _fields(message: memoryview) -> Iterator[Tuple[int, Union[int, memoryview]]]:
    """A message's fields: their numbers, and values or bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, place = _varint(message, place)
        else:
            size = {FIXED64: 8, FIXED32: 4}[kind]
        if place + size > len(message):
            raise ValueError("cut off")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> Tuple[int, int]:
    """A number, seven bits to a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("no number is so long")
