"""Two reports held against each other: what became slower, faster, more or less accurate."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.conditions import differences
from benchmarks.scenarios import OFFLINE, RESULT, SCENARIOS
from benchmarks.statistics import (
    block_percentile,
    block_weights,
    interval,
    mcnemar_exact,
    paired_bootstrap,
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
WITH_THE_MACHINE, CONTROL = "with the machine", "control"
PAIRED = "McNemar's exact test, paired by picture"
UNPAIRED = "two proportions, unpaired"


def against(new: Report, old: Report) -> dict[str, Any]:
    """What changed from the report `old` to the report `new`, engine by engine.

    Speed and energy are said to have changed only where both were measured in the same conditions.
    One machine is not the same twice either, and the moments of one run don't tell of that. So
    the first engine, TensorFlow where there is one, is the control, which took turns with the
    others: their speed has changed only if it also has beside the control's. (Of two engines and
    a control, measured eight times, twice beside other programs, and each time held against each,
    33 of 56 figures had changed by themselves, 5 beside the control too.)

    Args:
        new, old: as `pipeline.report.read.read` gives them.

    Returns:
        "of": name and time of `old`; "not_comparable": why speed and energy aren't, in sentences;
        "notes": what else differs; "engines": of each pair (see `pairs`) "name", "other" (the
        name in `old`) and "figures": by scenario, "accuracy" or "energy" a dict with "unit",
        "old", "new", "change" (new / old; of accuracy new - old), its 95 % interval "ci95",
        "verdict", and "marks": what weakens it (TensorFlow's speed may be the machine's);
        "control": the name of that engine, null where there is none beside others; "missing":
        engines that ran in `old` only, by name, with the reason; "added": those in `new` only.
    """
    apart = list(_apart(new, old))
    matched = pairs(new, old)
    mine, theirs = ({pair[side]["name"] for pair in matched} for side in (0, 1))
    control = matched[0] if len(matched) > 1 else None
    reasons = {engine["name"]: engine["reason"] for engine in new["engines"]}
    return {
        "of": {key: old["run"][key] for key in ("name", "created")},
        "not_comparable": apart,
        "notes": list(_notes(new, old)),
        "control": control and control[0]["name"],
        "engines": [
            {
                "name": engine["name"],
                "other": other["name"],
                "figures": dict(_figures(pair, control, new, old, bool(apart))),
            }
            for pair in matched
            for engine, other in [pair]
        ],
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
        bounds = list(paired_bootstrap(only, only_before, len(truth)))
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
    engine, other = pair
    shared = [s for s in SCENARIOS if s in engine["scenarios"] and s in other["scenarios"]]
    for scenario in shared:
        found = _speed_change(scenario, pair, None if control is pair else control)
        if control is pair and engine["backend"] == TENSORFLOW:  # which nobody deploys
            found["marks"].append(CONTROL)
        yield scenario, {**found, "verdict": NOT_COMPARABLE if apart else found["verdict"]}
    if engine["accuracy"] and other["accuracy"]:
        found = accuracy_change(engine, other, new, old)
        verdict = SAME
        if found["p_value"] < SIGNIFICANT:
            verdict = "more accurate" if found["change"] > 0 else "less accurate"
        yield "accuracy", {"unit": "share", **found, "verdict": verdict, "marks": []}
    measured = [s for s in shared if _energy(engine, s) and _energy(other, s)]
    if measured:
        unlike = apart or new["power"]["source"] != old["power"]["source"]
        yield "energy", _energy_change(measured[0], engine, other, unlike)


def _speed_change(scenario: str, pair: Pair, control: Pair | None) -> dict[str, Any]:
    now, before = (engine["scenarios"][scenario] for engine in pair)
    figure = "ips" if scenario == OFFLINE else RESULT[scenario]
    more, less = ("faster", "slower") if scenario == OFFLINE else ("slower", "faster")
    change, ratios = now[figure] / before[figure], _ratios(scenario, pair)
    bounds = interval(ratios, change)
    verdict = _judge(bounds, more, less)
    if control and all(scenario in engine["scenarios"] for engine in control):
        beside = np.percentile(ratios / np.roll(_ratios(scenario, control), 2), [2.5, 97.5])
        if verdict not in (SAME, _judge(beside.tolist(), more, less)):
            verdict = WITH_THE_MACHINE
    return {
        "unit": "pictures/s" if scenario == OFFLINE else f"ms ({figure})",
        "old": before[figure],
        "new": now[figure],
        "change": change,
        "ci95": bounds,
        "verdict": verdict,
        "marks": _marks(now, before),
    }


def _energy_change(scenario: str, engine: Engine, other: Engine, unlike: bool) -> dict[str, Any]:
    now, before = _energy(engine, scenario), _energy(other, scenario)
    # The report has no samples of it; both intervals together, in logarithms.
    spread = [math.log(e["ci95"][1] / e["ci95"][0]) / 2 for e in (now, before)]
    ratio, half = now["mj"] / before["mj"], math.hypot(*spread)
    bounds = [ratio * math.exp(-half), ratio * math.exp(half)]
    return {
        "unit": "mJ",
        "old": before["mj"],
        "new": now["mj"],
        "change": ratio,
        "ci95": bounds,
        "verdict": NOT_COMPARABLE if unlike else _judge(bounds, "more energy", "less energy"),
        "marks": _marks(engine["scenarios"][scenario], other["scenarios"][scenario]),
    }


def _energy(engine: Engine, scenario: str) -> dict[str, Any]:
    """The energy of a scenario; empty where it was not measured, or was lost in the noise."""
    energy = engine["scenarios"][scenario]["energy"]
    return energy if energy and min(energy["mj"], *energy["ci95"]) > 0 else {}


def _judge(bounds: Sequence[float], more: str, less: str) -> str:
    """What a ratio's interval says."""
    if bounds[0] > 1:
        return more
    return less if bounds[1] < 1 else SAME


def _marks(*results: Mapping[str, Any]) -> list[str]:
    found = {"quick": not all(r["valid"] for r in results)}
    found["throttled"] = any(r["throttled"] for r in results)
    return [mark for mark, holds in found.items() if holds]


def _ratios(scenario: str, pair: Pair) -> np.ndarray:
    """The figure of the one over that of the other, each of turns drawn again and again."""
    now, before = (_resampled(scenario, engine["scenarios"][scenario]) for engine in pair)
    return now / np.roll(before, 1)  # so that the draws of both have nothing in common


def _resampled(scenario: str, result: Mapping[str, Any]) -> np.ndarray:
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
