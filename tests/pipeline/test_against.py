"""Two reports held against each other, and budgets: what is called a change, and what is not."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import HOSTILE, Page, device, engine, example, troubled, with_text

from pipeline import against as module
from pipeline import cli
from pipeline.against import against
from pipeline.budgets import Budgets
from pipeline.errors import BudgetError, PipelineError, UsageError
from pipeline.report.against_table import describe
from pipeline.report.page import _against, render
from pipeline.report.read import read
from pipeline.report.verdict import verdict
from pipeline.run import Run

Report = dict[str, Any]
SINGLE, OFFLINE = "single-stream", "offline"


def short(report: Callable[[], Report] = example) -> Report:
    """Fewer engines and scenarios: each takes its time."""
    found = report()
    found["engines"] = [found["engines"][i] for i in (0, 4, 5, 6, 7)]
    for one in found["engines"]:
        one["scenarios"] = {s: r for s, r in one["scenarios"].items() if s in (SINGLE, OFFLINE)}
    return found


def figures(new: Report, old: Report, name: str) -> dict[str, Any]:
    [found] = [e for e in against(new, old)["engines"] if e["name"] == name]
    figures: dict[str, Any] = found["figures"]
    return figures


def entry(report: Report, name: str) -> dict[str, Any]:
    [found] = [e for e in report["engines"] if e["name"] == name]
    one: dict[str, Any] = found
    return one


def with_times(report: Report, turns: np.ndarray) -> Report:
    """`report`, of one engine, with these times: (turns, queries), ms."""
    one = copy.deepcopy(report["engines"][0])
    result = one["scenarios"][SINGLE]
    result |= {"samples": turns.ravel().tolist(), "turns": [turns.shape[1]] * len(turns)}
    result["p90"] = float(np.percentile(turns, 90))
    one["scenarios"] = {SINGLE: result}
    return {**report, "engines": [one]}


def with_answers(report: Report, right: np.ndarray) -> Report:
    """`report` with TensorFlow's answers right where `right` is."""
    report = copy.deepcopy(report)
    truth = np.arange(len(right)) % 2
    report["dataset"] |= {"truth": truth.tolist(), "test": len(right)}
    one = report["engines"][0]
    one["answers"] = np.where(right, truth, 1 - truth).tolist()
    one["accuracy"] |= {"top1": float(right.mean()), "n": len(right)}
    return report


def test_a_report_has_not_changed_against_itself() -> None:
    found = against(example(), example())
    assert [e["name"] for e in found["engines"]] == [
        e["name"] for e in example()["engines"] if e["status"] == "ran"
    ]
    assert (found["not_comparable"], found["notes"], found["missing"]) == ([], [], {})
    for one in found["engines"]:
        assert {"single-stream", "offline", "from-file", "accuracy"} <= set(one["figures"])
        for name, figure in one["figures"].items():
            assert figure["verdict"] == "no difference"
            control = name != "accuracy" and one["name"] == found["control"]
            assert figure["marks"] == (["control"] if control else [])
            assert figure["ci95"][0] <= figure["change"] <= figure["ci95"][1]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "slower"), (0.9, "faster")])
def test_latency_that_changed(factor: float, verdict: str) -> None:
    new = short()
    result = entry(new, "openvino-int8")["scenarios"][SINGLE]
    result["samples"] = [factor * value for value in result["samples"]]
    result["p90"] *= factor
    found = figures(new, short(), "openvino-int8")
    assert found[SINGLE]["verdict"] == verdict
    assert found[SINGLE]["change"] == pytest.approx(factor)
    assert found[SINGLE]["ci95"][0] < factor < found[SINGLE]["ci95"][1]
    assert {found[name]["verdict"] for name in found if name != SINGLE} == {"no difference"}


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "faster"), (0.9, "slower")])
def test_throughput_that_changed(factor: float, verdict: str) -> None:
    new = short()
    result = entry(new, "openvino-int8")["scenarios"][OFFLINE]
    result["turns"] = [factor * value for value in result["turns"]]
    result["ips"] *= factor
    found = figures(new, short(), "openvino-int8")[OFFLINE]
    assert found["verdict"] == verdict
    assert found["ci95"][0] < factor < found["ci95"][1]


def test_the_same_machine_is_seldom_called_slower_or_faster() -> None:
    """5 % of the time, by definition, though the queries of a turn are alike.

    Drawing single queries instead of turns would call most of these a change.
    """
    random = np.random.default_rng(1)

    def measured(factor: float = 1.0) -> Report:
        turns = random.normal(1, 0.05, (20, 1)) * random.normal(1, 0.02, (20, 40))
        return with_times(short(), 10 * factor * turns)

    def changed(factor: float, rounds: int) -> int:
        pairs = [(measured(factor), measured()) for _ in range(rounds)]
        verdicts = [
            against(new, old)["engines"][0]["figures"][SINGLE]["verdict"] for new, old in pairs
        ]
        return sum(verdict != "no difference" for verdict in verdicts)

    assert changed(1.0, 60) <= 10
    assert changed(1.15, 10) >= 9


def slowed(report: Report, *factors: float) -> Report:
    """`report`, its engines this many times as slow in single-stream, in their order."""
    for one, factor in zip(report["engines"], factors, strict=False):
        result = one["scenarios"][SINGLE]
        result["samples"] = [factor * value for value in result["samples"]]
        result["p90"] *= factor
    return report


def test_a_slow_day_of_the_machine_is_no_regression() -> None:
    found = against(slowed(short(), 1.3, 1.3, 1.5), short())
    verdicts = {e["name"]: e["figures"][SINGLE]["verdict"] for e in found["engines"]}
    assert verdicts == {
        "tensorflow-fp32": "slower",
        "openvino-int8": "no difference",
        "onnxruntime-int8": "slower",
    }
    assert found["control"] == "tensorflow-fp32"
    shown = describe(found)
    assert ": 1 worse, 0 better, of " in shown  # the control's may be the machine's
    assert "slower (control)" in shown
    assert "beside that of tensorflow-fp32, which took turns with it" in shown


def test_a_fast_day_of_the_machine_hides_no_regression() -> None:
    found = against(slowed(short(), 0.7, 0.7, 1.0), short())
    verdicts = {e["name"]: e["figures"][SINGLE]["verdict"] for e in found["engines"]}
    assert verdicts == {
        "tensorflow-fp32": "faster",
        "openvino-int8": "no difference",
        "onnxruntime-int8": "slower",
    }
    figure = figures(slowed(short(), 0.7, 0.7, 1.0), short(), "onnxruntime-int8")[SINGLE]
    assert figure["new"] == figure["old"]  # as it was measured
    assert figure["change"] == pytest.approx(1 / 0.7)  # as it is judged, and so its interval
    assert 1 < figure["ci95"][0] < 1 / 0.7 < figure["ci95"][1]
    assert ": 1 worse, 0 better, of " in describe(found)


def test_a_control_that_was_not_measured_for_it_is_none() -> None:
    new = slowed(short(), 1.3, 1.3)
    del entry(new, "tensorflow-fp32")["scenarios"][SINGLE]
    found = figures(new, short(), "openvino-int8")
    assert (found[SINGLE]["verdict"], found[SINGLE]["marks"]) == ("slower", ["no control"])
    assert found[OFFLINE]["marks"] == []
    assert "no control: TensorFlow was not measured for it in both" in describe(
        against(new, short())
    )


def test_many_figures_are_judged_together() -> None:
    """By Holm: the smallest p-value by 5 % over all, the next by 5 % over all but one, ..."""

    def verdicts(*p_values: float) -> list[str]:
        found: list[tuple[str, dict[str, Any]]] = [
            (SINGLE, {"p_value": p, "change": 1.1, "marks": []}) for p in p_values
        ]  # fmt: skip
        module._judge(found)
        return [figure["verdict"] for _, figure in found]

    assert verdicts(0.04) == ["slower"]
    assert verdicts(0.04, 0.5) == ["no difference"] * 2
    assert verdicts(0.04, 0.02) == ["slower"] * 2
    assert verdicts(0.02, 0.5, 0.01, 0.9) == ["no difference", "no difference", "slower",
                                              "no difference"]  # fmt: skip


def test_chance_changes_something_in_one_comparison_of_twenty() -> None:
    random = np.random.default_rng(3)

    def measured() -> Report:
        report = short()
        one = report["engines"][0]
        report["engines"] = [
            {**with_times({**report, "engines": [one]}, random.normal(10, 1, (40, 10)))[
                "engines"][0], "name": f"{number}", "backend": "tensorrt", "accuracy": None}
            for number in range(10)
        ]  # fmt: skip
        return report

    def worse_or_better() -> bool:
        found = against(measured(), measured())["engines"]
        changed = (f["verdict"] for e in found for f in e["figures"].values())
        return any(verdict in module.WORSE + module.BETTER for verdict in changed)

    assert sum(worse_or_better() for _ in range(20)) <= 5  # uncorrected, 8 are expected


def test_accuracy_is_paired_on_the_same_pictures() -> None:
    right = np.ones(100, bool)
    right[:16] = False
    before = np.ones(100, bool)
    before[-1] = False
    found = figures(with_answers(short(), right), with_answers(short(), before), "tensorflow-fp32")[
        "accuracy"
    ]
    assert found["p_value"] == pytest.approx(36 / 131072)  # 1 of 17 coins or fewer, twice
    assert (found["test"], found["verdict"]) == (module.PAIRED, "less accurate")
    assert found["change"] == pytest.approx(-0.15)
    assert found["ci95"] == pytest.approx([-0.23, -0.07], abs=0.011)


def test_accuracy_on_other_pictures_is_not_paired() -> None:
    new, old = (
        with_answers(short(), np.arange(100) < count) for count in (60, 50)
    )  # of other pictures
    new["dataset"]["test_digest"] = "0" * 64
    found = figures(new, old, "tensorflow-fp32")["accuracy"]
    assert found["test"] == module.UNPAIRED
    assert found["p_value"] == pytest.approx(0.1552, abs=1e-4)  # z = 0.1 / sqrt(.55 .45 / 50)
    assert found["verdict"] == "no difference"
    assert "the test pictures are others" in describe(against(new, old))


def test_interval_of_a_difference_is_newcombes() -> None:
    now, before = {"top1": 56 / 70, "n": 70}, {"top1": 48 / 80, "n": 80}
    # Table II of Newcombe 1998, contrast (a), method 10.
    assert module._newcombe(now, before) == pytest.approx([0.0524, 0.3339], abs=1e-4)


def test_energy_that_changed() -> None:
    new = short()
    energy = entry(new, "openvino-int8")["scenarios"][SINGLE]["energy"]
    energy |= {"mj": 1.2 * energy["mj"], "ci95": [1.2 * bound for bound in energy["ci95"]]}
    found = figures(new, short(), "openvino-int8")["energy"]
    assert found["verdict"] == "more energy"
    assert figures(short(), new, "openvino-int8")["energy"]["verdict"] == "less energy"
    new["power"]["source"] = "NVML"
    assert figures(new, short(), "openvino-int8")["energy"]["verdict"] == "not comparable"
    new["power"]["source"] = short()["power"]["source"]
    control = entry(new, "tensorflow-fp32")["scenarios"][SINGLE]["energy"]
    control |= {"mj": 1.2 * control["mj"], "ci95": [1.2 * bound for bound in control["ci95"]]}
    found = figures(new, short(), "openvino-int8")["energy"]
    assert (found["verdict"], found["change"]) == ("no difference", pytest.approx(1.0))
    energy["ci95"] = [-1.0, 3.0]
    assert "energy" not in figures(new, short(), "openvino-int8")


def test_another_machine_is_no_regression() -> None:
    new = short()
    new["conditions"]["before"] |= {"machine": "another", "governor": "powersave"}
    found = against(new, short())
    assert found["not_comparable"]
    for one in found["engines"]:
        for name, figure in one["figures"].items():
            assert figure["verdict"] == (
                "no difference" if name == "accuracy" else "not comparable"
            )
            assert figure["old"] and figure["new"]
    shown = describe(found)
    assert ": 0 worse, 0 better, of " in shown
    assert all(f"not comparable: {reason}" in shown for reason in found["not_comparable"])


def test_what_weakens_a_verdict_stands_beside_it() -> None:
    found = figures(short(troubled), short(), "openvino-int8")
    assert found[SINGLE]["marks"] == ["quick", "throttled", "slowed down"]
    assert found[OFFLINE]["marks"] == ["quick"]
    shown = describe(against(short(troubled), short()))
    assert "not comparable (quick, throttled, slowed down)" in shown
    for difference in troubled()["conditions"]["differences"]:
        assert f"not comparable: while measuring here, {difference}" in shown
    new = short(troubled)
    new["conditions"] = short()["conditions"]
    entry(new, "openvino-int8")["scenarios"][SINGLE]["p90"] *= 1.15  # as its samples have it
    assert "slower (quick, throttled, slowed down)" in describe(against(new, short()))


def page_of(new: Report, old: Report) -> str:
    return render({**new, "against": against(new, old)})


def test_the_page_shows_what_changed_and_folds_what_did_not() -> None:
    new = slowed(short(), 1.0, 1.3, 0.8)
    html = page_of(new, short())
    page = Page(html)
    assert not page.open
    section = page.text[page.text.index("Against demo of") :]
    changed, others = section.split(" 10 figures that can't be said to have changed ")
    assert changed == (
        "Against demo of 2026-11-23 12:00:00 UTC 1 worse, 1 better, of 9 figures. "
        "Engine figure Then Now Change 95 % interval Judged"
        " 2 openvino-int8 single-stream, ms (p90) 5.62 7.30 +30.0 % +27.6 to +32.4 slower"
        " 3 onnxruntime-int8 single-stream, ms (p90) 4.74 3.79 −20.0 % −21.4 to −18.6 faster"
    )
    assert "1 tensorflow-fp32 accuracy 87.0 % 87.0 % 0.0 points" in others
    assert "no difference control" in others and "Holm's correction" in others
    assert 'class="worse">slower' in html and 'class="better">faster' in html
    assert "Against demo" not in Page(render(new)).text


def test_the_page_of_nothing_comparable_says_why() -> None:
    new = short()
    new["conditions"]["before"] |= {"machine": "another"}
    new["engines"] = new["engines"][1:2]
    text = Page(page_of(new, short())).text
    text = text[text.index("Against demo of") : text.index("How it was measured")]
    assert " 0 worse, 0 better, of 4 figures. 4 figures that can't be said to have changed" in text
    assert "speed and energy not comparable: the machines differ" in text
    assert "tensorflow-fp32 ran there, not here: no such engine" in text
    for nothing in (against(short(), short()), against(short(), {**short(), "engines": []})):
        assert not Page(render({**short(), "against": nothing})).open


def test_hostile_names_on_the_page_change_no_tag() -> None:
    def page(name: str) -> Page:
        report = {**short(), "against": against(slowed(short(), 1, 2), short())}
        return Page(render(with_text(report, name)))

    assert page(HOSTILE).structure == page("a" * len(HOSTILE)).structure


@pytest.mark.parametrize("value", [None, "x", -1, 1e14, [], {}])
def test_a_damaged_comparison_is_refused_or_can_be_shown(value: Any, tmp_path: Path) -> None:
    whole = {**short(), "against": against(slowed(short(), 1, 2), short())}
    whole["against"]["engines"] = whole["against"]["engines"][:1]
    text = json.dumps(whole)
    places = [("against",), *(("against", key) for key in whole["against"])]
    figure = ("against", "engines", 0, "figures")
    places += [figure, *((*figure, name) for name in whole["against"]["engines"][0]["figures"])]
    places += [(*figure, SINGLE, key) for key in ("unit", "old", "change", "ci95", "p_value",
                                                  "verdict", "marks")]  # fmt: skip
    shown = 0
    for *outer, last in places:
        report = json.loads(text)
        inner = report
        for key in outer:
            inner = inner[key]
        inner[last] = value
        (tmp_path / "report.json").write_text(json.dumps(report))
        try:
            found = read(tmp_path / "report.json")
        except PipelineError as error:
            assert "against" in str(error)
            continue
        shown += 1
        describe(found["against"])
        _against(found["against"], [])
    assert shown < len(places) / 2


def jetson(*targets: str) -> Report:
    report = device()
    report["engines"] = [
        engine("tensorrt", "fp16", 0.868, 0.0, 1.0, 6.3, target=t, name=f"tensorrt-fp16-{t}")
        for t in targets
    ]
    return report


def test_the_only_engines_of_a_kind_are_compared_whatever_the_gpu() -> None:
    [found] = against(jetson("sm87"), jetson("sm62"))["engines"]
    assert (found["name"], found["other"]) == ("tensorrt-fp16-sm87", "tensorrt-fp16-sm62")


def test_one_engine_alone_has_no_control() -> None:
    new, old = jetson("sm87"), jetson("sm87")
    result = new["engines"][0]["scenarios"][SINGLE]
    result["samples"] = [1.3 * value for value in result["samples"]]
    result["p90"] *= 1.3
    found = against(new, old)
    assert found["control"] is None
    assert ": 1 worse, 0 better, of " in describe(found)


def test_what_slows_all_of_a_device_is_no_silence() -> None:
    found = against(slowed(jetson("sm87", "sm72"), 1.3, 1.3), jetson("sm87", "sm72"))
    shown = describe(found)
    assert found["control"] is None
    assert ": 2 worse, 0 better, of " in shown
    assert "slower (no control)" in shown
    assert "what the machine did counts as the engine's" in shown


def test_several_engines_of_a_kind_are_not_guessed_at() -> None:
    found = against(jetson("sm87"), jetson("sm62", "sm72"))
    assert found["engines"] == []
    assert found["missing"] == {"tensorrt-fp16-sm62": "", "tensorrt-fp16-sm72": ""}
    assert found["added"] == ["tensorrt-fp16-sm87"]


def test_an_engine_that_no_longer_runs_is_named_with_the_reason() -> None:
    new = short()
    entry(new, "openvino-int8").update(status="unavailable", reason="no openvino", scenarios={})
    found = against(new, short())
    assert found["missing"] == {"openvino-int8": "no openvino"}
    assert "openvino-int8 ran there, not here: no openvino" in describe(found).splitlines()
    assert against(short(), new)["added"] == ["openvino-int8"]


def test_hostile_names_stay_on_their_lines() -> None:
    harmless = describe(against(with_text(short(), "a"), with_text(short(), "a")))
    hostile = describe(against(with_text(short(), HOSTILE), with_text(short(), HOSTILE)))
    assert len(hostile.splitlines()) == len(harmless.splitlines())
    assert "\x1b" not in hostile and "\u202e" not in hostile


# Budgets


def enforce(report: Report, other: Report | None = None, **given: Any) -> None:
    none = {"engine": None, "max_latency_ms": None, "max_accuracy_drop": None}
    budgets = Budgets(**{**none, **given})
    budgets.check()
    budgets.enforce(report, other)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_latency_ms": 5}, "openvino-int8 takes 5.62 ms .p90 of single-stream.* is 5$"),
        ({"max_accuracy_drop": 3.5}, "onnxruntime-int8 has 3.90 points"),  # no verdict hides it
        ({"engine": "onnxruntime-int8", "max_latency_ms": 4}, "onnxruntime-int8 takes 4.74 ms"),
        ({"engine": "onnxruntime-int8", "max_accuracy_drop": 3.5},
         "onnxruntime-int8 has 3.90 points of top-1 less than TensorFlow .95 % interval "
         "2.70..5.10, 656 test pictures., --max-accuracy-drop is 3.5"),
        ({"engine": "onnxruntime-int8", "max_accuracy_drop": 0, "max_latency_ms": 0},
         "takes .*; onnxruntime-int8 has .* less than TensorFlow"),
    ],
)  # fmt: skip
def test_broken_budget(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BudgetError, match=f"^budget broken: {words}|{words}"):
        enforce(short(), **given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"max_latency_ms": 5.7, "max_accuracy_drop": 3.9},
        {"engine": "openvino-int8", "max_latency_ms": 5.7, "max_accuracy_drop": 0},
        {"engine": "onnxruntime-int8", "max_accuracy_drop": 3.9},
        {"engine": "tensorflow-fp32", "max_latency_ms": 25, "max_accuracy_drop": 0},
    ],
)
def test_kept_budget(given: dict[str, Any]) -> None:
    enforce(short(), **given)


def test_accuracy_budget_against_another_report() -> None:
    old = short()
    entry(old, "openvino-int8")["accuracy"]["top1"] = 0.883
    entry(old, "tensorflow-fp32")["accuracy"]["top1"] = 1.0  # which no budget is for
    enforce(short(), old, max_accuracy_drop=1.0)
    with pytest.raises(BudgetError, match="openvino-int8 has 1.00 points .* of --against"):
        enforce(short(), old, max_accuracy_drop=0.9)
    entry(old, "openvino-int8")["accuracy"] = None
    with pytest.raises(PipelineError, match="--against has no accuracy of openvino-int8"):
        enforce(short(), old, max_accuracy_drop=0.9)


def test_a_quick_result_breaks_a_budget_but_proves_nothing() -> None:
    quick = r"--max-latency-ms is 1 \(quick: proves nothing\)$"
    with pytest.raises(BudgetError, match=quick):
        enforce(short(troubled), max_latency_ms=1)
    enforce(short(troubled), max_latency_ms=1000)
    report = short()
    entry(report, "openvino-int8")["scenarios"][SINGLE] |= {"valid": False, "why": "too few"}
    with pytest.raises(BudgetError, match=r"is 1 \(not valid: too few\)$"):
        enforce(report, max_latency_ms=1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_latency_ms": -1.0}, "--max-latency-ms must be a number, 0 or above; received -1"),
        ({"max_latency_ms": math.nan}, "received nan"),
        ({"max_accuracy_drop": math.inf}, "--max-accuracy-drop .* received inf"),
        ({"engine": "openvino-int8"}, "--engine names the engine that a budget is for"),
        ({"engine": "openvino-int4", "max_latency_ms": 5},
         "openvino-int4 is unknown; the run has tensorflow-fp32, "),
    ],
)  # fmt: skip
def test_wrong_budget(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        enforce(short(), **given)


def no_rival() -> Report:
    report = short()
    report["engines"] = report["engines"][:1]
    return report


def no_latency() -> Report:
    report = short()
    del entry(report, "openvino-int8")["scenarios"][SINGLE]
    return report


def no_tensorflow() -> Report:
    return device()


@pytest.mark.parametrize(
    ("report", "given", "words"),
    [
        (short, {"engine": "tensorrt-rtx-int8", "max_latency_ms": 5},
         "tensorrt-rtx-int8 did not run here.*: built for SM 8.6"),
        (no_rival, {"max_latency_ms": 5}, "no engine besides TensorFlow"),
        (no_rival, {"max_accuracy_drop": 5}, "no engine besides TensorFlow"),
        (no_latency, {"engine": "openvino-int8", "max_latency_ms": 5},
         "not measured in single-stream, .* add that to --scenario$"),
        (no_tensorflow, {"engine": "tensorrt-fp16", "max_accuracy_drop": 5},
         "TensorFlow did not run.*give --against"),
    ],
)  # fmt: skip
def test_budget_of_what_was_not_measured(
    report: Callable[[], Report], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(PipelineError, match=words) as raised:
        enforce(report(), **given)
    assert not isinstance(raised.value, UsageError | BudgetError)


# The command


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`edgetrt compare` on a run whose report is `short()`, as if it had been measured."""
    with Run(tmp_path / "run", create=True):
        pass
    monkeypatch.setattr("pipeline.compare.compare", lambda *_: short())
    (tmp_path / "old.json").write_text(json.dumps(short()))

    def call(*flags: str) -> int:
        return cli.main(["compare", "--run", str(tmp_path / "run"), *flags])

    return call


def test_an_unknown_engine_is_found_before_the_work(
    compared: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def measuring(*_: Any) -> Report:
        raise AssertionError("measured before the flag was checked")

    (tmp_path / "run" / "engines").mkdir()
    monkeypatch.setattr("engines.catalogue.read_sidecars", lambda _: [{"name": "openvino-int8"}])
    flags = "--max-latency-ms", "6", "--engine"
    assert compared(*flags, "openvino-int8") == cli.OK
    assert compared(*flags, "tensorflow-fp32") == cli.BUDGET
    monkeypatch.setattr("pipeline.compare.compare", measuring)
    capsys.readouterr()
    assert compared(*flags, "openvino-int4") == 2
    said = capsys.readouterr().err
    assert "openvino-int4 is unknown; the run has tensorflow-fp32, openvino-int8" in said


def test_compare_prints_the_verdict_after_the_table(
    compared: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared() == 0
    found = verdict(short()["engines"])
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(found.sentence)
    assert found.note and lines[place + 1] == found.note
    assert any("onnxruntime-int8" in line for line in lines[:place])


def test_compare_against_prints_table_and_changes(
    compared: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared("--against", str(tmp_path / "old.json")) == 0
    shown = capsys.readouterr().out
    assert "against demo of 2026-11-23T12:00:00Z: 0 worse, 0 better, of 9 figures" in shown
    assert compared("--against", str(tmp_path / "old.json"), "--json") == 0
    told = capsys.readouterr().out
    assert json.loads(told)["against"]["of"]["name"] == "demo"
    page = tmp_path / "run" / "report" / "index.html"
    text = Page(page.read_text()).text
    assert "Against demo of 2026-11-23 12:00:00 UTC 0 worse, 0 better, of 9 figures." in text
    # What was printed is a report like any other.
    (tmp_path / "printed.json").write_text(told)
    assert read(tmp_path / "printed.json") == json.loads(told)
    assert cli.main(["report", str(tmp_path / "printed.json"), "--out", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "index.html").read_text() == page.read_text()
    capsys.readouterr()
    assert compared("--json") == 0
    assert "against" not in json.loads(capsys.readouterr().out)


def test_broken_budget_exits_with_3_after_the_report(
    compared: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared("--max-latency-ms", "5") == cli.BUDGET == 3
    said = capsys.readouterr()
    assert "openvino-int8" in said.out and "report: " in said.out
    assert said.err.count("\n") == 1
    assert said.err.startswith("edgetrt: budget broken: openvino-int8 takes 5.62 ms")
    assert compared("--max-latency-ms", "5", "--json") == 3
    assert json.loads(capsys.readouterr().out)["schema"] == 2
    assert compared("--max-latency-ms", "6") == 0


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--max-latency-ms", "nan"], 2, "received nan"),
        (["--max-latency-ms", "fast"], 2, "invalid float value"),
        (["--max-latency-ms", "5", "--engine", "x\ny"], 2, r"x\\ny is unknown"),
        (["--max-latency-ms", "5", "--engine", "tensorrt-int8"], 1, "tensorrt is not installed"),
        (["--against", "nowhere"], 2, "nowhere does not exist"),
        (["--against", __file__], 1, "test_against.py is damaged, or no report"),
    ],
)
def test_wrong_use_of_compare(
    compared: Callable[..., int], capsys: pytest.CaptureFixture[str],
    flags: list[str], code: int, words: str,
) -> None:  # fmt: skip
    try:
        assert compared(*flags) == code
    except SystemExit as left:  # argparse
        assert left.code == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(words, error)
