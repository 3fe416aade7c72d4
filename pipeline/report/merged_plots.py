"""The merged page's figures: several runs in one drawing, each by its number on the page."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.report.format import shortened
from pipeline.report.plots import Point, badge, crosses, latency_axis
from pipeline.report.svg import PLACEHOLDER, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAME = 24  # characters of an engine's name beside its lane
LANE = 0.24  # inches from one lane to the next
APART = 0.055  # widths of the axes from one mark to the next in the same lane

Place = tuple[int, str, float]  # of an engine: number of its run, role as of `Point`, latency in ms


def accuracy_against_latency(
    points: Sequence[Point], numbered: bool, prefix: str, label: str
) -> str:
    """Accuracy against latency, both with their 95 % interval, of every engine of every run.

    Args:
        points: at least one, each with the number of its run.
        numbered: whether points show their numbers; many only cover each other.
        prefix, label: as for `inline_svg`.
    """

    def draw(figure: "Figure") -> None:
        ax = figure.add_subplot()
        crosses(ax, points, linewidth=0.8, alpha=0.6)
        for point in points:
            place = (point.number, point.role, point.latency[0])
            _draw(ax, place, 100 * point.top1[0], numbered)

    return inline_svg(draw, (4.6, 3.6), prefix, label)


def same_engine(
    engines: Mapping[str, Sequence[Place]], numbered: bool, prefix: str, label: str
) -> str:
    """How long each engine takes in each run that has it: a row an engine, a mark a run.

    Args:
        engines: at least one; the name of the engine, printable, and its places.
        numbered: as above; numbered marks are moved apart.
        prefix, label: as for `inline_svg`.
    """
    times = [ms for places in engines.values() for _, _, ms in places]
    low, high = np.log(min(times)), np.log(max(times))

    def draw(figure: "Figure") -> None:
        ax = figure.add_subplot()
        height, ticks = 0.0, []
        for places in engines.values():
            lanes: list[float] = []  # where the last mark of each stands
            start = height
            for place in sorted(places, key=lambda place: place[2]):
                across = (np.log(place[2]) - low) / ((high - low) or 1)
                free = (i for i, end in enumerate(lanes) if not numbered or across - end > APART)
                lane = next(free, len(lanes))
                lanes[lane : lane + 1] = [across]
                _draw(ax, place, start + lane, numbered)
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


def _draw(ax: "Axes", place: Place, y: float, numbered: bool) -> None:
    """A disc with the number of its run, or a smaller one without."""
    run, role, ms = place
    if numbered:
        ax.annotate(str(run), (ms, y), **badge(run, role))
        ax.plot(ms, y, alpha=0)  # an annotation does not widen the axes
    else:
        ax.plot(ms, y, marker="o", markersize=4, color=PLACEHOLDER[role], alpha=0.8)
