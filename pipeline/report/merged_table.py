"""The table of several reports: for a terminal, for Markdown and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.table import numbers, status
from engines.text import aligned, printable
from pipeline.report.cells import escaped, harmless
from pipeline.report.format import percent, significant
from pipeline.report.merged import Report, ran

Row = dict[str, Any]

HEADER = ("run", "machine", "power mode", "engine", "status", "top-1 %", "p50 ms", "p90 ms",
          "p99 ms", "pictures/s", "mJ", "speed-up")  # fmt: skip
TEXTS = ("run", "machine", "power_mode", "engine", "status")
NUMBERS = (
    *(f"single_stream_{key}_ms" for key in ("p50", "p90", "p99")),
    "offline_ips", "energy_mj", "speedup",
)  # fmt: skip


def rows(reports: Sequence[Report]) -> list[Row]:
    """A row for each engine that ran, of each run: whose it is, and its figures (see `numbers`).

    "run" counts from 1, in the order given; "valid" tells whether all its results are.
    """
    return [
        {
            "run": place,
            "name": report["run"]["name"],
            **{key: report["conditions"]["before"][key] for key in ("machine", "power_mode")},
            **{key: engine[key] for key in ("precision", "target")},
            "engine": engine["name"],
            "status": status(engine),
            **numbers(engine),
            "valid": all(result["valid"] for result in engine["scenarios"].values()),
        }
        for place, report in enumerate(reports, start=1)
        for engine in ran(report)
    ]


def as_text(rows: Sequence[Row]) -> str:
    """Aligned lines for a terminal."""
    return aligned([HEADER, *map(_cells, rows)], left=len(TEXTS))


def as_markdown(rows: Sequence[Row]) -> str:
    """A table in Markdown; what a name holds is not taken for markup."""
    lines = [HEADER, ["---"] * len(TEXTS) + ["---:"] * (len(HEADER) - len(TEXTS))]
    for cells in map(_cells, rows):
        lines.append([*map(escaped, cells[: len(TEXTS)]), *cells[len(TEXTS) :]])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(rows: Sequence[Row]) -> str:
    """One line for each row and all its keys, in full precision; empty what was not measured."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["run"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: harmless(v) if isinstance(v, str) else v for k, v in row.items()})
    return file.getvalue()


def _cells(row: Mapping[str, Any]) -> list[str]:
    texts = [printable(row[key] or "") for key in TEXTS]
    return [*texts, percent(row["top1"]), *(significant(row[key]) for key in NUMBERS)]
