"""Pictures -> their most likely classes, from any engine of a run."""

from pathlib import Path
from typing import Any

import numpy as np

from engines.catalogue import TENSORFLOW, load_engine, read_sidecars, runs_here
from engines.engine import Engine
from engines.preprocess import PictureError, load
from engines.tensorflow_graph import load as load_tensorflow
from pipeline.errors import PipelineError, UsageError, printable
from pipeline.run import Run

TOP = 5


def classify(run: Run, engine_name: str, pictures: list[Path]) -> list[dict[str, Any]]:
    """The five most likely classes of each picture.

    Args:
        engine_name: as in the report ("openvino-int8"), or a backend for its FP32 engine.

    Returns:
        For each picture, "path" and "top": classes with probabilities, the likeliest first; or
        "path" and "error" for one that can't be used.

    Raises:
        UsageError: no such engine in this run, or it can't run here.
        PipelineError: none of the pictures could be used.
    """
    run.require("retrain")
    labels = run.labels.read_text("utf-8", "surrogateescape").splitlines()
    found: list[dict[str, Any]] = []
    with _open(run, engine_name) as engine:
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
            found.append({"path": str(path), "top": top})
    if all("error" in result for result in found):
        first = found[0]
        raise PipelineError(f"{printable(first['path'])}: {first['error']}")
    return found


def _open(run: Run, name: str) -> Engine:
    if name in (TENSORFLOW, f"{TENSORFLOW}-fp32"):
        return load_tensorflow(str(run.frozen_graph))
    sidecars = read_sidecars(run.engines) if run.engines.is_dir() else []
    runnable = [s for s in sidecars if s["status"] == "built" and runs_here(s["backend"])]
    for sidecar in runnable:
        if sidecar["name"] in (name, f"{name}-fp32"):
            return load_engine(run.engines, sidecar)
    names = ", ".join([f"{TENSORFLOW}-fp32", *(s["name"] for s in runnable)])
    raise UsageError(
        f"no engine '{printable(name)}' in {run.folder} can run here; there are: {names}"
    )
