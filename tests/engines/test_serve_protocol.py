"""Bytes that come from anywhere: heads, bodies and requests are read or refused, never a crash."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.serve import kserve
from engines.serve.http import Head, HttpError, Response, encode, parse_head, refusal, unpack
from engines.serve.kserve import Model
from engines.serve.options import ServeOptions, check, flags_of, is_loopback

MODEL = Model(
    "demo", "0123456789abcdef", "tensorrt-fp16-sm62", "tensorrt", "fp16", "pixels", 2, 3,
    ("a", "b", "c:d"),
)  # fmt: skip
PIXELS = np.arange(36, dtype=np.uint8).reshape(2, 2, 3, 3)


def head(*lines: str) -> Head:
    return parse_head("\r\n".join(lines).encode("latin-1"))


def refused(call: Any, *arguments: Any) -> HttpError:
    with pytest.raises(HttpError) as caught:
        call(*arguments)
    assert 400 <= caught.value.status < 600 and caught.value.text
    return caught.value


def test_a_head_is_taken_apart() -> None:
    found = head("POST /classify?x=1 HTTP/1.1", "Host: here", "content-LENGTH:  12 ", "A: 1",
                 "a: 2")  # fmt: skip
    assert found.method == "POST" and found.path == "/classify" and found.length == 12
    assert found.headers["a"] == "1, 2"
    assert found.keeps and not found.waits
    assert not head("GET / HTTP/1.0").keeps
    assert head("GET / HTTP/1.0", "Connection: Keep-Alive").keeps
    assert not head("GET / HTTP/1.1", "Host: h", "Connection: x, close").keeps
    assert head("PUT / HTTP/1.1", "Host: h", "Content-Length: 1", "Expect: 100-Continue").waits


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (400, ["GET / HTTP/1.1"]),
        (400, ["GET http://evil/ HTTP/1.1", "Host: h"]),
        (400, ["GET  / HTTP/1.1", "Host: h"]),
        (400, ["GET / HTTP/1.1 ", "Host: h"]),
        (400, ["get / HTTP/1.1", "Host: h"]),
        (505, ["GET / HTTP/2.0", "Host: h"]),
        (400, ["GET / HTTP/1.1", "Host: h", "Host: h"]),
        (400, ["GET / HTTP/1.1", "Host : h"]),
        (400, ["GET / HTTP/1.1", "Host: h", " folded"]),
        (400, ["GET / HTTP/1.1", "Host: h\nX: y"]),
        (400, ["GET / HTTP/1.1", "Host: h", "X: \x00"]),
        (411, ["POST / HTTP/1.1", "Host: h"]),
        (411, ["POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"]),
        (411, ["GET / HTTP/1.1", "Host: h", "Transfer-Encoding: identity"]),
        (400, ["POST / HTTP/1.1", "Host: h", "Content-Length: 1", "Transfer-Encoding: chunked"]),
        (400, ["POST / HTTP/1.1", "Host: h", "Content-Length: 1", "Content-Length: 1"]),
        (400, ["POST / HTTP/1.1", "Host: h", "Content-Length: 1, 1"]),
        (400, ["POST / HTTP/1.1", "Host: h", "Content-Length: -1"]),
        (400, ["POST / HTTP/1.1", "Host: h", "Content-Length: +1"]),
        (400, ["POST / HTTP/1.1", "Host: h", "Content-Length: 0x1"]),
        (400, ["POST / HTTP/1.1", "Host: h", "Content-Length: \xb2"]),
        (400, ["POST / HTTP/1.1", "Host: h", "Content-Length:"]),
        (431, ["GET / HTTP/1.1", "Host: h", *(f"X{n}: 1" for n in range(101))]),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(status: int, lines: list[str]) -> None:
    assert refused(head, *lines).status == status


LINES = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            ["POST / HTTP/1.1", "Host: h", "Content-Length: 5", "Content-Length: 05",
             "Transfer-Encoding: chunked", "Connection: close", "Expect: 100-continue", ""]
        ),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), LINES.map(lambda x: "\r\n".join(x).encode())))
def test_any_head_is_read_or_refused(data: bytes) -> None:
    try:
        found = parse_head(data)
    except HttpError as error:
        assert error.status in (400, 411, 431, 505)
    else:
        assert found.path.startswith("/")
        assert "transfer-encoding" not in found.headers
        assert (found.length is not None) == ("content-length" in found.headers)


@pytest.mark.parametrize(
    ("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZip", gzip.compress)]
)
def test_a_packed_body_is_unpacked_within_its_limit(name: str, pack: Any) -> None:
    data = bytes(1000)
    assert unpack(pack(data), name, 1000) == data
    assert refused(unpack, pack(data), name, 999).status == 413
    assert refused(unpack, pack(data)[:-1], name, 1000).status == 400
    assert refused(unpack, pack(data) + b"x", name, 1000).status == 400
    assert refused(unpack, pack(data) * 2, name, 1000).status == 400


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(1 << 26))
    assert refused(unpack, bomb, "gzip", 1 << 20).status == 413


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(["", "identity", "gzip", "deflate", "br", "gzip, gzip"]),
)
def test_any_body_is_unpacked_or_refused(data: bytes, name: str) -> None:
    try:
        assert len(unpack(data, name, 100)) <= 200
    except HttpError as error:
        assert error.status in (400, 413, 415)


def test_an_answer_as_bytes() -> None:
    data = encode(refusal(HttpError(503, "a", Retry_After="1")), keep=False)
    assert data.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nConnection: close\r\n" in data and b"\r\nRetry-After: 1\r\n" in data
    assert data.endswith(b'\r\n\r\n{"error": "a"}')
    assert encode(Response(200, b"xyz"), keep=True, with_body=False).endswith(b"\r\n\r\n")


def request(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "pixels", "shape": [2, 2, 3, 3], "datatype": "UINT8"}
    return {"inputs": [{**tensor, "data": PIXELS.tolist(), **changes}]}


def read(value: Any, behind: bytes | None = None) -> kserve.Asked:
    text = json.dumps(value).encode()
    if behind is None:
        return kserve.read(text, None, MODEL)
    return kserve.read(text + behind, str(len(text)), MODEL)


def test_pixels_come_nested_flat_or_as_bytes() -> None:
    packed = {"parameters": {"binary_data_size": 36}}
    binary = request(**packed)
    del binary["inputs"][0]["data"]
    for asked in (
        read(request()),
        read(request(data=PIXELS.ravel().tolist())),
        read(binary, PIXELS.tobytes()),
    ):
        assert asked.pictures.dtype == np.uint8
        np.testing.assert_array_equal(asked.pictures, PIXELS)
        assert asked[2:] == (False, 0) and asked.id is None


def output(**parameters: Any) -> dict[str, Any]:
    return {"name": "probabilities", "parameters": parameters}


WRONG = {
    "no inputs": {},
    "two inputs": {"inputs": request()["inputs"] * 2},
    "no object": [],
    "inputs no list": {"inputs": {}},
    "name": request(name="x"),
    "datatype": request(datatype="FP32"),
    "shape": request(shape=[2, 3, 2, 3]),
    "no shape": request(shape=None),
    "true in the shape": request(shape=[True, 2, 3, 3]),
    "shape of nothing": request(shape=[0, 2, 3, 3], data=[]),
    "shape too large": request(shape=[10**30, 2, 3, 3]),
    "floats": request(data=(PIXELS / 2).tolist()),
    "negative": request(data=(PIXELS.astype(int) - 1).tolist()),
    "over 255": request(data=(PIXELS.astype(int) + 250).tolist()),
    "huge": request(data=[10**30] * 36),
    "texts": request(data=["1"] * 36),
    "nothings": request(data=[None] * 36),
    "truths": request(data=[True] * 36),
    "ragged": request(data=[[1, 2], [3]]),
    "ragged and empty": request(data=[[[]], []]),
    "too few": request(data=[1] * 35),
    "reshaped": request(data=PIXELS.reshape(4, 9).tolist()),
    "data no list": request(data="abc"),
    "both": request(parameters={"binary_data_size": 36}),
    "parameters no object": request(parameters=3),
    "id no text": {**request(), "id": 3},
    "long id": {**request(), "id": "x" * 1001},
    "outputs no list": {**request(), "outputs": {}},
    "another output": {**request(), "outputs": [{"name": "x"}]},
    "two outputs": {**request(), "outputs": [{"name": "probabilities"}] * 2},
    "classes": {**request(), "outputs": [output(classification=-1)]},
    "no number of classes": {**request(), "outputs": [output(classification=1.5)]},
    "binary": {**request(), "outputs": [output(binary_data=1)]},
    "request's parameters": {**request(), "parameters": {"binary_data_output": "yes"}},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_refused(name: str) -> None:
    assert refused(read, WRONG[name]).status == 400


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b"[" * 100000, b'{"inputs":' * 10000, b"NaN", b"1" * 100000,
     b'{"inputs": [' + b"[]," * 100000 + b"[]]}"],
)  # fmt: skip
def test_text_that_is_no_request_is_refused(text: bytes) -> None:
    assert refused(kserve.read, text, None, MODEL).status == 400


def test_far_more_numbers_than_pixels_are_not_made_an_array() -> None:
    error = refused(read, request(data=[0] * 5000))
    assert "more than the numbers of its shape" in error.text
    assert read({**request(), "id": "," * 1000}).id == "," * 1000


def test_numbers_of_many_digits_do_not_hold_up_everybody() -> None:
    """Looking for long ones once took as many steps for each digit as there were digits after."""
    text = b'{"inputs": [' + b",".join([b"9" * 999] * 4000) + b"]}"
    begun = time.process_time()
    assert "digits" in refused(kserve.read, text, None, MODEL).text
    assert time.process_time() - begun < 1


def test_what_is_wrong_is_told_in_few_words_and_little_time() -> None:
    text = b'{"inputs": [{"name": "' + b"\\u0007" * 2_000_000 + b'"}]}'
    begun = time.process_time()
    assert len(refused(kserve.read, text, None, MODEL).text) <= kserve.LONGEST_TEXT
    assert time.process_time() - begun < 0.7


def test_a_number_of_many_digits_is_not_even_read() -> None:
    """Old Pythons need minutes for one that fills a request."""
    text = json.dumps(request(data=[10**2000])).encode()
    assert "500 digits" in refused(kserve.read, text, None, MODEL).text


@pytest.mark.parametrize("size", [35, 37, 0, -1, None, "36", 36.0, True, 10**30])
def test_bytes_that_do_not_fit_are_refused(size: Any) -> None:
    value = request(parameters={"binary_data_size": size})
    del value["inputs"][0]["data"]
    assert refused(read, value, PIXELS.tobytes()).status == 400
    if isinstance(size, int) and 0 <= size < 100:
        assert refused(read, value, bytes(size)).status == 400


@pytest.mark.parametrize("length", ["", "x", "-1", "1e3", "99999", "9" * 30, "\xb2"])
def test_a_wrong_header_length_is_refused(length: str) -> None:
    assert refused(kserve.read, json.dumps(request()).encode(), length, MODEL).status == 400


def test_bytes_behind_a_request_without_need_are_refused() -> None:
    assert refused(read, request(), b"x").status == 400


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False),
              st.text(max_size=5), st.sampled_from(["pixels", "UINT8", "probabilities"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["inputs", "outputs", "name", "shape", "data", "datatype", "parameters",
                             "id", "binary_data_size", "classification", "binary_data"]),
            inner, max_size=6,
        ),
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    ANYTHING, ANYTHING, ANYTHING, st.binary(max_size=40), st.one_of(st.none(), st.text(max_size=4))
)
def test_any_request_is_read_or_refused(
    whole: Any, inside: Any, data: Any, behind: bytes, length: str | None
) -> None:
    for value in (whole, {"inputs": [inside], "outputs": whole}, request(data=data),
                  {**request(), "outputs": [inside], "parameters": data, "id": whole}):  # fmt: skip
        text = json.dumps(value).encode()
        for given_length in (None, str(len(text)), length):
            try:
                asked = kserve.read(text + behind, given_length, MODEL)
            except HttpError as error:
                assert error.status == 400
                json.dumps(error.text).encode()
            else:
                assert asked.pictures.dtype == np.uint8 and asked.pictures.shape[1:] == (2, 3, 3)


PROBABILITIES = np.array([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8]], np.float32)


def test_probabilities_as_json() -> None:
    asked = read({**request(), "id": "seven"})
    found = json.loads(kserve.respond(asked, PROBABILITIES, MODEL).body)
    (tensor,) = found.pop("outputs")
    assert found == {"model_name": "demo", "model_version": MODEL.release, "id": "seven"}
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == (
        "probabilities",
        "FP32",
        [2, 3],
    )
    np.testing.assert_array_equal(np.array(tensor["data"], np.float32), PROBABILITIES.ravel())


def test_classes_as_triton_names_them() -> None:
    asked = read({**request(), "outputs": [output(classification=2)]})
    (found,) = json.loads(kserve.respond(asked, PROBABILITIES, MODEL).body)["outputs"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [2, 2])
    assert found["data"] == ["0.700000:1:b", "0.200000:0:a", "0.800000:2:c:d", "0.100000:0:a"]


def test_a_name_that_is_no_utf8_comes_back_as_its_bytes() -> None:
    model = MODEL._replace(labels=("a", "b\udcff", "c"))
    wanted = output(classification=1, binary_data=True)
    body = kserve.respond(read({**request(), "outputs": [wanted]}), PROBABILITIES, model).body
    assert b"0.700000:1:b\xff" in body


@pytest.mark.parametrize(
    "options",
    [
        ServeOptions(host="0.0.0.0"),
        ServeOptions(host="example.org"),
        ServeOptions(port=70000),
        ServeOptions(max_batch=0),
        ServeOptions(queue=0),
        ServeOptions(max_delay_ms=-1),
        ServeOptions(timeout_s=float("nan")),
        ServeOptions(token="short"),
        ServeOptions(token="with a space in it"),
    ],
)
def test_wrong_options_are_told(options: ServeOptions) -> None:
    wrong = check(options)
    assert wrong and "with a space in it" not in wrong


def test_right_options_pass_and_can_be_typed() -> None:
    assert check(ServeOptions()) is None
    far = ServeOptions(host="0.0.0.0", token="0123456789abcdef", max_batch=4)
    assert check(far) is None
    assert flags_of(far) == ["--host", "0.0.0.0", "--max-batch", "4"]
    assert is_loopback("::1") and is_loopback("127.8.9.1") and not is_loopback("10.0.0.1")
