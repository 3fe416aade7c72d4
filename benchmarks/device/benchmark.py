"""`benchmark`: every engine on this device side by side, in latency and accuracy."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from benchmarks import accuracy
from benchmarks.device import engines_here
from benchmarks.device.engines_here import Known
from benchmarks.device.folder import Folder, Labelled
from benchmarks.latency import (
    BATCH,
    BATCHES,
    ROUNDS,
    interleaved_latencies,
    interleaved_throughputs,
)
from benchmarks.progress import Console
from benchmarks.statistics import summarize
from engines.engine import Engine, EngineError
from engines.preprocess import load_good
from engines.tensorrt.runner import GpuTimes, TensorRTEngine
from engines.text import aligned

HEADER = ("engine", "top-1 (95 %)", "agree", "p50 ms", "p99 ms", "GPU ms", "pict./s")
TIMED = 50  # batches of one picture that the GPU's own clock is read for


def benchmark(
    folder: Folder, pictures: Optional[Path], graphs: bool, console: Console
) -> List[Dict[str, Any]]:
    """Measure all engines that run here, TensorFlow among them where it is installed.

    Args:
        pictures: folder of labelled pictures, whose test split is answered; None: latency only,
            on noise.
        graphs: measure TensorRT's engines a second time, with their batches recorded as CUDA
            graphs.

    Returns:
        For each engine "name", "latency_ms" (percentiles, "n"), "throughput_ips" (pictures a
        second), "gpu_ms" (upload, compute, download; TensorRT only), "accuracy" (or None) and
        "forced": why it should not have been built for this GPU (or None).
    """
    test = folder.pictures("test", pictures) if pictures else []
    loaded = engines_here.load_all(folder, console)
    if graphs:
        loaded += _recorded(folder, loaded, console)
    engines = {known.name: engine for known, engine in loaded}
    try:
        rows = _measure(engines, test, len(folder.labels()), console)
    finally:
        for engine in engines.values():
            engine.close()
    forced = {known.name: known.forced for known, _ in loaded}
    return [dict(row, forced=forced[row["name"]]) for row in rows]


def _recorded(
    folder: Folder, loaded: Sequence[Tuple[Known, Engine]], console: Console
) -> List[Tuple[Known, Engine]]:
    """Each of TensorRT's engines again, recorded."""
    found = []
    for known, engine in loaded:
        if isinstance(engine, TensorRTEngine):
            twin: Any = engines_here.load(folder, known)
            twin.graphs = True
            picture = np.zeros((1, *engine.picture), np.uint8)
            try:
                for _ in range(2):
                    twin.infer(picture)
                found.append((known._replace(name=known.name + " (graph)"), twin))
            except EngineError as error:
                console.warn("{}: {}".format(known.name, error))
                twin.close()
    return found


def _measure(
    engines: Dict[str, Engine], test: Sequence[Labelled], classes: int, console: Console
) -> List[Dict[str, Any]]:
    _, height, width, _ = next(iter(engines.values())).input.shape
    size = int(height or 0), int(width or 0)
    answers = _answers(engines, test, size, console)
    pixels = _pixels(test[:BATCH], size)
    with console.progress("latency", ROUNDS * len(engines), "turns") as advance:
        seconds = interleaved_latencies(engines, pixels, advance)
    batch = np.resize(pixels, (BATCH, *pixels.shape[1:]))
    with console.progress("throughput", BATCHES * len(engines), "turns") as advance:
        throughput = interleaved_throughputs(engines, batch, advance)
    rows = []
    for name, engine in engines.items():
        rows.append(
            {
                "name": name,
                "latency_ms": summarize(seconds[name]),
                "throughput_ips": round(throughput[name], 1),
                "gpu_ms": _gpu_times(engine, pixels[:1]),
                "accuracy": _accuracy(name, answers, test, classes),
            }
        )
    return rows


def _answers(
    engines: Dict[str, Engine], test: Sequence[Labelled], size: Any, console: Console
) -> Dict[str, np.ndarray]:
    """The class numbers that each engine gives; each picture is decoded once."""
    found = {name: [] for name in engines}  # type: Dict[str, List[np.ndarray]]
    with console.progress("accuracy", len(test), "pictures") as advance:
        for start in range(0, len(test), BATCH):
            pixels = _pixels(test[start : start + BATCH], size)
            for name, engine in engines.items():
                found[name].append(engine.infer(pixels).argmax(1))
            advance(len(pixels))
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}


def _pixels(pictures: Sequence[Labelled], size: Any) -> np.ndarray:
    if not pictures:
        return np.random.RandomState(0).randint(0, 256, (BATCH, *size, 3)).astype(np.uint8)
    return np.stack([load_good(picture.path, *size) for picture in pictures])


def _gpu_times(engine: Engine, picture: np.ndarray) -> Optional[Dict[str, float]]:
    """Medians of what the GPU's clock says, in milliseconds."""
    if not isinstance(engine, TensorRTEngine):
        return None
    times = np.array([engine.infer_timed(picture)[1] for _ in range(TIMED)])
    return dict(zip(GpuTimes._fields, (round(float(ms), 4) for ms in np.median(times, axis=0))))


def _accuracy(
    name: str, answers: Dict[str, np.ndarray], test: Sequence[Labelled], classes: int
) -> Optional[Dict[str, Any]]:
    if name not in answers:
        return None
    truth = np.array([picture.label for picture in test])
    measured = accuracy.measure(answers[name], truth, classes)
    if engines_here.REFERENCE in answers:
        measured.update(accuracy.compare(answers[name], answers[engines_here.REFERENCE], truth))
    return measured


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """The measured rows for people."""
    lines = [HEADER]
    for row in rows:
        right, gpu = row["accuracy"], row["gpu_ms"]
        interval = "{:.1%} ({:.1%}..{:.1%})".format(right["top1"], *right["ci95"]) if right else ""
        lines.append(
            (
                row["name"],
                interval,
                "{:.1%}".format(right["agreement"]) if right and "agreement" in right else "",
                "{:.2f}".format(row["latency_ms"]["p50"]),
                "{:.2f}".format(row["latency_ms"]["p99"]),
                "{:.2f}".format(gpu["compute"]) if gpu else "",
                "{:.0f}".format(row["throughput_ips"]),
            )
        )
    notes = ["{} was forced: {}".format(r["name"], r["forced"]) for r in rows if r["forced"]]
    return "\n".join([aligned(lines, left=2), *notes])
