"""Bundles by hand, of the device program's own small network."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from known import CLASSES, KNOWN

from engines.bundle import archive
from engines.bundle.manifest import GRAPHS, MANIFEST, SIGNATURE

PRECISIONS = ("fp32", "fp16", "int8")
SIDE = 40  # of the small network's pictures


def contents() -> dict[str, bytes]:
    """What lies in a bundle, by path."""
    graphs = {graph for precision in PRECISIONS for graph in GRAPHS[precision]}
    graphs.add("onnx/model.int8-fp16.onnx")
    return {
        "golden/0.png": (KNOWN / "picture.png").read_bytes(),
        "licences/edgetrt.txt": b"Apache-2.0\n",
        "model/labels.txt": "".join(f"{name}\n" for name in CLASSES).encode(),
        **{path: (KNOWN / Path(path).name).read_bytes() for path in sorted(graphs)},
    }


def describe(files: dict[str, bytes]) -> dict[str, Any]:
    """A manifest of those files that is right in every field."""
    return {
        "schema": 1,
        "name": "small",
        "edgetrt": "0.1.0",
        "made_from": {
            "created": "2026-01-02T03:04:05Z",
            "architecture": "efficientnet_lite0",
            "seed": 0,
            "pictures": 80,
            "dataset_sha256": "0" * 64,
        },
        "classes": list(CLASSES),
        "input": {
            "name": "pixels",
            "height": SIDE,
            "width": SIDE,
            "channels": 3,
            "layout": "NHWC",
            "color": "RGB",
            "dtype": "uint8",
            "minimum": 0,
            "maximum": 255,
        },
        "preprocessing": {
            "recipe": "rgb8-exif-squash/2",
            "orientation": "upright",
            "resize": "squashed",
            "scaling": "in the graph",
        },
        "precisions": list(PRECISIONS),
        "targets": [],
        "accuracy": {"onnxruntime-fp32": {"top1": 0.75, "pictures": 20}},
        "golden": {
            "tolerance": {"fp32": 0.005, "fp16": 0.02, "int8": 0.08},
            "cases": [
                {
                    "picture": "golden/0.png",
                    "probabilities": {precision: [0.5, 0.25, 0.25] for precision in PRECISIONS},
                }
            ],
        },
        "licences": [
            {"of": "edgetrt", "licence": "Apache-2.0", "file": "licences/edgetrt.txt"},
        ],
        "files": [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in sorted(files.items())
        ],
    }


def encode(manifest: Any) -> bytes:
    return json.dumps(manifest, indent=1, sort_keys=True).encode()


def pack(manifest: bytes, files: dict[str, bytes], signature: bytes | None = None) -> bytes:
    """A bundle's bytes; nothing is checked."""
    head = [(MANIFEST, manifest)] + ([] if signature is None else [(SIGNATURE, signature)])
    out = io.BytesIO()
    members = [*head, *sorted(files.items())]
    archive.write(out, [(name, io.BytesIO(data)) for name, data in members])
    return out.getvalue()


def unpack(bundle: archive.Bundle, folder: Path) -> None:
    """Write a bundle's files into a folder."""
    for file in bundle.manifest.files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        with bundle.open(file.path) as stream:
            (folder / file.path).write_bytes(stream.read())


def small(signature: bytes | None = None) -> bytes:
    """A whole bundle."""
    return pack(encode(describe(contents())), contents(), signature)
