"""`edgetrt report`: reports as pages and tables, one alone or several side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.files import write_json, write_text
from pipeline.errors import PipelineError, UsageError
from pipeline.report.read import find, read

PAGE, MARKDOWN, CSV, MERGED = "index.html", "table.md", "table.csv", "report.json"
REPORTS = (MERGED, "device.json")  # files that may be the report of a run


def publish(path: Path, out: Path | None) -> tuple[dict[str, Any], list[Path]]:
    """Write a report's page and tables.

    Args:
        path: a run folder, a folder with a report, or the file itself.
        out: the folder to write into; None for the one that the report is in, which then must be
            a folder given as such, or that of the run which the file is the report of.

    Returns:
        The report, and the files: page, Markdown and CSV.

    Raises:
        UsageError: there is no report; a file from elsewhere came without `out`; or a page would
            be written over that is not ours: outside of a run's report folder, one that lacks the
            mark of ours (`template.GENERATOR`), or that of another report.
        PipelineError: it is damaged.
    """
    file = find(path)
    report = read(file)
    own = _is_of_run(file)
    if out is None and not path.is_dir() and not own:
        raise UsageError(f"{file} is not a run folder's report; give --out DIR for its page")
    folder = out or file.parent
    if not (own and folder.resolve() == file.parent.resolve()):
        refuse_to_replace(folder, file)
    return report, write(report, folder)


def write(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the page and the tables of a report into `folder`: page, Markdown and CSV."""
    from pipeline.report.page import render
    from pipeline.report.table import csv, markdown

    return _write(folder, {PAGE: render(report), MARKDOWN: markdown(report), CSV: csv(report)})


def is_there(folder: Path) -> bool:
    """Whether `folder` has all that `write` writes."""
    return all((folder / name).is_file() for name in (PAGE, MARKDOWN, CSV))


def merge(paths: Sequence[Path], out: Path) -> tuple[dict[str, Any], list[Path]]:
    """Write one page, table and report.json of several reports.

    Args:
        paths: run folders or files, in the order wanted.
        out: the folder to write into.

    Returns:
        The merged report (see `pipeline.report.merged.summary`), and the files: page, Markdown,
        CSV and JSON.

    Raises:
        UsageError: a report is not there, or would be written over, or a page that is not ours.
        PipelineError: one is damaged.
    """
    from pipeline.report import merged, merged_table

    refuse_to_replace(out)
    reports = [read(find(path)) for path in paths]
    found, rows = merged.summary(reports), merged_table.rows(reports)
    texts = {
        PAGE: merged.render(reports),
        MARKDOWN: merged_table.as_markdown(rows),
        CSV: merged_table.as_csv(rows),
    }
    files = _write(out, texts)
    write_json(out / MERGED, found, indent=None)
    return found, [*files, out / MERGED]


def _is_of_run(file: Path) -> bool:
    """Whether a file is what stands for a run: RUN/report/report.json, or what `find` takes."""
    folder = file.absolute().parent
    if folder.name != "report" or file.name not in REPORTS:
        return False
    return find(folder.parent) == folder / file.name


def refuse_to_replace(folder: Path, but: Path | None = None) -> None:
    """Raise UsageError where a page or report in `folder` is not to be written over.

    Args:
        but: the report whose page is written, which may lie there itself.
    """
    for name in REPORTS:
        file = folder / name
        if but and file.exists() and file.samefile(but):
            continue
        if _holds_report(file):
            raise UsageError(f"{folder} holds the report of a run, which is not written over; "
                             "choose another --out")  # fmt: skip
    page = folder / PAGE
    if page.exists() and not _is_ours(page):
        raise UsageError(f"{page} is no page of edgetrt, and is not written over; choose another "
                         "--out")  # fmt: skip


def _is_ours(page: Path) -> bool:
    from pipeline.report.template import GENERATOR

    if not page.is_file():  # a pipe would be waited for
        return False
    with page.open("rb") as opened:
        return GENERATOR.encode() in opened.read(2048)


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
