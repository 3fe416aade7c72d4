"""Whose bundles a device accepts: those signed with the key that it was first given."""

from pathlib import Path
from typing import NamedTuple, Optional

from engines.bundle.signature import fingerprint, verify
from engines.engine import EngineError
from engines.files import write_bytes

SHOWN = 16  # digits of a key's fingerprint that are shown


class Offer(NamedTuple):
    """A bundle's manifest as it was sent, and what the sender says about its signature.

    trust: the public key that the sender goes by, PEM.
    replace_trust: whether that key shall take the place of the device's.
    allow_unsigned: whether a device without a key may take a bundle that nobody signed.
    """

    manifest: bytes
    signature: Optional[bytes]
    trust: Optional[bytes] = None
    replace_trust: bool = False
    allow_unsigned: bool = False


class Trust:
    """The public key in a file, which is pinned by the first deployment."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def fingerprint(self) -> Optional[str]:
        """That of the pinned key; None if there is none.

        Raises:
            BundleError: the file holds no such key.
        """
        pinned = self._pinned()
        return None if pinned is None else fingerprint(pinned)

    def check(self, offer: Offer) -> None:
        """Verify a bundle's signature.

        Raises:
            EngineError: the device doesn't accept it; BundleError: the signature is wrong.
        """
        pinned = self._pinned()
        if pinned is not None and offer.trust is not None and not offer.replace_trust:
            ours, theirs = fingerprint(pinned), fingerprint(offer.trust)
            if ours != theirs:
                raise EngineError(
                    "this device accepts bundles of the key {}, and the key given is {}; "
                    "--replace-trust puts it in its place".format(ours[:SHOWN], theirs[:SHOWN])
                )
        key = offer.trust if offer.replace_trust and offer.trust else pinned or offer.trust
        if key is not None and offer.signature is not None:
            verify(offer.manifest, offer.signature, key)
        elif pinned is not None:
            raise EngineError(
                "the bundle is not signed, and this device accepts only those of the key {}".format(
                    fingerprint(pinned)[:SHOWN]
                )
            )
        elif not offer.allow_unsigned:
            raise EngineError(
                "the bundle is not signed: make it with --key, or allow it with --allow-unsigned"
                if offer.signature is None
                else "this device knows no key yet, and none was given to verify the bundle with; "
                "give the public one with --trust"
            )

    def pin(self, offer: Offer) -> None:
        """Go by the key of a bundle that was checked, if the device is to."""
        signed = offer.trust is not None and offer.signature is not None
        if offer.trust is not None and signed and (offer.replace_trust or not self.file.exists()):
            write_bytes(self.file, offer.trust)

    def _pinned(self) -> Optional[bytes]:
        try:
            return self.file.read_bytes()
        except FileNotFoundError:
            return None
