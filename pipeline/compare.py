"""Engines x test pictures -> report.json: how right and how fast each one is."""

import hashlib
import json
import os
import platform
import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.accuracy import compare as compare_answers
from benchmarks.accuracy import measure
from benchmarks.latency import (
    BATCH,
    BATCHES,
    ROUNDS,
    interleaved_latencies,
    interleaved_throughputs,
)
from benchmarks.progress import Console
from benchmarks.statistics import summarize
from engines.catalogue import (
    TENSORFLOW,
    backends_here,
    cannot_run,
    is_made_of,
    load_engine,
    read_sidecars,
)
from engines.engine import Engine, EngineError
from engines.files import TEMPORARY, write_json, write_text
from engines.flags import flags_of
from engines.settings import Settings
from engines.tensorflow_graph import load as load_tensorflow
from engines.text import printable
from pipeline import loader
from pipeline.dataset import Dataset
from pipeline.machine import machine
from pipeline.retrain import misclassified, trained_dataset
from pipeline.run import STAGES, Outcome, Run, versions

SCHEMA = 1
REFERENCE = "tensorflow-fp32"


def compare(run: Run, console: Console) -> dict[str, Any]:
    """Stage 5: run every engine that can run here, and TensorFlow, on the whole test split.

    Returns:
        The report, as it is written to report/report.json (see docs in README).
    """
    from pipeline.report.page import render

    run.require("build")
    dataset = trained_dataset(run)
    report: dict[str, Any] = {}

    def work() -> Outcome:
        start = time.monotonic()
        report.update(_report(run, dataset, console))
        report["stages"]["compare"] = round(time.monotonic() - start, 3)
        write_json(run.report, report)
        write_text(run.report_page, render(report))
        return Outcome([run.report, run.report_page], {})

    files = [path for path in run.engines.iterdir() if path.is_file()]
    engines = [path for path in files if not path.name.startswith(TEMPORARY)]
    options = {
        "schema": SCHEMA,
        "pictures": dataset.fingerprint(),
        "dataset": _digest(_dataset_entry(dataset)),  # counts, rejected files, their source
        "machine": machine(),
        "accuracy_guard": _digest(run.stage("quantize")["results"].get("accuracy_guard")),
        "backends": backends_here(),
        "build": _digest(run.stage("build")["options"]),  # as the report says how to do it again
    }
    run.perform("compare", [run.frozen_graph, *sorted(engines)], options, work, console)
    return report or read_report(run)


def read_report(run: Run) -> dict[str, Any]:
    """The report that an earlier comparison wrote."""
    from pipeline.files import read_json

    report: dict[str, Any] = read_json(run.report)
    return report


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _report(run: Run, dataset: Dataset, console: Console) -> dict[str, Any]:
    entries = [_tensorflow_entry(run), *(_entry(s) for s in read_sidecars(run.engines))]
    with ExitStack() as stack:
        engines: dict[str, Engine] = {}
        for entry in entries:
            engine = _load(run, entry)
            if engine is not None:
                engines[entry["name"]] = stack.enter_context(engine)
        answers = _answers(dataset, entries, engines, console)
        _measure_accuracy(dataset, entries, answers)
        _measure_speed(dataset, entries, engines, console)
    retrained = run.stage("retrain")["options"]
    return {
        "schema": SCHEMA,
        "run": {
            "name": run.folder.resolve().name,
            "architecture": retrained["architecture"],
            "seed": retrained["seed"],
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "dataset": _dataset_entry(dataset),
        "engines": entries,
        "int8_head": run.stage("quantize")["results"]["int8_head"]
        | {"backend": run.stage("quantize")["results"]["backend"]},
        "accuracy_guard": run.stage("quantize")["results"].get("accuracy_guard"),
        "misclassified": misclassified(dataset, dataset.split("test"), answers[REFERENCE]),
        "misclassified_by": REFERENCE,
        "stages": {name: run.stage(name)["seconds"] for name in STAGES if run.stage(name)},
        "environment": environment(),
        "reproduce": _commands(run, dataset),
    }


def _tensorflow_entry(run: Run) -> dict[str, Any]:
    return _entry(
        {
            "name": REFERENCE,
            "backend": TENSORFLOW,
            "precision": "fp32",
            "target": "cpu",
            "status": "built",
            "size_bytes": run.frozen_graph.stat().st_size,
        }
    )


def _entry(sidecar: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "backend", "precision", "target", "status")
    return {
        **{key: sidecar[key] for key in kept},
        "reason": sidecar.get("reason", "") or _forced(sidecar),
        "int8": sidecar.get("depends", {}).get("int8"),
        "batch": sidecar.get("depends", {}).get("batch"),
        "size_bytes": sidecar.get("size_bytes"),
        "build_seconds": sidecar.get("build_seconds"),
        "options": sidecar.get("options", {}),
        "accuracy": None,
        "latency_ms": None,
        "throughput_ips": None,
    }


def _forced(sidecar: dict[str, Any]) -> str:
    against = sidecar.get("options", {}).get("forced")
    return f"built by force: {against}" if against else ""


def _load(run: Run, entry: dict[str, Any]) -> Engine | None:
    """The engine of an entry, if it can run here; else the entry says why not."""
    if entry["backend"] == TENSORFLOW:
        return load_tensorflow(str(run.frozen_graph))
    if entry["status"] != "built":
        return None
    sidecar = next(s for s in read_sidecars(run.engines) if s["name"] == entry["name"])
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


def _answers(
    dataset: Dataset, entries: list[dict[str, Any]], engines: dict[str, Engine], console: Console
) -> dict[str, np.ndarray]:
    """Each engine's probabilities (N, classes) for the test split; each picture decoded once.

    An engine that fails is taken out of `engines`, and its entry says why; without TensorFlow's
    there is nothing to compare.
    """
    pictures = dataset.split("test")
    found: dict[str, list[np.ndarray]] = {name: [] for name in engines}
    with console.progress("accuracy", len(pictures), "pictures") as advance:
        for pixels in loader.batches(dataset, pictures, _size(engines), BATCH):
            for entry in [entry for entry in entries if entry["name"] in engines]:
                name = entry["name"]
                try:
                    found[name].append(engines[name].infer(pixels))
                except EngineError as error:
                    if name == REFERENCE:
                        raise
                    entry.update(status="unavailable", reason=printable(error))
                    engines.pop(name).close()
            advance(len(pixels))
    return {name: np.concatenate(found[name]) for name in engines}


def _measure_accuracy(
    dataset: Dataset, entries: list[dict[str, Any]], answers: dict[str, np.ndarray]
) -> None:
    truth = np.array([dataset.classes.index(p.label) for p in dataset.split("test")])
    reference = answers[REFERENCE].argmax(1)
    for entry in entries:
        if entry["name"] in answers:
            predicted = answers[entry["name"]].argmax(1)
            entry["accuracy"] = {
                **measure(predicted, truth, len(dataset.classes)),
                **compare_answers(predicted, reference, truth),
            }


def _measure_speed(
    dataset: Dataset, entries: list[dict[str, Any]], engines: dict[str, Engine], console: Console
) -> None:
    pictures = dataset.split("test")[:BATCH]
    pixels = np.concatenate(list(loader.batches(dataset, pictures, _size(engines), BATCH)))
    with console.progress("latency", ROUNDS * len(engines), "turns") as advance:
        seconds = interleaved_latencies(engines, pixels, advance)
    batch = np.resize(pixels, (BATCH, *pixels.shape[1:]))  # repeats where there are too few
    with console.progress("throughput", BATCHES * len(engines), "turns") as advance:
        throughput = interleaved_throughputs(engines, batch, advance)
    for entry in entries:
        if entry["name"] in engines:
            samples = [round(value * 1e3, 4) for value in seconds[entry["name"]]]
            entry["latency_ms"] = {**summarize(seconds[entry["name"]]), "samples": samples}
            entry["throughput_ips"] = round(throughput[entry["name"]], 1)
            entry["status"] = "ran"


def _size(engines: dict[str, Engine]) -> tuple[int, int]:
    _, height, width, _ = engines[REFERENCE].input.shape
    return int(height or 0), int(width or 0)


def _dataset_entry(dataset: Dataset) -> dict[str, Any]:
    return {
        "images": len(dataset.pictures),
        "classes": dataset.classes,
        **{split: len(dataset.split(split)) for split in ("train", "validation", "test")},
        "rejected": len(dataset.rejected),
        "rejected_pictures": [{"path": r.path, "reason": r.reason} for r in dataset.rejected],
        "per_class": dataset.counts(),
        **({"source": dataset.source} if dataset.source else {}),
    }


def _commands(run: Run, dataset: Dataset) -> list[str]:
    """What to type to make this report again."""
    import shlex

    options = run.stage("retrain")["options"]
    quantized, built = (run.stage(name)["options"] for name in ("quantize", "build"))
    budget = quantized.get("max_accuracy_drop")
    flags = [
        "edgetrt", "run", "--image-dir", dataset.root, "--run", str(run.folder),
        "--architecture", options["architecture"], "--weights", options["weights"],
        "--how-many-training-steps", str(options["steps"]),
        "--learning-rate", str(options["learning_rate"]),
        "--train-batch-size", str(options["batch_size"]),
        "--testing-percentage", f"{options['testing']:g}",
        "--validation-percentage", f"{options['validation']:g}", "--seed", str(options["seed"]),
        "--calibration-images", str(quantized["calibration_images"]),
        "--method", quantized["method"], *([] if quantized["int8_head"] else ["--no-int8-head"]),
        *([] if budget is None else ["--max-accuracy-drop", str(budget)]),
        "--engine", ",".join(built["backends"]), "--precision", ",".join(built["precisions"]),
        "--target", ",".join(built["targets"]), *flags_of(_settings(built)),
    ]  # fmt: skip
    return [shlex.join(flags)]


def _settings(built: dict[str, Any]) -> Settings:
    """The settings of a build, as run.json has them."""
    workspace, (smallest, best, largest), *rest = built["settings"]
    return Settings(workspace, (smallest, best, largest), *rest)


def environment() -> dict[str, Any]:
    """The machine and what is installed on it."""
    return {
        **machine(),
        "load_1_minute": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **versions(),
    }
