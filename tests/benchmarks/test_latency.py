"""That engines take turns, and that what is counted is what the scenario says."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import latency
from benchmarks.latency import BATCH, Timed, measure, queries
from benchmarks.scenarios import (
    FROM_FILE,
    MULTI_STREAM,
    OFFLINE,
    QUICK,
    SINGLE_STREAM,
    THOROUGH,
    Effort,
)
from engines.engine import Engine

PICTURES = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)


class Clock:
    """A `time` that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    return clock


class Recording(Engine):
    """Notes which engine saw which pictures, and takes as long as it is told."""

    def __init__(self, name: str, seen: list, clock: Clock, *seconds: float) -> None:
        self.name, self.seen, self.clock = name, seen, clock
        self.seconds = list(seconds)  # of the first queries; the last is everyone's after

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        self.seen.append((self.name, pictures.ravel().tolist()))
        self.clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return pictures


def run(
    clock: Clock, scenario: str, effort: Effort = QUICK, **seconds: float
) -> tuple[dict[str, Timed], list]:
    seen: list = []
    engines: dict[str, Engine] = {
        name: Recording(name, seen, clock, value) for name, value in seconds.items()
    }
    turns: list[int] = []
    timed = measure(scenario, engines, PICTURES, [], effort, turns.append)
    assert turns == [1] * sum(len(one.turns) for one in timed.values())
    return timed, seen


def test_turns_are_interleaved_and_go_through_the_pictures(clock: Clock) -> None:
    timed, seen = run(clock, SINGLE_STREAM, a=0.001, b=0.002)
    warm = sum(one.warm_up.queries for one in timed.values())
    per_turn = QUICK.queries // QUICK.turns
    counted = seen[warm:]
    # One query before each turn is not counted.
    turn = "a" * (1 + per_turn) + "b" * (1 + per_turn)
    assert "".join(name for name, _ in counted) == turn * QUICK.turns
    shown = [pixels for name, [pixels] in counted if name == "b"]
    kept = [place for n, place in enumerate(shown) if n % (1 + per_turn)]
    assert kept == [n % 5 for n in range(QUICK.queries)]
    assert all(len(one.turns) == QUICK.turns for one in timed.values())


def test_latency_is_what_a_query_takes(clock: Clock) -> None:
    timed, _ = run(clock, SINGLE_STREAM, a=0.25, b=0.5)
    for name, seconds in (("a", 0.25), ("b", 0.5)):
        for turn in timed[name].turns:
            assert turn.seconds == [seconds] * len(turn.seconds)
            assert turn.end - turn.start == seconds * len(turn.seconds)
            assert turn.pictures == len(turn.seconds)
            assert turn.preparing == []


def test_thorough_has_the_queries_and_the_seconds(clock: Clock) -> None:
    """The fast one is held by the seconds, the slow one by the queries."""
    timed, _ = run(clock, SINGLE_STREAM, THOROUGH, fast=2**-10, slow=2**-5)
    assert latency.busy(timed["fast"].turns) >= THOROUGH.seconds
    assert queries(timed["slow"].turns) >= THOROUGH.queries
    assert {len(one.turns) for one in timed.values()} == {THOROUGH.turns}
    # No more than a turn's rounding over what was asked for.
    assert latency.busy(timed["fast"].turns) < 1.05 * THOROUGH.seconds
    assert queries(timed["slow"].turns) < 1.05 * THOROUGH.queries


def test_an_engine_that_gets_faster_has_more_rounds_with_everyone(clock: Clock) -> None:
    seen: list = []
    slow_start = [2**-3] * 300 + [2**-4]  # the warm-up and some rounds at half the speed
    engines: dict[str, Engine] = {
        "a": Recording("a", seen, clock, *slow_start),
        "b": Recording("b", seen, clock, 2**-4),
    }
    effort = THOROUGH._replace(queries=64, seconds=100.0)
    timed = measure(SINGLE_STREAM, engines, PICTURES, [], effort, lambda _: None)
    rounds = {len(one.turns) for one in timed.values()}
    assert len(rounds) == 1
    assert rounds.pop() > effort.turns
    assert all(latency.is_enough(effort, one.turns) for one in timed.values())


def test_rounds_end_though_an_engine_is_never_valid(clock: Clock) -> None:
    seen: list = []
    engine = Recording("a", seen, clock, *[1.0] * 8, 1e-9)  # fast after the warm-up only
    timed = measure(
        SINGLE_STREAM, {"a": engine}, PICTURES, [], THOROUGH._replace(queries=8), lambda _: None
    )
    assert len(timed["a"].turns) == THOROUGH.turns * latency.MAX_ROUNDS
    assert not latency.is_enough(THOROUGH, timed["a"].turns)


def test_warm_up_goes_on_until_the_latency_is_steady(clock: Clock) -> None:
    seen: list = []
    falling = [2.0 * 0.9**n for n in range(30)]
    engine = Recording("a", seen, clock, *falling, 0.01)
    effort = THOROUGH._replace(window=0.05, warm_up=1000.0)
    warm_up = measure(SINGLE_STREAM, {"a": engine}, PICTURES, [], effort, lambda _: None)["a"][0]
    assert warm_up.steady
    assert warm_up.queries >= 30 + 2 * latency.STEADY_WINDOWS - 2
    assert warm_up.seconds == pytest.approx(sum(falling) + 0.01 * (warm_up.queries - 30), abs=0.01)


def test_warm_up_ends_though_it_is_never_steady(clock: Clock) -> None:
    seen: list = []
    restless = [0.01 * (1 + n // 20 % 2) for n in range(10000)]
    engine = Recording("a", seen, clock, *restless)
    effort = QUICK._replace(window=0.2, warm_up=5.0)
    warm_up = measure(SINGLE_STREAM, {"a": engine}, PICTURES, [], effort, lambda _: None)["a"][0]
    assert not warm_up.steady
    assert 5.0 <= warm_up.seconds < 6.0


def test_a_first_query_that_compiles_leaves_the_warm_up_its_time(clock: Clock) -> None:
    engine = Recording("a", [], clock, 60.0, 2**-6)
    warm_up = measure(SINGLE_STREAM, {"a": engine}, PICTURES, [], QUICK, lambda _: None)["a"][0]
    assert warm_up.steady
    assert warm_up.queries == 2 + 2 * latency.STEADY_WINDOWS
    assert 60.0 < warm_up.seconds < 61.0


def test_multi_stream_sends_eight_pictures_at_a_time(clock: Clock) -> None:
    timed, seen = run(clock, MULTI_STREAM, a=0.001)
    assert {len(pixels) for _, pixels in seen} == {8}
    assert seen[0][1] == [0, 1, 2, 3, 4, 0, 1, 2]  # they repeat where there are too few
    assert all(turn.pictures == 8 * len(turn.seconds) for turn in timed["a"].turns)


def test_offline_counts_pictures_of_a_stream(clock: Clock) -> None:
    timed, seen = run(clock, OFFLINE, THOROUGH, a=0.5)
    assert {len(pixels) for _, pixels in seen} == {BATCH}
    for turn in timed["a"].turns:
        assert turn.streamed
        assert turn.seconds == [turn.end - turn.start]
        assert turn.pictures == BATCH * turn.seconds[0] / 0.5
    assert queries(timed["a"].turns) == sum(turn.pictures for turn in timed["a"].turns)
    assert queries(timed["a"].turns) >= THOROUGH.queries


def test_from_file_times_loading_apart(pictures: Path, dataset: object) -> None:
    files = sorted(pictures.glob("*/*.png"))[:3]
    shapes = []

    class Plain(Engine):
        def infer(self, pictures: np.ndarray) -> np.ndarray:
            shapes.append((pictures.shape, int(pictures[0, 0, 0, 0])))
            time.sleep(0.002)
            return pictures

    pixels = np.zeros((1, 20, 30, 3), np.uint8)
    timed = measure(FROM_FILE, {"a": Plain()}, pixels, files, QUICK, lambda _: None)
    first = [int(latency.load_good(file, 20, 30)[0, 0, 0]) for file in files]
    assert {shape for shape, _ in shapes} == {(1, 20, 30, 3)}
    assert {pixel for _, pixel in shapes} == set(first)
    for turn in timed["a"].turns:
        assert len(turn.preparing) == len(turn.seconds)
        assert min(turn.preparing) > 0
        assert min(turn.seconds) >= 0.002
        assert turn.end - turn.start >= sum(turn.preparing) + sum(turn.seconds)


def test_preprocessing_alone(pictures: Path) -> None:
    files = sorted(pictures.glob("*/*.png"))[:3]
    found = latency.preprocess(files, (20, 30), QUICK)
    assert found["n"] == QUICK.queries
    assert 0 < found["p50"] <= found["p90"] <= found["p99"]
