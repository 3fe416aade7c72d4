"""Who made a bundle: ECDSA on P-256 over the manifest, verified by the openssl program.

OpenSSL 1.1 of a TX2's JetPack 4 does so too, and no Python package is needed.
"""

import base64
import binascii
import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

from engines.bundle.manifest import BundleError

MAX_SIGNATURE = 72  # bytes of a DER signature: two numbers of at most 33 bytes, and their headers
MAX_KEY = 4096  # bytes of a PEM file
SECONDS = 60  # that openssl may take

# How the DER of every uncompressed public key on P-256 begins (RFC 5480); the point's two
# coordinates follow, of 32 bytes each.
_P256 = binascii.unhexlify("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_PEM = re.compile(
    r"\s*-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*", re.ASCII
)


def verify(data: bytes, signature: bytes, public_key_pem: bytes) -> None:
    """Check that the holder of a key signed `data`.

    Args:
        signature: DER, over the SHA-256 of `data`.
        public_key_pem: an EC key on P-256, "BEGIN PUBLIC KEY".

    Raises:
        BundleError: the signature is of other data or by another key, the key is none of that
            kind, or openssl is missing.
    """
    der = _der(public_key_pem)
    if not 0 < len(signature) <= MAX_SIGNATURE:
        raise BundleError("the bundle's signature is damaged; make or fetch it again")
    # What openssl reads is written anew: a PEM file may hold more than the key that was looked at.
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(der) + b"-----END PUBLIC KEY-----\n"
    with tempfile.TemporaryDirectory() as folder:
        key_file, signature_file = Path(folder, "key.pem"), Path(folder, "manifest.sig")
        key_file.write_bytes(pem)
        signature_file.write_bytes(signature)
        command = ["openssl", "dgst", "-sha256", "-verify", str(key_file)]
        command += ["-signature", str(signature_file)]
        try:
            done = subprocess.run(
                command,
                input=data,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=SECONDS,
            )
        except FileNotFoundError:
            raise BundleError(
                "the program openssl is missing, which verifies the bundle's signature; install it"
            ) from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BundleError("openssl can't verify the signature: {}".format(error)) from error
    if done.returncode == 0 and done.stdout.strip() == b"Verified OK":
        return
    if b"verif" in done.stdout.lower():
        raise BundleError(
            "the signature is not by the key {} for this bundle: it was changed, or signed by "
            "someone else, whose public key is for --trust".format(fingerprint(public_key_pem)[:16])
        )
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
    raise BundleError("openssl can't verify the signature: {}".format(lines[-1]))


def fingerprint(public_key_pem: bytes) -> str:
    """SHA-256 of a public key's DER, in hexadecimal, for people to compare.

    Raises:
        BundleError: it is no EC key on P-256.
    """
    return hashlib.sha256(_der(public_key_pem)).hexdigest()


def _der(public_key_pem: bytes) -> bytes:
    wrong = BundleError("the key is no public EC key on P-256 in PEM; make a pair: edgetrt keygen")
    if len(public_key_pem) > MAX_KEY:
        raise wrong
    try:
        found = _PEM.fullmatch(public_key_pem.decode("ascii"))
        der = base64.b64decode("".join(found.group(1).split()), validate=True) if found else b""
    except ValueError:  # binascii.Error and UnicodeDecodeError are both
        raise wrong from None
    if len(der) != len(_P256) + 64 or not der.startswith(_P256):
        raise wrong
    return der
