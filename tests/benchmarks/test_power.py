"""Energy of a picture from power over time, where it is known what it must be."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.latency import Turn
from benchmarks.monitor import Monitor
from benchmarks.power import Idle, energy, idle, picture
from benchmarks.statistics import RESAMPLES

Series = dict[str, Any]


def turn(start: float, end: float, pictures: int = 10) -> Turn:
    return Turn(start, end, [], [], pictures)


def exactly(watts: float) -> Idle:
    """Power of the idle machine, without any doubt."""
    return Idle(watts, np.full(RESAMPLES, watts))


def sampled(curve: Callable[[float], float], end: float, hz: float = 10.0) -> Series:
    seconds = [n / hz for n in range(int(end * hz) + 1)]
    return {"seconds": seconds, "power_w": [curve(second) for second in seconds]}


def counted(curve: Callable[[float], float], end: float, hz: float = 10.0) -> Series:
    """As a sensor that counts joules gives it."""
    fine = np.arange(0, end + 1e-3, 1e-3)
    joules = np.concatenate([[0], np.cumsum([curve(t + 5e-4) * 1e-3 for t in fine[:-1]])])
    seconds = [n / hz for n in range(int(end * hz) + 1)]
    return {"seconds": seconds, "energy_j": [float(np.interp(t, fine, joules)) for t in seconds]}


def test_constant_power() -> None:
    turns = [turn(n + 0.03, n + 0.78, 30) for n in range(10)]
    found = energy(sampled(lambda _: 12.5, 12), exactly(5.0), turns)
    assert found is not None
    # 7.5 W for 0.75 s make 5.625 J for 30 pictures.
    assert found["mj"] == pytest.approx(187.5)
    assert found["ci95"] == [pytest.approx(187.5), pytest.approx(187.5)]
    assert found["loaded_w"] == pytest.approx(12.5)
    assert found["samples"] == sum(n + 0.03 <= t / 10 <= n + 0.78 for n in range(10)
                                   for t in range(121))  # fmt: skip


def test_rising_power_is_exact() -> None:
    turns = [turn(n + 0.137, n + 0.891, 5 + n) for n in range(8)]
    found = energy(sampled(lambda t: 5 + 2 * t, 9), exactly(5.0), turns)
    assert found is not None
    joules = sum(t.end**2 - t.start**2 for t in turns)
    seconds = sum(t.end - t.start for t in turns)
    assert found["mj"] == pytest.approx(1e3 * joules / sum(t.pictures for t in turns))
    assert found["loaded_w"] == pytest.approx(5 + joules / seconds)
    low, high = found["ci95"]
    assert low < found["mj"] < high


@pytest.mark.parametrize("series", [sampled, counted])
@pytest.mark.parametrize(("hz", "within"), [(10.0, 0.075), (100.0, 0.0075)])
def test_two_engines_in_turn(series: Callable[..., Series], hz: float, within: float) -> None:
    """Turns of half a second: the share of the neighbour's power is what the docstring says."""
    length = 0.5037  # so that edges fall anywhere between two samples
    names = [int(t // length) % 2 for t in np.arange(0, 42, 1e-3)]

    def curve(t: float) -> float:
        return (9.0, 15.0)[names[min(int(t * 1e3), len(names) - 1)]]

    measured = series(curve, 41.5, hz)
    for engine, watts in ((0, 9.0), (1, 15.0)):
        turns = [turn((2 * n + engine) * length, (2 * n + engine + 1) * length)
                 for n in range(40)]  # fmt: skip
        found = energy(measured, exactly(4.0), turns)
        assert found is not None
        exact = (watts - 4) * length / 10 * 1e3
        mixed = within * 6.0 * length / 10 * 1e3
        assert found["mj"] == pytest.approx(exact, abs=mixed)
        assert found["samples"] == pytest.approx(40 * length * hz, rel=0.02)


def test_less_than_idle_stays_below_zero() -> None:
    turns = [turn(n, n + 0.9) for n in range(10)]
    found = energy(sampled(lambda _: 4.0, 11), exactly(5.0), turns)
    assert found is not None
    assert found["mj"] == pytest.approx(-90.0)
    assert found["ci95"][1] < 0


def test_interval_is_that_of_turns() -> None:
    """Half of the turns at 10 W, half at 20 W: means of 20 draws, by the binomial."""
    turns = [turn(n, n + 0.8, 100) for n in range(20)]
    found = energy(sampled(lambda t: 20.0 if int(t + 0.1) % 2 else 10.0, 21), exactly(0.0), turns)
    assert found is not None
    middle, half = 120.0, 1.96 * 40 / math.sqrt(20)
    assert found["mj"] == pytest.approx(middle, rel=0.02)
    assert found["ci95"] == [pytest.approx(middle - half, abs=4), pytest.approx(middle + half,
                                                                               abs=4)]  # fmt: skip
    assert found == energy(
        sampled(lambda t: 20.0 if int(t + 0.1) % 2 else 10.0, 21), exactly(0.0), turns
    )


def noise(random: np.random.Generator, count: int, spread: float) -> np.ndarray:
    """Samples of which each is half of the one before: neighbours are alike."""
    found = np.empty(count)
    found[0] = random.normal(0, spread)
    for n in range(1, count):
        found[n] = 0.5 * found[n - 1] + random.normal(0, spread * math.sqrt(0.75))
    return found


@pytest.mark.parametrize("watts", [0.6, 20.0])
def test_interval_holds_the_true_energy_19_times_in_20(watts: float) -> None:
    """Idle for 10 s, then 20 turns that take `watts` more, a little more or less in each of them.

    Where a picture costs little, that of the turns alone holds it 15 times in 20.
    """
    random = np.random.default_rng(7)
    turns = [turn(11.0 + n, 11.8 + n, 100) for n in range(20)]
    held = alone = 0
    seconds = np.arange(320) / 10
    for _ in range(200):
        shares = random.normal(1, 0.02, 32)[seconds.astype(int)]
        power = 5 + noise(random, len(seconds), 0.3) + np.where(seconds > 10.5, watts * shares, 0)
        series: Series = {"seconds": seconds.tolist(), "power_w": power.tolist()}
        idle_power = picture._idle(picture.Readings(series), 0.0, 10.0)
        assert idle_power is not None
        truth = 1e3 * watts * 0.8 / 100
        for found, sure in ((idle_power, False), (exactly(idle_power.mean), True)):
            measured = energy(series, found, turns)
            assert measured is not None
            low, high = measured["ci95"]
            assert low <= measured["mj"] <= high
            held += not sure and low <= truth <= high
            alone += sure and low <= truth <= high
    assert held >= 180
    assert alone <= held - (20 if watts < 1 else 0)


def test_idle_power_is_as_sure_as_its_pieces_agree() -> None:
    """Five of its ten pieces at 4 W, five at 6 W: by Student's t of 9 degrees of freedom."""
    series = counted(lambda t: 6.0 if int(2 * t) % 2 else 4.0, 6)
    found = picture._idle(picture.Readings(series), 0.0, 5.0)
    assert found is not None
    assert found.mean == pytest.approx(5.0)
    half = 2.262 * math.sqrt(10 / 9) / math.sqrt(10)
    low, high = np.percentile(found.draws, [2.5, 97.5])
    assert (low, high) == (pytest.approx(5 - half, abs=0.08), pytest.approx(5 + half, abs=0.08))
    # Fewer samples, fewer pieces; of one piece it is not known how sure it is.
    assert picture._idle(picture.Readings(series), 0.0, 0.35) is not None
    assert picture._idle(picture.Readings(series), 0.0, 0.25) is None
    assert picture._idle(picture.Readings(series), 5.55, 9.0) is not None  # ends after the last


def test_too_few_samples() -> None:
    series = sampled(lambda _: 10.0, 30)
    pairs = [turn(n - 0.05, n + 0.15) for n in range(1, 6)]  # two samples each
    assert energy(series, exactly(5.0), pairs)["samples"] == 10  # type: ignore[index]
    assert energy(series, exactly(5.0), pairs[:4]) is None
    assert energy(series, exactly(5.0), [*pairs[:4], turn(5.95, 6.05)]) is None  # 9
    assert energy(series, exactly(5.0), [turn(0, 25)]) is None  # no turns to draw from
    assert energy(series, exactly(5.0), []) is None
    assert energy({"seconds": []}, exactly(5.0), pairs) is None
    assert energy({"seconds": [1.0, 2.0], "power_w": [None, None]}, exactly(5.0), pairs) is None
    assert energy({"seconds": [1.0, 2.0], "cpu_mhz": [1.0, 2.0]}, exactly(5.0), pairs) is None


def test_turns_without_samples_are_left_out() -> None:
    good = [turn(n, n + 0.9, 10) for n in range(10)]
    series = sampled(lambda _: 10.0, 30)
    # Its pictures would halve the energy, if they were counted.
    short = [turn(n + 0.92, n + 0.98, 100) for n in range(10)]
    assert energy(series, exactly(5.0), good + short) == energy(series, exactly(5.0), good)


@pytest.mark.parametrize("series", [sampled, counted])
def test_samples_that_failed_are_bridged(series: Callable[..., Series]) -> None:
    measured = series(lambda t: 5 + 2 * t, 12)
    turns = [turn(n + 0.1, n + 0.9) for n in range(10)]
    whole = energy(measured, exactly(5.0), turns)
    key = next(key for key in measured if key != "seconds")
    measured[key] = [None if n % 4 == 2 else value for n, value in enumerate(measured[key])]
    found = energy(measured, exactly(5.0), turns)
    assert whole is not None
    assert found is not None
    assert found["mj"] == pytest.approx(whole["mj"], rel=0.01)
    assert found["samples"] < whole["samples"]


def test_last_turn_ends_after_the_last_sample() -> None:
    turns = [turn(n, n + 1.0, 10) for n in range(10)]
    for series in (sampled, counted):
        found = energy(series(lambda _: 10.0, 9.8), exactly(5.0), turns)
        assert found is not None
        assert found["mj"] == pytest.approx(500.0)


def test_joules_that_were_counted_come_first() -> None:
    turns = [turn(n, n + 0.9) for n in range(10)]
    series = {**sampled(lambda _: 99.0, 11), **counted(lambda _: 10.0, 11)}
    found = energy(series, exactly(5.0), turns)
    assert found is not None
    assert found["loaded_w"] == pytest.approx(10.0)


@settings(deadline=None)  # other work on the machine is not to matter
@given(
    watts=st.lists(st.floats(0, 100), min_size=60, max_size=60),
    gaps=st.lists(st.floats(0.01, 0.3), min_size=60, max_size=60),
    length=st.floats(0.6, 0.99),
)
def test_any_curve_is_integrated(watts: list[float], gaps: list[float], length: float) -> None:
    """Against a sum of 20,000 narrow strips for each turn."""
    seconds = np.cumsum(gaps)
    turns = [turn(n / 6 * seconds[-1], (n + length) / 6 * seconds[-1], 7) for n in range(6)]
    series: Series = {"seconds": seconds.tolist(), "power_w": watts}
    found = energy(series, exactly(3.0), turns)
    inside = [[t for t in seconds if one.start <= t <= one.end] for one in turns]
    used = [one for one, samples in zip(turns, inside, strict=True) if len(samples) >= 2]
    if len(used) < 5:
        assert found is None
        return
    assert found is not None
    joules = 0.0
    for one in used:
        # Before the first sample nothing is known: the rest stands for it.
        known = np.linspace(max(one.start, seconds[0]), one.end, 20_001)
        middles = (known[1:] + known[:-1]) / 2
        mean = float(np.interp(middles, seconds, watts).mean())
        joules += (mean - 3.0) * (one.end - one.start)
    assert found["mj"] == pytest.approx(1e3 * joules / (7 * len(used)), rel=1e-3, abs=0.5)


class Known:
    """A machine that takes 5 W and 3 W more each second from a moment on."""

    def __init__(self) -> None:
        self.rises_at = math.inf

    def read(self) -> dict[str, float]:
        return {"power_w": 5 + 3 * max(0.0, time.perf_counter() - self.rises_at)}


def test_known_machine_measured_as_it_is_in_a_run() -> None:
    machine = Known()
    turns = []
    with Monitor([machine], 50.0) as monitor:
        idle_power = idle(monitor, 0.3)
        machine.rises_at = time.perf_counter()
        for _ in range(6):
            start = time.perf_counter()
            time.sleep(0.2)
            turns.append(turn(start, time.perf_counter(), 4))
        series: Series = monitor.series()
    assert idle_power is not None
    assert idle_power.mean == pytest.approx(5.0)
    assert idle_power.draws == pytest.approx(np.full(RESAMPLES, 5.0))
    found = energy(series, idle_power, turns)
    assert found is not None
    risen = [(one.start - machine.rises_at, one.end - machine.rises_at) for one in turns]
    joules = sum(1.5 * (end**2 - start**2) for start, end in risen)
    assert found["mj"] == pytest.approx(1e3 * joules / 24, rel=0.02)


def test_idle_needs_samples_of_its_own_time() -> None:
    machine = Known()
    with Monitor([machine], 2.0) as monitor:
        time.sleep(0.1)
        assert idle(monitor, 0.01) is None  # the only sample is older
    with Monitor([machine], 50.0) as monitor:
        time.sleep(0.2)
        machine.rises_at = time.perf_counter()
        found = idle(monitor, 0.4)
        took = time.perf_counter() - machine.rises_at
    assert found is not None
    assert found.mean == pytest.approx(5 + 1.5 * took, abs=0.15)
    with Monitor([], 50.0) as monitor:
        assert idle(monitor, 0.2) is None
