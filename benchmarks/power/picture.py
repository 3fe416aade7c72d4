"""From power over time to the energy of one picture."""

import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from benchmarks.latency import Turn
from benchmarks.monitor import Monitor
from benchmarks.statistics import RESAMPLES, block_weights, interval

IN_TURN = 2  # samples that a turn must have, else its power is that of its neighbours
TURNS = 5  # that must have them: so there are 10 samples at least
PIECES = 10  # of the time in which the machine is idle, at most


class Idle(NamedTuple):
    """Power of the idle machine, in watts.

    mean: over the time it was watched.
    draws: (RESAMPLES,) what the true mean may be, drawn from its distribution.
    """

    mean: float
    draws: np.ndarray


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
    series: Dict[str, List[Optional[float]]], idle_power: Idle, turns: Sequence[Turn]
) -> Optional[Dict[str, Any]]:
    """Energy that one picture costs beyond what the idle machine would have used.

    E = sum((P_i - P_idle) * t_i) / sum(n_i), over turns i of power P_i, time t_i and n_i pictures.
    Below 0 where the machine took less than idle, as it can where a picture costs next to nothing.
    Its interval is by bootstrap over turns, with another P_idle in each resample, of `Idle.draws`.
    Simulated for 10 s of idling at 5 W with a noise of 0.3 W, and 20 turns of 0.8 s that take
    0.6 W more: so it holds the true energy 19 times in 20, with one P_idle for all 15 times.

    A turn begins where another engine's ended: by interpolation, a third of the time between
    two samples is mixed with it. At 10 samples a second, that is 7 % of a turn of half a second.

    Args:
        series: as `Monitor.series` gives it.
        idle_power: by `idle`.
        turns: of one engine.

    Returns:
        "mj": millijoules for one picture; "ci95": its 95 % interval; "loaded_w": mean power;
        "samples": how many it is from. Turns with fewer than `IN_TURN` samples are left out; None
        where fewer than `TURNS` are left.
    """
    readings = Readings(series)
    counts = [readings.count(turn.start, turn.end) for turn in turns]
    used = [(turn, count) for turn, count in zip(turns, counts) if count >= IN_TURN]
    if len(used) < TURNS:
        return None
    watts = np.array([readings.watts(turn.start, turn.end) for turn, _ in used])
    seconds = np.array([turn.end - turn.start for turn, _ in used])
    pictures = np.array([turn.pictures for turn, _ in used], np.float64)
    joules = watts * seconds
    mean = 1e3 * float((joules - idle_power.mean * seconds).sum() / pictures.sum())
    weights = block_weights(len(used))
    resampled = (weights @ joules - idle_power.draws * (weights @ seconds)) / (weights @ pictures)
    return {
        "mj": mean,
        "ci95": interval(1e3 * resampled, mean),
        "loaded_w": float(joules.sum() / seconds.sum()),
        "samples": sum(count for _, count in used),
    }


def idle(monitor: Monitor, seconds: float) -> Optional[Idle]:
    """Watts of the machine while this process waits; to be called before anything is measured.

    The time is cut into k equal pieces, `PIECES` if there are samples for it: neighbouring samples
    are too alike to be counted one by one. With the mean m of the pieces and the standard deviation
    s between them, the true mean is m + s / sqrt(k) * t, by Student's t with k - 1 degrees of
    freedom.

    Args:
        monitor: running.
        seconds: how long to wait.

    Returns:
        None with too few samples for two pieces.
    """
    start = time.perf_counter()
    time.sleep(seconds)
    readings = Readings(monitor.series())
    return _idle(readings, start, time.perf_counter())


def _idle(readings: Readings, start: float, end: float) -> Optional[Idle]:
    pieces = min(PIECES, readings.count(start, end) // IN_TURN)
    if pieces < 2:
        return None
    edges = np.linspace(max(start, readings.seconds[0]), min(end, readings.seconds[-1]), pieces + 1)
    watts = np.array([readings.watts(*piece) for piece in zip(edges, edges[1:])])
    error = watts.std(ddof=1) / np.sqrt(pieces)
    # Not by the seed that turns are drawn with: the two have nothing to do with each other.
    draws = watts.mean() + error * np.random.RandomState(1).standard_t(pieces - 1, RESAMPLES)
    return Idle(float(watts.mean()), draws)
