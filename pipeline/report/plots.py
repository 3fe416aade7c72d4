"""The page's figures of accuracy and latency; engines go by their number in the page's table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.report.svg import PLACEHOLDER, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BADGE_ROW = 0.21  # inches from one row of numbers to the next
MAX_CURVE_POINTS = 200  # of a distribution; an eye sees no more


class Point(NamedTuple):
    """One engine's place among the others.

    number: what it goes by: its own in the page's table, or its run's on a page of several runs.
    role: the colour of its precision (see `svg.ROLES`). latency: ms, > 0. top1: 0..1. Both with
    the low and the high end of their interval.
    """

    number: int
    role: str
    latency: tuple[float, float, float]
    top1: tuple[float, float, float]


class Curve(NamedTuple):
    """One engine's latencies in ms, each > 0, in any order; number and role as in Point."""

    number: int
    role: str
    samples: Sequence[float]


def accuracy_against_latency(points: Sequence[Point], prefix: str, label: str) -> str:
    """Accuracy (95 % interval upright) against latency (its interval across), a mark an engine.

    Args:
        points: at least one.
        prefix, label: as for `inline_svg`.
    """

    def draw(figure: "Figure") -> None:
        ax = figure.add_subplot()
        crosses(ax, points)
        _number_above(figure, ax, points)

    return inline_svg(draw, (4.6, 3.2), prefix, label)


def accuracy_guard(points: Sequence[Point], floor: float, prefix: str, label: str) -> str:
    """The trade of accuracy for latency, as more and more layers are in float.

    Args:
        points: at least one, those of INT8 in the order they were tried; a point's number is how
            many layers it has in float.
        floor: accuracy to keep, 0..1.
        prefix, label: as for `inline_svg`.
    """

    def draw(figure: "Figure") -> None:
        ax = figure.add_subplot()
        tried = [p for p in points if p.role == "int8"]
        ax.plot(
            [p.latency[0] for p in tried],
            [100 * p.top1[0] for p in tried],
            color=PLACEHOLDER["int8"],
            lw=0.8,
        )
        ax.axhline(100 * floor, color=PLACEHOLDER["muted"], linestyle="--", linewidth=1)
        crosses(ax, points)
        _number_above(figure, ax, points)

    return inline_svg(draw, (4.6, 3.2), prefix, label)


def latency_distribution(curves: Sequence[Curve], prefix: str, label: str) -> str:
    """The share of queries answered within a time, one line an engine (an empirical CDF).

    Args:
        curves: at least one, each with at least one sample.
        prefix, label: as for `inline_svg`.
    """

    def draw(figure: "Figure") -> None:
        ax = figure.add_subplot()
        ordered = sorted(curves, key=lambda c: float(np.median(c.samples)))
        for rank, curve in enumerate(ordered):
            n = len(curve.samples)
            share = np.arange(1, n + 1) / n
            kept = np.unique(np.linspace(0, n - 1, min(n, MAX_CURVE_POINTS)).astype(int))
            times = np.sort(np.asarray(curve.samples, float))
            ax.step(
                times[kept], 100 * share[kept], where="post", color=PLACEHOLDER[curve.role], lw=1.4
            )
            # Numbers of neighbours at different heights, so that none covers another.
            height = (0.3, 0.5, 0.7)[rank % 3]
            at = times[min(n - 1, int(height * n))]
            ax.annotate(str(curve.number), (at, 100 * height), **badge(curve.number, curve.role))
        latency_axis(ax, [t for c in curves for t in c.samples])
        ax.set_ylim(0, 102)
        ax.set_ylabel("answered within, % of queries")

    return inline_svg(draw, (4.6, 3.5), prefix, label)


def crosses(ax: "Axes", points: Sequence[Point], linewidth: float = 1.2, alpha: float = 1) -> None:
    """Draw points and their intervals on axes of latency and accuracy."""
    for p in points:
        ax.errorbar(
            p.latency[0],
            100 * p.top1[0],
            xerr=_whiskers(p.latency),
            yerr=100 * _whiskers(p.top1),
            color=PLACEHOLDER[p.role],
            marker="o",
            markersize=4 * linewidth,
            linewidth=linewidth,
            alpha=alpha,
        )
    latency_axis(ax, [ms for p in points for ms in p.latency])
    bottom, top = 100 * min(p.top1[1] for p in points), 100 * max(p.top1[2] for p in points)
    margin = 0.06 * (top - bottom) or 1
    ax.set_ylim(bottom - margin, top + margin)
    ax.set_ylabel("top-1 accuracy, % (95 % interval)")


def _whiskers(value: tuple[float, float, float]) -> np.ndarray:
    """How far an interval goes below and above its value, as `errorbar` takes it."""
    middle, low, high = value
    return np.array([[max(0.0, middle - low)], [max(0.0, high - middle)]])


def latency_axis(ax: "Axes", times: Sequence[float], label: str = "latency, ms") -> None:
    """Make the horizontal axis one of times: logarithmic where they span more than a factor of 3.

    Args:
        times: ms, all > 0, at least one.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = min(times), max(times)
    if high / low > 3:
        ax.set_xscale("log")
        ax.set_xlim(low / 1.15, high * 1.15)
        steps = (1, 2, 5) if high / low < 300 else (1,)
        ax.xaxis.set_major_locator(LogLocator(subs=steps))
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.08 * (high - low) or 0.1 * high
        ax.set_xlim(low - margin, high + margin)
        ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel(label)


def _number_above(figure: "Figure", ax: "Axes", points: Sequence[Point]) -> None:
    """Number each point above the axes, in as many rows as keep the numbers apart."""
    from matplotlib.transforms import ScaledTranslation

    to_axes = ax.transData + ax.transAxes.inverted()
    ends: list[float] = []  # where the last number of each row stands, in widths of the axes
    for p in sorted(points, key=lambda p: p.latency):
        across = float(to_axes.transform((p.latency[0], 100 * p.top1[2]))[0])
        row = next((i for i, end in enumerate(ends) if across - end > 0.06), len(ends))
        ends[row : row + 1] = [across]
        raise_by = ScaledTranslation(0, (0.5 + row) * BADGE_ROW, figure.dpi_scale_trans)
        number = ax.annotate(
            str(p.number),
            xy=(p.latency[0], 100 * p.top1[2]),
            xytext=(p.latency[0], 1),
            textcoords=ax.get_xaxis_transform() + raise_by,
            arrowprops={
                "arrowstyle": "-",
                "color": PLACEHOLDER[p.role],
                "linestyle": ":",
                "linewidth": 0.6,
                "shrinkB": 0,
            },
            **badge(p.number, p.role),
        )
        number.set_in_layout(False)
    # The rows get room of their own; the axes keep their size.
    axes_height = figure.get_figheight()
    height = axes_height + len(ends) * BADGE_ROW
    figure.set_figheight(height)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, axes_height / height))


def badge(number: int, role: str) -> dict[str, Any]:
    """How an engine's number looks, for `annotate`: a disc in its colour."""
    return {
        "bbox": {"boxstyle": "circle,pad=0.22", "facecolor": PLACEHOLDER[role], "linewidth": 0},
        "color": PLACEHOLDER["paper"],
        "fontsize": 8 if number < 10 else 6.5,
        "fontweight": "bold",
        "ha": "center",
        "va": "center",
        "zorder": 5,
    }
