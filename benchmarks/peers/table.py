"""The two tables of peers, for people."""

from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from benchmarks.peers.inference import MEASURED
from benchmarks.scenarios import OFFLINE, SINGLE_STREAM
from engines.text import aligned

Row = Dict[str, Any]
NONE = "-"


def inference_table(rows: Sequence[Row]) -> str:
    """Accuracy and speed; those that were not measured follow with the reason."""
    head = ["", "", "top-1 (95 %)", "p50 ms (95 %)", "p90 ms (95 %)", "pictures/s", "of our time"]
    measured = [row for row in rows if row["status"] == MEASURED]
    lines = [aligned([head, *map(_inference_cells, measured)], 2)]
    lines += [
        "{}: not measured: {}".format(row["name"], row["reason"])
        for row in rows
        if row["status"] != MEASURED
    ]
    return "\n".join(lines)


def training_table(rows: Sequence[Row]) -> str:
    """Seconds of each part, by the median of the rounds with the least and the most."""
    head = ["", "", "bottlenecks s", "training s", "whole s", "top-1 (95 %)"]
    return aligned([head, *map(_training_cells, rows)], 2)


def _inference_cells(row: Row) -> List[str]:
    # What belongs to an engine of ours stands indented under it.
    name = row["name"] if row["beside"] is None else "  " + row["name"]
    if "app" in row:
        app = row["app"]
        cells = [NONE, "{:.2f}".format(app["p50"]), NONE, "{:.0f}".format(app["ips"]), NONE]
        return [name, row["what"], *cells]
    single = row["scenarios"][SINGLE_STREAM]
    return [
        name,
        row["what"],
        _top1(row["accuracy"]["top1"], row["accuracy"]["ci95"]),
        _interval(single["p50"], single["ci95"]["p50"], "{:.2f}"),
        _interval(single["p90"], single["ci95"]["p90"], "{:.2f}"),
        "{:.0f}".format(row["scenarios"][OFFLINE]["ips"]),
        _against(row["against_ours"]),
    ]


def _against(speedup: Optional[Dict[str, Any]]) -> str:
    return NONE if speedup is None else _interval(speedup["value"], speedup["ci95"], "{:.2f}") + "x"


def _interval(value: float, ci95: Sequence[float], form: str) -> str:
    return "{0} ({1}..{2})".format(*(form.format(number) for number in (value, *ci95)))


def _top1(share: float, ci95: Sequence[float]) -> str:
    return _interval(100 * share, [100 * bound for bound in ci95], "{:.1f}") + " %"


def _training_cells(row: Row) -> List[str]:
    times = [_spread(row[part]) for part in ("bottlenecks", "training", "whole")]
    return [row["name"], row["what"], *times, _top1(row["top1"][-1], row["ci95"])]


def _spread(seconds: Sequence[float]) -> str:
    return _interval(float(np.median(seconds)), (min(seconds), max(seconds)), "{:.1f}")
