"""report.json as one HTML page that needs nothing but itself: no server, script or font."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.settings import DEFAULT
from engines.text import printable
from pipeline.errors import PipelineError
from pipeline.report import format as figures
from pipeline.report import plots
from pipeline.report.verdict import Engine, reference, speedup, verdict

if TYPE_CHECKING:
    from jinja2 import Environment

SCHEMA = 1  # of report.json
MAX_LISTED = 50  # pictures in a list; report.json has them all
LONG_TABLE = 20  # classes; a longer table starts folded


def render(report: Mapping[str, Any]) -> str:
    """Make the whole page.

    Args:
        report: the content of report.json, schema 1. Names, paths, reasons and commands in it
            may hold anything, lone surrogates too: each is shown escaped.

    Returns:
        HTML that encodes as UTF-8 and is the same for the same report.

    Raises:
        PipelineError: the report has another schema.
    """
    if report.get("schema") != SCHEMA:
        raise PipelineError(
            f"the report has schema {printable(report.get('schema'))}, this page shows schema "
            f"{SCHEMA}: make it anew with `edgetrt compare`"
        )
    engines: Sequence[Engine] = report["engines"]
    base, result = reference(engines), verdict(engines)
    rows = [
        {
            "number": number,
            "engine": engine,
            "role": _role(engine),
            "speedup": speedup(engine, base),
            "reference": engine is base,
            "chosen": engine is result.engine,
            "measured": any(engine.get(k) for k in ("accuracy", "latency_ms", "throughput_ips")),
        }
        for number, engine in enumerate(engines, start=1)
    ]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            rows=rows,
            verdict=result,
            plots=_latency_plots(rows),
            confusions=_confusions(rows, report["dataset"]["classes"]),
            guard=_accuracy_guard(report.get("accuracy_guard")),
            max_listed=MAX_LISTED,
            usual_batch=list(DEFAULT.batch),
            long_table=LONG_TABLE,
        )
    )


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        # Everything the template writes goes through here, before it is escaped.
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for shown in (
        figures.interval,
        figures.megabytes,
        figures.number,
        figures.p_value,
        figures.percent,
        figures.points,
        figures.shortened,
        figures.significant,
    ):
        environment.filters[shown.__name__] = shown
    environment.globals["counted"] = figures.counted
    return environment


def _role(engine: Engine) -> str:
    """The colour of an engine: its precision's."""
    return engine["precision"] if engine["precision"] in ("fp32", "fp16", "int8") else "other"


def _latency_plots(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The two plots (or None where nothing was measured) and the rows that their key names."""
    points, curves, shown = [], [], []
    for row in rows:
        latency = row["engine"].get("latency_ms") or {}
        accuracy = row["engine"].get("accuracy") or {}
        p50, top1 = latency.get("p50"), accuracy.get("top1")
        samples = [s for s in latency.get("samples") or () if figures.measured(s) and s > 0]
        if figures.measured(p50) and p50 > 0 and figures.measured(top1):
            low, high = accuracy.get("ci95") or (top1, top1)
            p90 = latency.get("p90") or p50
            points.append(plots.Point(row["number"], row["role"], p50, p90, top1, low, high))
            shown.append(row)
        if samples:
            curves.append(plots.Curve(row["number"], row["role"], samples))
            if row not in shown:
                shown.append(row)
    scatter = (
        plots.accuracy_against_latency(
            points,
            "accuracy",
            "Accuracy against latency of the engines; the table has the numbers.",
        )
        if points
        else None
    )
    distribution = (
        plots.latency_distribution(
            curves, "latency", "Distribution of each engine's latency; the table has its quantiles."
        )
        if curves
        else None
    )
    return {"accuracy": scatter, "latency": distribution, "key": shown}


def _accuracy_guard(guard: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What `accuracy_guard.keep_accuracy` found, with its plot; None where it was not asked for.

    FP32 stands beside INT8 as what has all layers in float.
    """
    if not guard:
        return None
    fp32 = {"float_layers": guard["layers"], "drop": 0.0, **guard["fp32"]}
    points = [
        plots.Point(
            point["float_layers"], role, point["p50_ms"], point["p50_ms"],
            point["validation"]["top1"], *point["validation"]["ci95"],
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


def _confusions(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Confusion matrices of TensorFlow and of the engine that the verdict speaks of."""
    names = [printable(name) for name in classes]
    found = []
    for row in rows:
        matrix = (row["engine"].get("accuracy") or {}).get("confusion")
        if not matrix or not (row["reference"] or row["chosen"]):
            continue
        label = f"Confusion matrix of {printable(row['engine']['name'])}."
        svg = plots.confusion(matrix, names, f"confusion{row['number']}", label)
        pairs = _most_confused(matrix, classes) if len(names) > plots.MAX_COUNTED else []
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
