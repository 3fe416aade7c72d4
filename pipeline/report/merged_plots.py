"""The merged page's figures: several runs in one drawing, each by its number on the page."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.report.format import shortened
from pipeline.report.plots import badge, latency_axis
from pipeline.report.svg import PLACEHOLDER, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAME = 24  # characters of an engine's name beside its lane
LANE = 0.24  # inches from one lane to the next
APART = 0.055  # widths of the axes from one mark to the next in the same lane


class Mark(NamedTuple):
    """One engine of one run.

    run: its number on the page. role: the colour of its precision (see `svg.ROLES`). latency: ms,
    > 0. accuracy: 0..1, None where it was not measured. Both with their interval, low and high.
    """

    run: int
    role: str
    latency: tuple[float, float, float]
    accuracy: tuple[float, float, float] | None


def accuracy_against_latency(marks: Sequence[Mark], numbered: bool, prefix: str, label: str) -> str:
    """Accuracy against latency, both with their 95 % interval, of every engine of every run.

    Args:
        marks: at least one; each with an accuracy.
        numbered: whether marks have the numbers of their runs; many only cover each other.
        prefix, label: as for `inline_svg`.
    """

    def draw(figure: "Figure") -> None:
        ax = figure.add_subplot()
        for mark in marks:
            if mark.accuracy:
                ax.errorbar(
                    mark.latency[0],
                    100 * mark.accuracy[0],
                    xerr=_whiskers(mark.latency),
                    yerr=100 * _whiskers(mark.accuracy),
                    color=PLACEHOLDER[mark.role],
                    linewidth=0.8,
                    alpha=0.6,
                )
                _draw(ax, mark, 100 * mark.accuracy[0], numbered)
        latency_axis(ax, [m.latency[0] for m in marks])
        ax.set_ylabel("top-1 accuracy, % (95 % interval)")

    return inline_svg(draw, (4.6, 3.6), prefix, label)


def same_engine(
    engines: Mapping[str, Sequence[Mark]], numbered: bool, prefix: str, label: str
) -> str:
    """How long each engine takes in each run that has it: a row an engine, a mark a run.

    Args:
        engines: at least one; the name of the engine, printable, and its marks.
        numbered: as above; numbered marks are moved apart.
        prefix, label: as for `inline_svg`.
    """
    times = [m.latency[0] for marks in engines.values() for m in marks]
    low, high = np.log(min(times)), np.log(max(times))

    def draw(figure: "Figure") -> None:
        ax = figure.add_subplot()
        height, ticks = 0.0, []
        for marks in engines.values():
            lanes: list[float] = []  # where the last mark of each stands
            start = height
            for m in sorted(marks, key=lambda m: m.latency[0]):
                across = (np.log(m.latency[0]) - low) / ((high - low) or 1)
                free = (i for i, end in enumerate(lanes) if not numbered or across - end > APART)
                lane = next(free, len(lanes))
                lanes[lane : lane + 1] = [across]
                _draw(ax, m, start + lane, numbered)
            height += len(lanes)
            ticks.append((start + height - 1) / 2)
            ax.axhline(height - 0.5, color=PLACEHOLDER["line"], linewidth=0.5)
        ax.grid(visible=False, axis="y")
        ax.set_yticks(ticks, [shortened(name, MAX_NAME) for name in engines])
        ax.tick_params(axis="y", length=0, labelcolor=PLACEHOLDER["ink"])
        ax.set_ylim(height - 0.4, -0.6)
        ax.spines["left"].set_visible(False)
        latency_axis(ax, times)
        figure.set_figheight(0.7 + LANE * max(height, 3))

    return inline_svg(draw, (4.6, 3.6), prefix, label)


def _whiskers(value: tuple[float, float, float]) -> np.ndarray:
    """How far an interval goes below and above its value, as `errorbar` takes it."""
    middle, low, high = value
    return np.array([[max(0.0, middle - low)], [max(0.0, high - middle)]])


def _draw(ax: "Axes", mark: Mark, y: float, numbered: bool) -> None:
    """The mark as a disc with the number of its run, or as a smaller one without."""
    x, colour = mark.latency[0], PLACEHOLDER[mark.role]
    if numbered:
        ax.annotate(str(mark.run), (x, y), **badge(mark.run, mark.role))
        ax.plot(x, y, alpha=0)  # an annotation does not widen the axes
    else:
        ax.plot(x, y, marker="o", markersize=4, color=colour, alpha=0.8)
