"""Signatures, as the openssl program judges them."""

from __future__ import annotations

import base64
import hashlib
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engines.bundle.manifest import BundleError
from engines.bundle.signature import fingerprint, verify

DATA = b'{"schema": 1}'
# The private key 1, whose public one is the generator of P-256 (FIPS 186-4, D.1.2.3).
GENERATOR = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
"""


class Pair(NamedTuple):
    """A pair of keys that openssl made, and its signature of `DATA`."""

    private: Path
    public: bytes
    signature: bytes


def openssl(*arguments: object, given: bytes = b"") -> bytes:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


def make(folder: Path, *kind: str) -> Pair:
    private = folder / "key.pem"
    openssl("genpkey", "-out", private, *kind)
    public = openssl("pkey", "-in", private, "-pubout")
    signed = () if "ED25519" in kind else ("dgst", "-sha256", "-sign", private)
    return Pair(private, public, openssl(*signed, given=DATA) if signed else bytes(64))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("keys")
    return make(folder, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def test_openssl_signs_and_it_is_verified(pair: Pair) -> None:
    verify(DATA, pair.signature, pair.public)
    verify(DATA, pair.signature, pair.public.replace(b"\n", b"\r\n"))


def test_large_data(pair: Pair) -> None:
    data = bytes(16 << 20)
    signature = openssl("dgst", "-sha256", "-sign", pair.private, given=data)
    verify(data, signature, pair.public)


def test_other_data_or_key(pair: Pair) -> None:
    for data in (DATA + b" ", b"", DATA[:-1], DATA.upper()):
        with pytest.raises(BundleError, match="was changed, or signed by someone else"):
            verify(data, pair.signature, pair.public)
    with pytest.raises(BundleError, match="signed by someone else"):
        verify(DATA, pair.signature, GENERATOR)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data())
def test_any_other_bit_of_the_signature(pair: Pair, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, 8 * len(pair.signature) - 1))
    bad = bytearray(pair.signature)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BundleError, match="signature|openssl"):
        verify(DATA, bytes(bad), pair.public)


@pytest.mark.parametrize(
    "signature",
    [b"", b"\0", bytes(72), bytes(73), bytes(10**6), bytes.fromhex("3006020100020100"),
     bytes.fromhex("3006020101020101"), b"\x30\x84\xff\xff\xff\xff"],
)  # fmt: skip
def test_no_signature_at_all(signature: bytes, pair: Pair) -> None:
    with pytest.raises(BundleError, match="signature"):
        verify(DATA, signature, pair.public)


def test_signatures_may_not_go_on(pair: Pair) -> None:
    with pytest.raises(BundleError):
        verify(DATA, pair.signature + b"\0" * (72 - len(pair.signature) or 1), pair.public)


@pytest.mark.parametrize(
    "kind",
    [
        ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
        ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt",
         "ec_param_enc:explicit"],
        ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        ["-algorithm", "ED25519"],
    ],
)  # fmt: skip
def test_keys_of_another_kind(kind: list[str], tmp_path: Path) -> None:
    other = make(tmp_path, *kind)
    with pytest.raises(BundleError, match="no public EC key on P-256"):
        verify(DATA, other.signature, other.public)


def test_no_key_at_all(pair: Pair) -> None:
    lines = GENERATOR.splitlines(keepends=True)
    bad = [
        b"", b"x", pair.private.read_bytes(), pair.public + pair.public, b"\xff" + GENERATOR,
        GENERATOR.replace(b"PUBLIC", b"EC PUBLIC"), lines[0] + lines[3], b"".join(lines[:3]),
        GENERATOR.replace(b"MFkw", b"MFk="), GENERATOR + bytes(5000), b"\n" * 10**6,
        GENERATOR.replace(b"MFkw", "MFkẁ".encode()),
    ]  # fmt: skip
    for key in bad:
        with pytest.raises(BundleError, match="no public EC key on P-256"):
            verify(DATA, pair.signature, key)


@pytest.mark.parametrize("change", ["longer", "shorter", "other curve", "compressed", "no zeros"])
def test_der_that_is_almost_right(change: str) -> None:
    der = base64.b64decode(b"".join(GENERATOR.splitlines()[1:-1]))
    changed = {
        "longer": der + b"\0",
        "shorter": der[:-1],
        "other curve": der[:22] + b"\x06" + der[23:],
        "compressed": der[:26] + b"\x02" + der[27:],
        "no zeros": der[:25] + b"\1" + der[26:],
    }[change]
    head, *_, tail = GENERATOR.splitlines(keepends=True)
    fingerprint(head + base64.encodebytes(der) + tail)
    with pytest.raises(BundleError, match="no public EC key on P-256"):
        fingerprint(head + base64.encodebytes(changed) + tail)


def test_point_that_is_not_on_the_curve(pair: Pair) -> None:
    with pytest.raises(BundleError, match="openssl can't verify"):
        verify(DATA, pair.signature, GENERATOR.replace(b"N79R9Q", b"N79R9A"))


@settings(max_examples=200)
@given(st.binary(max_size=300))
@example(GENERATOR[:-20])
def test_any_bytes_for_a_key(key: bytes) -> None:
    with pytest.raises(BundleError):
        fingerprint(key)


def test_fingerprint_is_that_of_the_der(pair: Pair) -> None:
    der = openssl("pkey", "-pubin", "-outform", "DER", given=pair.public)
    assert fingerprint(pair.public) == hashlib.sha256(der).hexdigest()


def program(folder: Path, script: str) -> None:
    file = folder / "openssl"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "openssl is missing"),
        ("exit 0", "can't verify the signature: no reason given"),
        ("echo Verified OK; exit 1", "signed by someone else"),
        ("echo Verification Failure; exit 0", "signed by someone else"),
        (
            "echo libssl.so.1.1: not found >&2; exit 127",
            "can't verify .*: libssl.so.1.1: not found",
        ),
        ("kill -9 $$", "can't verify"),
    ],
)
def test_openssl_that_does_not_work(
    script: str | None, reason: str, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if script is not None:
        program(tmp_path, script)
    with pytest.raises(BundleError, match=reason):
        verify(DATA, pair.signature, pair.public)


def test_openssl_that_hangs(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("engines.bundle.signature.SECONDS", 0.3)
    with pytest.raises(BundleError, match="can't verify .* timed out"):
        verify(DATA, pair.signature, pair.public)
