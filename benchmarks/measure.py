"""Engines x labelled pictures -> the measured part of a report: how right and how fast each is."""

import hashlib
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from benchmarks import accuracy, conditions, latency, loadgen, power, results
from benchmarks.classify import check_labels
from benchmarks.latency import Timed
from benchmarks.monitor import Monitor
from benchmarks.progress import Console
from benchmarks.scenarios import FROM_FILE, SINGLE_STREAM, Effort, Work
from benchmarks.statistics import interval
from benchmarks.thumbnail import thumbnail
from engines.catalogue import TENSORFLOW
from engines.engine import Engine, EngineError
from engines.text import printable

SCHEMA = 2  # of the report
REFERENCE = TENSORFLOW + "-fp32"  # what every engine is held against
BATCH = 32  # pictures at a time for accuracy; so many are held for the scenarios
FILES = 256  # picture files that the scenario with files goes through
GPU_TIMED = 200  # pictures that the GPU's own clock is read for
MONITOR_HZ = 10.0
SETTLING_SECONDS = {"valid": 5.0, "quick": 0.0}  # in which clocks fall after the pictures
IDLE_SECONDS = {"valid": 10.0, "quick": 1.0}  # that the power of the idle machine is measured for


class Picture(NamedTuple):
    """A labelled picture file.

    name: relative to the folder of all pictures, with "/" between folders.
    file: its path here.
    label: the number of its class.
    """

    name: str
    file: Any
    sha256: str
    label: int


Batches = Callable[[], Iterator[np.ndarray]]
Entry = Dict[str, Any]


def entry_of(sidecar: Dict[str, Any]) -> Entry:
    """An engine's entry in the report, before anything was measured.

    Args:
        sidecar: as `engines.catalogue.read_sidecar` gives it, or what there is of it: "name",
            "backend", "precision", "target" and "status" at least.
    """
    depends, options = sidecar.get("depends", {}), sidecar.get("options", {})
    forced = "built by force: " + options["forced"] if options.get("forced") else ""
    return {
        "name": sidecar["name"],
        "backend": sidecar["backend"],
        "precision": sidecar["precision"],
        "target": sidecar["target"],
        "status": sidecar["status"],
        "reason": sidecar.get("reason", "") or forced,
        "int8": depends.get("int8"),
        "batch": depends.get("batch"),
        "size_bytes": sidecar.get("size_bytes"),
        "build_seconds": sidecar.get("build_seconds"),
        "options": options,
        "accuracy": None,
        "answers": None,
        "scenarios": {},
        "gpu_ms": None,
        "speedup": None,
    }


def digest(pictures: Sequence[Picture], classes: Sequence[str]) -> str:
    """SHA-256 over names, contents and classes: equal where two reports are of the same pictures.

    With it, two reports can be compared picture by picture.
    """
    found = hashlib.sha256()
    for picture in pictures:
        line = "{}\0{}\0{}\n".format(picture.name, picture.sha256, classes[picture.label])
        found.update(line.encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def measure(
    entries: Sequence[Entry],
    engines: Dict[str, Engine],
    pictures: Sequence[Picture],
    batches: Batches,
    classes: Sequence[str],
    work: Work,
    console: Console,
) -> Dict[str, Any]:
    """Measure engines side by side.

    Args:
        entries: of the report, by `entry_of`; those whose name is in `engines` are filled in.
        engines: those that run here, by name. One that fails with the pictures is closed and
            taken out, and its entry says why.
        pictures: the test split; none where there are none: then latency alone is measured, on
            noise.
        batches: gives the pixels of `pictures`, in order, at most `BATCH` at a time.
        classes: their names.

    Returns:
        The report's keys "schema", "effort", "dataset", "engines", "preprocess_ms",
        "conditions", "power", "loadgen", "disagreements" and "layers"; with
        TensorFlow's answers also "misclassified" and "misclassified_by".

    Raises:
        EngineError: TensorFlow's engine is there and fails, none is left, one has another number
            of classes, or one fails once it is timed.
    """
    for name, engine in engines.items():
        check_labels(name, engine, classes)
    given = batches if pictures else lambda: iter([_noise(engines)])
    answers, pixels = _answers(entries, engines, given, len(pictures), console)
    if not engines:
        raise EngineError("no engine ran; nothing was measured")
    if pictures:
        _measure_accuracy(entries, answers, pictures, len(classes))
    else:
        answers = {}
    scenarios = [s for s in work.scenarios if pictures or s != FROM_FILE]
    files = [picture.file for picture in pictures[:FILES]]
    before = conditions.look()
    source, no_power = power.find()
    probes = [conditions.ClocksProbe()] + ([] if source is None else [source])
    preprocess = None
    timed = {}  # type: Dict[str, Dict[str, Timed]]
    with Monitor(probes, MONITOR_HZ) as monitor:
        idle_power = None
        if source is not None:
            time.sleep(SETTLING_SECONDS[work.effort.name])
            idle_power = power.idle(monitor, IDLE_SECONDS[work.effort.name])
        if files:
            preprocess = latency.preprocess(files, pixels.shape[1:3], work.effort)
        for scenario in scenarios:
            turns = latency.rounds_of(scenario, work.effort) * len(engines)
            with console.progress(scenario, turns, "turns") as advance:
                timed[scenario] = latency.measure(
                    scenario, engines, pixels, files, work.effort, advance
                )
        series = monitor.series()
    after = conditions.look()
    different = conditions.differences(before, after)
    for difference in different:
        console.warn(difference)
    _summarize(entries, timed, work.effort, series, source, idle_power)
    for entry in entries:
        if entry["name"] in engines:
            entry["status"] = "ran"
            entry["gpu_ms"] = _gpu_times(engines[entry["name"]], pixels[:1])
    return {
        "schema": SCHEMA,
        "effort": work.effort.name,
        "dataset": {
            "classes": list(classes),
            "test": len(pictures),
            "test_digest": digest(pictures, classes),
            "truth": [picture.label for picture in pictures],
        },
        "engines": list(entries),
        "preprocess_ms": preprocess,
        "conditions": {
            "before": before,
            "after": after,
            "differences": different,
            "series": _rebased(series),
        },
        "power": _power(source, no_power, idle_power, series),
        "loadgen": _loadgen(entries, engines, pixels, work.effort, console),
        "disagreements": _disagreements(answers, pictures, classes),
        "layers": _layers(engines, pixels[:1], console),
        **_misclassified(answers, pictures, classes),
    }


def _answers(
    entries: Sequence[Entry],
    engines: Dict[str, Engine],
    batches: Batches,
    count: int,
    console: Console,
) -> Tuple[Dict[str, np.ndarray], np.ndarray]:
    """Each engine's probabilities (N, classes), and the first pixels; each picture decoded once."""
    found = {name: [] for name in engines}  # type: Dict[str, List[np.ndarray]]
    first = np.zeros(0)
    with console.progress("accuracy", count, "pictures") as advance:
        for pixels in batches():
            first = first if first.size else pixels
            for entry in [entry for entry in entries if entry["name"] in engines]:
                name = entry["name"]
                try:
                    if not found[name]:
                        _try_out(engines[name], pixels)
                    found[name].append(_finite(engines[name].infer(pixels)))
                except EngineError as error:
                    if name == REFERENCE:
                        raise
                    entry.update(status="unavailable", reason=printable(error))
                    engines.pop(name).close()
            advance(len(pixels))
    return {name: np.concatenate(found[name]) for name in engines}, first


def _try_out(engine: Engine, pixels: np.ndarray) -> None:
    """Do what the scenarios will do, so that an engine without the memory for it is found now."""
    for pictures in engine.stream([np.resize(pixels, (BATCH, *pixels.shape[1:]))] * 2):
        _finite(pictures)


def _finite(probabilities: np.ndarray) -> np.ndarray:
    if not np.isfinite(probabilities).all():
        raise EngineError("some of its probabilities are no numbers; was a tensor beyond FP16?")
    return probabilities


def _noise(engines: Dict[str, Engine]) -> np.ndarray:
    _, height, width, _ = next(iter(engines.values())).input.shape
    shape = (BATCH, int(height or 0), int(width or 0), 3)
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def _measure_accuracy(
    entries: Sequence[Entry],
    answers: Dict[str, np.ndarray],
    pictures: Sequence[Picture],
    classes: int,
) -> None:
    truth = np.array([picture.label for picture in pictures])
    for entry in [entry for entry in entries if entry["name"] in answers]:
        given = answers[entry["name"]]
        entry["answers"] = given.argmax(1).tolist()
        entry["accuracy"] = accuracy.measure(given, truth, classes)
        if REFERENCE in answers:
            entry["accuracy"].update(accuracy.compare(given, answers[REFERENCE], truth))


def _summarize(
    entries: Sequence[Entry],
    timed: Dict[str, Dict[str, Timed]],
    effort: Effort,
    series: Dict[str, Any],
    source: Any,
    idle_power: Optional[power.Idle],
) -> None:
    start = series["seconds"][0] if series["seconds"] else 0.0
    for scenario, by_name in timed.items():
        for entry in [entry for entry in entries if entry["name"] in by_name]:
            own = by_name[entry["name"]]
            result = results.summarize(scenario, own, effort)
            result["starts"] = [round(moment - start, 3) for moment in result["starts"]]
            result["throttled_share"] = results.throttled_share(series, own.turns)
            result["energy"] = None
            # By a GPU's sensor alone, what a processor does would cost next to nothing.
            where = "cpu" if entry["target"] == "cpu" else "gpu"
            if idle_power is not None and where in source.sees:
                result["energy"] = power.energy(series, idle_power, own.turns)
            entry["scenarios"][scenario] = result
            if scenario == SINGLE_STREAM and REFERENCE in by_name:
                entry["speedup"] = results.speedup(own, by_name[REFERENCE])


def _rebased(series: Dict[str, Any]) -> Dict[str, Any]:
    """A series whose seconds begin at 0."""
    seconds = series["seconds"]
    return dict(series, seconds=[round(moment - seconds[0], 3) for moment in seconds])


def _power(
    source: Any,
    reason: Optional[str],
    idle_power: Optional[power.Idle],
    series: Dict[str, Any],
) -> Dict[str, Any]:
    seconds = series["seconds"]
    idle_w = None if idle_power is None else idle_power.mean
    hz = (len(seconds) - 1) / (seconds[-1] - seconds[0]) if len(seconds) > 1 else None
    return {
        "source": None if source is None else source.name,
        "reason": reason,
        "rails": [] if source is None else [rail._asdict() for rail in source.rails],
        "idle_w": idle_w,
        "idle_ci95": None if idle_power is None else interval(idle_power.draws, idle_power.mean),
        "hz": None if source is None or hz is None else round(hz, 1),
    }


def _gpu_times(engine: Engine, picture: np.ndarray) -> Optional[Dict[str, float]]:
    """Medians of what the GPU's clock says, in milliseconds, after as many that do not count."""
    from engines.tensorrt.runner import GpuTimes, TensorRTEngine

    if not isinstance(engine, TensorRTEngine):
        return None
    times = np.array([engine.infer_timed(picture)[1] for _ in range(2 * GPU_TIMED)])[GPU_TIMED:]
    return dict(zip(GpuTimes._fields, (round(float(ms), 4) for ms in np.median(times, axis=0))))


def _loadgen(
    entries: Sequence[Entry],
    engines: Dict[str, Engine],
    pixels: np.ndarray,
    effort: Effort,
    console: Console,
) -> Dict[str, Any]:
    """What LoadGen finds for the fastest engine."""
    p90 = {
        entry["name"]: entry["scenarios"][SINGLE_STREAM]["p90"]
        for entry in entries
        if SINGLE_STREAM in entry["scenarios"]
    }
    if not effort.loadgen:
        return {"reason": "it was not asked for"}
    if not p90:
        return {"reason": "single-stream was not measured"}
    name = min(p90, key=lambda one: p90[one])
    try:
        return loadgen.compare(engines[name], name, pixels, effort, console)
    except EngineError as error:  # what was measured before stays true
        return {"reason": "{} failed under it: {}".format(name, printable(error))}


def _layers(
    engines: Dict[str, Engine], picture: np.ndarray, console: Console
) -> Dict[str, Dict[str, float]]:
    """Milliseconds of each layer, of those engines that can tell."""
    found = {}
    for name, engine in engines.items():
        try:
            times = engine.layer_times(picture)
        except EngineError as error:
            console.warn("{}: its layers can't be timed: {}".format(name, error))
            continue
        if times:
            found[name] = {layer: round(ms, 5) for layer, ms in times.items()}
    return found


def _disagreements(
    answers: Dict[str, np.ndarray], pictures: Sequence[Picture], classes: Sequence[str]
) -> List[Dict[str, Any]]:
    """The pictures on which an engine's answer is farthest from TensorFlow's."""
    if REFERENCE not in answers:
        return []
    found = []
    for index, name, distance in accuracy.disagreements(answers, REFERENCE):
        own, reference = answers[name][index], answers[REFERENCE][index]
        found.append(
            {
                "path": pictures[index].name,
                "truth": classes[pictures[index].label],
                "engine": name,
                "label": classes[int(own.argmax())],
                "probability": round(float(own.max()), 4),
                "reference_label": classes[int(reference.argmax())],
                "reference_probability": round(float(reference.max()), 4),
                "distance": round(float(distance), 4),
                "thumbnail": thumbnail(pictures[index].file),
            }
        )
    return found


def _misclassified(
    answers: Dict[str, np.ndarray], pictures: Sequence[Picture], classes: Sequence[str]
) -> Dict[str, Any]:
    """What TensorFlow gets wrong; nothing without it."""
    if REFERENCE not in answers:
        return {}
    names = [picture.name for picture in pictures]
    truth = np.array([picture.label for picture in pictures])
    wrong = accuracy.misclassified(answers[REFERENCE], truth, names, classes)
    return {"misclassified": wrong, "misclassified_by": REFERENCE}
