"""Several reports side by side, and what is done with one that is no report."""

import copy
import csv
import functools
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import HOSTILE, Page, device, engine, example, troubled, with_text

from pipeline import against, cli
from pipeline.errors import PipelineError, UsageError
from pipeline.report import merged, merged_plots, read, template
from pipeline.report.against_table import describe
from pipeline.report.merged import render, summary, warnings
from pipeline.report.merged_table import as_csv, as_markdown, as_text, rows
from pipeline.report.verdict import verdict

Report = dict[str, Any]
SINGLE = "single-stream"


def orin() -> Report:
    """A report of another board."""
    report = device()
    for when in ("before", "after"):
        report["conditions"][when] |= {"machine": "Jetson AGX Orin", "power_mode": "MODE_30W (2)"}
    report["run"]["name"] = "orin"
    report["engines"] = [
        engine("tensorrt", "fp16", 0.868, 0.0, 1.0, 1.3, target="sm87"),
        engine("tensorrt", "int8", 0.861, 0.0, 1.0, 0.9, target="sm87"),
    ]
    return named(report)


def named(report: Report) -> Report:
    """TensorRT's engines with the GPU in their names, as the builder gives them."""
    for one in report["engines"]:
        if one["backend"] == "tensorrt":
            one["name"] = f"{one['backend']}-{one['precision']}-{one['target']}"
    return report


def three() -> list[Report]:
    return [example(), named(device()), orin()]


@pytest.fixture(scope="module")
def html() -> str:
    return render(three())


# The page


def test_page_is_well_formed_and_needs_nothing_but_itself(html: str) -> None:
    assert html.startswith("<!DOCTYPE html>")
    page = Page(html)
    assert not page.open
    assert "http" not in html.replace("http-equiv", "")
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "img")
        assert not any(name.startswith("on") for name in attributes)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= set(ids)
    assert all("scope" in a for tag, a in page.tags if tag == "th")
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    assert sum(tag == "svg" for tag, _ in page.tags) == 2


def test_every_engine_that_ran_stands_under_its_machine(html: str) -> None:
    text = Page(html).text
    for number, report in enumerate(three(), start=1):
        machine = report["conditions"]["before"]["machine"]
        assert f"{number} {machine}" in text
        for one in report["engines"]:
            if one["status"] == "ran":
                assert one["name"] in text
    assert "power mode MAXN (0)" in text and "power mode MODE_30W (2)" in text
    assert "2 engines did not run here" in text
    assert "no warning" not in text and "Not comparable" not in text


def test_the_same_engine_is_compared_across_machines(html: str) -> None:
    text = Page(html).text
    tx2, orin_ = (
        next(e for e in report["engines"] if e["precision"] == "fp16")["scenarios"][SINGLE]["p90"]
        for report in three()[1:]
    )
    assert f"{tx2:.2f} {tx2 / orin_:.1f}×" in text
    assert f"{orin_:.2f} fastest" in text
    assert "tensorrt-fp16 " in text


def test_hostile_text_changes_no_tag() -> None:
    html = render([with_text(example(), HOSTILE), with_text(device(), HOSTILE)])
    html.encode("utf-8")
    assert "\x1b" not in html and "\u202e" not in html
    harmless = "a" * len(HOSTILE)
    expected = Page(render([with_text(example(), harmless), with_text(device(), harmless)]))
    assert Page(html).structure == expected.structure


def test_page_is_the_same_every_time(html: str) -> None:
    assert render(three()) == html


def test_fifty_runs_take_fifty_times_as_long_and_no_more() -> None:
    def spent(count: int) -> tuple[float, str]:
        reports = [three()[i % 3] for i in range(count)]
        start = time.process_time()
        html = render(reports)
        return time.process_time() - start, html

    render(three())
    (few, _), (many, html) = spent(5), spent(50)
    assert many < 20 * few
    assert len(html) < 1_500_000
    assert not Page(html).open


# Warnings


def test_runs_in_one_state_need_no_warning() -> None:
    assert list(warnings([example(), another()])) == []
    assert list(warnings(three())) == []  # that machines differ is what the page is for


def another() -> Report:
    """A later run on a machine of the same name."""
    report = example()
    report["run"]["created"] = "2026-11-23T18:00:00Z"
    return report


def changed(**paths: Any) -> Report:
    report = another()
    for path, value in paths.items():
        *outer, last = path.split("__")
        inner = report
        for key in outer:
            inner = inner[key]
        inner[last] = value
    return report


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (changed(dataset__test_digest="0"), "test pictures are not the same.* 1; 2$"),
        (changed(run__architecture="mobilenet_v2"), r"efficientnet_lite0 \(1\); mobilenet_v2 \(2"),
        (changed(effort="quick"), r"valid \(1\); quick \(2\)"),
        (changed(conditions__before__governor="powersave"),
         "^Run 2, unlike run 1 on a machine of the same name: .*powersave"),
        (changed(conditions__differences=["it rained"]), "^Run 2, while it was measured: it rain"),
    ],
)  # fmt: skip
def test_what_forbids_to_compare_is_said(other: Report, words: str) -> None:
    [warning] = warnings([example(), other])
    assert re.search(words, warning)
    assert warning in Page(render([example(), other])).text


def test_a_busy_machine_is_said_once_a_run() -> None:
    busy = changed(conditions__before__load=9.0, conditions__differences=["too busy"])
    found = list(warnings([busy, example()]))
    assert found == ["Run 1, while it was measured: too busy"]


def test_engines_that_slowed_down_and_a_machine_that_throttled_are_told_apart() -> None:
    found = list(warnings([example(), troubled()]))
    assert "Run 2: slowed down while they were measured: openvino-int8" in found
    assert "Run 2: throttled while they were measured: openvino-int8" in found
    assert sum("said that it throttled" in warning for warning in found) == 1
    calm = troubled()
    calm["conditions"] = example()["conditions"]
    del entry(calm, "openvino-int8")["scenarios"][SINGLE]["throttled_share"]
    assert not any("throttled" in warning for warning in warnings([example(), calm]))


def entry(report: Report, name: str) -> dict[str, Any]:
    return next(one for one in report["engines"] if one["name"] == name)


def test_what_weakens_a_row_is_marked_in_every_table() -> None:
    reports = [example(), troubled()]
    status = [row["status"] for row in rows(reports)]
    assert status == ["ran"] * 6 + ["ran, quick"] * 4 + ["ran, quick, throttled", "ran, quick"]
    [line] = [line for line in as_markdown(rows(reports)).splitlines() if "throttled" in line]
    assert line.startswith("| 2 | AMD EPYC 9B14 |  | openvino-int8 | ran, quick, throttled |")
    assert "openvino-int8     ran, quick, throttled     87.3" in as_text(rows(reports))
    assert "openvino-int8 quick throttled slowed down" in Page(render(reports)).text
    entry(reports[0], "openvino-int8")["scenarios"][SINGLE] |= {"valid": False, "why": "too few"}
    assert [row["status"] for row in rows(reports)][4] == "ran, not valid"
    assert "openvino-int8 not valid" in Page(render(reports)).text


def test_a_report_given_twice_is_said() -> None:
    reports = [example(), orin(), another(), example(), orin()]
    assert "The same report was given more than once: 1, 4; 2, 5" in warnings(reports)
    assert not any("more than once" in warning for warning in warnings(reports[:3]))


# For programs


def test_summary_keeps_the_figures_and_drops_the_samples() -> None:
    found = summary(three())
    assert found["schema"] == 2 and found["warnings"] == []
    [first, *_] = found["reports"]
    assert first["engines"][0]["scenarios"][SINGLE]["p90"]
    text = json.dumps(found, allow_nan=False)
    assert '"samples": [' not in text and '"answers"' not in text and '"thumbnail"' not in text
    assert len(text) < 100_000
    assert rows(found["reports"]) == rows(three())


def test_rows_are_those_of_the_reports() -> None:
    found = rows(three())
    assert [row["run"] for row in found] == [1] * 6 + [2] * 2 + [3] * 2
    one = three()[0]["engines"][4]
    row = found[4]
    assert (row["engine"], row["machine"]) == ("openvino-int8", "AMD EPYC 9B14")
    assert row["single_stream_p90_ms"] == one["scenarios"][SINGLE]["p90"]
    assert row["energy_mj"] == one["scenarios"][SINGLE]["energy"]["mj"]
    assert row["top1"] == one["accuracy"]["top1"]
    assert "AMD EPYC 9B14" in as_text(found)


def test_tables_hold_hostile_names() -> None:
    found = rows([with_text(example(), "=1|<b>" + HOSTILE)])
    lines = as_markdown(found).splitlines()
    assert len(lines) == 2 + len(found)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {13}
    assert all("<" not in re.sub(r"\\<", "", line) for line in lines)
    assert len(as_text(found).splitlines()) == 1 + len(found)
    table = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(table) == len(found)
    assert all(row["engine"].startswith("'=1|<b><script>") for row in table)
    as_csv(found).encode()
    assert as_csv([]) == "run\n" and as_markdown([]).count("\n") == 2


# The command


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Reports: one in a run folder, one in a folder, one alone."""
    places = ("run/report/report.json", "tx2/report.json", "orin.json")
    for place, report in zip(places, three(), strict=True):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report))
    return [str(tmp_path / name) for name in ("run", "tx2", "orin.json")]


def test_merge_writes_page_table_and_json(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["report", "--merge", *files, "--out", str(out)]) == 0
    assert "Jetson AGX Orin" in capsys.readouterr().out
    names = {"index.html", "report.json", "table.md", "table.csv"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "index.html").read_text() == render(three())
    assert json.loads((out / "report.json").read_text()) == summary(three())
    table = list(csv.DictReader(io.StringIO((out / "table.csv").read_text())))
    assert [row["engine"] for row in table] == [row["engine"] for row in rows(three())]
    assert (out / "table.md").read_text().count("\n") == 2 + len(table)
    # Again, into the same folder.
    assert cli.main(["report", "--merge", *files, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {Path(file).name for file in told["files"]} == names


def test_one_report_becomes_a_page_beside_it_or_elsewhere(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", files[1]]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path / "tx2" / "index.html") in shown
    assert verdict(named(device())["engines"]).sentence in shown.splitlines()
    names = {"index.html", "table.md", "table.csv"}
    assert {path.name for path in (tmp_path / "tx2").iterdir()} == names | {"report.json"}
    assert cli.main(["report", files[2], "--out", str(tmp_path / "new" / "out")]) == 0
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == names


def test_a_report_of_a_run_given_as_a_file_has_its_page_beside_it(
    files: list[str], tmp_path: Path
) -> None:
    (tmp_path / "run" / "report" / "index.html").write_text("of an older version")
    assert cli.main(["report", f"{files[0]}/report/report.json"]) == 0
    assert template.GENERATOR in (tmp_path / "run" / "report" / "index.html").read_text()
    board = tmp_path / "board" / "report"
    board.mkdir(parents=True)
    (board / "device.json").write_text(json.dumps(device()))
    assert cli.main(["report", str(board / "device.json")]) == 0
    assert (board / "index.html").exists()


@pytest.mark.parametrize("name", ["report.json", "device.json"])
def test_no_page_is_written_over_that_of_another_report(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "other" / "report"
    out.mkdir(parents=True)
    (out / name).write_text(json.dumps(device()))
    for flags in (["--merge", *files], files[:1]):
        assert cli.main(["report", *flags, "--out", str(out)]) == 2
        assert "holds the report of a run" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [name]


def test_no_page_of_others_is_written_over(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "site" / "index.html"
    page.parent.mkdir()
    page.write_text("<!DOCTYPE html><title>Mine</title>")
    for flags in (["--merge", *files], files[2:]):
        assert cli.main(["report", *flags, "--out", str(page.parent)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "is no page of edgetrt" in said
    assert page.read_text() == "<!DOCTYPE html><title>Mine</title>"
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    page.unlink()
    for flags in (files[2:], ["--merge", *files], ["--merge", *files], files[2:]):  # ours
        assert cli.main(["report", *flags, "--out", str(page.parent)]) == 0


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["{2}"], 2, "orin.json is not a run folder's report; give --out DIR"),
        (["{1}/report.json"], 2, "report.json is not a run folder's report; give --out DIR"),
        (["{0}", "{1}"], 2, "2 reports were given; --merge puts them side by side"),
        (["--merge", "{0}", "{1}"], 2, "give --out"),
        (["--merge", "{0}", "--out", "{0}/x", "--mlflow", "m"], 2, "nothing else"),
        (["--merge", "{0}", "{1}", "--out", "{1}"], 2, "holds the report of a run"),
        (["{0}/nowhere"], 2, "nowhere does not exist; give a run folder or a report.json"),
        (["{0}/empty"], 2, "empty holds no report.json"),
        (["--merge", "{0}", "{0}/bad.json", "--out", "{0}/out"], 1, "bad.json is damaged"),
        ([], 2, "RUN"),
    ],
)
def test_wrong_use_of_report(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    flags: list[str], code: int, words: str,
) -> None:  # fmt: skip
    (tmp_path / "run" / "empty").mkdir()
    (tmp_path / "run" / "bad.json").write_text("{")
    try:
        assert cli.main(["report", *(flag.format(*files) for flag in flags)]) == code
    except SystemExit as left:  # argparse
        assert left.code == code
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and not said.out
    assert words in said.err
    assert not (tmp_path / "run" / "out").exists()


# Reading


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged, or no report"),
        (b"\xff\xfe", "damaged, or no report"),
        (b"[" * 100_000, "damaged, or no report"),
        (b'{"schema": 1' + b"0" * 5000 + b"}", "damaged, or no report"),
        (b"[]", "the whole is a list|the whole is \\[\\]|where an object is expected"),
        (b"{}", "the whole has no 'schema'"),
        (b'{"schema": 1}', "has schema 1, and schema 2 is what this edgetrt reads"),
        (b'{"schema": 2}', "the whole has no 'run'"),
        (json.dumps(summary([example()])).encode(), "no report of edgetrt: the whole has no"),
    ],
)
def test_what_is_no_report(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(content)
    with pytest.raises(PipelineError, match=f"report.json .*({words})") as raised:
        read.read(file)
    assert not isinstance(raised.value, UsageError)
    assert len(str(raised.value)) < len(str(file)) + 200


def test_too_large_a_file(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with file.open("wb") as opened:
        opened.truncate(read.MAX_BYTES + 1)
    with pytest.raises(PipelineError, match="larger than 64 MiB"):
        read.read(file)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.json")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "report", str(tmp_path / "report.json")],
        capture_output=True, text=True, timeout=20, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    assert "not a plain file" in done.stderr


@pytest.mark.parametrize("report", [example, device, troubled, orin])
def test_reports_of_hosts_and_devices_are_read(
    report: Callable[[], Report], tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report()))
    assert read.read(file) == report()


def test_a_report_of_before_throttling_was_told_of_each_engine_is_read_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = troubled()
    del old["power"]["idle_ci95"]
    for one in old["engines"]:
        for result in one["scenarios"].values():
            result.pop("throttled_share", None)
    (tmp_path / "old.json").write_text(json.dumps(old))
    (tmp_path / "new.json").write_text(json.dumps(example()))
    files = [str(tmp_path / name) for name in ("old.json", "new.json")]
    assert cli.main(["report", files[0], "--out", str(tmp_path / "page")]) == 0
    assert "21.4 W when idle" in Page((tmp_path / "page" / "index.html").read_text()).text
    assert cli.main(["report", "--merge", *files, "--out", str(tmp_path / "all")]) == 0
    assert "throttled while" not in capsys.readouterr().err
    new = json.loads((tmp_path / "all" / "report.json").read_text())["reports"][1]
    assert new["power"]["idle_ci95"] == [21.1, 21.8]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda r: r["engines"].append(r["engines"][0]), "engine tensorflow-fp32 is there twice"),
        (lambda r: r["engines"][0]["scenarios"][SINGLE]["turns"].pop(), "turns are not of as many"),
        (lambda r: r["engines"][0]["scenarios"]["offline"]["turns"].clear(), "must have a start"),
        (lambda r: r["engines"][0]["scenarios"].update(x={}), "unknown scenario x"),
        (lambda r: r["engines"][0].update(answers=[0, 1]), "answers are not 656 of 2 classes"),
        (lambda r: r["dataset"].update(truth=[2] * 656), "truth: its answers are not 656"),
        (lambda r: r["dataset"]["classes"].append("x"), "another number of classes"),
        (lambda r: r["conditions"]["series"]["power_w"].pop(), "not equally long"),
        (lambda r: r["accuracy_guard"].update(chosen=4), "a point that is not there"),
        (lambda r: r["loadgen"].pop("ratio"), "loadgen has no 'ratio'"),
        (
            lambda r: r["engines"][0].update(name=["x"]),
            r"engines\[0\].name is a list, where a text",
        ),
        (lambda r: r["run"].update(seed=float("nan")), "run.seed is nan, where a number"),
        (lambda r: r["run"].update(seed=10**400), "run.seed is 1000.*, where a number"),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, harm: Callable[[Report], Any], words: str
) -> None:
    report = example()
    harm(report)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report))
    with pytest.raises(PipelineError, match=f"is no report of edgetrt: .*{words}"):
        read.read(file)


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a report; of a list, of its first item only."""
    yield where
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1])
    for key, item in inner if isinstance(value, dict | list) else ():
        if isinstance(item, dict | list):
            yield from places(item, (*where, key))
        else:
            yield (*where, key)


@pytest.mark.parametrize("make", [example, device])
def test_whatever_is_changed_it_is_refused_or_can_be_shown(
    make: Callable[[], Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value in turn by one of another type or size: no error but for people."""
    monkeypatch.setattr(against, "block_weights", lambda n: np.ones((2, n), int))
    monkeypatch.setattr(merged_plots, "inline_svg", lambda *_: "")  # takes long
    monkeypatch.setattr(merged, "environment", functools.cache(merged.environment))
    whole = make()
    whole["engines"] = whole["engines"][:1]
    for result in whole["engines"][0]["scenarios"].values():
        result |= {"starts": result["starts"][:2], "turns": [2, 2]}
        if "samples" in result:
            result["samples"] = result["samples"][:4]
    text, file = json.dumps(whole), tmp_path / "report.json"
    refused = shown = 0
    for where in [place for place in places(whole) if place]:
        values: tuple[Any, ...] = (None, "x", -1, 0, 1e14, [], "gone")
        for value in values:
            report = json.loads(text)
            inner = report
            for key in where[:-1]:
                inner = inner[key]
            if value == "gone":
                del inner[where[-1]]
            else:
                inner[where[-1]] = value
            file.write_text(json.dumps(report))
            try:
                found = read.read(file)
            except PipelineError:
                refused += 1
                continue
            shown += 1
            try:
                render([found, whole])
                as_text(rows([found]))
                describe(against.against(found, whole))
                describe(against.against(whole, found))
            except Exception as error:
                raise AssertionError(f"{where} = {value!r}") from error
    assert refused > 1000 and shown > 200


def test_plots_of_the_smallest_and_largest_times() -> None:
    report = copy.deepcopy(example())
    for one, factor in zip(report["engines"], (1e-9, 1e9, 1, 1, 1, 1), strict=False):
        result = one["scenarios"][SINGLE]
        result |= {key: result[key] * factor for key in ("p50", "p90", "p99", "mean")}
        result["ci95"] = {k: [b * factor for b in v] for k, v in result["ci95"].items()}
    assert not Page(render([report, example()])).open
