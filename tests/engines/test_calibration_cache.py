"""TensorRT's calibration cache: its very bytes, and nothing else taken for one."""

import math
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.engine import EngineError
from engines.tensorrt.calibration_cache import ALGORITHMS, fits, header, read, to_bytes

# The table in NVIDIA's samples/sampleINT8/README.md, as far as it is needed, for 8.2.1.
SAMPLE = b"TRT-8201-EntropyCalibration2\ndata: 3c008912\nprob: 3c010204\n"

NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
# Smaller ones have no scale in float32, larger ones an infinite one.
AMAX = st.floats(1e-40, 3e38)


@pytest.mark.parametrize(
    ("version", "algorithm", "expected"),
    [
        ("8.2.1", "EntropyCalibration2", "TRT-8201-EntropyCalibration2"),
        ("8.2.1.8", "EntropyCalibration2", "TRT-8201-EntropyCalibration2"),
        ("8.6.2", "MinMaxCalibration", "TRT-8602-MinMaxCalibration"),
        ("10.3.0", "EntropyCalibration2", "TRT-100300-EntropyCalibration2"),
        ("10.13.3.9", "MinMaxCalibration", "TRT-101303-MinMaxCalibration"),
    ],
)
def test_header(version: str, algorithm: str, expected: str) -> None:
    assert header(version, algorithm) == expected


@pytest.mark.parametrize(
    "version",
    [
        "",
        "8",
        "8.2",
        "11.4.0",
        "9.1.0",
        "8.10.0",
        "8.2.1\n",
        "8.2.1-x",
        "10.3.100",
        "8.2.-1",
        "8.٢.1",
    ],
)
def test_version_that_has_no_cache(version: str) -> None:
    with pytest.raises(EngineError, match=re.escape(repr(version))):
        header(version)


def test_unknown_algorithm() -> None:
    with pytest.raises(EngineError, match="EntropyCalibration2, MinMaxCalibration; received 'x'"):
        to_bytes({}, "8.2.1", "x")


def test_sample_of_nvidia() -> None:
    first, amax = read(SAMPLE)
    assert first == "TRT-8201-EntropyCalibration2"
    assert amax["data"] / 127 == pytest.approx(0.0078452, abs=5e-8)
    assert amax["prob"] == pytest.approx(1, abs=1e-7)
    assert to_bytes(amax, "8.2.1") == SAMPLE


def test_scale_is_amax_by_127_with_its_first_byte_first() -> None:
    assert to_bytes({"x": 1.0}, "8.2.1").endswith(b"\nx: 3c010204\n")
    assert to_bytes({"x": 127.0}, "8.2.1").endswith(b"\nx: 3f800000\n")


@pytest.mark.parametrize(
    "name", ["a:0", "a: b", ": ", " ", "a b ", "x: 3c010204", "блок/ö", "\u2028"]
)
def test_odd_names_survive(name: str) -> None:
    assert list(read(to_bytes({name: 1.0}, "8.2.1"))[1]) == [name]


@pytest.mark.parametrize("name", ["", "a\nb: 3c010204", "\r", "a\x00", "\x7f", "\x85", "\ud800"])
def test_name_that_would_break_the_file(name: str) -> None:
    with pytest.raises(EngineError, match="rename it in the ONNX graph") as raised:
        to_bytes({name: 1.0}, "8.2.1")
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("amax", [0.0, -1.0, math.nan, math.inf, 1e300, 1e-60])
def test_value_that_has_no_scale(amax: float) -> None:
    with pytest.raises(EngineError, match="scales above 0; that of 'x'"):
        to_bytes({"x": amax}, "8.2.1")


@given(st.dictionaries(NAMES, AMAX), st.sampled_from(ALGORITHMS))
def test_what_is_written_is_read(amax: dict[str, float], algorithm: str) -> None:
    data = to_bytes(amax, "10.3.0", algorithm)
    first, found = read(data)
    assert first == header("10.3.0", algorithm)
    assert list(found) == list(amax)
    for name, value in amax.items():
        assert struct.pack(">f", found[name] / 127) == struct.pack(">f", value / 127)
    assert to_bytes(found, "10.3.0", algorithm) == data
    assert fits(data, "10.3.0", algorithm) is None


@given(st.binary() | st.binary().map(lambda tail: SAMPLE + tail))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        first, amax = read(data)
    except EngineError as error:
        assert "\n" not in str(error)
        assert fits(data, "8.2.1") == str(error)
    else:
        assert first.startswith("TRT-")
        assert all(0 < value < math.inf for value in amax.values())


@pytest.mark.parametrize("size", range(len(SAMPLE) - 1))
def test_cut_off_cache_is_never_whole(size: int) -> None:
    """It is refused, or tensors are missing as a whole: no scale is ever another number."""
    try:
        _, amax = read(SAMPLE[:size])
    except EngineError:
        return
    whole = read(SAMPLE)[1]
    assert len(amax) < len(whole) and amax.items() <= whole.items()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no calibration cache"),
        (b"\x7fELF\xff", "not UTF-8"),
        (b"data: 3c008912\n", "does not begin with TRT-<version>"),
        (SAMPLE.replace(b"\n", b"\r\n"), "does not begin with TRT-<version>"),
        (SAMPLE + b"\n", "line 4 is no tensor and scale"),
        (SAMPLE + b"x 3c010204\n", "line 4 is no tensor and scale"),
        (SAMPLE + b"x: 3c01020\n", "line 4 is no tensor and scale"),
        (SAMPLE + b"x: 3c0102041\n", "line 4 is no tensor and scale"),
        (SAMPLE + b"x: 0x3c0102\n", "line 4 is no tensor and scale"),
        (SAMPLE + b"data: 3c008912\n", "'data' twice"),
        (SAMPLE + b"x: 7fc00000\n", "that of 'x' is nan"),
        (SAMPLE + b"x: 7f800000\n", "that of 'x' is inf"),
        (SAMPLE + b"x: bc010204\n", "that of 'x' is -0.00787"),
        (SAMPLE + b": 3c010204\n", "a tensor named ''"),
    ],
)
def test_damaged_cache(data: bytes, reason: str) -> None:
    with pytest.raises(EngineError, match=re.escape(reason)):
        read(data)
    assert reason in (fits(data, "8.2.1") or "")


def test_cache_of_another_version_or_algorithm() -> None:
    assert fits(SAMPLE, "8.2.1") is None
    assert fits(SAMPLE, "8.5.2") == (
        "it was written for TRT-8201-EntropyCalibration2; this is TRT-8502-EntropyCalibration2"
    )
    assert "MinMaxCalibration" in (fits(SAMPLE, "8.2.1", "MinMaxCalibration") or "")


def test_constants_of_zeros_are_taken_from_tensorrt_and_not_written() -> None:
    data = SAMPLE + b"(Unnamed Layer* 3) [Constant]_output: 00000000\n"
    assert read(data)[1]["(Unnamed Layer* 3) [Constant]_output"] == 0
    assert fits(data, "8.2.1") is None
    with pytest.raises(EngineError, match="scales above 0"):
        to_bytes({"x": 0.0}, "8.2.1")
