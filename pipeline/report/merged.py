"""Several reports side by side: a TX2's beside an Orin's beside this computer's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.conditions import differences
from benchmarks.measure import SCHEMA
from benchmarks.scenarios import OFFLINE, RESULT, SINGLE_STREAM
from engines.text import printable
from pipeline.report import merged_plots as plots
from pipeline.report.drawings import point, role
from pipeline.report.format import counted
from pipeline.report.page import marks
from pipeline.report.template import environment
from pipeline.report.verdict import throttling, verdict

Report = Mapping[str, Any]
Engine = Mapping[str, Any]  # one entry of "engines" in a report

FIGURE = RESULT[SINGLE_STREAM]
MAX_NUMBERED = 60  # marks in a plot; the numbers of more would only cover each other
MAX_WARNINGS = 10  # shown at once; more are folded
# What a merged report has not: what is of one run alone, and the single values behind figures.
LEFT_OUT = ("against", "disagreements", "layers", "misclassified", "reproduce", "stages")
SAMPLES = ("answers", "truth", "rejected_pictures", "samples", "turns", "starts", "series")


def render(reports: Sequence[Report]) -> str:
    """The page of all reports.

    Args:
        reports: at least one, as `pipeline.report.read.read` gives them; a run's number on the
            page is its place among them, from 1.

    Returns:
        HTML that needs nothing but itself, encodes as UTF-8, and is the same for the same reports.
    """
    runs = [_run(number, report) for number, report in enumerate(reports, start=1)]
    timed = [row for run in runs for row in run["rows"] if row["latency"]]
    points = [point(row) for row in timed if row["engine"]["accuracy"]]
    shared = _shared(runs)
    kinds = {
        name: [(row["number"], row["role"], row["latency"][FIGURE]) for row in found.values()]
        for name, found in shared.items()
    }
    numbered = len(timed) <= MAX_NUMBERED
    accuracy = speed = None
    if points:
        label = "Accuracy against latency of every engine of every run; the table has the numbers."
        accuracy = plots.accuracy_against_latency(points, numbered, "accuracy", label)
    if kinds:
        label = "Latency of each engine in each run; the table has the numbers."
        speed = plots.same_engine(kinds, numbered, "speed", label)
    return (
        environment()
        .get_template("merged.html.j2")
        .render(
            runs=runs,
            warnings=list(warnings(reports)),
            max_warnings=MAX_WARNINGS,
            figure=FIGURE,
            shared=shared,
            numbered=numbered,
            accuracy=accuracy,
            speed=speed,
        )
    )


def warnings(reports: Sequence[Report]) -> Iterator[str]:
    """What forbids to compare figures of these reports, or makes it doubtful, in sentences."""
    yield from _parted(
        [report["dataset"]["test_digest"] for report in reports],
        "The test pictures are not the same in all runs, so accuracies can't be compared between",
        named=False,
    )
    yield from _parted(
        [report["run"]["architecture"] for report in reports], "The networks differ:"
    )
    yield from _parted([report["effort"] for report in reports], "Not equally thorough:")
    yield from _repeated(reports)
    first: dict[str, tuple[int, Report]] = {}
    for number, report in enumerate(reports, start=1):
        here = report["conditions"]
        which, before = first.setdefault(here["before"]["machine"], (number, report))
        if which != number:
            for difference in differences(here["before"], before["conditions"]["before"]):
                if difference not in here["differences"]:
                    unlike = f"Run {number}, unlike run {which} on a machine of the same name"
                    yield f"{unlike}: {difference}"
        for difference in here["differences"]:
            yield f"Run {number}, while it was measured: {difference}"
        for sentence in throttling(here):
            yield f"Run {number}: {sentence}"
        for key, what in (
            ("throttled", "slowed down while they were measured"),
            ("throttled_share", "throttled while they were measured"),
        ):
            names = [
                engine["name"]
                for engine in report["engines"]
                if any(result.get(key) for result in engine["scenarios"].values())
            ]
            if names:
                yield f"Run {number}: {what}: {', '.join(names)}"


def _repeated(reports: Sequence[Report]) -> Iterator[str]:
    """A warning that says which runs are one and the same."""
    runs: dict[tuple[str, str, str], list[int]] = {}
    for number, report in enumerate(reports, start=1):
        run, machine = report["run"], report["conditions"]["before"]["machine"]
        runs.setdefault((run["name"], run["created"], machine), []).append(number)
    again = [", ".join(map(str, numbers)) for numbers in runs.values() if len(numbers) > 1]
    if again:
        yield f"The same report was given more than once: {'; '.join(again)}"


def _parted(values: Sequence[str | None], sentence: str, named: bool = True) -> Iterator[str]:
    """A warning that says which runs have which of the values, unless all have one."""
    runs: dict[str, list[int]] = {}
    for number, value in enumerate(values, start=1):
        if value is not None:
            runs.setdefault(value, []).append(number)
    if len(runs) > 1:
        groups = [(value, ", ".join(map(str, numbers))) for value, numbers in runs.items()]
        told = [f"{value} ({which})" if named else which for value, which in groups]
        yield f"{sentence} {'; '.join(told)}"


def summary(reports: Sequence[Report]) -> dict[str, Any]:
    """The reports in one, for programs.

    Returns:
        "schema"; "warnings", as on the page; "reports": each in the order given, without single
        samples, answers and pictures.
    """
    return {
        "schema": SCHEMA,
        "warnings": list(warnings(reports)),
        "reports": [_without_samples(report) for report in reports],
    }


def ran(report: Report) -> list[Engine]:
    """The engines that ran, in the report's order."""
    return [engine for engine in report["engines"] if engine["status"] == "ran"]


def _run(number: int, report: Report) -> dict[str, Any]:
    """A run as the page shows it."""
    result = verdict(report["engines"])
    here = ran(report)
    return {
        "number": number,
        "role": "other",
        "report": report,
        "conditions": report["conditions"]["before"],
        "verdict": result,
        "rows": [_row(number, engine, engine is result.engine) for engine in here],
        "elsewhere": counted(len(report["engines"]) - len(here), "engine") + " did not run here",
        "all_ran": len(here) == len(report["engines"]),
    }


def _row(number: int, engine: Engine, chosen: bool) -> dict[str, Any]:
    return {
        "number": number,
        "role": role(engine),
        "engine": engine,
        "chosen": chosen,
        "marks": marks(engine),
        "latency": engine["scenarios"].get(SINGLE_STREAM),
        "offline": engine["scenarios"].get(OFFLINE),
        # TensorRT's names hold the GPU that an engine is for.
        "kind": printable(engine["name"].replace(f"-{engine['target']}", "")),
    }


def _shared(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """The engines that were timed in several runs: name without GPU, number of the run, row.

    Each row gets "ratio": its latency over that of the fastest run.
    """
    kinds: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        for row in run["rows"]:
            if row["latency"]:
                kinds.setdefault(row["kind"], {}).setdefault(run["number"], row)
    shared = {kind: found for kind, found in kinds.items() if len(found) > 1}
    for found in shared.values():
        fastest = min(row["latency"][FIGURE] for row in found.values())
        for row in found.values():
            row["ratio"] = row["latency"][FIGURE] / fastest
    return shared


def _without_samples(report: Report) -> dict[str, Any]:
    """A report without what only its own page shows."""

    def slim(result: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in result.items() if key not in SAMPLES}

    return {
        **{key: value for key, value in report.items() if key not in LEFT_OUT},
        "dataset": slim(report["dataset"]),
        "engines": [
            {
                **slim(engine),
                "scenarios": {name: slim(result) for name, result in engine["scenarios"].items()},
            }
            for engine in report["engines"]
        ],
        "conditions": slim(report["conditions"]),
    }
