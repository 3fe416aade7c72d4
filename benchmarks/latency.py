"""How fast engines are, measured side by side on the same machine in the same minutes."""

import time
from typing import Callable, Dict, List

import numpy as np

from engines.engine import Engine

WARM_UP = 10  # queries of each engine that are not counted, before the first round
ROUNDS = 20
QUERIES = 10  # of each engine in each round
BATCH = 32  # pictures at a time for throughput
BATCHES = 3  # turns of each engine, after one that is not counted
STREAMED = 2  # batches in a turn: while one is computed, the next can be copied


def interleaved_latencies(
    engines: Dict[str, Engine],
    pictures: np.ndarray,
    advance: Callable[[int], None],
    rounds: int = ROUNDS,
    queries: int = QUERIES,
) -> Dict[str, List[float]]:
    """Time single-picture queries, the engines taking turns.

    A machine that is slow for a while is then slow for all of them. Each turn starts with one
    query that is not counted: the one before belonged to another engine and left its data in
    the caches.

    Args:
        engines: by name; all warm up first.
        pictures: (N, height, width, 3) uint8; the queries go through them.
        advance: told the number of turns that were finished.

    Returns:
        For each engine, the seconds of its rounds * queries queries, pixels in to probabilities
        out, in the order they were made.
    """
    seconds: Dict[str, List[float]] = {name: [] for name in engines}
    for engine in engines.values():
        for _ in range(WARM_UP):
            engine.infer(pictures[:1])
    for turn in range(rounds):
        for name, engine in engines.items():
            engine.infer(pictures[:1])
            for query in range(queries):
                place = (turn * queries + query) % len(pictures)
                picture = pictures[place : place + 1]
                start = time.perf_counter()
                engine.infer(picture)
                seconds[name].append(time.perf_counter() - start)
            advance(1)
    return seconds


def interleaved_throughputs(
    engines: Dict[str, Engine],
    pictures: np.ndarray,
    advance: Callable[[int], None],
    batches: int = BATCHES,
) -> Dict[str, float]:
    """Time streams of batches, the engines taking turns.

    Args:
        engines: by name; each has one turn first that is not counted.
        pictures: one batch, (N, height, width, 3) uint8.
        advance: told the number of turns that were finished.

    Returns:
        Pictures a second of each engine, by the median of its turns.
    """
    turn = [pictures] * STREAMED
    seconds: Dict[str, List[float]] = {name: [] for name in engines}
    for engine in engines.values():
        for _ in engine.stream(turn):
            pass
    for _ in range(batches):
        for name, engine in engines.items():
            start = time.perf_counter()
            for _answers in engine.stream(turn):
                pass
            seconds[name].append(time.perf_counter() - start)
            advance(1)
    count = len(pictures) * STREAMED
    return {name: count / float(np.median(times)) for name, times in seconds.items()}
