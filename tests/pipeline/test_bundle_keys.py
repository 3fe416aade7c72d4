"""Signing keys: secret, never overwritten, and of one kind only."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from engines.bundle.signature import fingerprint, verify
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.keys import default_key, default_public, generate, public_of, sign


def test_a_pair(tmp_path: Path) -> None:
    key = tmp_path / "new" / "signing.pem"
    before = os.umask(0)
    try:
        public = generate(key)
    finally:
        os.umask(before)
    assert public == tmp_path / "new" / "signing.pub.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert b"PRIVATE" not in public.read_bytes()
    assert public_of(key) == public.read_bytes()
    done = subprocess.run(
        ["openssl", "pkey", "-in", key, "-noout", "-text"], capture_output=True, text=True
    )
    assert "P-256" in done.stdout


@pytest.mark.parametrize("out", ["/", "."])
def test_no_file_to_write_to(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "--out", out]) == 2
    assert "--out" in capsys.readouterr().err


def test_signing_is_the_same_every_time_and_verified(tmp_path: Path) -> None:
    public = generate(tmp_path / "a.pem")
    generate(tmp_path / "b.pem")
    signature = sign(b"data", tmp_path / "a.pem")
    assert signature == sign(b"data", tmp_path / "a.pem")
    assert signature != sign(b"data", tmp_path / "b.pem")
    verify(b"data", signature, public.read_bytes())


def test_rfc_6979(tmp_path: Path) -> None:
    """The key and the signature of "sample" in RFC 6979, A.2.5."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    secret = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    key = ec.derive_private_key(secret, ec.SECP256R1())
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    assert utils.decode_dss_signature(sign(b"sample", tmp_path / "key.pem")) == (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key.pem"
    assert main(["keygen", "--out", str(key)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["keygen", "--out", str(key)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    key.unlink()  # the public one is still somebody's
    assert main(["keygen", "--out", str(key)]) == 2
    assert not key.exists()
    (tmp_path / "link.pem").symlink_to(tmp_path / "nowhere")
    assert main(["keygen", "--out", str(tmp_path / "link.pem")]) == 2
    assert not (tmp_path / "nowhere").exists()


def test_half_a_pair_is_completed_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.keys.write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            generate(tmp_path / "key.pem")
    private = (tmp_path / "key.pem").read_bytes()
    public = generate(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == private
    assert public.read_bytes() == public_of(tmp_path / "key.pem")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["key.pem", "key.pub.pem"]


def test_command_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["keygen", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {
        "key": str(default_key()),
        "public": str(default_public()),
        "fingerprint": fingerprint(default_public().read_bytes()),
    }
    secret = default_key().read_text().splitlines()[1]
    assert secret not in told.out + told.err
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_key() == Path("/home/someone/.config/edgetrt/signing.pem")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "no EC key on P-256"),
        (["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "no EC key on P-256"),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp112r1"], "no EC key on P-256"),
        (["-algorithm", "ED25519"], "no EC key on P-256"),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256",
          "-pass", "pass:secret"], "is encrypted"),
        (None, "no private key in PEM"),
    ],
)  # fmt: skip
def test_keys_of_another_kind(kind: list[str] | None, reason: str, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("nothing")
    if kind is not None:
        subprocess.run(["openssl", "genpkey", "-out", key, *kind], check=True, capture_output=True)
    with pytest.raises(UsageError, match=reason):
        sign(b"data", key)
    with pytest.raises(UsageError, match="No such file"):
        sign(b"data", tmp_path / "nowhere")


def test_a_public_key_signs_nothing(tmp_path: Path) -> None:
    public = generate(tmp_path / "key.pem")
    with pytest.raises(UsageError, match="no private key"):
        sign(b"data", public)
