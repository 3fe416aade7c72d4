"""The shape of a report.json (schema 2), for checking one that comes from elsewhere."""

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.scenarios import FROM_FILE, MULTI_STREAM, OFFLINE, SINGLE_STREAM


class Kind(NamedTuple):
    """What a single value must be; name: in words."""

    name: str
    holds: Callable[[Any], bool]


class Maybe(NamedTuple):
    """Null, or of a shape."""

    shape: Any


class Each(NamedTuple):
    """An object whose keys are names, and every value of a shape."""

    shape: Any


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _is_range(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(map(_finite, value)) and bool(value[0] <= value[1])


TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a number", _finite)
POSITIVE = Kind("a number above 0", lambda value: _finite(value) and value > 0)
SHARE = Kind("a number from 0 to 1", lambda value: _finite(value) and 0 <= value <= 1)
COUNT = Kind("a whole number", lambda value: isinstance(value, int) and 0 <= value < 10**9)
SOME = Kind("a whole number above 0", lambda value: COUNT.holds(value) and value > 0)
RANGE = Kind("two numbers in order", _is_range)
STATUS = Kind("a status", lambda value: value in ("ran", "built", "unavailable"))
ANYTHING = Kind("anything", lambda _: True)
EFFORT = Kind("valid or quick", lambda value: value in ("valid", "quick"))

# The shape of a report. An object has these keys at least ("key?": may be without that one), a
# list any number of what stands in it.
LATENCY = {"p50": POSITIVE, "p90": POSITIVE, "p99": POSITIVE, "mean": POSITIVE, "n": SOME}
RESULT = {
    "seconds": NUMBER,
    "valid": FLAG,
    "why": TEXT,
    "warm_up": {"queries": COUNT, "seconds": NUMBER, "steady": FLAG},
    "drift": {"percent": NUMBER, "p_value": SHARE},
    "throttled": FLAG,
    "throttled_share?": Maybe(SHARE),
    "starts": [NUMBER],
    "energy": Maybe({"mj": NUMBER, "ci95": RANGE, "loaded_w": NUMBER, "samples": COUNT}),
}
TIMED = {
    **LATENCY,
    **RESULT,
    "ci95": {"p50": RANGE, "p90": RANGE, "p99": RANGE},
    "samples": [POSITIVE],
    "turns": [SOME],
}
ACCURACY = {
    "top1": SHARE,
    "ci95": RANGE,
    "n": SOME,
    "top5": Maybe(SHARE),
    "confusion": [[COUNT]],
    "per_class": [{"precision": Maybe(SHARE), "recall": Maybe(SHARE), "support": COUNT}],
    "calibration_error": Maybe(SHARE),
    "agreement?": Maybe(SHARE),
    "delta?": Maybe(NUMBER),
    "delta_ci95?": Maybe(RANGE),
    "p_value?": Maybe(SHARE),
    "max_difference?": Maybe(NUMBER),
    "mean_difference?": Maybe(NUMBER),
}
ENGINE = {
    "name": TEXT,
    "backend": TEXT,
    "precision": TEXT,
    "target": TEXT,
    "status": STATUS,
    "reason": TEXT,
    "int8": Maybe(TEXT),
    "batch": Maybe([SOME]),
    "size_bytes": Maybe(NUMBER),
    "build_seconds": Maybe(NUMBER),
    "options": Each(ANYTHING),
    "accuracy": Maybe(ACCURACY),
    "answers": Maybe([COUNT]),
    "scenarios": {
        f"{SINGLE_STREAM}?": TIMED,
        f"{MULTI_STREAM}?": TIMED,
        f"{FROM_FILE}?": {**TIMED, "preparing_ms": LATENCY},
        f"{OFFLINE}?": {**RESULT, "ips": POSITIVE, "ci95": RANGE, "n": SOME, "turns": [POSITIVE]},
    },
    "gpu_ms": Maybe({"upload": NUMBER, "compute": NUMBER, "download": NUMBER}),
    "speedup": Maybe({"value": POSITIVE, "ci95": RANGE}),
}
CONDITIONS = {
    "machine": TEXT,
    "processors": COUNT,
    "governor": Maybe(TEXT),
    "cpu_mhz": Maybe(NUMBER),
    "load": Maybe(NUMBER),
    "gpus": [TEXT],
    "gpu_mhz": Maybe(NUMBER),
    "power_mode": Maybe(TEXT),
    "jetson_clocks": Maybe(FLAG),
    "temperatures_c": Each(NUMBER),
    "throttled": [TEXT],
}
CHANGE = {
    "unit": TEXT,
    "old": NUMBER,
    "new": NUMBER,
    "change": NUMBER,
    "ci95": RANGE,
    "p_value": SHARE,
    "verdict": TEXT,
    "marks": [TEXT],
    "test?": TEXT,
}
AGAINST = {
    "of": {"name": TEXT, "created": TEXT},
    "not_comparable": [TEXT],
    "notes": [TEXT],
    "control": Maybe(TEXT),
    "engines": [{"name": TEXT, "other": TEXT, "figures": Each(CHANGE)}],
    "missing": Each(TEXT),
    "added": [TEXT],
}
KEPT = {"top1": SHARE, "ci95": RANGE}
GUARDED = {**KEPT, "n": SOME}
NO_LOADGEN = {"reason": TEXT}
LOADGEN = {
    "engine": TEXT,
    "version": TEXT,
    "ours_ms": POSITIVE,
    "loadgen_ms": POSITIVE,
    "ratio": POSITIVE,
    "ci95": RANGE,
    "n": SOME,
    "agrees": Maybe(FLAG),
}
REPORT = {
    "schema": SOME,
    "run": {"name": TEXT, "architecture": Maybe(TEXT), "seed": Maybe(NUMBER), "created": TEXT},
    "effort": EFFORT,
    "dataset": {
        "classes": [TEXT],
        "test": COUNT,
        "test_digest": TEXT,
        "truth?": [COUNT],
        "images?": COUNT,
        "train?": COUNT,
        "validation?": COUNT,
        "rejected?": COUNT,
        "rejected_pictures?": [{"path": TEXT, "reason": TEXT}],
        "per_class?": Each({"train": COUNT, "validation": COUNT, "test": COUNT}),
        "source?": TEXT,
    },
    "engines": [ENGINE],
    "against?": AGAINST,  # in what `edgetrt compare --json` prints
    "preprocess_ms": Maybe(LATENCY),
    "conditions": {
        "before": CONDITIONS,
        "after": CONDITIONS,
        "differences": [TEXT],
        "series": Each([Maybe(NUMBER)]),
    },
    "power": {
        "source": Maybe(TEXT),
        "reason": Maybe(TEXT),
        "rails": [{"name": TEXT, "included": FLAG, "why": Maybe(TEXT)}],
        "idle_w": Maybe(NUMBER),
        "idle_ci95?": Maybe(RANGE),
        "hz": Maybe(NUMBER),
    },
    "loadgen": Each(ANYTHING),  # NO_LOADGEN where it has a "reason", else LOADGEN
    "disagreements": [
        {
            "path": TEXT,
            "truth": TEXT,
            "engine": TEXT,
            "label": TEXT,
            "probability": SHARE,
            "reference_label": TEXT,
            "reference_probability": SHARE,
            "distance": SHARE,
            "thumbnail": TEXT,
        }
    ],
    "layers": Each(Each(NUMBER)),
    "int8_head?": Maybe(
        {"fp32_head": KEPT, "int8_head": KEPT, "p_value": SHARE, "used": TEXT, "backend": TEXT}
    ),
    "accuracy_guard?": Maybe(
        {
            "met": FLAG,
            "max_drop": NUMBER,
            "layers": COUNT,
            "float_layers": [TEXT],
            "ranking": [{"layer": TEXT, "decibels": NUMBER}],
            "backend": TEXT,
            "fp32": {"validation": GUARDED, "test": GUARDED, "p50_ms": POSITIVE},
            "points": [
                {
                    "float_layers": COUNT,
                    "validation": GUARDED,
                    "test": GUARDED,
                    "drop": NUMBER,
                    "p50_ms": POSITIVE,
                }
            ],
            "chosen": COUNT,
            "test": {"agreement": SHARE, "delta": NUMBER, "p_value": SHARE},
            "seconds": NUMBER,
        }
    ),
    "misclassified?": [{"path": TEXT, "truth": TEXT, "predicted": TEXT, "probability": SHARE}],
    "misclassified_by?": TEXT,
    "stages?": Each(NUMBER),
    "environment": Each(ANYTHING),
    "reproduce?": [TEXT],
}
