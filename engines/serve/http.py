"""HTTP/1.1 as bytes: a request's head taken apart, strictly, and an answer put together.

Sources: RFC 9110 and RFC 9112. What could be read in two ways is refused: a proxy in front may
read it the other way.
"""

import json
import re
import zlib
from http.client import responses
from types import MappingProxyType
from typing import Any, Dict, Mapping, NamedTuple, Optional, Union

LONGEST_HEAD = 1 << 16  # bytes
MOST_HEADERS = 100
END_OF_HEAD = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = "application/json"

Buffer = Union[bytes, bytearray]
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/([0-9])\.([0-9])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
# Those that decide what a request is, or whose: twice is once too often.
_ONCE = (
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "inference-header-content-length",
    "origin",
    "transfer-encoding",
)
_UNPACK = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class HttpError(Exception):
    """A request is not carried out: the status and the text of the answer."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Head(NamedTuple):
    """A request's line and headers.

    path: without the query; headers: by their names in lower case.
    length: of the body in bytes; None where the request doesn't say.
    keeps: whether the client leaves the connection open for another request.
    waits: whether it sends the body only after 100 Continue.
    """

    method: str
    path: str
    headers: Dict[str, str]
    length: Optional[int]
    keeps: bool
    waits: bool


class Response(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    kind: str = JSON
    headers: Mapping[str, str] = NO_HEADERS


def parse_head(data: bytes) -> Head:
    """Take apart what comes before END_OF_HEAD.

    Raises:
        HttpError: 400, 411, 431 or 505; nothing else, whatever the bytes are.
    """
    lines = data.decode("latin-1").split("\r\n")
    if len(lines) > MOST_HEADERS + 1:
        raise HttpError(431, "more than {} headers".format(MOST_HEADERS))
    line = _REQUEST_LINE.fullmatch(lines[0])
    if line is None:
        raise HttpError(400, "the first line is no HTTP request")
    method, target, major, minor = line.groups()
    if major != "1":
        raise HttpError(505, "HTTP/1.1 is spoken here; received {}.{}".format(major, minor))
    headers: Dict[str, str] = {}
    for text in lines[1:]:
        header = _HEADER.fullmatch(text)
        if header is None:
            raise HttpError(400, "a header is malformed")
        name, value = header.group(1).lower(), header.group(2).rstrip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise HttpError(400, "the header {} is there twice".format(name))
        else:
            headers[name] += ", " + value
    if minor != "0" and "host" not in headers:
        raise HttpError(400, "the header host is missing")
    options = [word.strip().lower() for word in headers.get("connection", "").split(",")]
    return Head(
        method,
        target.split("?", 1)[0],
        headers,
        _length(method, headers),
        "close" not in options and (minor != "0" or "keep-alive" in options),
        minor != "0" and headers.get("expect", "").lower() == "100-continue",
    )


def _length(method: str, headers: Dict[str, str]) -> Optional[int]:
    text = headers.get("content-length")
    if "transfer-encoding" in headers:
        if text is not None:
            raise HttpError(400, "both content-length and transfer-encoding")
        raise HttpError(411, "transfer-encoding is not taken: send content-length")
    if text is None:
        if method in ("POST", "PUT", "PATCH"):
            raise HttpError(411, "send content-length")
        return None
    if not re.fullmatch("[0-9]{1,18}", text):
        raise HttpError(400, "content-length is no number")
    return int(text)


def unpack(body: Buffer, encoding: str, limit: int) -> Buffer:
    """A body as it was before the client compressed it.

    Args:
        encoding: the header content-encoding: "", "identity", "gzip" or "deflate".
        limit: bytes; no more are ever unpacked.

    Raises:
        HttpError: 400, 413 or 415.
    """
    encoding = encoding.lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _UNPACK:
        raise HttpError(415, "content-encoding is gzip, deflate or identity")
    unpacker = zlib.decompressobj(_UNPACK[encoding])
    try:
        data = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise HttpError(400, "the body is no {}: {}".format(encoding, error)) from None
    if len(data) > limit:
        raise too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise HttpError(400, "the body is not one whole {}".format(encoding))
    return data


def too_large(limit: int) -> HttpError:
    """The answer to a request of more than `limit` bytes."""
    return HttpError(413, "a request has at most {} bytes".format(limit))


def busy(text: str) -> HttpError:
    """The answer where there is more to do than can be done."""
    return HttpError(503, text, Retry_After="1")


def answer(value: Any, status: int = 200, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """A response in JSON."""
    return Response(status, json.dumps(value, allow_nan=False).encode(), JSON, headers)


def refusal(error: HttpError) -> Response:
    """The response that an error becomes."""
    return answer({"error": error.text}, error.status, error.headers)


def encode(response: Response, keep: bool, with_body: bool = True) -> bytes:
    """A response as bytes.

    Args:
        keep: whether the connection stays open for another request.
        with_body: False for HEAD.
    """
    headers = {
        "Content-Type": response.kind,
        "Content-Length": str(len(response.body)),
        "Connection": "keep-alive" if keep else "close",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    headers.update(response.headers)
    lines = ["HTTP/1.1 {} {}".format(response.status, responses.get(response.status, ""))]
    lines += ["{}: {}".format(name, value) for name, value in headers.items()]
    head = "\r\n".join(lines).encode("latin-1") + END_OF_HEAD
    return head + response.body if with_body else head
