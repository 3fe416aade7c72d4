"""Two reports held against each other: what became slower, faster, more or less accurate."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.conditions import differences
from benchmarks.scenarios import OFFLINE, RESULT, SCENARIOS
from benchmarks.statistics import (
    Z95,
    block_percentile,
    block_weights,
    mcnemar_exact,
    paired_interval,
    wilson_interval,
)
from engines.catalogue import TENSORFLOW
from pipeline.report.format import SIGNIFICANT

Report = Mapping[str, Any]
Engine = Mapping[str, Any]  # one entry of "engines" in a report
Pair = tuple[Engine, Engine]  # the same in the new and in the old report

WORSE = ("slower", "less accurate", "more energy")
BETTER = ("faster", "more accurate", "less energy")
SAME, NOT_COMPARABLE = "no difference", "not comparable"
CONTROL, NO_CONTROL = "control", "no control"
# What a figure's change is called, by whether the figure grew or fell; other scenarios are times.
GREW_FELL = {
    OFFLINE: ("faster", "slower"),
    "accuracy": ("more accurate", "less accurate"),
    "energy": ("more energy", "less energy"),
}
TOOK_MORE_LESS = ("slower", "faster")
PAIRED = "McNemar's exact test, paired by picture"
UNPAIRED = "two proportions, unpaired"


def against(new: Report, old: Report) -> dict[str, Any]:
    """What changed from the report `old` to the report `new`, engine by engine.

    Speed and energy are said to have changed only where both were measured in the same conditions.
    One machine is not the same twice even so, and the moments of one run don't tell of that: of
    two engines measured eight times, each time held against each, 33 of 56 figures had changed.
    So TensorFlow, where it ran in both, is the control, which took turns with the others: their
    speed and energy are judged by how much they changed beside the control's (ratio of ratios),
    and so an engine that kept its pace while the control got faster has become slower. Without a
    control the plain ratio is judged, and what the machine did counts as the engine's.

    All figures are judged together by Holm's correction: where nothing has changed, the chance
    that any is said to have is 5 %. What the control itself did is told, but is no such figure.

    Args:
        new, old: as `pipeline.report.read.read` gives them.

    Returns:
        "of": name and time of `old`; "not_comparable": why speed and energy aren't, in sentences;
        "notes": what else differs; "engines": of each pair (see `pairs`) "name", "other" (the
        name in `old`) and "figures": by scenario, "accuracy" or "energy" a dict with "unit",
        "old", "new" (as measured), "change" (new / old, beside the control's where there is one;
        of accuracy new - old), its 95 % interval "ci95" and two-sided "p_value" (of this figure
        alone), "verdict", and "marks": what must be known of it; "control": the name of that
        engine, null where there is none; "missing": engines that ran in `old` only, by name, with
        the reason; "added": those in `new` only.
    """
    apart = list(_apart(new, old))
    matched = pairs(new, old)
    mine, theirs = ({pair[side]["name"] for pair in matched} for side in (0, 1))
    control = next((p for p in matched if p[0]["backend"] == p[1]["backend"] == TENSORFLOW), None)
    engines = [
        {
            "name": pair[0]["name"],
            "other": pair[1]["name"],
            "figures": dict(_figures(pair, control, new, old, bool(apart))),
        }
        for pair in matched
    ]
    _judge([named for engine in engines for named in engine["figures"].items()])
    reasons = {engine["name"]: engine["reason"] for engine in new["engines"]}
    return {
        "of": {key: old["run"][key] for key in ("name", "created")},
        "not_comparable": apart,
        "notes": list(_notes(new, old)),
        "control": control and control[0]["name"],
        "engines": engines,
        "missing": {e["name"]: reasons.get(e["name"], "") for e in _ran(old, theirs)},
        "added": [e["name"] for e in _ran(new, mine)],
    }


def pairs(new: Report, old: Report) -> list[Pair]:
    """The engines that ran in both reports, of `new` and of `old`.

    Those of one name, and then those that are the only ones of their backend and precision on
    either side: the names of TensorRT's engines hold the GPU.
    """
    named = {engine["name"]: engine for engine in _ran(old)}
    same = [(e, named[e["name"]]) for e in _ran(new) if e["name"] in named]
    taken = {engine["name"] for engine, _ in same}
    by_kind = [_by_kind(_ran(report, taken)) for report in (new, old)]
    alike = [
        (found[0], by_kind[1][kind][0])
        for kind, found in by_kind[0].items()
        if len(found) == len(by_kind[1].get(kind, ())) == 1
    ]
    return same + alike


def accuracy_change(engine: Engine, other: Engine, new: Report, old: Report) -> dict[str, Any]:
    """How top-1 changed from `other`, of the report `old`, to `engine`, of `new`; both have one.

    By McNemar's test where both answered the same pictures, else by that of two proportions.

    Returns:
        "old", "new" and "change" (fractions), "ci95" of the change, "p_value", and "test".
    """
    truth = new["dataset"].get("truth")
    answers = engine["answers"], other["answers"]
    before, now = other["accuracy"], engine["accuracy"]
    if truth is not None and None not in answers and same_pictures(new, old):
        right, right_before = (np.array(given) == truth for given in answers)
        only, only_before = int((right & ~right_before).sum()), int((right_before & ~right).sum())
        p, test = mcnemar_exact(only, only_before), PAIRED
        bounds = list(paired_interval(only, only_before, len(truth)))
    else:
        p, test = _two_proportions(now, before), UNPAIRED
        bounds = _newcombe(now, before)
    return {
        "old": before["top1"],
        "new": now["top1"],
        "change": now["top1"] - before["top1"],
        "ci95": bounds,
        "p_value": p,
        "test": test,
    }


def same_pictures(new: Report, old: Report) -> bool:
    """Whether both reports are of the same test pictures, in the same order."""
    return bool(new["dataset"]["test_digest"] == old["dataset"]["test_digest"])


def _ran(report: Report, but: Sequence[str] | set[str] = ()) -> list[Engine]:
    return [e for e in report["engines"] if e["status"] == "ran" and e["name"] not in but]


def _by_kind(engines: Sequence[Engine]) -> dict[tuple[str, str], list[Engine]]:
    found: dict[tuple[str, str], list[Engine]] = {}
    for engine in engines:
        found.setdefault((engine["backend"], engine["precision"]), []).append(engine)
    return found


def _apart(new: Report, old: Report) -> Iterator[str]:
    """Why speed and energy can't be compared."""
    for difference in differences(new["conditions"]["before"], old["conditions"]["before"]):
        if difference not in new["conditions"]["differences"]:
            yield difference
    for which, report in (("there", old), ("here", new)):
        for difference in report["conditions"]["differences"]:
            yield f"while measuring {which}, {difference}"


def _notes(new: Report, old: Report) -> Iterator[str]:
    if not same_pictures(new, old):
        yield "the test pictures are others: accuracy is compared without pairing"
    for key in ("architecture", "seed"):
        if new["run"][key] != old["run"][key]:
            yield f"{key} was {old['run'][key]}, is {new['run'][key]}"


def _figures(
    pair: Pair, control: Pair | None, new: Report, old: Report, apart: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each figure by its name; "verdict" only where there is nothing to judge."""
    engine, other = pair
    for scenario in SCENARIOS:
        speed = _speed(scenario, pair)
        if speed:
            held = control and _speed(scenario, control)
            yield scenario, _beside(speed, held, _marks(scenario, pair, control, held), apart)
    if engine["accuracy"] and other["accuracy"]:
        yield "accuracy", {"unit": "share", **accuracy_change(*pair, new, old), "marks": []}
    unlike = apart or new["power"]["source"] != old["power"]["source"]
    for scenario in SCENARIOS:
        energy = _energy(scenario, pair)
        if energy:
            held = control and _energy(scenario, control)
            yield "energy", _beside(energy, held, _marks(scenario, pair, control, held), unlike)
            return


class _Measured(NamedTuple):
    """A figure of two reports; its ratio's logarithm and the standard error of that."""

    unit: str
    old: float
    new: float
    change: float
    error: float


def _beside(
    found: _Measured, held: _Measured | None, marks: list[str], unlike: bool
) -> dict[str, Any]:
    """How a figure changed, beside the control's where that has it and is not this one."""
    change, error = found.change, found.error
    if held and CONTROL not in marks:
        change, error = change - held.change, math.hypot(error, held.error)
    return {
        "unit": found.unit,
        "old": found.old,
        "new": found.new,
        "change": _exp(change),
        "ci95": [_exp(change - Z95 * error), _exp(change + Z95 * error)],
        "p_value": math.erfc(abs(change) / error / math.sqrt(2)) if error else float(not change),
        **({"verdict": NOT_COMPARABLE} if unlike else {}),
        "marks": marks,
    }


def _speed(scenario: str, pair: Pair) -> _Measured | None:
    if not all(scenario in engine["scenarios"] for engine in pair):
        return None
    now, before = (engine["scenarios"][scenario] for engine in pair)
    figure = "ips" if scenario == OFFLINE else RESULT[scenario]
    unit = "pictures/s" if scenario == OFFLINE else f"ms ({figure})"
    errors = [float(np.std(np.log(_resampled(scenario, result)))) for result in (now, before)]
    change = math.log(now[figure]) - math.log(before[figure])
    return _Measured(unit, before[figure], now[figure], change, math.hypot(*errors))


def _energy(scenario: str, pair: Pair) -> _Measured | None:
    """None where it was not measured, or was lost in the noise."""
    results = [engine["scenarios"].get(scenario) or {} for engine in pair]
    now, before = (result.get("energy") for result in results)
    if not now or not before or min(*now["ci95"], *before["ci95"], now["mj"], before["mj"]) <= 0:
        return None
    # The report has no samples of it, only intervals.
    errors = [math.log(e["ci95"][1] / e["ci95"][0]) / 2 / Z95 for e in (now, before)]
    change = math.log(now["mj"]) - math.log(before["mj"])
    return _Measured("mJ", before["mj"], now["mj"], change, math.hypot(*errors))


def _judge(figures: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Give each figure that has none its "verdict".

    By S. Holm's step-down procedure, Scand. J. Statist. 6 (1979) 65.
    """
    open_ = [named for named in figures if "verdict" not in named[1]]
    judged = sorted(
        (named for named in open_ if CONTROL not in named[1]["marks"]),
        key=lambda named: named[1]["p_value"],
    )
    kept = False
    for place, (name, figure) in enumerate(judged):
        kept = kept or figure["p_value"] >= SIGNIFICANT / (len(judged) - place)
        figure["verdict"] = SAME if kept else _direction(name, figure)
    for name, figure in open_:
        if CONTROL in figure["marks"]:
            changed = figure["p_value"] < SIGNIFICANT
            figure["verdict"] = _direction(name, figure) if changed else SAME


def _direction(name: str, figure: Mapping[str, Any]) -> str:
    grew, fell = GREW_FELL.get(name, TOOK_MORE_LESS)
    return grew if figure["change"] > (0 if name == "accuracy" else 1) else fell


def _exp(value: float) -> float:
    return math.exp(max(-700.0, min(700.0, value)))  # within what a float holds


def _marks(scenario: str, pair: Pair, control: Pair | None, held: _Measured | None) -> list[str]:
    results = [engine["scenarios"][scenario] for engine in pair]
    found = {
        "quick": not all(r["valid"] for r in results),
        "throttled": any(r.get("throttled_share") for r in results),
        "slowed down": any(r["throttled"] for r in results),
        CONTROL: pair is control,
        NO_CONTROL: not held,
    }
    return [mark for mark, holds in found.items() if holds]


def _resampled(scenario: str, result: Mapping[str, Any]) -> np.ndarray:
    """The figure of turns drawn again and again."""
    weights = block_weights(len(result["turns"]))
    if scenario == OFFLINE:  # turns are of equally many pictures
        return weights.sum(1) / weights.dot(1 / np.array(result["turns"]))
    ends = np.cumsum(result["turns"])[:-1]
    turns: list[Any] = np.split(np.array(result["samples"]), ends)
    return block_percentile(turns, float(RESULT[scenario][1:]), weights)


def _two_proportions(now: Mapping[str, Any], before: Mapping[str, Any]) -> float:
    """Two-sided p-value that both accuracies are one, by the normal approximation, pooled."""
    n, m = now["n"], before["n"]
    pooled = (now["top1"] * n + before["top1"] * m) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return math.erfc(abs(now["top1"] - before["top1"]) / error / math.sqrt(2)) if error else 1.0


def _newcombe(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[float]:
    """The 95 % interval of the difference of two accuracies of different pictures.

    Source: R. G. Newcombe, Statist. Med. 17 (1998) 873, method 10.
    """
    a, b = now["top1"], before["top1"]
    low, high = wilson_interval(round(a * now["n"]), now["n"])
    low_before, high_before = wilson_interval(round(b * before["n"]), before["n"])
    return [
        a - b - math.hypot(a - low, high_before - b),
        a - b + math.hypot(high - a, b - low_before),
    ]
