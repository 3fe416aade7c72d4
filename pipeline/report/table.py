"""The table of engines, for Markdown and for spreadsheets (for a terminal: `benchmarks.table`)."""

import csv as writing
import io
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.table import numbers, status
from pipeline.report.cells import escaped, harmless
from pipeline.report.format import interval, percent, points, points_span, significant, span
from pipeline.report.verdict import doubts, reference, verdict

Engine = Mapping[str, Any]  # one entry of "engines" in report.json
TEXTS = ("Engine", "Status")  # the columns of Markdown that are no figures


def csv(report: Mapping[str, Any]) -> str:
    """A line for each engine, with all its figures (see `numbers`), in full precision.

    Empty what was not measured. A text that a spreadsheet would take for a formula gets an
    apostrophe before it.
    """
    texts = ("name", "backend", "precision", "target", "status", "reason")
    rows = [
        {
            **{key: harmless(engine[key]) for key in texts},
            **numbers(engine),
            "valid": all(result["valid"] for result in engine["scenarios"].values())
            if engine["scenarios"]
            else None,
        }
        for engine in report["engines"]
    ]
    written = io.StringIO()
    writer = writing.DictWriter(written, list(rows[0]) if rows else texts, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def markdown(report: Mapping[str, Any]) -> str:
    """The run, the verdict and a table of the engines, as GitHub's Markdown."""
    engines: Sequence[Engine] = report["engines"]
    result = verdict(engines)
    run, machine = report["run"], report["conditions"]["before"]["machine"]
    created = run["created"].replace("T", " ").replace("Z", " UTC")
    told = [escaped(f"Run {run['name']}, {created}, on {machine}.")]
    told += [f"**{escaped(result.sentence)}**"]
    told += [escaped(result.note)] if result.note else []
    told += (
        ["\n".join(f"- {escaped(doubt)}" for doubt in found)] if (found := doubts(report)) else []
    )
    base = reference(engines)
    rows = [_markdown_row(e, chosen=e is result.engine, compared=e is not base) for e in engines]
    columns = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    lines = [columns, ["---" if name in TEXTS else "---:" for name in columns]]
    lines += [[row[name] for name in columns] for row in rows]
    told.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    told.append(
        "In brackets: 95 % intervals. Latency: single-stream, ms. Difference: points of top-1 "
        "beside TensorFlow. Energy: of a picture, loaded minus idle."
    )
    reasons = [f"- {escaped(e['name'])}: {escaped(e['reason'])}" for e in engines if e["reason"]]
    return "\n\n".join([*told, *(["\n".join(reasons)] if reasons else [])]) + "\n"


def _markdown_row(engine: Engine, chosen: bool, compared: bool) -> dict[str, str]:
    f = numbers(engine)

    def shown(key: str, form: Any = significant, ends: Any = None) -> str:
        if f[key] is None:
            return ""
        low, high = f.get(f"{key}_low"), f.get(f"{key}_high")
        return form(f[key]) + (f" ({ends([low, high])})" if ends and low is not None else "")

    name = escaped(engine["name"])
    size = f["size_bytes"]
    return {
        "Engine": f"**{name}**" if chosen else name,
        "Status": escaped(status(engine)),
        "Top-1, %": shown("top1", percent, interval),
        "Top-5, %": shown("top5", percent),
        "Agrees, %": shown("agreement", percent),
        "Difference": shown("delta", points, points_span)
        if compared
        else shown("delta", lambda _: "reference"),
        "p": shown("p_value", lambda p: format(p, ".2g")) if compared else "",
        "p50, ms": shown("single_stream_p50_ms"),
        "p90, ms": shown("single_stream_p90_ms", ends=span),
        "p99, ms": shown("single_stream_p99_ms"),
        "Multi-stream p99, ms": shown("multi_stream_p99_ms", ends=span),
        "From file p90, ms": shown("from_file_p90_ms", ends=span),
        "Pictures/s": shown("offline_ips", ends=span),
        "Energy, mJ": shown("energy_mj", ends=span),
        "Speed-up": shown("speedup", ends=span if compared else None),
        "MB": "" if size is None else significant(size / 1e6),
        "Build, s": shown("build_seconds"),
    }
