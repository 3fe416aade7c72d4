"""What the measurements say, in one sentence."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.scenarios import RESULT, SINGLE_STREAM
from engines.settings import CALIBRATORS
from pipeline.report.format import (
    SIGNIFICANT,
    counted,
    measured,
    number,
    p_value,
    percent,
    points,
    points_span,
    shortened,
    significant,
)

Engine = Mapping[str, Any]  # one entry of "engines" in report.json


FIGURE = RESULT[SINGLE_STREAM]  # what speed goes by
INTERVAL = "95 % interval"


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


def verdict(engines: Sequence[Engine]) -> Verdict:
    """Judge the fastest engine whose accuracy is not significantly below TensorFlow's.

    Engines whose accuracy was never compared come second, those with a significant drop last:
    one of them is judged only if nothing better has a latency.
    """
    base = reference(engines)
    rivals = [e for e in engines if e["status"] == "ran" and e is not base]
    timed = sorted((e for e in rivals if _latency(e)), key=lambda e: _latency(e) or 0.0)
    if not timed:
        return Verdict(_without_rival(base, rivals), _never_ran(engines), None)
    best = min(timed, key=_doubt)  # the first, so the fastest, of the least doubtful
    sentence = f"{label(best)}: {_speed(best, base)}, {_accuracy(best)}."
    return Verdict(sentence, _passed_over(timed[: timed.index(best)]), best)


def label(engine: Engine) -> str:
    """What an engine is, in words: "INT8 on openvino", "FP16 on tensorrt for sm62"."""
    precision, backend, target = (
        shortened(engine[key], 40) for key in ("precision", "backend", "target")
    )
    calibrated = engine["precision"] == "int8" and engine.get("int8") in CALIBRATORS
    how = f" by {engine['int8']}" if calibrated else ""
    place = f" for {target}" if target != "cpu" else ""
    return f"{precision.upper()}{how} on {backend}{place}"


def doubts(report: Mapping[str, Any]) -> list[str]:
    """Why the verdict's figures need care, in sentences; [] where nothing speaks against them.

    It tells of the engine that the verdict speaks of, of TensorFlow, and of the machine.
    """
    engines: Sequence[Engine] = report["engines"]
    judged = [e for e in (verdict(engines).engine, reference(engines)) if e]
    return [
        *_not_valid(report["effort"], judged),
        *(sentence for engine in judged for sentence in _unsteady(engine)),
        *_disturbed(report["conditions"]),
        *throttling(report["conditions"]),
        *_unlike_loadgen(report["loadgen"]),
    ]


def _latency(engine: Engine | None) -> float | None:
    found = _single_stream(engine).get(FIGURE)
    return found if measured(found) and found > 0 else None


def _single_stream(engine: Engine | None) -> Mapping[str, Any]:
    return ((engine or {}).get("scenarios") or {}).get(SINGLE_STREAM) or {}


def _doubt(engine: Engine) -> int:
    """0: no significant drop in accuracy; 1: never compared; 2: a significant drop."""
    accuracy = engine.get("accuracy") or {}
    delta, p = accuracy.get("delta"), accuracy.get("p_value")
    if not measured(delta) or not measured(p):
        return 1
    return 2 if delta < 0 and p < SIGNIFICANT else 0


def _speed(engine: Engine, base: Engine | None) -> str:
    found = engine.get("speedup")
    if not found:
        why = "'s latency was not measured" if base else " did not run"
        return f"{significant(_latency(engine))} ms per picture ({FIGURE}; TensorFlow{why})"
    ratio, (low, high) = found["value"], found["ci95"]
    if low > 1:
        return f"{_times(ratio)} as fast as TensorFlow ({INTERVAL} {_range(ratio, low, high)})"
    if low > 0 and high < 1:
        longer = _range(1 / ratio, 1 / high, 1 / low)
        return f"slower than TensorFlow (takes {_times(1 / ratio)} as long, {INTERVAL} {longer})"
    return (
        f"{_times(ratio)} as fast as TensorFlow, not a significant difference "
        f"({INTERVAL} {_range(ratio, low, high)})"
    )


def _times(ratio: float) -> str:
    return f"{number(ratio, _digits(ratio))}×"


def _range(ratio: float, low: float, high: float) -> str:
    """The interval of a ratio, as exact as the ratio itself is told."""
    return f"{number(low, _digits(ratio))} to {number(high, _digits(ratio))}"


def _digits(ratio: float) -> str:
    return f",.{2 if ratio < 2 else 1 if ratio < 20 else 0}f"


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
    ends = ""
    if accuracy.get("delta_ci95"):
        # Named once in a sentence, and that of the speed-up comes first.
        named = "" if engine.get("speedup") else f"{INTERVAL} "
        ends = f"{named}{points_span(accuracy['delta_ci95'])} points, "
    return f"{change} ({ends}p {p_value(accuracy['p_value'])}, {pictures})"


def _passed_over(faster: Sequence[Engine]) -> str:
    def reason(engine: Engine) -> str:
        if _doubt(engine) == 1:
            return "accuracy not compared"
        accuracy = engine["accuracy"]
        return f"{points(accuracy['delta'])} points, p {p_value(accuracy['p_value'])}"

    def entry(engine: Engine) -> str:
        found = engine.get("speedup")
        times = f"{_times(found['value'])}, " if found else ""
        return f"{label(engine)} ({times}{reason(engine)})"

    return f"Faster, but passed over: {'; '.join(map(entry, faster))}." if faster else ""


def _without_rival(base: Engine | None, rivals: Sequence[Engine]) -> str:
    if rivals:
        return "No latency was measured beside TensorFlow's, so there is no speed to compare."
    if not base:
        return "No engine ran on this machine, so nothing was measured."
    told = []
    if _latency(base):
        told.append(f"{significant(_latency(base))} ms per picture, {FIGURE}")
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


def _not_valid(effort: str, judged: Sequence[Engine]) -> Iterator[str]:
    if effort != "valid":
        yield "A quick look: fewer queries than a valid result needs."
        return
    for engine in judged:
        result = _single_stream(engine)
        if result and not result["valid"]:
            yield f"{_name(engine)} has no valid result: {shortened(result['why'], 200)}."


def _unsteady(engine: Engine) -> Iterator[str]:
    result = _single_stream(engine)
    if not result:
        return
    if not result["warm_up"]["steady"]:
        yield f"{_name(engine)} did not get steady in its warm-up."
    if result["throttled"]:
        slower = number(result["drift"]["percent"], "+.1f")
        yield f"{_name(engine)} slowed down during the run ({slower} %)."
    if result.get("throttled_share"):
        share = percent(result["throttled_share"])
        yield f"The machine said that it throttled in {share} % of the turns of {_name(engine)}."


def _disturbed(conditions: Mapping[str, Any]) -> Iterator[str]:
    for difference in conditions["differences"]:
        told = shortened(difference, 300)
        yield f"{told[:1].upper()}{told[1:]}."


def throttling(conditions: Mapping[str, Any]) -> Iterator[str]:
    """How often the machine said, while it was measured, that it throttled; nothing if never."""
    seen = [value for value in conditions["series"].get("throttled", ()) if measured(value)]
    if any(seen):
        share = sum(map(bool, seen)) / len(seen)
        yield f"The machine said that it throttled in {percent(share)} % of the readings."


def _unlike_loadgen(loadgen: Mapping[str, Any]) -> Iterator[str]:
    if "engine" in loadgen and not loadgen["agrees"]:
        yield (
            f"MLCommons LoadGen measures {significant(loadgen['loadgen_ms'])} ms where this report "
            f"has {significant(loadgen['ours_ms'])} ms ({shortened(loadgen['engine'], 40)}). "
            f"{beside_loadgen(loadgen)}"
        )


def beside_loadgen(loadgen: Mapping[str, Any]) -> str:
    """Whether LoadGen measures the same, in a sentence; "" where it did not run."""
    if "engine" not in loadgen:
        return ""
    low, high = loadgen["ci95"]
    told = {
        True: "They agree",
        False: "They do not agree",
        None: "Too noisy to tell whether they agree",
    }[loadgen["agrees"]]
    return f"{told} (95 % interval {number(low, '.3f')} to {number(high, '.3f')})."


def _name(engine: Engine) -> str:
    return shortened(engine["name"], 80)
