"""The page's figures: accuracy against latency, latencies, confusion.

Engines go by their number in the page's table. Class names must be printable text; they may hold
markup and `$`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.report.format import shortened
from pipeline.report.svg import PLACEHOLDER, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAT_RGB = (59, 130, 196)  # mid blue, for the raster of large matrices: readable on black and white

MAX_LABELLED = 20  # classes; with more, a confusion matrix is a raster without names
MAX_COUNTED = 10  # classes; with more, its cells hold no numbers
MAX_SHARED = 4  # classes; with more, there is room for the count only
MAX_NAME = 18  # characters of a class name beside a matrix
BADGE_ROW = 0.21  # inches from one row of numbers to the next
MAX_CURVE_POINTS = 400  # more of a distribution than an eye can see


class Point(NamedTuple):
    """One engine's place among the others.

    number: its number in the page's table. role: the colour of its precision (see `svg.ROLES`).
    p50, p90: latency in ms, > 0. top1, low, high: accuracy and its interval, fractions 0..1.
    """

    number: int
    role: str
    p50: float
    p90: float
    top1: float
    low: float
    high: float


class Curve(NamedTuple):
    """One engine's latencies in ms, each > 0, in any order; number and role as in Point."""

    number: int
    role: str
    samples: Sequence[float]


def accuracy_against_latency(points: Sequence[Point], prefix: str, label: str) -> str:
    """Accuracy (95 % interval upright) against latency (p50 to p90 across), one mark an engine.

    Args:
        points: at least one.
        prefix, label: as for `inline_svg`.
    """

    def draw(figure: "Figure") -> None:
        _accuracy_and_latency(figure, figure.add_subplot(), points)

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
            [p.p50 for p in tried], [100 * p.top1 for p in tried], color=PLACEHOLDER["int8"], lw=0.8
        )
        ax.axhline(100 * floor, color=PLACEHOLDER["muted"], linestyle="--", linewidth=1)
        _accuracy_and_latency(figure, ax, points)

    return inline_svg(draw, (4.6, 3.2), prefix, label)


def latency_distribution(curves: Sequence[Curve], prefix: str, label: str) -> str:
    """The share of calls answered within a time, one line an engine (an empirical CDF).

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
            ax.annotate(str(curve.number), (at, 100 * height), **_badge(curve.number, curve.role))
        _latency_axis(ax, [t for c in curves for t in c.samples])
        ax.set_ylim(0, 102)
        ax.set_ylabel("answered within, % of calls")

    return inline_svg(draw, (4.6, 3.5), prefix, label)


def confusion(matrix: Any, classes: Sequence[str], prefix: str, label: str) -> str:
    """A confusion matrix, shaded by each cell's share of its true class.

    Args:
        matrix: counts, (classes, classes), a row for each true class.
        classes: their names; left out of the figure when more than MAX_LABELLED.
        prefix, label: as for `inline_svg`.
    """
    counts = np.asarray(matrix, float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(classes)

    def draw(figure: "Figure") -> None:
        ax = figure.add_subplot()
        ax.grid(False)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        if size <= MAX_LABELLED:
            _cells(ax, counts, share)
            names = [shortened(name, MAX_NAME) for name in classes]
            upright = size > 3
            ax.set_xticks(
                range(size),
                names,
                rotation=90 if upright else 0,
                ha="right" if upright else "center",
                va="center" if upright else "top",
                rotation_mode="anchor",
            )
            ax.set_yticks(range(size), names)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
        else:
            # A share of 1 in 20 must still be seen in a cell smaller than a pixel.
            image = np.full((size, size, 4), (*HEAT_RGB, 0), np.uint8)
            image[..., 3] = np.round(255 * np.sqrt(share))
            ax.imshow(image, interpolation="none")
            ax.spines[:].set_visible(True)
        ax.set_xlim(-0.5, size - 0.5)
        ax.set_ylim(size - 0.5, -0.5)
        ax.set_aspect("equal")

    return inline_svg(draw, (4.2, 3.8), prefix, label)


def _accuracy_and_latency(figure: "Figure", ax: "Axes", points: Sequence[Point]) -> None:
    for p in points:
        ax.errorbar(
            p.p50,
            100 * p.top1,
            xerr=np.array([[0.0], [max(0.0, p.p90 - p.p50)]]),
            yerr=100 * np.array([[max(0.0, p.top1 - p.low)], [max(0.0, p.high - p.top1)]]),
            color=PLACEHOLDER[p.role],
            marker="o",
            markersize=5,
            linewidth=1.2,
        )
    _latency_axis(ax, [p.p50 for p in points] + [p.p90 for p in points])
    bottom, top = 100 * min(p.low for p in points), 100 * max(p.high for p in points)
    margin = 0.06 * (top - bottom) or 1
    ax.set_ylim(bottom - margin, top + margin)
    ax.set_ylabel("top-1 accuracy, % (95 % interval)")
    _number_above(figure, ax, points)


def _cells(ax: "Axes", counts: np.ndarray, share: np.ndarray) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    for (row, column), value in np.ndenumerate(share):
        corner = (column - 0.5, row - 0.5)
        # Never so dark that the count in it, in ink, is hard to read.
        shade = to_rgba(PLACEHOLDER["heat"], 0.04 + 0.5 * float(value))
        cell = Rectangle(corner, 1, 1, facecolor=shade, edgecolor=PLACEHOLDER["paper"])
        ax.add_patch(cell)
        if len(counts) <= MAX_COUNTED:
            text = f"{counts[row, column]:,.0f}"
            if len(counts) <= MAX_SHARED:
                text += f"\n{value:.0%}"
            ax.text(column, row, text, ha="center", va="center")


def _latency_axis(ax: "Axes", times: Sequence[float]) -> None:
    """Logarithmic when the times span more than a factor of 3, else linear."""
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
    ax.set_xlabel("latency at batch 1, ms")


def _number_above(figure: "Figure", ax: "Axes", points: Sequence[Point]) -> None:
    """Number each point above the axes, in as many rows as keep the numbers apart."""
    from matplotlib.transforms import ScaledTranslation

    to_axes = ax.transData + ax.transAxes.inverted()
    ends: list[float] = []  # where the last number of each row stands, in widths of the axes
    for p in sorted(points, key=lambda p: p.p50):
        across = float(to_axes.transform((p.p50, 100 * p.high))[0])
        row = next((i for i, end in enumerate(ends) if across - end > 0.06), len(ends))
        ends[row : row + 1] = [across]
        raise_by = ScaledTranslation(0, (0.5 + row) * BADGE_ROW, figure.dpi_scale_trans)
        number = ax.annotate(
            str(p.number),
            xy=(p.p50, 100 * p.high),
            xytext=(p.p50, 1),
            textcoords=ax.get_xaxis_transform() + raise_by,
            arrowprops={
                "arrowstyle": "-",
                "color": PLACEHOLDER[p.role],
                "linestyle": ":",
                "linewidth": 0.6,
                "shrinkB": 0,
            },
            **_badge(p.number, p.role),
        )
        number.set_in_layout(False)
    # The rows get room of their own; the axes keep their size.
    axes_height = figure.get_figheight()
    height = axes_height + len(ends) * BADGE_ROW
    figure.set_figheight(height)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, axes_height / height))


def _badge(number: int, role: str) -> dict[str, Any]:
    """How an engine's number looks: a disc in its colour."""
    return {
        "bbox": {"boxstyle": "circle,pad=0.22", "facecolor": PLACEHOLDER[role], "linewidth": 0},
        "color": PLACEHOLDER["paper"],
        "fontsize": 8 if number < 10 else 6.5,
        "fontweight": "bold",
        "ha": "center",
        "va": "center",
        "zorder": 5,
    }
