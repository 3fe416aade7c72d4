"""KServe's Open Inference Protocol v2 over HTTP, as Triton speaks it: requests read, answers made.

Sources: the protocol's "Predict Protocol - Version 2", and Triton's extensions binary tensor data,
classification, statistics and model repository.
"""

import json
import re
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from engines import __version__
from engines.serve.http import Buffer, HttpError, Response, answer
from engines.text import printable

HEADER_LENGTH = "inference-header-content-length"
OUTPUT = "probabilities"
EXTENSIONS = ["binary_tensor_data", "classification", "statistics", "model_repository"]
LONGEST_ID = 1000  # characters
LONGEST_TEXT = 300  # characters of what is wrong with a request
MOST_COMMAS = 2000  # besides those between the numbers of pixels; an id may have many
MOST_CONTAINERS = 100  # besides those of pixels
MANY_DIGITS = 500  # numbers of fewer are read, those of twice as many never
BYTES_KIND = "application/octet-stream"


class Model(NamedTuple):
    """What is served.

    name: of the model; release: its version; engine: which of its engines.
    input: the name of the pixels, (N, height, width, 3).
    """

    name: str
    release: str
    engine: str
    backend: str
    precision: str
    input: str
    height: int
    width: int
    labels: Tuple[str, ...]


class Asked(NamedTuple):
    """An inference request.

    pictures: (N, height, width, 3), uint8.
    binary: whether the probabilities are to follow the JSON as bytes.
    top: how many classes are to be named; 0 for the probabilities of all.
    """

    id: Optional[str]
    pictures: np.ndarray
    binary: bool
    top: int


def server() -> Dict[str, Any]:
    """Server metadata."""
    return {"name": "edgetrt", "version": __version__, "extensions": EXTENSIONS}


def metadata(model: Model) -> Dict[str, Any]:
    """Model metadata; which engine of the release it is stands in its properties."""
    return {
        "name": model.name,
        "versions": [model.release],
        "platform": model.backend,
        "inputs": [
            {"name": model.input, "datatype": "UINT8", "shape": [-1, model.height, model.width, 3]}
        ],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(model.labels)]}],
        "properties": {"engine": model.engine, "precision": model.precision},
    }


def read(body: Buffer, header_length: Optional[str], model: Model) -> Asked:
    """An inference request.

    Args:
        body: JSON, and after it the bytes of a binary input.
        header_length: the header HEADER_LENGTH: how long the JSON is, if bytes follow it.

    Raises:
        HttpError: 400; nothing else, whatever the bytes are.
    """
    text, binary = _split(body, header_length)
    request = _object(_json(text), "the request")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise _wrong("inputs holds one tensor, {}", model.input)
    tensor = _object(inputs[0], "inputs[0]")
    for key, wanted in (("name", model.input), ("datatype", "UINT8")):
        if tensor.get(key) != wanted:
            raise _wrong("the input's {} is {}; received {!r}", key, wanted, tensor.get(key))
    shape = _shape(tensor.get("shape"), model)
    size = _object(tensor.get("parameters", {}), "an input's parameters").get("binary_data_size")
    if ("data" in tensor) == (size is not None):
        raise _wrong("the input has either data or binary_data_size")
    if size is None and text.count(b",") > _product(shape) + MOST_COMMAS:
        raise _wrong("data holds more than the numbers of its shape, {}", list(shape))
    if size is None and len(binary):
        raise _wrong("{} bytes follow the JSON that belong to no input", len(binary))
    pictures = (
        _from_json(tensor["data"], shape) if size is None else _from_bytes(binary, size, shape)
    )
    identity = request.get("id")
    if identity is not None and not (isinstance(identity, str) and len(identity) <= LONGEST_ID):
        raise _wrong("id is text of at most {} characters", LONGEST_ID)
    return Asked(identity, pictures, *_output(request, len(model.labels)))


def respond(asked: Asked, probabilities: np.ndarray, model: Model) -> Response:
    """The answer to an inference request.

    Args:
        probabilities: (N, classes), float32, finite.
    """
    if asked.top:
        rows = [_named(row, asked.top, model.labels) for row in probabilities]
        datatype, shape = "BYTES", [len(rows), len(rows[0])]
        flat: List[Any] = [word for row in rows for word in row]
        encoded = b"".join(struct.pack("<I", len(w)) + w for w in map(_encoded, flat))
    else:
        datatype, shape = "FP32", list(probabilities.shape)
        flat = probabilities.ravel().tolist()
        encoded = probabilities.astype("<f4").tobytes()
    output: Dict[str, Any] = {"name": OUTPUT, "datatype": datatype, "shape": shape}
    if asked.binary:
        output["parameters"] = {"binary_data_size": len(encoded)}
    else:
        output["data"] = flat
    found = {"model_name": model.name, "model_version": model.release, "outputs": [output]}
    if asked.id is not None:
        found["id"] = asked.id
    if not asked.binary:
        return answer(found)
    head = json.dumps(found).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    return Response(200, head + encoded, BYTES_KIND, length)


def likeliest(
    probabilities: np.ndarray, labels: Sequence[str], count: int
) -> List[Tuple[int, str, float]]:
    """The likeliest classes of one picture: number, label and probability, from the first on."""
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [(int(n), labels[n], float(probabilities[n])) for n in best]


def _named(row: np.ndarray, top: int, labels: Sequence[str]) -> List[str]:
    return [
        "{:f}:{}:{}".format(p, number, label) for number, label, p in likeliest(row, labels, top)
    ]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a class may have had a name that is no UTF-8


def _split(body: Buffer, header_length: Optional[str]) -> Tuple[bytes, memoryview]:
    """The JSON of a request, and the bytes behind it."""
    if header_length is None:
        return bytes(body), memoryview(b"")
    if not re.fullmatch("[0-9]{1,18}", header_length) or int(header_length) > len(body):
        raise _wrong("{} is no length within the body: {!r}", HEADER_LENGTH, header_length)
    view = memoryview(body)
    return bytes(view[: int(header_length)]), view[int(header_length) :]


def _json(text: bytes) -> Any:
    # A list takes 56 bytes in memory, and could be written as two; that of a pixel has seven.
    if text.count(b"[") + text.count(b"{") > MOST_CONTAINERS + len(text) // 7:
        raise _wrong("the request holds more lists than pixels")
    # Old Pythons take minutes for very long ones. One of twice as many digits fills a block.
    blocks = range(0, len(text) - MANY_DIGITS + 1, MANY_DIGITS)
    if any(text[start : start + MANY_DIGITS].isdigit() for start in blocks):
        raise _wrong("the request holds a number of {} digits or more", MANY_DIGITS)
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _wrong("the request is no JSON: {}", error) from None


def _no_number(text: str) -> Any:
    raise ValueError(text + " is no number")


def _shape(value: Any, model: Model) -> Tuple[int, ...]:
    wanted = [model.height, model.width, 3]
    whole = isinstance(value, list) and all(type(size) is int for size in value)
    if not whole or len(value) != 4 or value[1:] != wanted or value[0] < 1:
        text = "{} has shape [N, {}, {}, {}]; received {!r}"
        raise _wrong(text, model.input, *wanted, value)
    return tuple(value)


def _from_bytes(binary: memoryview, size: Any, shape: Tuple[int, ...]) -> np.ndarray:
    wanted = _product(shape)
    if type(size) is not int or size != wanted or len(binary) != wanted:
        text = "shape {} takes {} bytes; binary_data_size says {!r}, and {} follow the JSON"
        raise _wrong(text, list(shape), wanted, size, len(binary))
    return np.frombuffer(binary, np.uint8).reshape(shape)


def _from_json(data: Any, shape: Tuple[int, ...]) -> np.ndarray:
    if not isinstance(data, list):
        raise _wrong("data is a list of numbers from 0 to 255")
    try:
        values = np.array(data)  # of objects, in an old numpy, if lists are not equally long
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise _wrong("data holds something else than equally long lists of numbers") from None
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise _wrong("data is whole numbers from 0 to 255")
    if values.shape not in (shape, (_product(shape),)):
        text = "shape {} takes {} numbers; data holds {}"
        raise _wrong(text, list(shape), _product(shape), list(values.shape))
    return values.astype(np.uint8).reshape(shape)


def _output(request: Dict[str, Any], classes: int) -> Tuple[bool, int]:
    """How the answer is asked for: binary, and how many classes are to be named."""
    parameters = _object(request.get("parameters", {}), "the request's parameters")
    binary = _flag(parameters, "binary_data_output", False)
    outputs = request.get("outputs", [])
    if not isinstance(outputs, list) or len(outputs) > 1:
        raise _wrong("outputs holds one tensor, {}", OUTPUT)
    if not outputs:
        return binary, 0
    output = _object(outputs[0], "outputs[0]")
    if output.get("name") != OUTPUT:
        raise _wrong("the output's name is {}; received {!r}", OUTPUT, output.get("name"))
    parameters = _object(output.get("parameters", {}), "an output's parameters")
    top = parameters.get("classification", 0)
    if type(top) is not int or top < 0:
        raise _wrong("classification says how many classes; received {!r}", top)
    return _flag(parameters, "binary_data", binary), min(top, classes)


def _flag(parameters: Dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _wrong("{} is true or false; received {!r}", name, value)
    return value


def _object(value: Any, what: str) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong("{} is no object", what)
    return value


def _product(shape: Tuple[int, ...]) -> int:
    count, height, width, channels = shape
    return count * height * width * channels


def _wrong(text: str, *values: Any) -> HttpError:
    # Cut first: it may be as long as the request.
    return HttpError(400, printable(text.format(*values)[:LONGEST_TEXT])[:LONGEST_TEXT])
