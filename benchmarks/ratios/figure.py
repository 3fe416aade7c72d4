"""One measured figure, and the goal that was set for it."""

from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np


class Figure(NamedTuple):
    """A figure with everything it was made from.

    name: what was measured, against what.
    unit: of `samples` and `against`.
    samples: ours, one of each round.
    against: the other side's in the same rounds; empty where there is no other side.
    value: what is held against the goal: the median of the rounds' ratios (or differences, or
        of the samples themselves).
    goal: the least or the most that `value` may be.
    at_least: which of the two `goal` is.
    """

    name: str
    unit: str
    samples: List[float]
    against: List[float]
    value: float
    goal: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def as_json(self) -> Dict[str, Any]:
        """Everything, for programs."""
        return dict(self._asdict(), met=self.met)

    def __str__(self) -> str:
        sides = _spread(self.samples)
        if self.against:
            sides += " against " + _spread(self.against)
        return "{}\n  {:.4g} ({} {:g}: {}) from {} {}, {} round{}".format(
            self.name,
            self.value,
            "at least" if self.at_least else "at most",
            self.goal,
            "met" if self.met else "MISSED",
            sides,
            self.unit,
            len(self.samples),
            "" if len(self.samples) == 1 else "s",
        )


def ratio(
    name: str, unit: str, ours: Sequence[float], theirs: Sequence[float], goal: float,
    at_least: bool = True,
) -> Figure:  # fmt: skip
    """Ours over theirs, round by round."""
    value = float(np.median(np.divide(ours, theirs)))
    return Figure(name, unit, list(ours), list(theirs), value, goal, at_least)


def amount(name: str, unit: str, ours: Sequence[float], goal: float) -> Figure:
    """The median of an absolute figure, which may be `goal` at most."""
    return Figure(name, unit, list(ours), [], float(np.median(ours)), goal, False)


def mean_difference(
    name: str, unit: str, ours: Sequence[float], theirs: Sequence[float], goal: float
) -> Figure:
    """The mean of ours minus theirs, which must be at least `goal`."""
    value = float(np.mean(np.subtract(ours, theirs)))
    return Figure(name, unit, list(ours), list(theirs), value, goal, True)


def _spread(values: Sequence[float]) -> str:
    middle = "{:.4g}".format(float(np.median(values)))
    if len(values) == 1:
        return middle
    return "{} ({:.4g}..{:.4g})".format(middle, min(values), max(values))
