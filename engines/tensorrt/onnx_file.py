"""What has to be known of an ONNX file without the onnx package, which no device has."""

from typing import Iterator, Optional, Tuple, Union

# Numbers of fields in onnx.proto: of a model, an operator set, a graph and a node.
GRAPH, OPSET_IMPORT = 7, 8
DOMAIN, VERSION = 1, 2
NODE = 1
OUTPUT, NAME, OPERATION = 2, 3, 4
STANDARD = (b"", b"ai.onnx")  # names of ONNX's own operators

# How a field is written: protobuf's wire types.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DAMAGED = (LookupError, ValueError)  # what reading a file raises that is no graph


def opset_of(data: bytes) -> int:
    """The version of ONNX's own operators that a file says it needs.

    Returns:
        The version; 0 where it says none, or is no graph, which the parser tells in its own words.
    """
    found = 0
    try:
        for entry in _parts(memoryview(data), OPSET_IMPORT):
            domain, version = b"", 0
            for number, value in _fields(entry):
                if number == DOMAIN and not isinstance(value, int):
                    domain = bytes(value)
                elif number == VERSION and isinstance(value, int):
                    version = value
            if domain in STANDARD:
                found = max(found, version)
    except DAMAGED:
        return 0
    return found


def node_of(data: bytes, place: int) -> Optional[Tuple[str, str]]:
    """What the node at a place in the graph is called, and its operation.

    One without a name goes by its first output.

    Args:
        place: in the file's order, from 0 on.

    Returns:
        Name and operation; None where there is no such node, or the file is no graph.
    """
    try:
        for graph in _parts(memoryview(data), GRAPH):
            for count, node in enumerate(_parts(graph, NODE)):
                if count == place:
                    name = _text(node, NAME) or _text(node, OUTPUT)
                    return name, _text(node, OPERATION)
    except DAMAGED:
        pass
    return None


def _text(message: memoryview, number: int) -> str:
    """The first text of a field; "" where there is none."""
    return bytes(next(_parts(message, number), b"")).decode("utf-8", "replace")


def _parts(message: memoryview, number: int) -> Iterator[memoryview]:
    """Messages or texts in a message, of one field."""
    for found, value in _fields(message):
        if found == number and not isinstance(value, int):
            yield value


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
