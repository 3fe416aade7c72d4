"""The thread that reads sensors: its rate, its bounds, and what goes wrong in probes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import pytest

from benchmarks import monitor
from benchmarks.monitor import Monitor


class Counting:
    """A probe that says how often it was read."""

    def __init__(self, then: Callable[[int], dict[str, float]] | None = None) -> None:
        self.reads, self.closed = 0, 0
        self._then = then or (lambda n: {"n": float(n)})

    def read(self) -> dict[str, float]:
        self.reads += 1
        return self._then(self.reads)

    def close(self) -> None:
        self.closed += 1


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_samples_have_their_times_and_their_rate() -> None:
    probe = Counting()
    before = time.perf_counter()
    with Monitor([probe], 50) as running:
        wait_for(lambda: probe.reads >= 10)
        series = running.series()
    after = time.perf_counter()
    seconds = series["seconds"]
    assert len(seconds) == len(series["n"]) >= 9
    assert before <= seconds[0] <= seconds[-1] <= after  # type: ignore[operator]
    assert seconds == sorted(set(seconds))  # type: ignore[type-var]
    assert series["n"] == [float(n + 1) for n in range(len(seconds))]
    # Samples are due every 20 ms: there can't be more, however late some were.
    assert len(seconds) <= (after - before) * 50 + 1


def test_a_sample_is_of_the_middle_of_its_reading() -> None:
    moments = []

    def slow(_: int) -> dict[str, float]:
        start = time.perf_counter()
        time.sleep(0.05)
        moments.append((start, time.perf_counter()))
        return {}

    probe = Counting(slow)
    with Monitor([probe], 200) as running:
        wait_for(lambda: len(running.series()["seconds"]) >= 4)
        seconds = running.series()["seconds"]
    for moment, (start, end) in zip(seconds, moments, strict=False):
        assert moment == pytest.approx((start + end) / 2, abs=0.02)
        assert start < moment < end  # type: ignore[operator]


def test_what_was_missed_is_not_made_up_for() -> None:
    def slow_at_first(n: int) -> dict[str, float]:
        time.sleep(0.3 if n == 1 else 0)
        return {}

    with Monitor([Counting(slow_at_first)], 50) as running:
        wait_for(lambda: len(running.series()["seconds"]) >= 8)
        seconds = running.series()["seconds"]
    # 15 were due while the first was read; the others follow in their own time.
    assert seconds[7] - seconds[1] >= 6 * 0.02 - 0.02  # type: ignore[operator]


def test_a_failing_probe_costs_its_own_values_only() -> None:
    def moody(n: int) -> dict[str, float]:
        if n % 2:
            raise OSError("the sensor is asleep")
        return {"power_w": 5.0}

    probe, other = Counting(moody), Counting()
    with Monitor([probe, other], 200) as running:
        wait_for(lambda: len(running.series()["seconds"]) >= 6)
        series = running.series()
    assert series["power_w"][:6] == [None, 5.0] * 3
    assert series["n"][:6] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "hot", None])
def test_what_is_no_number_is_none(value: float) -> None:
    probe = Counting(lambda n: {"power_w": value if n == 1 else 2.0})
    with Monitor([probe], 200) as running:
        wait_for(lambda: len(running.series()["seconds"]) >= 2)
        series = running.series()
    assert series["power_w"][:2] == [None, 2.0]


def test_of_two_probes_with_one_key_the_later_stays() -> None:
    with Monitor([Counting(), Counting(lambda _: {"n": -1.0})], 100) as running:
        wait_for(lambda: bool(running.series()["seconds"]))
        assert set(running.series()["n"]) == {-1.0}


def test_memory_is_bounded_and_the_whole_time_stays_covered() -> None:
    probe = Counting()
    start = time.perf_counter()
    with Monitor([probe], 2000, most=20) as running:
        wait_for(lambda: probe.reads >= 60)
        series = running.series()
    took = time.perf_counter() - start
    assert 10 <= len(series["seconds"]) <= 20
    assert series["n"][0] == 1  # from the first sample on
    assert series["n"][-1] >= 59  # type: ignore[operator]
    # At 2,000 a second it would have read far more than this in that time.
    reads, time_needed = 20, 20 / 2000
    while reads < 60:
        reads, time_needed = reads + 10, time_needed + 10 / 2000 * 2 ** ((reads - 10) // 10)
    assert took >= time_needed / 2


def test_it_ends_with_the_block_and_closes_its_probes() -> None:
    class Unwilling(Counting):
        def close(self) -> None:
            super().close()
            raise OSError("it was closed already")

    probes = [Unwilling(), Counting()]
    with pytest.raises(KeyError), Monitor(probes, 100):
        raise KeyError
    reads = [probe.reads for probe in probes]
    time.sleep(0.05)
    assert [probe.reads for probe in probes] == reads
    assert [probe.closed for probe in probes] == [1, 1]
    assert not [thread for thread in threading.enumerate() if thread.name == "monitor"]


def test_probes_need_no_close() -> None:
    class Plain:
        def read(self) -> dict[str, float]:
            return {}

    with Monitor([Plain()], 100) as running:
        wait_for(lambda: bool(running.series()["seconds"]))
        assert list(running.series()) == ["seconds"]


def test_a_sensor_that_never_answers_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "CLOSING", 0.1)
    answer = threading.Event()

    def never(_: int) -> dict[str, float]:
        answer.wait(30)
        return {}

    start = time.monotonic()
    with Monitor([Counting(never)], 100) as running:
        assert running.series() == {"seconds": []}
    assert time.monotonic() - start < 10
    answer.set()
