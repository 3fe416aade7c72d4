"""From power over time to the energy of one picture."""

import time
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from benchmarks.latency import Turn
from benchmarks.monitor import Monitor
from benchmarks.statistics import block_weights, interval

IN_TURN = 2  # samples that a turn must have, else its power is that of its neighbours
TURNS = 5  # that must have them: so there are 10 samples at least


class Readings:
    """What was read of power.

    Joules that a sensor counted are taken before watts that it told: they miss nothing between
    two samples.
    """

    def __init__(self, series: Dict[str, List[Optional[float]]]) -> None:
        self.counted = "energy_j" in series
        values = series.get("energy_j" if self.counted else "power_w", [])
        known = [(t, v) for t, v in zip(series["seconds"], values) if v is not None]
        table = np.array(known, np.float64).reshape(-1, 2)
        self.seconds, self.values = table[:, 0], table[:, 1]

    def count(self, start: float, end: float) -> int:
        """Samples from start to end, both included."""
        return int(np.count_nonzero((self.seconds >= start) & (self.seconds <= end)))

    def watts(self, start: float, end: float) -> float:
        """Mean power from start to end.

        Trapezoids between the samples, values at start and end interpolated between the samples
        beside them. What of the time lies before the first or after the last sample is left out:
        the last turn may end after the last sample. There must be `IN_TURN` samples in it.
        """
        start, end = max(start, self.seconds[0]), min(end, self.seconds[-1])
        inside = self.seconds[(self.seconds > start) & (self.seconds < end)]
        moments = np.concatenate([[start], inside, [end]])
        values = np.interp(moments, self.seconds, self.values)
        if self.counted:
            joules = values[-1] - values[0]
        else:
            joules = np.sum((values[1:] + values[:-1]) / 2 * np.diff(moments))
        return float(joules / (end - start))


def energy(
    series: Dict[str, List[Optional[float]]], idle_w: float, turns: Sequence[Turn]
) -> Optional[Dict[str, Any]]:
    """Energy that one picture costs beyond what the idle machine would have used.

    (Power - idle) over the time of all turns, by the number of their pictures. Below 0 where the
    machine took less than idle, as it can where a picture costs next to nothing.

    A turn begins where another engine's ended: by interpolation, a third of the time between
    two samples is mixed with it. At 10 samples a second, that is 7 % of a turn of half a second.

    Args:
        series: as `Monitor.series` gives it.
        idle_w: watts, by `idle`.
        turns: of one engine.

    Returns:
        "mj": millijoules for one picture; "ci95": its 95 % interval by bootstrap over turns, in
        which the uncertainty of `idle_w` is not; "loaded_w": mean power; "samples": how many it
        is from. Turns with fewer than `IN_TURN` samples are left out; None where fewer than
        `TURNS` are left.
    """
    readings = Readings(series)
    counts = [readings.count(turn.start, turn.end) for turn in turns]
    used = [(turn, count) for turn, count in zip(turns, counts) if count >= IN_TURN]
    if len(used) < TURNS:
        return None
    watts = np.array([readings.watts(turn.start, turn.end) for turn, _ in used])
    seconds = np.array([turn.end - turn.start for turn, _ in used])
    pictures = np.array([turn.pictures for turn, _ in used], np.float64)
    millijoules = (watts - idle_w) * seconds * 1e3
    mean = float(millijoules.sum() / pictures.sum())
    weights = block_weights(len(used))
    return {
        "mj": mean,
        "ci95": interval((weights @ millijoules) / (weights @ pictures), mean),
        "loaded_w": float((watts * seconds).sum() / seconds.sum()),
        "samples": sum(count for _, count in used),
    }


def idle(monitor: Monitor, seconds: float) -> Optional[float]:
    """Watts of the machine while this process waits; to be called before anything is measured.

    Args:
        monitor: running.
        seconds: how long to wait.

    Returns:
        Mean power; None with fewer than two samples.
    """
    start = time.perf_counter()
    time.sleep(seconds)
    end = time.perf_counter()
    readings = Readings(monitor.series())
    return readings.watts(start, end) if readings.count(start, end) >= 2 else None
