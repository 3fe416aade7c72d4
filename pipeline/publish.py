"""`edgetrt report`: reports as pages and tables, one alone or several side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.files import write_json, write_text
from pipeline.errors import PipelineError, UsageError
from pipeline.report.read import find, read

PAGE, MARKDOWN, CSV, MERGED = "index.html", "table.md", "table.csv", "report.json"


def publish(path: Path, out: Path | None) -> tuple[dict[str, Any], list[Path]]:
    """Write a report's page and tables.

    Args:
        path: a run folder or a report.json.
        out: the folder to write into; None for the one that the report is in.

    Returns:
        The report, and the files: page, Markdown and CSV.
    """
    file = find(path)
    report = read(file)
    return report, write(report, out or file.parent)


def write(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the page and the tables of a report into `folder`: page, Markdown and CSV."""
    from pipeline.report.page import render
    from pipeline.report.table import csv, markdown

    return _write(folder, {PAGE: render(report), MARKDOWN: markdown(report), CSV: csv(report)})


def merge(paths: Sequence[Path], out: Path) -> tuple[dict[str, Any], list[Path]]:
    """Write one page, table and report.json of several reports.

    Args:
        paths: run folders or files, in the order wanted.
        out: the folder to write into.

    Returns:
        The merged report (see `pipeline.report.merged.summary`), and the files: page, Markdown,
        CSV and JSON.

    Raises:
        UsageError: a report is not there, or would be written over.
        PipelineError: one is damaged.
    """
    from pipeline.report import merged, merged_table

    if _holds_report(out / MERGED):
        raise UsageError(f"{out} holds the report of a run, which is not written over; choose "
                         "another --out")  # fmt: skip
    reports = [read(find(path)) for path in paths]
    found, rows = merged.summary(reports), merged_table.rows(reports)
    texts = {
        PAGE: merged.render(reports),
        MARKDOWN: merged_table.as_markdown(rows),
        CSV: merged_table.as_csv(rows),
    }
    files = _write(out, texts)
    write_json(out / MERGED, found)
    return found, [*files, out / MERGED]


def _holds_report(file: Path) -> bool:
    try:
        read(file)
    except PipelineError:
        return False
    return True


def _write(folder: Path, texts: dict[str, str]) -> list[Path]:
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
