"""What of a report becomes a figure on its page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.scenarios import OFFLINE, RESULT, SINGLE_STREAM
from engines.text import printable
from pipeline.report import confusion, plots, timeline
from pipeline.report.format import measured

Row = Mapping[str, Any]  # of the page's table: "number", "role", "engine", "reference", "chosen"
FIGURE = RESULT[SINGLE_STREAM]


def role(engine: Mapping[str, Any]) -> str:
    """The colour of an engine: its precision's (see `svg.ROLES`)."""
    return engine["precision"] if engine["precision"] in ("fp32", "fp16", "int8") else "other"


def point(row: Row) -> plots.Point:
    """The place of an engine that has an accuracy, by the result of single-stream."""
    result, accuracy = row["engine"]["scenarios"][SINGLE_STREAM], row["engine"]["accuracy"]
    latency, (fast, slow) = result[FIGURE], result["ci95"][FIGURE]
    across = (latency, fast, slow) if fast > 0 else (latency,) * 3  # the axis may be logarithmic
    return plots.Point(row["number"], row["role"], across, (accuracy["top1"], *accuracy["ci95"]))


def of_latency(rows: Sequence[Row]) -> dict[str, Any]:
    """The two plots (or None where nothing was measured) and the rows that their key names."""
    points, curves, shown = [], [], []
    for row in rows:
        result = row["engine"]["scenarios"].get(SINGLE_STREAM) or {}
        accuracy = row["engine"]["accuracy"] or {}
        latency, top1 = result.get(FIGURE), accuracy.get("top1")
        samples = [s for s in result.get("samples") or () if measured(s) and s > 0]
        if measured(latency) and latency > 0 and measured(top1):
            points.append(point(row))
        if samples:
            curves.append(plots.Curve(row["number"], row["role"], samples))
        if samples or (points and points[-1].number == row["number"]):
            shown.append(row)
    scatter = distribution = None
    if points:
        label = "Accuracy against latency of the engines; the table has the numbers."
        scatter = plots.accuracy_against_latency(points, "accuracy", label)
    if curves:
        label = "Distribution of each engine's latency; the table has its quantiles."
        distribution = plots.latency_distribution(curves, "latency", label)
    return {"accuracy": scatter, "latency": distribution, "key": shown}


def of_time(rows: Sequence[Row], series: Mapping[str, Any]) -> str | None:
    """Speed, clocks, temperature and power over time; None where nothing was timed."""
    turns = [
        timeline.Turns(
            row["number"], row["role"], scenario, result["starts"], change, result["throttled"]
        )
        for row in rows
        for scenario, result in row["engine"]["scenarios"].items()
        if len(change := _change(scenario, result)) and len(change) == len(result["starts"])
    ]
    label = "Speed of each engine's turns, and readings of the machine, over time."
    return timeline.timeline(turns, series, "time", label) if turns else None


def _change(scenario: str, result: Mapping[str, Any]) -> list[float]:
    """The time of a query in each turn, in percent of what it was in the first quarter of them."""
    if scenario == OFFLINE:
        times = np.array([1 / ips for ips in result["turns"] if ips > 0])
    else:
        samples, ends = np.array(result["samples"], float), np.cumsum(result["turns"])
        if not result["turns"] or min(result["turns"]) < 1 or ends[-1] != len(samples):
            return []
        times = np.array([np.median(turn) for turn in np.split(samples, ends[:-1])])
    first = np.median(times[: max(1, len(times) // 4)]) if len(times) else 0.0
    return (100 * (times / first - 1)).tolist() if first > 0 else []


def of_guard(guard: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What `accuracy_guard.keep_accuracy` found, with its plot; None where it was not asked for.

    FP32 stands beside INT8 as what has all layers in float.
    """
    if not guard:
        return None
    fp32 = {"float_layers": guard["layers"], "drop": 0.0, **guard["fp32"]}
    points = [
        plots.Point(
            point["float_layers"], role, (point["p50_ms"],) * 3,
            (point["validation"]["top1"], *point["validation"]["ci95"]),
        )
        for role, point in (*(("int8", point) for point in guard["points"]), ("fp32", fp32))
    ]  # fmt: skip
    floor = guard["fp32"]["validation"]["top1"] - guard["max_drop"] / 100
    label = "Accuracy against latency, by the number of layers in float; the table has the numbers."
    return {
        **guard,
        "rows": [fp32, *guard["points"]],
        "kept": guard["points"][guard["chosen"]],
        "decibels": {ranked["layer"]: ranked["decibels"] for ranked in guard["ranking"]},
        "plot": plots.accuracy_guard(points, floor, "guard", label),
    }


def of_confusion(rows: Sequence[Row], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Confusion matrices of TensorFlow and of the engine that the verdict speaks of."""
    names = [printable(name) for name in classes]
    found = []
    for row in rows:
        matrix = (row["engine"]["accuracy"] or {}).get("confusion")
        if not matrix or not (row["reference"] or row["chosen"]):
            continue
        label = f"Confusion matrix of {printable(row['engine']['name'])}."
        svg = confusion.confusion(matrix, names, f"confusion{row['number']}", label)
        pairs = _most_confused(matrix, classes) if len(names) > confusion.MAX_COUNTED else []
        found.append({"row": row, "svg": svg, "pairs": pairs})
    return found


def _most_confused(matrix: Any, classes: Sequence[str], most: int = 5) -> list[dict[str, Any]]:
    """The most frequent errors, made more than once: true class, predicted class, how often."""
    errors = np.array(matrix)
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    return [
        {"truth": classes[row], "predicted": classes[column], "count": int(errors[row, column])}
        for row, column in zip(*np.unravel_index(order, errors.shape), strict=True)
        if errors[row, column] > 1
    ]
