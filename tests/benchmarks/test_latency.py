"""That engines take turns, and that only what is counted is counted."""

import time

import numpy as np

from benchmarks.latency import WARM_UP, interleaved_latencies, interleaved_throughputs
from engines.engine import Engine

PICTURES = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)


class Recording(Engine):
    """Notes which engine saw which pictures, and takes a while."""

    def __init__(self, name: str, seen: list, seconds: float = 0.0) -> None:
        self.name, self.seen, self.seconds = name, seen, seconds

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        self.seen.append((self.name, pictures.ravel().tolist()))
        time.sleep(self.seconds)
        return pictures


def pair(seconds: float | None = 0.0) -> tuple[dict[str, Engine], list]:
    seen: list = []
    return {"a": Recording("a", seen), "b": Recording("b", seen, seconds or 0.0)}, seen


def test_turns_are_interleaved_and_go_through_the_pictures() -> None:
    engines, seen = pair()
    turns: list[int] = []
    seconds = interleaved_latencies(engines, PICTURES, turns.append, rounds=3, queries=2)
    assert [name for name, _ in seen[: 2 * WARM_UP]] == ["a"] * WARM_UP + ["b"] * WARM_UP
    counted = seen[2 * WARM_UP :]
    # One query before each turn is not counted.
    assert "".join(name for name, _ in counted) == "aaabbb" * 3
    shown = [pixels for name, [pixels] in counted if name == "b"]
    assert [shown[n] for n in range(len(shown)) if n % 3] == [0, 1, 2, 3, 4, 0]
    assert turns == [1] * 6
    assert {name: len(times) for name, times in seconds.items()} == {"a": 6, "b": 6}


def test_latency_is_what_a_query_takes() -> None:
    engines, _ = pair(0.01)
    seconds = interleaved_latencies(engines, PICTURES, lambda _: None, rounds=1, queries=3)
    assert min(seconds["b"]) >= 0.01 > np.median(seconds["a"])


def test_throughput_counts_pictures() -> None:
    engines, seen = pair(0.02)
    turns: list[int] = []
    found = interleaved_throughputs(engines, PICTURES, turns.append, batches=3)
    assert "".join(name for name, _ in seen) == "aabb" * 4
    assert all(len(pixels) == 5 for _, pixels in seen)
    assert 25 < found["b"] <= 250 < found["a"]
    assert turns == [1] * 6
