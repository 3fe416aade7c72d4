"""Bundles of tiny networks, and installing them as the device program does."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from serving import CLASSES, HEIGHT, WIDTH, expected, manifest_of, network, png

from benchmarks.device.release.content import Missing
from benchmarks.device.release.engines import Asked
from benchmarks.device.release.install import Means, Request, install
from benchmarks.device.release.steps import Steps
from benchmarks.device.release.store import Store
from benchmarks.device.release.trust import Offer
from benchmarks.progress import Console
from engines.bundle.manifest import release_id

ENGINE = "onnxruntime-fp32"
ASKED = Asked(["onnxruntime"], ["fp32"])
GRAPH = "onnx/model.fp32.onnx"


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where syncing takes no time."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


class Key:
    """A key that signs."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.public = self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data, ec.ECDSA(hashes.SHA256()))


class Made(NamedTuple):
    """A bundle in memory; `files` by path."""

    manifest: bytes
    signature: bytes | None
    files: dict[str, bytes]

    @property
    def id(self) -> str:
        return release_id(self.manifest)

    def by_hash(self) -> dict[str, bytes]:
        return {hashlib.sha256(data).hexdigest(): data for data in self.files.values()}

    def source(self, missing: Missing) -> BinaryIO:
        return io.BytesIO(self.by_hash()[missing.file.sha256][missing.offset :])

    def offer(self, **options: Any) -> Offer:
        return Offer(self.manifest, self.signature, **{"allow_unsigned": True, **options})

    def request(self, **options: Any) -> dict[str, Any]:
        """As the host's line has it."""
        signature = None if self.signature is None else base64.b64encode(self.signature).decode()
        return {
            "protocol": 1, "do": "deploy", "signature": signature, "trust": None,
            "manifest": base64.b64encode(self.manifest).decode(), "replace_trust": False,
            "allow_unsigned": True, "engines": ["onnxruntime"], "precisions": ["fp32"],
            "keep": 3, "serve": None, "dry_run": False, **options,
        }  # fmt: skip


def bundle(
    scale: float = 0.01,
    key: Key | None = None,
    wrong: bool = False,
    padding: int = 0,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Made:
    """A bundle whose network answers by `scale`.

    Args:
        wrong: its golden cases expect something else.
        padding: bytes of a licence, which make it larger.
        change: of the manifest, before it is signed.
    """
    picture = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    files = {
        "golden/0.png": png(picture),
        GRAPH: network(scale),
        "licences/padding.txt": np.random.default_rng(5).bytes(padding),
        "model/labels.txt": "\n".join(CLASSES).encode(),
    }
    answers = expected(picture[np.newaxis], -5 * scale if wrong else scale)[0]
    document = manifest_of(files, answers.tolist(), (HEIGHT, WIDTH))
    if change is not None:
        change(document)
    manifest = json.dumps(document).encode()
    return Made(manifest, key.sign(manifest) if key else None, files)


def deploy(
    root: Path, made: Made, events: list[dict[str, Any]] | None = None, **options: Any
) -> dict[str, Any]:
    """Install a bundle in this process; what was told is added to `events`."""
    offer = options.pop("offer", None) or made.offer()
    asked = options.pop("asked", ASKED)
    source = options.pop("source", made.source)
    alone = options.pop("alone", lambda: None)
    steps = Steps((events if events is not None else []).append)
    means = Means(source, steps, Console(quiet=True), alone)
    try:
        return install(Store(root), Request(offer, asked, **options), means)
    except BaseException as error:
        error.steps = steps  # type: ignore[attr-defined]
        raise
