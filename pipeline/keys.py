"""Signing keys: EC on P-256, which a TX2's OpenSSL 1.1 verifies."""

import os
import tempfile
from pathlib import Path
from typing import Any

from engines.files import TEMPORARY, write_bytes
from engines.text import printable
from pipeline.errors import UsageError

PUBLIC_SUFFIX = ".pub.pem"


def default_key() -> Path:
    """Where `keygen` writes and `bundle` looks if not told otherwise: the user's own folder."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(home) / "edgetrt" / "signing.pem"


def public_path(key: Path) -> Path:
    """Where the public key of a pair lies: signing.pub.pem beside signing.pem."""
    return key.with_suffix(PUBLIC_SUFFIX)


def default_public() -> Path:
    """Where `keygen` writes the public key if not told otherwise."""
    return public_path(default_key())


def key_for(given: Path | None, unsigned: bool) -> Path | None:
    """The key that a bundle is signed with: the one given, else the default; None: unsigned.

    Raises:
        UsageError: there is none, or both are asked for.
    """
    if unsigned:
        if given is not None:
            raise UsageError("--key signs and --unsigned does not; give one of them")
        return None
    key = given or default_key()
    if given is None and not key.is_file():
        raise UsageError(
            f"no key to sign with: edgetrt keygen makes one ({printable(key)}), or give --unsigned"
        )
    return key


def generate(path: Path) -> Path:
    """Make a pair of keys: the private one for this user's eyes only, the public one beside it.

    Of a private key that is there alone the public one is made.

    Returns:
        The path of the public key.

    Raises:
        UsageError: both are there already, as keys are never overwritten; a public one alone; the
            private one is none of ours; or `path` has no name.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not path.name:
        raise UsageError(f"--out {printable(path)} is no file to write a key to")
    public = public_path(path)
    if os.path.lexists(public):
        raise UsageError(f"{printable(public)} is there already; choose another --out")
    if not os.path.lexists(path):
        private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_secret(path, private)
    write_bytes(public, public_of(path))
    return public


def _write_secret(path: Path, data: bytes) -> None:
    """Write a new file for this user's eyes only, whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.link(temporary, path)  # which takes no name that another command was quicker to take
    except FileExistsError:
        raise UsageError(f"{printable(path)} is there already; choose another --out") from None
    finally:
        Path(temporary).unlink()


def sign(data: bytes, key_path: Path) -> bytes:
    """Sign the SHA-256 of `data`; the same data and key give the same signature (RFC 6979).

    Returns:
        DER, as `openssl dgst -sha256 -verify` takes it.

    Raises:
        UsageError: the key can't be read, or is none of ours.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    method = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    signature: bytes = _private_key(key_path).sign(data, method)
    return signature


def public_of(key_path: Path) -> bytes:
    """The public key, in PEM, of the private one in a file.

    Raises:
        UsageError: see `sign`.
    """
    return _public_pem(_private_key(key_path))


def _private_key(path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    other = f"--key {printable(path)} is no EC key on P-256; make one: edgetrt keygen"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise UsageError(f"--key {printable(path)}: {error.strerror}") from error
    except TypeError as error:
        raise UsageError(
            f"--key {printable(path)} is encrypted; give one that is not (openssl pkey -in ...)"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"--key {printable(path)} is no private key in PEM; make one: edgetrt keygen"
        ) from error
    except UnsupportedAlgorithm as error:
        raise UsageError(other) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(other)
    return key


def _public_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem
