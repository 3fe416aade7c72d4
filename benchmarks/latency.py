"""How fast engines are in each scenario, side by side in the same minutes."""

import math
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from benchmarks.scenarios import FROM_FILE, MULTI_STREAM, OFFLINE, Effort
from benchmarks.statistics import percentiles
from engines.engine import Engine
from engines.preprocess import load_good

STREAMS = 8  # pictures in a query of MultiStream
BATCH = 32  # pictures in a batch of Offline
AT_ONCE = 2  # batches in a turn at least: while one is computed, the next can be copied
STEADY_WINDOWS = 3  # windows of warm-up whose medians must agree
STEADY_WITHIN = 0.05  # of the smallest of them
WARM_FILES = 5  # files that are loaded before it counts
PREPROCESS_SECONDS = 10.0  # that loading files alone may take
MAX_ROUNDS = 5  # times as many rounds as were planned, at most


class Turn(NamedTuple):
    """What an engine did in one round.

    start, end: by `time.perf_counter`.
    seconds: of each query; Offline has one, the turn's.
    preparing: seconds of reading, decoding and resizing of each query, which are not in
        `seconds`; FROM_FILE only.
    pictures: how many were answered.
    streamed: whether it is one of Offline.
    """

    start: float
    end: float
    seconds: List[float]
    preparing: List[float]
    pictures: int
    streamed: bool = False


class WarmUp(NamedTuple):
    """What came before the first round; steady: whether the latency had stopped changing."""

    queries: int
    seconds: float
    steady: bool


class Timed(NamedTuple):
    """Everything that was timed of an engine in a scenario."""

    warm_up: WarmUp
    turns: List[Turn]


Run = Callable[[int, int], Turn]  # from the number of the first query and their count


def measure(
    scenario: str,
    engines: Dict[str, Engine],
    pixels: np.ndarray,
    files: Sequence[Path],
    effort: Effort,
    advance: Callable[[int], None],
) -> Dict[str, Timed]:
    """Time engines in a scenario, taking turns: a slow spell of the machine then meets them all.

    Args:
        scenario: of `SCENARIOS`.
        engines: by name.
        pixels: (N, height, width, 3) uint8; the queries go through them.
        files: pictures; FROM_FILE goes through them.
        advance: told the number of turns that were finished.

    Returns:
        For each engine its warm-up, and as many turns as make it valid, the same number for all;
        at most `MAX_ROUNDS` times as many as the effort plans.
    """
    runs = {n: _run_of(scenario, engine, pixels, files) for n, engine in engines.items()}
    rounds = rounds_of(scenario, effort)
    least = math.ceil(effort.queries / BATCH) if scenario == OFFLINE else effort.queries
    warm_ups, counts = {}, {}
    for name, run in runs.items():
        warm_ups[name], expected = _warm_up(run, effort)
        count = math.ceil(max(least, effort.seconds / expected) / rounds)
        counts[name] = max(count, AT_ONCE) if scenario == OFFLINE else count
    turns = {name: [] for name in runs}  # type: Dict[str, List[Turn]]
    for number in range(rounds * MAX_ROUNDS):
        if number >= rounds and all(is_enough(effort, done) for done in turns.values()):
            break
        for name, run in runs.items():
            if scenario != OFFLINE:
                # Not counted: the query before was another engine's, whose data is in the caches.
                run(number, 1)
            turns[name].append(run(number * counts[name], counts[name]))
            advance(1)
    return {name: Timed(warm_ups[name], done) for name, done in turns.items()}


def rounds_of(scenario: str, effort: Effort) -> int:
    """How many rounds are planned; of Offline no more than a turn of some batches is worth."""
    batches = math.ceil(effort.queries / BATCH)
    return min(effort.turns, max(3, batches)) if scenario == OFFLINE else effort.turns


def is_enough(effort: Effort, turns: Sequence[Turn]) -> bool:
    """Whether some turns have the queries and the seconds that an effort asks for."""
    return queries(turns) >= effort.queries and busy(turns) >= effort.seconds


def queries(turns: Sequence[Turn]) -> int:
    """How many queries were answered; of Offline, which has one a turn, the pictures."""
    return sum(turn.pictures if turn.streamed else len(turn.seconds) for turn in turns)


def busy(turns: Sequence[Turn]) -> float:
    """Seconds that were spent on queries."""
    return sum(sum(turn.seconds) + sum(turn.preparing) for turn in turns)


def whole(turn: Turn) -> np.ndarray:
    """Seconds of each query, from the file where it comes from one."""
    return np.add(turn.seconds, turn.preparing) if turn.preparing else np.array(turn.seconds)


def preprocess(files: Sequence[Path], size: Tuple[int, int], effort: Effort) -> Dict[str, float]:
    """What reading, decoding and resizing one picture takes, alone.

    Args:
        files: pictures; the disk has been read before, so this is without its waiting times.
        size: height and width to resize to.

    Returns:
        As `percentiles`.
    """
    seconds: List[float] = []
    for path in [*files[:WARM_FILES], *islice(cycle(files), effort.queries)]:
        start = time.perf_counter()
        load_good(path, *size)
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > PREPROCESS_SECONDS:
            break
    return percentiles(seconds[min(WARM_FILES, len(files)) :] or seconds)


def _run_of(scenario: str, engine: Engine, pixels: np.ndarray, files: Sequence[Path]) -> Run:
    if scenario == OFFLINE:
        return _offline(engine, np.resize(pixels, (BATCH, *pixels.shape[1:])))
    if scenario == FROM_FILE:
        return _from_file(engine, files, pixels.shape[1:3])
    return _queries(engine, _grouped(pixels, STREAMS if scenario == MULTI_STREAM else 1))


def _grouped(pixels: np.ndarray, size: int) -> List[np.ndarray]:
    """The pictures in groups of `size`; they repeat where there are too few."""
    some = np.resize(pixels, (max(len(pixels) // size, 1) * size, *pixels.shape[1:]))
    return [some[start : start + size] for start in range(0, len(some), size)]


def _queries(engine: Engine, groups: Sequence[np.ndarray]) -> Run:
    def run(first: int, count: int) -> Turn:
        seconds = []
        begin = time.perf_counter()
        for query in range(first, first + count):
            pictures = groups[query % len(groups)]
            start = time.perf_counter()
            engine.infer(pictures)
            seconds.append(time.perf_counter() - start)
        return Turn(begin, time.perf_counter(), seconds, [], count * len(groups[0]))

    return run


def _from_file(engine: Engine, files: Sequence[Path], size: Tuple[int, int]) -> Run:
    def run(first: int, count: int) -> Turn:
        seconds, preparing = [], []
        begin = time.perf_counter()
        for query in range(first, first + count):
            start = time.perf_counter()
            pictures = load_good(files[query % len(files)], *size)[np.newaxis]
            middle = time.perf_counter()
            engine.infer(pictures)
            preparing.append(middle - start)
            seconds.append(time.perf_counter() - middle)
        return Turn(begin, time.perf_counter(), seconds, preparing, count)

    return run


def _offline(engine: Engine, batch: np.ndarray) -> Run:
    def run(_first: int, count: int) -> Turn:
        begin = time.perf_counter()
        for _answers in engine.stream([batch] * count):
            pass
        end = time.perf_counter()
        return Turn(begin, end, [end - begin], [], count * len(batch), True)

    return run


def _warm_up(run: Run, effort: Effort) -> Tuple[WarmUp, float]:
    """Query until the latency stops changing; also gives the seconds that a query takes then.

    The medians of the last windows have to lie close to each other. A first query, which may have
    to compile, is in none, nor is its time taken from that of the windows.
    """
    start = time.perf_counter()
    run(0, 1)
    compiled = time.perf_counter()
    expected = busy([run(1, 1)])
    done, steady = 2, False
    medians: List[float] = []
    while not steady and time.perf_counter() - compiled < effort.warm_up:
        count = max(2, math.ceil(effort.window / max(expected, 1e-9)))
        turn = run(done, count)
        done += count
        expected = busy([turn]) / count
        medians.append(expected if turn.streamed else float(np.median(whole(turn))))
        last = medians[-STEADY_WINDOWS:]
        steady = len(last) == STEADY_WINDOWS and max(last) <= min(last) * (1 + STEADY_WITHIN)
    return WarmUp(done, round(time.perf_counter() - start, 3), steady), expected
