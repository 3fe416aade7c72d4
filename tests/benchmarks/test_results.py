"""What becomes of timed turns: percentiles and rates, with intervals, drift and validity."""

from typing import Any

import numpy as np
import pytest

from benchmarks.latency import Timed, Turn, WarmUp
from benchmarks.results import speedup, summarize, throttled_share
from benchmarks.scenarios import FROM_FILE, OFFLINE, QUICK, SINGLE_STREAM, THOROUGH, Effort

WARM = WarmUp(12, 0.5, True)


def timed(turns: list[list[float]], preparing: float = 0.0) -> Timed:
    found, now = [], 50.0
    for seconds in turns:
        before = [preparing] * len(seconds) if preparing else []
        end = now + sum(seconds) + sum(before)
        found.append(Turn(now, end, seconds, before, len(seconds)))
        now = end + 1.0
    return Timed(WARM, found)


def noisy(middle: float, turns: int = 20, queries: int = 60, seed: int = 1) -> list[list[float]]:
    random = np.random.default_rng(seed)
    return [(middle * random.lognormal(0, 0.1, queries)).tolist() for _ in range(turns)]


def test_percentiles_intervals_and_samples() -> None:
    turns = noisy(0.01)
    found = summarize(SINGLE_STREAM, timed(turns), THOROUGH)
    every = 1e3 * np.concatenate(turns)
    for name, q in (("p50", 50), ("p90", 90), ("p99", 99)):
        assert found[name] == pytest.approx(np.percentile(every, q))
        low, high = found["ci95"][name]
        assert low <= found[name] <= high
        assert 0 < high - low < 0.2 * found[name]
    assert found["samples"] == [round(value, 4) for value in every.tolist()]
    assert found["turns"] == [60] * 20
    assert found["n"] == 1200
    assert found["starts"][:2] == [50.0, timed(turns).turns[1].start]
    assert found == summarize(SINGLE_STREAM, timed(turns), THOROUGH)  # nothing is left to chance


@pytest.mark.parametrize(
    ("turns", "effort", "valid", "why"),
    [
        ([[0.01] * 60] * 20, THOROUGH, True, ""),
        ([[0.01] * 51] * 20, THOROUGH, False, "too few: 1,020 queries in 10.2 s"),
        ([[0.009] * 60] * 18, THOROUGH, False, "too few: 1,080 queries in 9.7 s"),
        ([[0.01] * 60] * 20, QUICK, False, "quick: 1,200 queries in 12.0 s; valid from 1,024 and"),
    ],
)
def test_valid(turns: list[list[float]], effort: Effort, valid: bool, why: str) -> None:
    found = summarize(SINGLE_STREAM, timed(turns), effort)
    assert found["valid"] == valid
    assert found["why"].startswith(why)
    assert bool(found["why"]) != valid


def test_throttling_is_found_and_outliers_are_no_throttling() -> None:
    slower = [[second * (1 + 0.02 * n) for second in turn] for n, turn in enumerate(noisy(0.01))]
    found = summarize(SINGLE_STREAM, timed(slower), THOROUGH)
    assert found["throttled"]
    assert 25 < found["drift"]["percent"] < 40
    assert found["drift"]["p_value"] < 0.001

    steady = noisy(0.01)
    assert not summarize(SINGLE_STREAM, timed(steady), THOROUGH)["throttled"]
    with_outliers = [[*turn[:-1], 0.1 * n] for n, turn in enumerate(steady)]
    found = summarize(SINGLE_STREAM, timed(with_outliers), THOROUGH)
    assert not found["throttled"]
    assert max(found["samples"]) == 1900.0  # kept

    faster = [[second / (1 + 0.02 * n) for second in turn] for n, turn in enumerate(steady)]
    found = summarize(SINGLE_STREAM, timed(faster), THOROUGH)
    assert found["drift"]["percent"] < -20
    assert not found["throttled"]


@pytest.mark.parametrize(("turns", "step"), [(20, 0.001), (4, 0.1)])
def test_slower_by_little_or_by_chance_is_no_throttling(turns: int, step: float) -> None:
    """2 % in 20 turns are sure and few; 30 % in 4 are much, and 1 of 12 orders has them."""
    slower = [[0.01 * (1 + step * n)] * 60 for n in range(turns)]
    found = summarize(SINGLE_STREAM, timed(slower), THOROUGH)
    assert not found["throttled"]
    assert (found["drift"]["percent"] > 5) != (found["drift"]["p_value"] < 0.01)


def test_share_of_turns_in_which_the_machine_throttled() -> None:
    """Two engines in turn, one second each: only the readings in its own turns are an engine's."""
    turns = [Turn(float(n), n + 1.0, [1.0], [], 1) for n in range(40)]
    seconds = [n / 10 + 0.05 for n in range(400)]
    hot = [float(int(t) in (3, 5, 8) or 20 <= t < 20.1) for t in seconds]
    series: dict[str, Any] = {"seconds": seconds, "throttled": hot}
    assert throttled_share(series, turns[0::2]) == 2 / 20  # in the 9th and a moment of the 21st
    assert throttled_share(series, turns[1::2]) == 2 / 20
    assert throttled_share(series, turns[30:]) == 0.0
    missed = [None if int(t) < 30 else said for t, said in zip(seconds, hot, strict=True)]
    assert throttled_share({"seconds": seconds, "throttled": missed}, turns) == 0.0
    assert throttled_share({"seconds": seconds, "throttled": missed}, turns[:30]) is None
    assert throttled_share({"seconds": seconds}, turns) is None  # nothing tells
    assert throttled_share({"seconds": []}, turns) is None
    # Turns between two readings are not counted as cool.
    short = [Turn(n + 0.06, n + 0.14, [0.08], [], 1) for n in range(10)]
    assert throttled_share(series, [*short, turns[3]]) == 1.0


def test_offline_is_pictures_by_seconds() -> None:
    turns = [
        Turn(float(n), n + 0.5, [0.5], [], 64 if n % 2 else 32, streamed=True) for n in range(20)
    ]
    found: dict[str, Any] = summarize(OFFLINE, Timed(WARM, turns), THOROUGH)
    assert found["ips"] == pytest.approx(10 * (64 + 32) / 10.0)
    assert found["ci95"][0] < found["ips"] < found["ci95"][1]
    assert found["turns"][:2] == [64.0, 128.0]
    assert (found["n"], found["seconds"], found["valid"]) == (960, 10.0, False)
    assert found["drift"]["percent"] == 0.0
    assert "samples" not in found


def test_offline_that_gets_slower() -> None:
    turns = [
        Turn(float(n), n + 0.5 + n / 20, [0.5 + n / 20], [], 64, streamed=True) for n in range(20)
    ]
    assert summarize(OFFLINE, Timed(WARM, turns), THOROUGH)["throttled"]


def test_from_file_is_loading_and_inference() -> None:
    found = summarize(FROM_FILE, timed([[0.01] * 60] * 20, preparing=0.02), THOROUGH)
    assert found["p50"] == pytest.approx(30.0)
    assert found["preparing_ms"]["p50"] == pytest.approx(20.0)
    assert found["seconds"] == pytest.approx(36.0)


def test_speedup_is_of_p90_and_pairs_the_rounds() -> None:
    turns = noisy(0.01)
    slow_spells = [
        [second * (3 if n in (4, 5, 6) else 1) for second in turn] for n, turn in enumerate(turns)
    ]
    twice = [[2 * second for second in turn] for turn in slow_spells]
    found = speedup(timed(slow_spells), timed(twice))
    assert found["value"] == pytest.approx(2.0)
    # What slowed a round slowed both: their ratio is sure though each is not.
    assert found["ci95"] == pytest.approx([2.0, 2.0])
    other = speedup(timed(noisy(0.01, seed=3)), timed(noisy(0.02, seed=4)))
    assert other["ci95"][0] < other["value"] < other["ci95"][1]
    assert other["value"] == pytest.approx(2.0, rel=0.1)


def test_a_single_turn_has_a_result() -> None:
    found = summarize(SINGLE_STREAM, timed([[0.01]]), QUICK)
    assert found["p99"] == pytest.approx(10.0)
    assert found["drift"] == {"percent": 0.0, "p_value": 1.0}


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_intervals_cover_the_truth(spread: float) -> None:
    """Of 20 turns of 52 queries, alike or apart by as much as a quiet machine's are."""
    random = np.random.default_rng(11)
    every = np.exp(0.1 * random.normal(size=200_000) + spread * random.normal(size=200_000))
    truth = dict(zip(("p50", "p90"), 10 * np.percentile(every, [50, 90]), strict=True))
    covered: dict[str, list[bool]] = {"p50": [], "p90": []}
    for _ in range(150):
        turns = [
            0.01 * np.exp(0.1 * random.normal(size=52) + spread * random.normal())
            for _ in range(20)
        ]
        found = summarize(SINGLE_STREAM, timed([turn.tolist() for turn in turns]), THOROUGH)
        for name in covered:
            low, high = found["ci95"][name]
            covered[name].append(low <= truth[name] <= high)
    for name, all_of_them in covered.items():
        assert np.mean(all_of_them) > 0.89, name
