"""Bundles of a small network, made by hand: also those that `edgetrt bundle` would never make."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engines.bundle import archive

SIZE, HIDDEN = 32, 48
CLASSES = ["defective", "functional"]
GRAPH = "onnx/model.fp32.onnx"


class Bundle(NamedTuple):
    """A bundle, and what it must answer.

    id: of the release that it becomes.
    pictures: the golden pictures' files.
    answers: for each the probability of each class.
    size: bytes of the files in it.
    """

    file: Path
    id: str
    pictures: list[bytes]
    answers: list[dict[str, float]]
    size: int


class Key(NamedTuple):
    """A key that signs bundles, and the file with its public half."""

    private: ec.EllipticCurvePrivateKey
    public: Path


def new_key(folder: Path, name: str) -> Key:
    """A key of its own; its public half is in `folder/NAME.pub.pem`."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = folder / f"{name}.pub.pem"
    public.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return Key(private, public)


Change = Callable[[dict[str, bytes], dict[str, Any]], None]


def make(
    folder: Path,
    seed: int,
    key: Key,
    pictures: list[bytes],
    before: Change | None = None,
    after: Change | None = None,
) -> Bundle:
    """A bundle whose network has random weights.

    Args:
        folder: where to write it.
        seed: another one, another network.
        pictures: the golden ones.
        before: changes the files by path, or the manifest, before it is signed.
        after: changes them when it has been signed.
    """
    graph, answers = _network(seed, pictures)
    files = {GRAPH: graph, "model/labels.txt": "".join(f"{name}\n" for name in CLASSES).encode()}
    files["licences/edgetrt.txt"] = b"Apache-2.0\n"
    cases = []
    for number, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
        files[f"golden/{number}.png"] = picture
        cases.append({"picture": f"golden/{number}.png", "probabilities": {"fp32": answer}})
    manifest = _manifest(seed, cases)
    manifest["files"] = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in sorted(files.items())
    ]
    if before:
        before(files, manifest)
    signed = _bytes(manifest)
    signature = key.private.sign(signed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    members = {"manifest.json": signed, "manifest.sig": signature, **dict(sorted(files.items()))}
    if after:
        after(members, manifest)
        if _bytes(manifest) != signed:
            members["manifest.json"] = _bytes(manifest)
    file = folder / f"{seed}.edgetrt"
    with file.open("wb") as out:
        archive.write(out, [(path, io.BytesIO(data)) for path, data in members.items()])
    return Bundle(
        file,
        hashlib.sha256(members["manifest.json"]).hexdigest()[:16],
        pictures,
        [dict(zip(CLASSES, answer, strict=True)) for answer in answers],
        sum(len(data) for data in files.values()),
    )


def wrong_answers(files: dict[str, bytes], manifest: dict[str, Any]) -> None:
    """Golden cases that the network does not give."""
    for case in manifest["golden"]["cases"]:
        case["probabilities"]["fp32"].reverse()


def _bytes(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1, sort_keys=True).encode()


def _manifest(seed: int, cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "cells",
        "edgetrt": "0.5.0",
        "made_from": {
            "created": "2026-01-01T00:00:00+00:00",
            "architecture": "random",
            "seed": seed,
            "pictures": 1,
            "dataset_sha256": hashlib.sha256(b"none").hexdigest(),
        },
        "classes": CLASSES,
        "input": {
            "name": "pixels", "height": SIZE, "width": SIZE, "channels": 3, "layout": "NHWC",
            "color": "RGB", "dtype": "uint8", "minimum": 0, "maximum": 255,
        },
        "preprocessing": {
            "recipe": "rgb8-exif-squash/2", "orientation": "EXIF", "resize": "squash",
            "scaling": "in the graph",
        },
        "precisions": ["fp32"],
        "targets": [],
        "accuracy": {},
        "golden": {"tolerance": {"fp32": 0.005}, "cases": cases},
        "licences": [
            {"of": "edgetrt", "licence": "Apache-2.0", "file": "licences/edgetrt.txt"}
        ],
    }  # fmt: skip


def _network(seed: int, pictures: list[bytes]) -> tuple[bytes, list[list[float]]]:
    """A graph of two layers as ONNX, and the probabilities that it gives to pictures."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from engines.preprocess import pixels

    random = np.random.default_rng(seed)
    inputs = SIZE * SIZE * 3
    weights = {
        "scale": np.float32(1 / 255),
        "flat": np.array([0, inputs]),
        "first": random.normal(0, 4 / inputs**0.5, (inputs, HIDDEN)).astype(np.float32),
        "second": random.normal(0, 3 / HIDDEN**0.5, (HIDDEN, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "first"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["features"]),
        helper.make_node("MatMul", ["features", "second"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "random",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", SIZE, SIZE, 3])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
    )
    data = model.SerializeToString()
    batch = np.stack([pixels(picture, SIZE, SIZE) for picture in pictures]).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run(None, {"pixels": batch})[0]
    return data, [[float(value) for value in row] for row in found]
