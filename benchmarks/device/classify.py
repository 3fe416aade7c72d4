"""`classify`: pictures -> their most likely classes."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from benchmarks.device import engines_here
from benchmarks.device.folder import Folder, WrongUseError
from engines.picture_file import PictureError
from engines.preprocess import load

TOP = 5
FASTEST_FIRST = ("fp16", "int8", "fp32")  # where nothing was measured


def classify(folder: Folder, name: Optional[str], pictures: Sequence[Path]) -> List[Dict[str, Any]]:
    """The five most likely classes of each picture.

    Args:
        name: of the engine; None for TensorRT's in FP16, or what comes next to it.

    Returns:
        For each picture, "path", "engine" and "top": classes with probabilities, the likeliest
        first; or "path" and "error" for one that can't be used.
    """
    labels = folder.labels()
    name = name or _default(folder)
    found = []  # type: List[Dict[str, Any]]
    with engines_here.load(folder, name) as engine:
        _, height, width, _ = engine.input.shape
        for path in pictures:
            try:
                pixels = load(path, int(height or 0), int(width or 0))
            except PictureError as error:
                found.append({"path": str(path), "error": str(error)})
                continue
            probabilities = engine.infer(pixels[np.newaxis])[0]
            best = np.argsort(-probabilities)[:TOP]
            top = [{"label": labels[n], "probability": float(probabilities[n])} for n in best]
            found.append({"path": str(path), "engine": name, "top": top})
    return found


def _default(folder: Folder) -> str:
    good, _ = engines_here.names(folder)
    for precision in FASTEST_FIRST:
        for name in good:
            if name.startswith("tensorrt-" + precision):
                return name
    if not good:
        raise WrongUseError("no engine of {} runs here; run: build --run DIR".format(folder.path))
    return good[-1]
