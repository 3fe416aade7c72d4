"""Reading a report.json, which may come from anywhere: only one of the right shape gets in."""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import SCHEMA
from benchmarks.scenarios import OFFLINE, SCENARIOS
from pipeline.errors import PipelineError, UsageError
from pipeline.report.format import shortened
from pipeline.report.schema import LOADGEN, NO_LOADGEN, REPORT, Each, Kind, Maybe

MAX_BYTES = 64 << 20  # many times what a run of all engines writes


def find(path: Path) -> Path:
    """The report.json that `path` stands for: of a run folder, of any folder, or itself.

    Raises:
        UsageError: there is none.
    """
    for file in (
        path / "report" / "report.json",
        path / "report" / "device.json",
        path / "report.json",
        path,
    ):
        if file.exists() and not file.is_dir():
            return file
    if path.is_dir():
        raise UsageError(f"{path} holds no report.json; edgetrt compare and benchmark write one")
    raise UsageError(f"{path} does not exist; give a run folder or a report.json")


def read(file: Path) -> dict[str, Any]:
    """Read a report.

    Returns:
        A report of schema 2 in which everything that `schema.REPORT` names is there and of its
        kind, all numbers are finite, and what must fit together does.

    Raises:
        PipelineError: it can't be read, is damaged, is too large, or is no such report.
    """
    try:
        report = json.loads(_content(file))
    except OSError as error:
        raise PipelineError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{file} is damaged, or no report: {error}") from error
    if isinstance(report, dict) and report.get("schema", SCHEMA) != SCHEMA:
        raise PipelineError(
            f"{file} has schema {shortened(str(report['schema']), 40)}, and schema {SCHEMA} is "
            "what this edgetrt reads: make it anew, by compare or benchmark"
        )
    wrong = next(_wrong(report, REPORT, "the whole"), None) or next(_misfits(report), None)
    if wrong:
        raise PipelineError(f"{file} is no report of edgetrt: {wrong}")
    found: dict[str, Any] = report
    return found


def _content(file: Path) -> str:
    # Not waiting: a named pipe would, for somebody who writes into it.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:  # noqa: PTH123 - pathlib opens no descriptors
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a plain file")
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    return content.decode("utf-8")


def _wrong(value: Any, shape: Any, where: str) -> Iterator[str]:
    """What of `value` has not its `shape`, in words."""
    if isinstance(shape, Kind):
        if not shape.holds(value):
            yield f"{where} is {_named(value)}, where {shape.name} is expected"
    elif isinstance(shape, Maybe):
        if value is not None:
            yield from _wrong(value, shape.shape, where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{where} is {_named(value)}, where a list is expected"
            return
        for place, item in enumerate(value):
            yield from _wrong(item, shape[0], f"{where}[{place}]")
    elif not isinstance(value, dict):
        yield f"{where} is {_named(value)}, where an object is expected"
    elif isinstance(shape, Each):
        for key, item in value.items():
            yield from _wrong(item, shape.shape, f"{where}.{shortened(key, 40)}")
    else:
        for key, inner in shape.items():
            name = key.rstrip("?")
            if name in value:
                yield from _wrong(value[name], inner, f"{where}.{name}")
            elif name == key:
                yield f"{where} has no {name!r}"


def _named(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value)) or shortened(repr(value), 40)


def _misfits(report: Mapping[str, Any]) -> Iterator[str]:
    """What has the right shape, but does not fit what stands elsewhere in the report."""
    classes, pictures = len(report["dataset"]["classes"]), report["dataset"]["test"]
    answers = [("the truth", report["dataset"].get("truth"))]
    names = set()
    for engine in report["engines"]:
        where = f"engine {shortened(engine['name'], 40)}"
        if engine["name"] in names:
            yield f"{where} is there twice"
        names.add(engine["name"])
        answers.append((where, engine["answers"]))
        if unknown := set(engine["scenarios"]) - set(SCENARIOS):
            yield f"{where} has an unknown scenario {shortened(min(unknown), 40)}"
        for scenario, result in engine["scenarios"].items():
            if scenario != OFFLINE and sum(result["turns"]) != len(result["samples"]):
                yield f"{where}, {scenario}: its turns are not of as many queries as it has samples"
            if not result["turns"] or len(result["turns"]) != len(result["starts"]):
                yield f"{where}, {scenario}: each turn must have a start"
        if engine["accuracy"]:
            rows = [len(row) for row in engine["accuracy"]["confusion"]]
            if rows != [classes] * classes or len(engine["accuracy"]["per_class"]) != classes:
                yield f"{where}: its accuracy is of another number of classes"
    for where, given in answers:
        if given is not None and (len(given) != pictures or any(a >= classes for a in given)):
            yield f"{where}: its answers are not {pictures} of {classes} classes"
    series = report["conditions"]["series"]
    if len({len(values) for values in series.values()}) > 1:
        yield "the conditions' series are not equally long"
    guard = report.get("accuracy_guard")
    if guard and guard["chosen"] >= len(guard["points"]):
        yield "the accuracy guard chose a point that is not there"
    loadgen = report["loadgen"]
    yield from _wrong(loadgen, NO_LOADGEN if "reason" in loadgen else LOADGEN, "loadgen")
