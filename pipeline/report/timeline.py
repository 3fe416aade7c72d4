"""What happened while it was measured: speed, clocks, temperature and power over the same time."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.report.format import number
from pipeline.report.plots import badge
from pipeline.report.svg import PLACEHOLDER, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
WIDTH, LEFT, RIGHT, BOTTOM, GAP = 4.6, 0.6, 0.06, 0.46, 0.26
SPEED_HEIGHT, PANEL_HEIGHT = 1.9, 0.72
ROW = 0.16  # of scenarios' names
LETTER = 0.072  # of a scenario's name
MAX_READINGS = 240  # of a series; more are averaged
LEAST_RANGE = 5.0  # percent, so that noise does not look like a change


class Panel(NamedTuple):
    """One of the small plots.

    lines: keys of a series with the colour of each and its name, "" where it is the only one.
    scale: what a reading is multiplied by.
    """

    label: str
    lines: Sequence[tuple[str, str, str]]
    scale: float = 1.0


PANELS = (
    Panel("clock, GHz", (("cpu_mhz", "ink", "CPU"), ("gpu_mhz", "accent", "GPU")), 1e-3),
    Panel("temperature, °C", (("temperature_c", "ink", ""),)),
    Panel("power, W", (("power_w", "ink", ""),)),
)


class Turns(NamedTuple):
    """One engine's turns in one scenario.

    number, role: as of `plots.Point`. seconds: when each began, since measuring began.
    change: time a query took, in percent of the first turns'. slowed: over its turns.
    """

    number: int
    role: str
    scenario: str
    seconds: Sequence[float]
    change: Sequence[float]
    slowed: bool


def timeline(
    turns: Sequence[Turns],
    series: Mapping[str, Sequence[float | None]],
    prefix: str,
    label: str,
) -> str:
    """Draw the turns, and below them what was read from the machine at the same time.

    Args:
        turns: at least one.
        series: "seconds" and, equally long, readings (see `PANELS`) and "throttled" (0 or 1);
            None where there is no reading. Any of them may lack.
        prefix, label: as for `inline_svg`.
    """
    if not _seconds(series):
        series = {}
    panels = [p for p in PANELS if any(_read(series, key) for key, _, _ in p.lines)]
    longest = max(max(t.seconds) for t in turns)
    unit, name = (60.0, "min") if longest > 600 else (1.0, "s")

    def draw(figure: "Figure") -> None:
        axes = [figure.add_subplot()]
        axes += [figure.add_subplot(sharex=axes[0]) for _ in panels]
        rows = _draw_turns(axes[0], turns, unit)
        for ax, panel in zip(axes[1:], panels, strict=True):
            _draw_panel(ax, panel, series, unit)
        for ax in axes:
            for start, end in _throttled(series):
                ax.axvspan(start / unit, end / unit, color=PLACEHOLDER["alert"], alpha=0.16, lw=0)
            ax.tick_params(labelbottom=ax is axes[-1])
        axes[-1].set_xlabel(f"since measuring began, {name}")
        axes[-1].set_xlim(0, max([longest, *_seconds(series)]) / unit or 1)
        _place(figure, axes, 0.08 + ROW * rows)

    return inline_svg(draw, (WIDTH, 1), prefix, label)


def _place(figure: "Figure", axes: Sequence["Axes"], top: float) -> None:
    """Put the axes below each other, `top` inches from the upper edge.

    matplotlib's own layout of several axes is not the same to the last digit every time.
    """
    heights = [SPEED_HEIGHT, *[PANEL_HEIGHT] * (len(axes) - 1)]
    total = top + sum(heights) + GAP * (len(axes) - 1) + BOTTOM
    figure.set_layout_engine("none")
    figure.set_figheight(total)
    upper = total - top
    for ax, height in zip(axes, heights, strict=True):
        bottom = (upper - height) / total
        ax.set_position((LEFT / WIDTH, bottom, 1 - (LEFT + RIGHT) / WIDTH, height / total))
        upper -= height + GAP


def _draw_turns(ax: "Axes", turns: Sequence[Turns], unit: float) -> int:
    """Draw them, and say how many rows of names stand above."""
    changes = [c for t in turns for c in t.change]
    for t in turns:
        at = [second / unit for second in t.seconds]
        ax.plot(
            at, t.change, color=PLACEHOLDER[t.role],
            linewidth=1.8 if t.slowed else 0.8, alpha=1 if t.slowed else 0.6,
        )  # fmt: skip
        if t.slowed:
            ax.annotate(str(t.number), (at[-1], t.change[-1]), **badge(t.number, t.role))
    ax.axhline(0, color=PLACEHOLDER["muted"], linewidth=0.6)
    ax.set_ylim(1.15 * min(-LEAST_RANGE, *changes), 1.15 * max(LEAST_RANGE, *changes))
    ax.yaxis.set_major_formatter(lambda value, _: number(value, "+g") if value else "0")
    ax.set_ylabel("slower, %")
    ax.yaxis.set_label_coords((0.16 - LEFT) / (WIDTH - LEFT - RIGHT), 0.5)
    return _name_scenarios(ax, turns, unit)


def _name_scenarios(ax: "Axes", turns: Sequence[Turns], unit: float) -> int:
    """Each scenario's name above the time it took, in as many rows as they need: how many."""
    longest = max(max(t.seconds) for t in turns) or 1.0
    ends: list[float] = []  # of the last name in each row, inches
    begins: dict[str, float] = {}
    for t in turns:
        begins[t.scenario] = min(t.seconds[0], begins.get(t.scenario, t.seconds[0]))
    for scenario, start in sorted(begins.items(), key=lambda item: item[1]):
        across = start / longest * (WIDTH - LEFT - RIGHT)
        row = next((i for i, end in enumerate(ends) if across > end), len(ends))
        ends[row : row + 1] = [across + LETTER * len(scenario) + 0.1]
        if start > 0.02 * longest:
            ax.axvline(start / unit, color=PLACEHOLDER["muted"], linewidth=0.6, linestyle=":")
        ax.annotate(
            scenario, (start / unit, 1), xycoords=ax.get_xaxis_transform(),
            xytext=(0, 3 + 11 * row), textcoords="offset points",
            color=PLACEHOLDER["muted"], fontsize=8,
        )  # fmt: skip
    return len(ends)


def _draw_panel(
    ax: "Axes", panel: Panel, series: Mapping[str, Sequence[float | None]], unit: float
) -> None:
    seconds = np.array(_seconds(series)) / unit
    several = sum(_read(series, key) for key, _, _ in panel.lines) > 1
    lowest, highest = np.inf, -np.inf
    for key, role, name in panel.lines:
        if _read(series, key):
            values = panel.scale * np.array(series[key], float)
            at, values = _thinned(seconds, values)
            ax.plot(at, values, color=PLACEHOLDER[role], linewidth=1.1)
            lowest, highest = min(lowest, np.nanmin(values)), max(highest, np.nanmax(values))
            if several:
                known = np.flatnonzero(np.isfinite(values))[-1]
                ax.annotate(
                    name, (at[known], values[known]), xytext=(-2, 3), textcoords="offset points",
                    ha="right", fontsize=8, color=PLACEHOLDER[role],
                )  # fmt: skip
    # At least a tenth of the value, so that noise does not look like a change.
    margin = max(0.15 * (highest - lowest), 0.05 * abs(highest), 1e-6)
    ax.set_ylim(lowest - margin, highest + margin * (2.5 if several else 1))
    ax.locator_params(axis="y", nbins=3)
    ax.set_title(panel.label, loc="left", fontsize=8, color=PLACEHOLDER["muted"], pad=2)


def _read(series: Mapping[str, Sequence[float | None]], key: str) -> bool:
    return any(value is not None for value in series.get(key, ()))


def _seconds(series: Mapping[str, Sequence[float | None]]) -> list[float]:
    return [float(second or 0) for second in series.get("seconds", ())]


def _thinned(seconds: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_READINGS of a series: means of neighbours; NaN where none has a reading."""
    if len(values) <= MAX_READINGS:
        return seconds, values
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        parts = (np.array_split(a, MAX_READINGS) for a in (seconds, values))
        at, means = (np.array([np.nanmean(part) for part in split]) for split in parts)
    return at, means


def _throttled(series: Mapping[str, Sequence[float | None]]) -> list[tuple[float, float]]:
    """When the machine said that it throttled: start and end of each time."""
    seconds = _seconds(series)
    spans: list[tuple[float, float]] = []
    for i, throttled in enumerate(series.get("throttled", ())):
        if throttled:
            end = seconds[min(i + 1, len(seconds) - 1)]
            joins = spans and spans[-1][1] >= seconds[i]
            spans[-1 if joins else len(spans) :] = [(spans[-1][0] if joins else seconds[i], end)]
    return spans
