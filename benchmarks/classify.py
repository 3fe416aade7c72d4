"""Pictures -> their most likely classes."""

from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np

from engines.engine import Engine, EngineError
from engines.picture_file import PictureError
from engines.preprocess import load

TOP = 5


def likeliest(
    engine: Engine, labels: Sequence[str], pictures: Sequence[Path]
) -> List[Dict[str, Any]]:
    """The five most likely classes of each picture.

    Args:
        labels: names of the classes, in the order of the engine's answer.

    Returns:
        For each picture "path" and "top": classes with probabilities, the likeliest first; or
        "path" and "error" for one that can't be used.

    Raises:
        EngineError: the labels are not the engine's.
    """
    _, height, width, _ = engine.input.shape
    check_labels("the engine", engine, labels)
    found: List[Dict[str, Any]] = []
    for path in pictures:
        try:
            pixels = load(path, int(height or 0), int(width or 0))
        except PictureError as error:
            found.append({"path": str(path), "error": str(error)})
            continue
        probabilities = engine.infer(pixels[np.newaxis])[0]
        best = np.argsort(-probabilities)[:TOP]
        top = [{"label": labels[n], "probability": float(probabilities[n])} for n in best]
        found.append({"path": str(path), "top": top})
    return found


def check_labels(name: str, engine: Engine, labels: Sequence[str]) -> None:
    """Raise EngineError unless an engine answers with one probability for each label.

    Args:
        name: of the engine, for the message.
    """
    if engine.output.shape[1:] != (len(labels),):
        raise EngineError(
            "{} knows {} classes, and there are {} labels; they are of different models".format(
                name, engine.output.shape[1], len(labels)
            )
        )
