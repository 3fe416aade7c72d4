"""report.json as one HTML page that needs nothing but itself: no server, library or font."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import table
from benchmarks.measure import SCHEMA
from benchmarks.scenarios import FROM_FILE, MULTI_STREAM, OFFLINE, RESULT, SCENARIOS, SINGLE_STREAM
from engines.settings import DEFAULT
from engines.text import printable
from pipeline.errors import PipelineError
from pipeline.report import against_table, drawings
from pipeline.report.template import environment
from pipeline.report.verdict import Engine, beside_loadgen, doubts, reference, verdict

MAX_LISTED = 50  # pictures in a list; report.json has them all
MAX_LAYERS = 15  # with a bar of their own
LONG_TABLE = 20  # classes; a longer table starts folded
MAX_THUMBNAIL = 100_000  # bytes of base64

# MLPerf Inference's scenarios, and what is added to them.
MEANING = {
    SINGLE_STREAM: "One picture after another, from pixels in memory to probabilities.",
    MULTI_STREAM: "Queries of 8 pictures, one query after another.",
    OFFLINE: "All pictures are there at once: batches of 32, as many pictures a second as can be.",
    FROM_FILE: "Single-stream with reading, decoding and resizing the picture's file.",
}


def render(report: Mapping[str, Any]) -> str:
    """Make the whole page.

    Args:
        report: the content of report.json, schema 2, and "against", what
            `pipeline.against.against` found, if it was held against another. Names, paths,
            reasons and commands in it may hold anything, lone surrogates too: each is shown
            escaped.

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
            "role": drawings.role(engine),
            "reference": engine is base,
            "chosen": engine is result.engine,
            "measured": bool(engine["accuracy"] or engine["scenarios"]),
            "results": engine["scenarios"],
            "marks": marks(engine),
        }
        for number, engine in enumerate(engines, start=1)
    ]
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            rows=rows,
            verdict=result,
            doubts=doubts(report),
            shown=_shown(engines),
            against=_against(report.get("against"), rows),
            beside_loadgen=beside_loadgen(report["loadgen"]),
            scenarios=[s for s in SCENARIOS if any(s in e["scenarios"] for e in engines)],
            meaning=MEANING,
            figure=RESULT,
            plots=drawings.of_latency(rows),
            timeline=drawings.of_time(rows, report["conditions"]["series"]),
            confusions=drawings.of_confusion(rows, report["dataset"]["classes"]),
            layers=[_layers(name, times) for name, times in _told(report["layers"], result.engine)],
            classes_of=_classes_of(rows),
            disagreements=[
                {**one, "thumbnail": _jpeg(one["thumbnail"])} for one in report["disagreements"]
            ],
            guard=drawings.of_guard(report.get("accuracy_guard")),
            max_listed=MAX_LISTED,
            usual_batch=list(DEFAULT.batch),
            long_table=LONG_TABLE,
        )
    )


def marks(engine: Engine) -> list[str]:
    """What weakens an engine's figures, in a word or two each."""
    results = engine["scenarios"].values()
    found = {
        "slowed down": any(result["throttled"] for result in results),
        "unsteady": any(not result["warm_up"]["steady"] for result in results),
    }
    return table.marks(engine) + [mark for mark, holds in found.items() if holds]


def _against(
    found: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """What changed since another report, and apart from that what did not."""
    if not found:
        return None
    engines = {row["engine"]["name"]: row for row in rows}
    changes = [
        {**change, "of": engine["name"], "engine": engines.get(engine["name"])}
        for engine in found["engines"]
        for change in against_table.rows_of(engine)
    ]
    return {
        "of": found["of"],
        "count": against_table.count(found),
        "changed": [change for change in changes if change["kind"]],
        "others": [change for change in changes if not change["kind"]],
        "notes": against_table.notes(found),
    }


def _shown(engines: Sequence[Engine]) -> set[str]:
    """The columns that not every report has a figure for, and this one has."""
    found = {scenario for engine in engines for scenario in engine["scenarios"]}
    accuracies = [engine["accuracy"] for engine in engines if engine["accuracy"]]
    if any(accuracy.get("top5") is not None for accuracy in accuracies):
        found.add("top5")
    if any(accuracy.get("agreement") is not None for accuracy in accuracies):
        found.add("agreement")
    if any((e["scenarios"].get(SINGLE_STREAM) or {}).get("energy") for e in engines):
        found.add("energy")
    if any(engine["speedup"] for engine in engines):
        found.add("speedup")
    if any(engine["gpu_ms"] for engine in engines):
        found.add("gpu")
    return found


def _told(
    layers: Mapping[str, Mapping[str, float]], chosen: Engine | None
) -> list[tuple[str, Mapping[str, float]]]:
    """The layers of the verdict's engine, or else of the first that told them; at most one."""
    told = [name for name, times in layers.items() if times]
    if chosen and chosen["name"] in told:
        told = [chosen["name"]]
    return [(name, layers[name]) for name in told[:1]]


def _layers(engine: str, times: Mapping[str, float]) -> dict[str, Any]:
    """The layers that take longest, and the others in one."""
    ranked = sorted(times.items(), key=lambda item: -item[1])
    rest = ranked[MAX_LAYERS:]
    return {
        "engine": engine,
        "top": ranked[:MAX_LAYERS],
        "others": len(rest),
        "others_ms": sum(ms for _, ms in rest),
        "total": sum(times.values()),
        "longest": max(ranked[0][1], 1e-9),
    }


def _classes_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row whose classes are told one by one: the verdict's, or else the first that answered."""
    with_accuracy = [row for row in rows if row["engine"]["accuracy"]]
    return next((row for row in with_accuracy if row["chosen"]), next(iter(with_accuracy), None))


def _jpeg(text: str) -> str | None:
    """`text` if it is a JPEG in base64 and small, else None."""
    if len(text) > MAX_THUMBNAIL:
        return None
    try:
        content = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return text if content.startswith(b"\xff\xd8\xff") else None
