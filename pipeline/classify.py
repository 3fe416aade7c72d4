"""Pictures -> their most likely classes, from any engine of a run."""

from pathlib import Path
from typing import Any

from benchmarks.classify import likeliest
from engines.catalogue import TENSORFLOW, cannot_run, is_made_of, load_engine, read_sidecars
from engines.engine import Engine
from engines.tensorflow_graph import load as load_tensorflow
from engines.text import printable
from pipeline.compare import read_report
from pipeline.errors import UsageError
from pipeline.report.verdict import verdict
from pipeline.run import Run, command_for


def classify(run: Run, engine_name: str | None, pictures: list[Path]) -> list[dict[str, Any]]:
    """The five most likely classes of each picture.

    Args:
        engine_name: as in the report ("openvino-int8"), or a backend for its FP32 engine; None
            for the one that the report speaks for, or TensorFlow where there is no report.

    Returns:
        For each picture, "path" and "top": classes with probabilities, the likeliest first; or
        "path" and "error" for one that can't be used.

    Raises:
        UsageError: no such engine in this run, it can't run here, or it is of an older model.
    """
    run.require("retrain")
    labels = run.labels.read_text("utf-8", "surrogateescape").splitlines()
    with _open(run, _best(run) if engine_name is None else engine_name) as engine:
        return likeliest(engine, labels, pictures)


def _best(run: Run) -> str:
    """The name of the fastest engine here that lost no accuracy, by the report of this model."""
    try:
        run.require("compare")
    except UsageError:
        return TENSORFLOW
    best = verdict(read_report(run)["engines"]).engine
    if best is None or best["name"] not in {s["name"] for s in _runnable(run)}:
        return TENSORFLOW
    return str(best["name"])


def _open(run: Run, name: str) -> Engine:
    if name in (TENSORFLOW, f"{TENSORFLOW}-fp32"):
        return load_tensorflow(str(run.frozen_graph))
    runnable = _runnable(run)
    for sidecar in runnable:
        if sidecar["name"] in (name, f"{name}-fp32"):
            run.require("quantize")
            if not is_made_of(sidecar, run.folder / "onnx"):
                raise UsageError(
                    f"engine {sidecar['name']} was built from an older model; "
                    f"run: {command_for('build', run.folder)}"
                )
            return load_engine(run.engines, sidecar)
    names = ", ".join([f"{TENSORFLOW}-fp32", *(s["name"] for s in runnable)])
    raise UsageError(
        f"no engine '{printable(name)}' in {run.folder} can run here; there are: {names}"
    )


def _runnable(run: Run) -> list[dict[str, Any]]:
    """The engines of a run that can run here."""
    sidecars = read_sidecars(run.engines) if run.engines.is_dir() else []
    return [s for s in sidecars if s["status"] == "built" and cannot_run(s) is None]
