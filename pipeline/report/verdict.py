"""What the measurements say, in one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from engines.settings import CALIBRATORS
from pipeline.report.format import (
    SIGNIFICANT,
    counted,
    measured,
    number,
    p_value,
    percent,
    points,
    shortened,
    significant,
)

Engine = Mapping[str, Any]  # one entry of "engines" in report.json


class Verdict(NamedTuple):
    """The sentence, what else must be said to keep it honest, and the engine it speaks of.

    note: which engines were faster and why they were passed over, or which never ran; or "".
    engine: None when no engine besides TensorFlow has a latency.
    """

    sentence: str
    note: str
    engine: Engine | None


def reference(engines: Sequence[Engine]) -> Engine | None:
    """The engine that all others are compared with: the first of TensorFlow's that ran."""
    return next((e for e in engines if e["backend"] == "tensorflow" and e["status"] == "ran"), None)


def speedup(engine: Engine, against: Engine | None) -> float | None:
    """How many times as fast `engine` is as `against`, by the medians of their latencies."""
    own, other = _median(engine), _median(against)
    return other / own if own and other else None


def verdict(engines: Sequence[Engine]) -> Verdict:
    """Judge the fastest engine whose accuracy is not significantly below TensorFlow's.

    Engines whose accuracy was never compared come second, those with a significant drop last:
    one of them is judged only if nothing better has a latency.
    """
    base = reference(engines)
    rivals = [e for e in engines if e["status"] == "ran" and e is not base]
    timed = sorted((e for e in rivals if _median(e)), key=lambda e: _median(e) or 0.0)
    if not timed:
        return Verdict(_without_rival(base, rivals), _never_ran(engines), None)
    best = min(timed, key=_doubt)  # the first, so the fastest, of the least doubtful
    sentence = f"{label(best)}: {_speed(best, base)}, {_accuracy(best)}."
    return Verdict(sentence, _passed_over(timed[: timed.index(best)], base), best)


def label(engine: Engine) -> str:
    """What an engine is, in words: "INT8 on openvino", "FP16 on tensorrt for sm62"."""
    precision, backend, target = (
        shortened(engine[key], 40) for key in ("precision", "backend", "target")
    )
    calibrated = engine["precision"] == "int8" and engine.get("int8") in CALIBRATORS
    how = f" by {engine['int8']}" if calibrated else ""
    place = f" for {target}" if target != "cpu" else ""
    return f"{precision.upper()}{how} on {backend}{place}"


def _median(engine: Engine | None) -> float | None:
    p50 = ((engine or {}).get("latency_ms") or {}).get("p50")
    return p50 if measured(p50) and p50 > 0 else None


def _doubt(engine: Engine) -> int:
    """0: no significant drop in accuracy; 1: never compared; 2: a significant drop."""
    accuracy = engine.get("accuracy") or {}
    delta, p = accuracy.get("delta"), accuracy.get("p_value")
    if not measured(delta) or not measured(p):
        return 1
    return 2 if delta < 0 and p < SIGNIFICANT else 0


def _speed(engine: Engine, base: Engine | None) -> str:
    ratio = speedup(engine, base)
    if ratio is None:
        why = "latency was not measured" if base else "did not run"
        return f"{significant(_median(engine))} ms per picture at batch 1 (TensorFlow {why})"
    if ratio >= 1.05:
        return f"{_times(ratio)} as fast as TensorFlow at batch 1"
    if ratio > 0.95:
        return "no faster than TensorFlow at batch 1"
    return f"slower than TensorFlow at batch 1 (takes {_times(1 / ratio)} as long)"


def _times(ratio: float) -> str:
    return f"{number(ratio, '.1f' if ratio < 10 else ',.0f')}×"


def _accuracy(engine: Engine) -> str:
    accuracy = engine.get("accuracy")
    if not accuracy:
        return "accuracy not measured"
    pictures = counted(accuracy["n"], "test picture")
    if _doubt(engine) == 1:
        return f"{percent(accuracy['top1'])} % right, not compared with TensorFlow ({pictures})"
    delta = round(100 * accuracy["delta"], 1)
    change = f"{abs(delta)} points {'more' if delta > 0 else 'less'} accurate"
    if not delta:
        change = "equally accurate"
    elif accuracy["p_value"] >= SIGNIFICANT:
        change += ", not a significant difference"
    elif delta < 0:
        change = f"but {change}, a significant loss"
    return f"{change} (p {p_value(accuracy['p_value'])}, {pictures})"


def _passed_over(faster: Sequence[Engine], base: Engine | None) -> str:
    def reason(engine: Engine) -> str:
        if _doubt(engine) == 1:
            return "accuracy not compared"
        accuracy = engine["accuracy"]
        return f"{points(accuracy['delta'])} points, p {p_value(accuracy['p_value'])}"

    def entry(engine: Engine) -> str:
        ratio = speedup(engine, base)
        return f"{label(engine)} ({f'{_times(ratio)}, ' if ratio else ''}{reason(engine)})"

    return f"Faster, but passed over: {'; '.join(map(entry, faster))}." if faster else ""


def _without_rival(base: Engine | None, rivals: Sequence[Engine]) -> str:
    if rivals:
        return "No latency was measured beside TensorFlow's, so there is no speed to compare."
    if not base:
        return "No engine ran on this machine, so nothing was measured."
    told = []
    if _median(base):
        told.append(f"{significant(_median(base))} ms per picture at batch 1")
    if accuracy := base.get("accuracy"):
        pictures = counted(accuracy["n"], "test picture")
        told.append(f"{percent(accuracy['top1'])} % of {pictures} right")
    return f"Only TensorFlow ran ({', '.join(told) or 'unmeasured'}): nothing to compare it with."


def _never_ran(engines: Sequence[Engine]) -> str:
    built = sum(e["status"] == "built" for e in engines)
    unavailable = sum(e["status"] == "unavailable" for e in engines)
    told = []
    if built:
        told.append(f"{counted(built, 'engine')} built for another machine")
    if unavailable:
        told.append(f"{unavailable:,} unavailable")
    return f"{', '.join(told)}: the table says why." if told else ""
