"""Engines x test pictures -> report.json: how right and how fast each one is."""

import hashlib
import json
import platform
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import flags
from benchmarks.measure import BATCH, REFERENCE, SCHEMA, Entry, Picture, entry_of, measure
from benchmarks.progress import Console
from benchmarks.scenarios import Work
from engines.catalogue import (
    TENSORFLOW,
    backends_here,
    cannot_run,
    is_made_of,
    load_engine,
    read_sidecars,
)
from engines.engine import Engine, EngineError
from engines.files import TEMPORARY, write_json
from engines.flags import flags_of
from engines.settings import Settings
from engines.tensorflow_graph import load as load_tensorflow
from engines.text import printable
from pipeline import loader, publish
from pipeline.dataset import Dataset
from pipeline.machine import machine
from pipeline.retrain import trained_dataset
from pipeline.run import STAGES, Outcome, Run, versions


def compare(run: Run, work: Work, console: Console) -> dict[str, Any]:
    """Stage 5: run every engine that can run here, and TensorFlow, on the whole test split.

    Args:
        work: what to measure, and how thoroughly.

    Returns:
        The report, as it is written to report/report.json, its page and tables beside it.
    """
    run.require("build")
    dataset = trained_dataset(run)
    report: dict[str, Any] = {}

    def perform() -> Outcome:
        start = time.monotonic()
        report.update(_report(run, dataset, work, console))
        report["stages"]["compare"] = round(time.monotonic() - start, 3)
        write_json(run.report, report, indent=None)
        return Outcome([run.report], {})

    files = [path for path in run.engines.iterdir() if path.is_file()]
    engines = [path for path in files if not path.name.startswith(TEMPORARY)]
    decided_by = {
        "schema": SCHEMA,
        "scenarios": work.scenarios,
        "effort": work.effort.name,
        "pictures": dataset.fingerprint(),
        "dataset": _digest(_dataset_entry(dataset)),  # counts, rejected files, their source
        "machine": machine(),
        "accuracy_guard": _digest(run.stage("quantize")["results"].get("accuracy_guard")),
        "available": backends_here(),
        "build": _digest(run.stage("build")["options"]),  # as the report says how to do it again
    }
    run.perform("compare", [run.frozen_graph, *sorted(engines)], decided_by, perform, console)
    if report or not publish.is_there(run.report.parent):
        # No part of the stage: a page that is gone is no reason to measure again.
        publish.write(report or read_report(run), run.report.parent)
    return report or read_report(run)


def read_report(run: Run) -> dict[str, Any]:
    """The report that an earlier comparison wrote."""
    from pipeline.files import read_json

    report: dict[str, Any] = read_json(run.report)
    return report


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _report(run: Run, dataset: Dataset, work: Work, console: Console) -> dict[str, Any]:
    sidecars = {sidecar["name"]: sidecar for sidecar in read_sidecars(run.engines)}
    entries = [_tensorflow_entry(run), *map(entry_of, sidecars.values())]
    test = dataset.split("test")
    labels = {name: number for number, name in enumerate(dataset.classes)}
    pictures = [
        Picture(p.path, Path(dataset.root, p.path), p.sha256, labels[p.label]) for p in test
    ]
    with ExitStack() as stack:
        engines: dict[str, Engine] = {}
        for entry in entries:
            engine = _load(run, entry, sidecars.get(entry["name"]))
            if engine is not None:
                engines[entry["name"]] = stack.enter_context(engine)
        _, height, width, _ = engines[REFERENCE].input.shape
        size = int(height or 0), int(width or 0)
        report = measure(
            entries,
            engines,
            pictures,
            lambda: loader.batches(dataset, test, size, BATCH),
            dataset.classes,
            work,
            console,
        )
    retrained, quantized = run.stage("retrain")["options"], run.stage("quantize")["results"]
    return {
        **report,
        "run": {
            "name": run.folder.resolve().name,
            "architecture": retrained["architecture"],
            "seed": retrained["seed"],
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "dataset": _dataset_entry(dataset) | report["dataset"],
        "int8_head": quantized["int8_head"] | {"backend": quantized["backend"]},
        "accuracy_guard": quantized.get("accuracy_guard"),
        "stages": {name: run.stage(name)["seconds"] for name in STAGES if run.stage(name)},
        "environment": environment(),
        "reproduce": _commands(run, dataset, work),
    }


def _tensorflow_entry(run: Run) -> Entry:
    return entry_of(
        {
            "name": REFERENCE,
            "backend": TENSORFLOW,
            "precision": "fp32",
            "target": "cpu",
            "status": "built",
            "size_bytes": run.frozen_graph.stat().st_size,
        }
    )


def _load(run: Run, entry: Entry, sidecar: dict[str, Any] | None) -> Engine | None:
    """The engine of an entry, if it can run here; else the entry says why not."""
    if sidecar is None:
        return load_tensorflow(str(run.frozen_graph))
    if entry["status"] != "built":
        return None
    if not is_made_of(sidecar, run.folder / "onnx"):
        entry.update(status="unavailable", reason="built from an older model; run edgetrt build")
        return None
    elsewhere = cannot_run(sidecar)
    if elsewhere is not None:
        entry["reason"] = "; ".join(filter(None, [entry["reason"], elsewhere]))
        return None
    try:
        return load_engine(run.engines, sidecar)
    except EngineError as error:
        entry.update(status="unavailable", reason=printable(error))
        return None


def _dataset_entry(dataset: Dataset) -> dict[str, Any]:
    return {
        "images": len(dataset.pictures),
        **{split: len(dataset.split(split)) for split in ("train", "validation")},
        "rejected": len(dataset.rejected),
        "rejected_pictures": [{"path": r.path, "reason": r.reason} for r in dataset.rejected],
        "per_class": dataset.counts(),
        **({"source": dataset.source} if dataset.source else {}),
    }


def _commands(run: Run, dataset: Dataset, work: Work) -> list[str]:
    """What to type to make this report again."""
    import shlex

    retrained = run.stage("retrain")["options"]
    quantized, built = (run.stage(name)["options"] for name in ("quantize", "build"))
    budget = quantized.get("max_accuracy_drop")
    command = [
        "edgetrt", "run", "--image-dir", dataset.root, "--run", str(run.folder),
        "--architecture", retrained["architecture"], "--weights", retrained["weights"],
        "--how-many-training-steps", str(retrained["steps"]),
        "--learning-rate", str(retrained["learning_rate"]),
        "--train-batch-size", str(retrained["batch_size"]),
        "--testing-percentage", f"{retrained['testing']:g}",
        "--validation-percentage", f"{retrained['validation']:g}", "--seed", str(retrained["seed"]),
        "--calibration-images", str(quantized["calibration_images"]),
        "--method", quantized["method"], *([] if quantized["int8_head"] else ["--no-int8-head"]),
        *([] if budget is None else ["--max-accuracy-drop", str(budget)]),
        "--engine", ",".join(built["backends"]), "--precision", ",".join(built["precisions"]),
        "--target", ",".join(built["targets"]), *flags_of(_settings(built)),
        *flags.flags_of(work),
    ]  # fmt: skip
    return [shlex.join(command)]


def _settings(built: dict[str, Any]) -> Settings:
    """The settings of a build, as run.json has them."""
    workspace, (smallest, best, largest), *rest = built["settings"]
    return Settings(workspace, (smallest, best, largest), *rest)


def environment() -> dict[str, Any]:
    """The machine and what is installed on it."""
    return {
        **machine(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **versions(),
    }
