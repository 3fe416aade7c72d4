"""A confusion matrix as a figure. Class names must be printable; they may hold markup and `$`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
