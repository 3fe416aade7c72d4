"""What was timed, as a report has it: percentiles or rates, with intervals, drift and validity."""

from bisect import bisect_left, bisect_right
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from benchmarks.latency import Timed, Turn, busy, is_enough, queries, whole
from benchmarks.scenarios import OFFLINE, RESULT, SINGLE_STREAM, THOROUGH, Effort
from benchmarks.statistics import (
    block_percentile,
    block_weights,
    interval,
    mann_kendall,
    percentiles,
    rank_interval,
    theil_sen,
)

SLOWER = 5.0  # percent: from here on a significant drift is called throttling
SIGNIFICANT = 0.01  # its p-value is below this


def summarize(scenario: str, timed: Timed, effort: Effort) -> Dict[str, Any]:
    """The result of an engine in a scenario.

    Returns:
        In Offline "ips" (pictures a second), its "ci95", "n" (pictures) and "turns" (pictures a
        second of each). In the others the percentiles in ms, "ci95" of each, "n" (queries),
        "samples" (ms, in the order of the queries), "turns" (queries of each), and for files
        "preparing_ms". In all "seconds" (spent on queries), "valid", "why" it is not, "warm_up",
        "drift", "throttled" and "starts" (of the turns, by `time.perf_counter`).
    """
    turns = timed.turns
    found = _rate(turns) if scenario == OFFLINE else _latency(turns)
    drift = _drift(turns)
    valid = effort == THOROUGH and is_enough(effort, turns)
    found.update(
        seconds=round(busy(turns), 3),
        valid=valid,
        why="" if valid else _why(effort, turns),
        warm_up=timed.warm_up._asdict(),
        drift=drift,
        throttled=drift["percent"] > SLOWER and drift["p_value"] < SIGNIFICANT,
        starts=[turn.start for turn in turns],
    )
    return found


def throttled_share(series: Dict[str, Any], turns: Sequence[Turn]) -> Optional[float]:
    """In how many of an engine's turns the machine said that it throttled.

    Args:
        series: as `Monitor.series` gives it, with "throttled" (0 or 1) where anything tells.
        turns: of one engine.

    Returns:
        The share of those turns in which it was asked, 0..1; None where it was in none.
    """
    told = [(t, said) for t, said in zip(series["seconds"], series.get("throttled", ()))
            if said is not None]  # fmt: skip
    moments = [moment for moment, _ in told]
    found = []
    for turn in turns:
        inside = told[bisect_left(moments, turn.start) : bisect_right(moments, turn.end)]
        if inside:
            found.append(any(said for _, said in inside))
    return sum(found) / len(found) if found else None


def speedup(timed: Timed, reference: Timed) -> Dict[str, Any]:
    """How many times as fast an engine is as another in SingleStream, by the scenario's result.

    Both are resampled by the same rounds, as what slowed a round slowed both.

    Returns:
        "value" and "ci95".
    """
    rounds = min(len(timed.turns), len(reference.turns))
    weights = block_weights(rounds)
    percent = float(RESULT[SINGLE_STREAM][1:])
    own, other = ([turn.seconds for turn in t.turns[:rounds]] for t in (timed, reference))
    value = float(
        np.percentile(np.concatenate(other), percent) / np.percentile(np.concatenate(own), percent)
    )
    resampled = block_percentile(other, percent, weights) / block_percentile(own, percent, weights)
    return {"value": value, "ci95": interval(resampled, value)}


def _latency(turns: List[Turn]) -> Dict[str, Any]:
    blocks = [whole(turn) for turn in turns]
    weights = block_weights(len(blocks))
    found = dict(percentiles(np.concatenate(blocks)))  # type: Dict[str, Any]
    found["ci95"] = {
        name: _wider(
            interval(1e3 * block_percentile(blocks, float(name[1:]), weights), found[name]),
            rank_interval(1e3 * np.concatenate(blocks), float(name[1:])),
        )
        for name in ("p50", "p90", "p99")
    }
    found["samples"] = [round(1e3 * float(s), 4) for block in blocks for s in block]
    found["turns"] = [len(block) for block in blocks]
    if turns[0].preparing:
        found["preparing_ms"] = percentiles([s for turn in turns for s in turn.preparing])
    return found


def _wider(first: Sequence[float], second: Sequence[float]) -> List[float]:
    """What holds two intervals.

    That over turns is too short where turns are alike and queries few, that over ranks where
    turns differ. Simulated, 20 turns of 52 queries: with both, p50 and p90 are held 19 times in 20
    where turns differ by 5 % (standard deviation); p99, which a turn or two decide, less often.
    """
    return [min(first[0], second[0]), max(first[1], second[1])]


def _rate(turns: List[Turn]) -> Dict[str, Any]:
    pictures = np.array([turn.pictures for turn in turns])
    seconds = np.array([turn.seconds[0] for turn in turns])
    weights = block_weights(len(turns))
    value = float(pictures.sum() / seconds.sum())
    return {
        "ips": value,
        "ci95": interval(weights.dot(pictures) / weights.dot(seconds), value),
        "n": int(pictures.sum()),
        "turns": [round(float(ips), 3) for ips in pictures / seconds],
    }


def _drift(turns: List[Turn]) -> Dict[str, float]:
    """Change of the latency from the first turn to the last, by their medians."""
    moments = [turn.start for turn in turns]
    medians = [float(np.median(whole(turn))) / (turn.pictures if turn.streamed else 1)
               for turn in turns]  # fmt: skip
    change = theil_sen(moments, medians) * (moments[-1] - moments[0]) / float(np.median(medians))
    return {"percent": round(100 * change, 2), "p_value": mann_kendall(medians)}


def _why(effort: Effort, turns: List[Turn]) -> str:
    told = "{:,} queries in {:.1f} s; valid from {:,} and {:g} s".format(
        queries(turns), busy(turns), THOROUGH.queries, THOROUGH.seconds
    )
    return ("quick: " if effort != THOROUGH else "too few: ") + told
