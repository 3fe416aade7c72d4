"""The report page: self-contained, escaped, honest, the same every time; and its tables."""

import base64
import copy
import csv as reading
import hashlib
import io
import json
import re
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports import (
    BETTER,
    HOSTILE,
    TENSORFLOW,
    WORSE,
    Page,
    absent,
    device,
    engine,
    example,
    troubled,
    with_text,
)

from benchmarks.table import table
from pipeline.errors import PipelineError
from pipeline.report import confusion, plots, timeline
from pipeline.report import format as figures
from pipeline.report.page import MAX_LAYERS, MAX_LISTED, render
from pipeline.report.table import csv, markdown
from pipeline.report.verdict import doubts, verdict


@pytest.fixture(scope="module")
def html() -> str:
    return render(example())


@pytest.mark.parametrize("make", [example, troubled, device])
def test_page_is_well_formed_and_needs_nothing_but_itself(make: Any) -> None:
    html = render(make())
    assert html.startswith("<!DOCTYPE html>")
    page = Page(html)
    assert not page.open
    assert "http" not in html.replace("http-equiv", "")
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert (
                value[0] == "#" or value == "data:," or value.startswith("data:image/jpeg;base64,")
            )
    json.dumps(make(), allow_nan=False)  # as report.json has it


def test_only_the_pages_own_script_may_run(html: str) -> None:
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [a["content"] for _, a in Page(html).tags if "http-equiv" in a]
    allowed = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src"
    assert policy == f"{allowed} 'sha256-{digest}'"


def test_page_is_accessible(html: str) -> None:
    page = Page(html)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    references = [a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a]
    assert references and set(references) <= set(ids)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', html))
    assert used and used <= set(ids)
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    assert all("scope" in a for tag, a in page.tags if tag == "th")
    assert all(a["alt"] for tag, a in page.tags if tag == "img")
    drawings = [a for tag, a in page.tags if tag == "svg"]
    assert len(drawings) == 6
    assert all(a["role"] == "img" and a["aria-label"] for a in drawings)


def test_colours_keep_contrast_in_light_and_dark(html: str) -> None:
    def luminance(colour: str) -> float:  # WCAG 2.2, relative luminance
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    schemes = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ground in ("paper", "panel"):
            for role in ("ink", "muted", "accent", "fp32", "fp16", "int8", "other", "alert"):
                dark, light = sorted(luminance(colours[c]) for c in (ground, role))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, role)


def test_every_engine_is_on_the_page_with_its_reason(html: str) -> None:
    text = Page(html).text
    for one in example()["engines"]:
        assert one["name"] in text
        assert one["reason"] in text
    assert "87.3 84.5–89.7 99.5 +0.3 −0.9 to +1.5 p = 0.61 5.21 5.62 5.50–5.78 6.63" in text
    assert "−3.9 −5.1 to −2.7 p < 0.001" in text
    assert "221 217–223 129 125–134 4.40× 4.18–4.62 3.60 1.23" in text
    assert "4.41 21.7" in text  # an engine that was only built: its size and time are known


def test_the_rest_of_the_report_is_on_the_page(html: str) -> None:
    report, text = example(), Page(html).text
    assert "84.0 81.0–86.6 INT8 features 87.3 84.5–89.6 used" in text
    for wrong in report["misclassified"][:MAX_LISTED]:
        assert wrong["path"] in text
    assert report["misclassified"][MAX_LISTED]["path"] not in text
    assert "and 33 more in report.json" in text
    for rejected in report["dataset"]["rejected_pictures"]:
        assert f"{rejected['path']} {rejected['reason']}" in text
    assert report["dataset"]["source"] in text
    for name, value in (report["environment"] | report["stages"]).items():
        assert f"{name} {value}" in text
    for command in report["reproduce"]:
        assert command in text
    for one in report["disagreements"]:
        assert f"{one['path']} Truth {one['truth']} TensorFlow {one['reference_label']}" in text
    assert "functional 89.0 92.5 439" in text  # precision, recall, pictures
    assert "Calibration error: 3.1 points" in text
    assert "takes 1.86 ms (p50; p90 2.02 ms, 1,024 files)" in text
    assert (
        "1.005 times as much (1,024 queries). They agree (95 % interval 0.988 to 1.021)."
    ) in text
    assert "Included: package-0. Not included: core (part of package-0)." in text
    assert "Load 0.31 1.94" in text


def test_layers_that_take_longest_and_the_rest_in_one(html: str) -> None:
    times = sorted(example()["layers"]["openvino-int8"].values(), reverse=True)
    text = Page(html).text
    assert f"{len(times) - MAX_LAYERS} more layers {sum(times[MAX_LAYERS:]):.2f}" in text
    assert text.count("block0/") == 3 and "block15/" not in text


def test_layers_are_told_apart_by_the_end_of_their_names() -> None:
    report = example()
    names = [f"{'very/' * 20}block{i}/project" for i in range(2)]
    report["layers"] = {"openvino-int8": dict.fromkeys(names, 0.5)}
    text = Page(render(report)).text
    assert "/block0/project 0.500" in text and "/block1/project 0.500" in text


def test_a_list_in_the_environment_is_told_in_words() -> None:
    report = example()
    report["environment"] = {"gpus": [], "boards": ["a", "b"]}
    assert "gpus none boards a, b" in Page(render(report)).text


def test_a_source_of_several_lines_is_a_paragraph() -> None:
    report = example()
    report["dataset"]["source"] = "The set.\nIts licence."
    assert "Source: The set. Its licence." in Page(render(report)).text


@pytest.mark.parametrize(
    "thumbnail",
    ["", "no base64", '/9j/"><script>', "/9j/é", base64.b64encode(b"<svg onload=1>").decode(),
     base64.b64encode(b"\xff\xd8\xff" + bytes(100_000)).decode()],
)  # fmt: skip
def test_a_thumbnail_that_is_no_small_jpeg_is_left_out(thumbnail: str) -> None:
    report = example()
    report["disagreements"][0]["thumbnail"] = thumbnail
    page = Page(render(report))
    assert sum(tag == "img" for tag, _ in page.tags) == len(report["disagreements"]) - 1
    assert "no picture" in page.text


def test_page_of_a_device() -> None:
    page = Page(render(device()))
    assert (
        "FP16 on tensorrt for sm62: 6.79 ms per picture (p90; TensorFlow did not run)" in page.text
    )
    assert "not compared with TensorFlow" in page.text
    assert "tensorrt-fp16 0.210 5.67 0.0200 6.30" in page.text  # upload, compute, download, all
    assert "Not checked with MLCommons LoadGen: mlcommons_loadgen is not installed." in page.text
    assert "jetson_clocks on on" in page.text
    for absent_here in ("Agrees", "Multi-stream", "Misclassified", "Time per stage", "seed"):
        assert absent_here not in page.text


def test_what_weakens_the_verdict_is_said_beside_it() -> None:
    text = Page(render(troubled())).text
    beside = text[: text.index("Engines Engine")]
    for doubt in doubts(troubled()):
        assert doubt in beside
    assert "To be taken with care" not in Page(render(example())).text
    assert (
        "openvino-int8 quick throttled slowed down" in text
        and "tensorflow-fp32 quick unsteady" in text
    )
    assert (
        "60 queries of 1,024" in text
        and "They do not agree (95 % interval 1.200 to 1.330)." in text
    )


def test_accuracy_guard_that_met_its_budget(html: str) -> None:
    text = Page(html).text
    assert "INT8 may lose 0.5 points of top-1 on the 257 validation pictures" in text
    assert "Met with 4 of 49 layers in float." in text and "Not met" not in text
    assert (
        "no part in the choice: 86.6 % (95 % interval 81.6–90.6), −0.4 points beside FP32" in text
    )
    assert "FP32 86.6 81.6–90.6 0.00 87.0 82.0–91.0 8.60" in text
    assert "0 84.2 79.2–88.2 2.40 85.1 80.1–89.1 3.77" in text
    assert "block0/depthwise:0 12.2 block1/depthwise:0 13.2" in text
    assert "block4/depthwise:0" not in text
    [drawing] = re.findall(r'<svg[^>]*"Accuracy against latency, by.*?</svg>', html, re.DOTALL)
    assert all(f">{number}</text>" in drawing for number in (0, 1, 2, 4, 49))


def test_accuracy_guard_that_did_not() -> None:
    report = example()
    report["accuracy_guard"] |= {"met": False, "max_drop": 0.25, "chosen": 2}
    text = Page(render(report)).text
    assert "INT8 may lose 0.25 points" in text
    assert "Not met : the best found, with 2 of 49 layers in float, loses 1.20 points." in text


def test_accuracy_guard_that_had_nothing_to_do() -> None:
    report = example()
    found = report["accuracy_guard"]
    found |= {"chosen": 0, "points": found["points"][:1], "ranking": [], "float_layers": []}
    text = Page(render(report)).text
    assert "Met with 0 of 49 layers in float." in text
    assert "Signal to noise" not in text


@pytest.mark.parametrize("report", [{"accuracy_guard": None}, {}])
def test_report_without_an_accuracy_guard(report: dict[str, Any]) -> None:
    whole = example()
    del whole["accuracy_guard"]
    assert "Accuracy guard" not in Page(render({**whole, **report})).text


def test_hostile_text_changes_no_tag() -> None:
    html = render(with_text(example(), HOSTILE))
    html.encode("utf-8")
    page = Page(html)
    harmless = Page(render(with_text(example(), "a" * len(HOSTILE))))
    assert page.structure == harmless.structure
    assert "\x1b" not in html and "\u202e" not in html
    assert r"\x1b[31m\u202e\ud800" in page.text
    assert r"$\frac{1}{0}$" in page.text
    assert "{{ 7*7 }} &amp; #000001 id=" in page.text


def test_names_are_plain_text_in_plots() -> None:
    names = ["$x^2$ <b>", "_#000001 &"]
    drawing = Page(confusion.confusion([[3, 1], [0, 4]], names, "c", 'a "label" <i>'))
    assert all(name in drawing.text for name in names)
    assert drawing.tags[0][1]["aria-label"] == 'a "label" <i>'
    assert "b" not in {tag for tag, _ in drawing.tags}


@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(), min_size=1))
def test_any_text_is_shown_escaped(text: str) -> None:
    report = example()
    for one in report["engines"]:
        one |= {"accuracy": None, "scenarios": {}}
    report["accuracy_guard"] = None  # no plots: they take long, and hold no text
    expected = Page(render(with_text(report, "a"))).structure
    html = render(with_text(report, text))
    html.encode("utf-8")
    assert Page(html).structure == expected


def test_page_is_the_same_for_the_same_report(html: str) -> None:
    assert render(example()) == html


def test_plots_leave_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.latency_distribution([plots.Curve(1, "fp32", [1.0, 2.0, 9.0])], "l", "latency")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("count", [1, 2, 20, 21, 1000])
def test_confusion_of_any_number_of_classes(count: int) -> None:
    names = [f"class-{i}" for i in range(count)]
    svg = confusion.confusion(np.eye(count, dtype=int) * 7, names, "c", "label")
    labelled = count <= confusion.MAX_LABELLED
    assert all((f">{name}<" in svg) == labelled for name in names)
    assert ("data:image/png" in svg) != labelled
    assert len(svg) < 200_000


@pytest.mark.parametrize(
    "samples", [[5.0], [5.0] * 9, [1.0, 1.1], [0.01, 9000.0], list(range(1, 5000))]
)
def test_latency_plots_of_any_spread(samples: list[float]) -> None:
    svg = plots.latency_distribution([plots.Curve(3, "other", samples)], "l", "label")
    assert ">3</text>" in svg and len(svg) < 60_000
    low, high = min(samples), max(samples)
    point = plots.Point(12, "fp16", (low, low, high), (1.0, 1.0, 1.0))
    assert svg.count("<text") > 6
    assert ">12</text>" in plots.accuracy_against_latency([point], "a", "label")


def test_numbers_of_close_points_do_not_cover_each_other() -> None:
    points = [plots.Point(i, "int8", (5 + i / 1000, 5, 6), (0.9, 0.8, 0.95)) for i in range(1, 9)]
    points.append(plots.Point(9, "fp32", (20.0, 19.0, 21.0), (0.9, 0.8, 0.95)))
    svg = plots.accuracy_against_latency(points, "a", "label")
    numbers = re.findall(r'<text[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>(\d)</text>', svg)
    places = [np.array([float(x), float(y)]) for x, y, _ in numbers[-9:]]
    assert len(places) == 9
    distances = [np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]]
    assert min(distances) > 10


def test_large_report_stays_small_and_fast() -> None:
    report = example()
    classes = [f"class {i} " + "w" * 60 for i in range(500)]
    report["dataset"] |= {
        "classes": classes,
        "per_class": {name: {"train": 100, "validation": 10, "test": 10} for name in classes},
        "rejected_pictures": [{"path": "p" * 400, "reason": "r" * 4000}] * 5000,
    }
    matrix = np.random.default_rng(0).poisson(0.01, (500, 500)) + 9 * np.eye(500, dtype=int)
    for one in report["engines"]:
        if one["accuracy"]:
            one["accuracy"]["confusion"] = matrix.tolist()
            one["accuracy"]["per_class"] *= 250
            for result in one["scenarios"].values():
                result["samples"] = result.get("samples", []) * 42  # 50,400
                result["turns"] = [42 * count for count in result["turns"]]
    report["conditions"]["series"] = {
        key: values * 100 for key, values in report["conditions"]["series"].items()
    }
    report["layers"] = {"openvino-int8": {f"{i}" + "x" * 400: 1.0 for i in range(5000)}}
    report["disagreements"] *= 2
    report["misclassified"] = [
        {"path": f"{i}/" + "x" * 400, "truth": "t" * 400, "predicted": "q", "probability": 1.0}
        for i in range(5000)
    ]
    start = time.perf_counter()
    html = render(report)
    assert time.perf_counter() - start < 10
    assert len(html.encode()) < 1_500_000
    text = Page(html).text
    assert text.count("more in report.json") == 2
    assert "and 4,950 more in report.json" in text
    assert "<details><summary>Pictures per class" in html
    assert "<details><summary>Precision and recall of each class" in html
    assert "Most often confused: class" in text


def test_page_of_a_report_with_nothing_measured() -> None:
    report = example()
    report["engines"] = [absent("tensorflow", "unavailable", "tensorflow is not installed")]
    report["dataset"] |= {"rejected": 0, "rejected_pictures": []}
    del report["dataset"]["source"]
    report |= {
        "int8_head": None,
        "accuracy_guard": None,
        "misclassified": [],
        "stages": {},
        "environment": {},
        "disagreements": [],
        "layers": {},
        "preprocess_ms": None,
        "loadgen": {"reason": "no engine ran"},
        "power": {"source": None, "reason": "no rail", "rails": [], "idle_w": None, "hz": None},
    }
    report["conditions"]["series"] = {"seconds": []}
    page = Page(render(report))
    assert "No engine ran on this machine" in page.text
    assert "tensorflow is not installed" in page.text
    assert not any(tag == "svg" for tag, _ in page.tags)
    assert "Misclassified test pictures None." in page.text


def test_page_of_an_engine_without_accuracy_or_samples() -> None:
    report = example()
    report["engines"][4]["accuracy"] = None
    for one in report["engines"]:
        one["scenarios"].pop("offline", None)
        for result in one["scenarios"].values():
            result |= {"samples": [], "turns": [], "starts": []}
    page = Page(render(report))
    assert "— — — 5.21 5.62" in page.text
    assert [a["aria-label"] for tag, a in page.tags if tag == "svg"] != []


def test_another_schema_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"schema 1.*edgetrt compare"):
        render({**example(), "schema": 1})


WITHOUT_DELTA = copy.deepcopy(BETTER)
WITHOUT_DELTA["accuracy"] |= {"delta": None, "p_value": None}


@pytest.mark.parametrize(
    ("engines", "sentence", "note"),
    [
        (
            [TENSORFLOW, BETTER],
            "INT8 on openvino: 4.4× as fast as TensorFlow (95 % interval 4.2 to 4.6), 0.3 points "
            "more accurate, not a significant difference (−0.9 to +1.5 points, p = 0.61, "
            "656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, BETTER, WORSE],
            "INT8 on openvino: 4.4× as fast as TensorFlow",
            "Faster, but passed over: INT8 on onnxruntime (5.2×, −3.9 points, p < 0.001).",
        ),
        (
            [TENSORFLOW, WORSE],
            "INT8 on onnxruntime: 5.2× as fast as TensorFlow (95 % interval 4.9 to 5.5), but 3.9 "
            "points less accurate, a significant loss (−5.1 to −2.7 points, p < 0.001, 656 test "
            "pictures).",
            "",
        ),
        (
            [TENSORFLOW, engine("openvino", "fp16", 0.9, 0.03, 0.004, 11.0)],
            "FP16 on openvino: 2.1× as fast as TensorFlow (95 % interval 2.0 to 2.2), 3.0 points "
            "more accurate (+1.8 to +4.2 points, p = 0.004, 656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, engine("tensorrt", "fp16", 0.87, 0.0, 1.0, 0.9, target="sm87")],
            "FP16 on tensorrt for sm87: 25× as fast as TensorFlow (95 % interval 24 to 27), "
            "equally accurate (−1.2 to +1.2 points, p = 1.00, 656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, engine("onnxruntime", "fp32", 0.87, 0.0, 1.0, 22.7)],
            "FP32 on onnxruntime: 1.01× as fast as TensorFlow, not a significant difference "
            "(95 % interval 0.96 to 1.06), equally accurate",
            "",
        ),
        (
            [TENSORFLOW, engine("onnxruntime", "int8", 0.85, -0.02, 0.09, 45.0)],
            "slower than TensorFlow (takes 1.97× as long, 95 % interval 1.87 to 2.07), 2.0 points "
            "less accurate, not a significant difference (−3.2 to −0.8 points, p = 0.090, 656 test "
            "pictures).",
            "",
        ),
        (
            [TENSORFLOW, WITHOUT_DELTA],
            "4.4× as fast as TensorFlow (95 % interval 4.2 to 4.6), 87.3 % right, not compared "
            "with TensorFlow (656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, engine("onnxruntime", "fp32", 0.87, 0.0, 1.0, 9.0), WITHOUT_DELTA],
            "FP32 on onnxruntime: 2.5× as fast",
            "INT8 on openvino (4.4×, accuracy not compared).",
        ),
        (
            [TENSORFLOW, {**BETTER, "accuracy": None}],
            "4.4× as fast as TensorFlow (95 % interval 4.2 to 4.6), accuracy not measured.",
            "",
        ),
        (
            [{**WITHOUT_DELTA, "speedup": None}],
            "INT8 on openvino: 5.62 ms per picture (p90; TensorFlow did not run), "
            "87.3 % right, not compared",
            "",
        ),
        (
            [{**TENSORFLOW, "scenarios": {}}, {**BETTER, "speedup": None}],
            "5.62 ms per picture (p90; TensorFlow's latency was not measured), 0.3 points "
            "more accurate, not a significant difference (95 % interval −0.9 to +1.5 points, ",
            "",
        ),
        (
            [TENSORFLOW, absent("tensorrt-rtx", "built", "no GPU", target="sm86")],
            "Only TensorFlow ran (24.7 ms per picture, p90, 87.0 % of 656 test pictures "
            "right): nothing to compare it with.",
            "1 engine built for another machine: the table says why.",
        ),
        (
            [{**TENSORFLOW, "scenarios": {}, "accuracy": None}],
            "Only TensorFlow ran (unmeasured): nothing to compare it with.",
            "",
        ),
        (
            [TENSORFLOW, {**BETTER, "scenarios": {}}],
            "No latency was measured beside TensorFlow's, so there is no speed to compare.",
            "",
        ),
        (
            [absent("tensorflow", "unavailable", "x"), absent("tensorrt", "built", "x")],
            "No engine ran on this machine, so nothing was measured.",
            "1 engine built for another machine, 1 unavailable: the table says why.",
        ),
    ],
)
def test_verdict(engines: list[dict[str, Any]], sentence: str, note: str) -> None:
    result = verdict(engines)
    assert sentence in result.sentence
    assert note in result.note and bool(note) == bool(result.note)
    assert (result.engine is None) == result.sentence.startswith(("Only", "No "))


def test_verdict_takes_the_fastest_of_the_sound() -> None:
    engines = example()["engines"]
    assert verdict(engines).engine is engines[4]
    assert verdict(engines[::-1]).engine is engines[4]


def test_doubts_are_of_the_engines_that_the_verdict_speaks_of() -> None:
    report = example()
    assert doubts(report) == []
    other = report["engines"][1]["scenarios"]["single-stream"]
    other |= {"throttled": True, "valid": False, "why": "3 seconds of 10"}
    assert doubts(report) == []
    chosen = report["engines"][4]["scenarios"]["single-stream"]
    chosen |= {"valid": False, "why": "3 seconds of 10"}
    assert doubts(report) == ["openvino-int8 has no valid result: 3 seconds of 10."]


def test_an_engine_that_the_machine_throttled_is_marked_wherever_it_stands() -> None:
    report = example()
    assert not any("throttled" in shown for shown in (table(report["engines"]), markdown(report)))
    report["engines"][4]["scenarios"]["single-stream"]["throttled_share"] = 0.35
    report["engines"][5]["scenarios"]["offline"]["throttled_share"] = 0.0
    text = Page(render(report)).text
    assert "openvino-int8 throttled INT8" in text and text.count("throttled INT8") == 1
    assert "throttled in 35.0 % of turns" in text and text.count("% of turns") == 1
    assert doubts(report) == [
        "The machine said that it throttled in 35.0 % of the turns of openvino-int8."
    ]
    assert "| **openvino-int8** | ran, throttled |" in markdown(report)
    assert "openvino-int8      ran, throttled" in table(report["engines"])
    found = [row["single_stream_throttled_share"] for row in reading.DictReader(
        io.StringIO(csv(report)))]  # fmt: skip
    assert found[3:5] == ["", "0.35"]


def test_only_the_machine_itself_says_that_it_throttled() -> None:
    report = example()
    chosen = report["engines"][4]["scenarios"]["single-stream"]
    chosen |= {"throttled": True, "drift": {"percent": 9.0, "p_value": 0.001}}
    assert doubts(report) == ["openvino-int8 slowed down during the run (+9.0 %)."]
    text = Page(render(report)).text
    assert "Throttled by nothing told nothing told" in text
    assert "openvino-int8 slowed down" in text and "throttled" not in text.split("Shaded:")[0]
    chosen["throttled"] = False
    report["conditions"]["series"]["throttled"] = [0, 1, 0, 0]
    assert doubts(report) == ["The machine said that it throttled in 25.0 % of the readings."]


@pytest.mark.parametrize(
    ("ends", "agrees", "sentence"),
    [
        ([0.99, 1.01], True, "They agree (95 % interval 0.990 to 1.010)."),
        ([0.7, 1.05], None, "Too noisy to tell whether they agree (95 % interval 0.700 to 1.050)."),
        ([1.05, 1.08], False, "They do not agree (95 % interval 1.050 to 1.080)."),
    ],
)
def test_what_loadgen_tells(ends: list[float], agrees: bool | None, sentence: str) -> None:
    report = example()
    report["loadgen"] |= {"ci95": ends, "agrees": agrees}
    assert sentence in Page(render(report)).text
    [*found] = doubts(report)
    assert len(found) == (not agrees)
    assert all(doubt.endswith(sentence) for doubt in found)


def test_turns_over_time_show_what_slowed_down_and_when_the_machine_throttled() -> None:
    turns = [
        timeline.Turns(1, "fp32", "single-stream", [0.0, 10.0, 20.0], [0.0, 0.1, -0.1], False),
        timeline.Turns(2, "int8", "single-stream", [1.0, 11.0, 21.0], [0.0, 9.0, 19.0], True),
        timeline.Turns(2, "int8", "offline", [30.0, 40.0], [0.0, 0.2], False),
    ]
    seconds = [float(second) for second in range(45)]
    hot = [1 if second in (7.0, 8.0) or second > 40 else 0 for second in seconds]
    series: dict[str, Any] = {
        "seconds": seconds,
        "gpu_mhz": [None] * 44 + [900.0],
        "throttled": hot,
    }
    svg = timeline.timeline(turns, series, "t", "label")
    assert ">2</text>" in svg and ">1</text>" not in svg
    assert "single-stream</text>" in svg and "offline</text>" in svg
    assert svg.count("var(--alert)") == 4  # two times in each of two panels
    assert timeline._throttled(series) == [(7.0, 9.0), (41.0, 44.0)]
    alone = timeline.timeline(turns[:1], {"seconds": []}, "t", "label")
    assert timeline.timeline(turns[:1], {"gpu_mhz": [9.0], "throttled": [1]}, "t", "label") == alone
    assert "clock" in svg and "clock" not in alone and "var(--alert)" not in alone


def test_table_for_a_terminal() -> None:
    lines = table(troubled()["engines"]).splitlines()
    assert re.split("  +", lines[0])[-5:] == ["p99 ms of 8", "from file ms", "pict./s", "mJ", "MB"]
    start = "openvino-int8      ran, quick, throttled  87.3% (84.5%..89.7%)   99.5%    5.21"
    assert lines[5].startswith(start)
    figures = ["5.62", "6.63", "40.45", "7.66", "221", "129.2", "3.6"]
    assert lines[5].split()[-7:] == figures
    assert lines[-1] == "tensorrt-int8: tensorrt is not installed"
    without = example()["engines"]
    for one in without:
        one["scenarios"].pop("single-stream", None)
    assert "mJ" not in table(without)
    for one in without:
        one.update(accuracy=None, scenarios={})
    assert table(without).splitlines()[0].split() == ["engine", "status", "MB"]
    assert table(with_text(example(), HOSTILE)["engines"]).isprintable() is False  # line breaks
    assert "\x1b" not in table(with_text(example(), HOSTILE)["engines"])


def test_csv_has_every_figure_with_its_interval() -> None:
    rows = list(reading.DictReader(io.StringIO(csv(example()))))
    assert [row["name"] for row in rows] == [one["name"] for one in example()["engines"]]
    best, single = rows[4], example()["engines"][4]["scenarios"]["single-stream"]
    assert float(best["single_stream_p90_ms"]) == single["p90"]
    assert float(best["single_stream_p90_ms_high"]) == single["ci95"]["p90"][1]
    assert float(best["speedup_low"]) == example()["engines"][4]["speedup"]["ci95"][0]
    assert best["valid"] == "True" and rows[6]["valid"] == ""
    assert rows[7]["top1"] == rows[7]["offline_ips"] == ""


@pytest.mark.parametrize("name", ['a,"b"\r\nc', "=1+1", " @SUM(A1)", "-2", "\t=1", HOSTILE, ""])
def test_csv_of_hostile_names(name: str) -> None:
    report = example()
    report["engines"] = report["engines"][:1]
    report["engines"][0]["name"] = name
    written = csv(report)
    written.encode("utf-8")
    [row] = list(reading.DictReader(io.StringIO(written), strict=True))
    assert None not in row and None not in row.values()
    assert not row["name"].lstrip().startswith(("=", "+", "-", "@"))
    assert row["backend"] == "tensorflow"


def test_markdown_has_the_verdict_and_a_table() -> None:
    text = markdown(troubled())
    assert text.startswith(
        "Run demo, 2026-11-23 12:00:00 UTC, on AMD EPYC 9B14.\n\n"
        "**INT8 on openvino: 4.4× as fast as TensorFlow (95 % interval 4.2 to 4.6)"
    )
    assert "- A quick look: fewer queries than a valid result needs." in text
    assert "| **openvino-int8** | ran, quick, throttled | 87.3 (84.5–89.7) |" in text
    assert "- tensorrt-int8: tensorrt is not installed" in text
    assert "\n| --- | --- | ---: |" in text  # words to the left, figures to the right
    assert "Top-5" not in text
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    tensorflow = dict(zip(lines[0], lines[2], strict=True))
    assert (tensorflow["Difference"], tensorflow["p"]) == ("reference", "")


@pytest.mark.parametrize("name", [HOSTILE, "a | b", "# a\n\n- b", "- c", "1. d", "`x", "![](y)"])
def test_markdown_of_hostile_names(name: str) -> None:
    lines = markdown(with_text(example(), name)).splitlines()
    plain = markdown(with_text(example(), "a")).splitlines()
    assert len(lines) == len(plain)

    def bars(line: str) -> int:
        return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))

    assert [bars(line) for line in lines] == [bars(line) for line in plain]
    for line in lines:
        assert not re.search(r"(?<!\\)(?:\\\\)*[<`\[]", line)
        assert not re.match(r"- (?:[-+]|\d+[.)]) ", line)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (figures.significant(0.01234), "0.0123"),
        (figures.significant(1234.5), "1,234"),
        (figures.significant(0), "0.00"),
        (figures.significant(1e-300), "0.000000000"),
        (figures.significant(float("nan")), "—"),
        (figures.points(-0.0004), "0.0"),
        (figures.points(-0.012), "−1.2"),
        (figures.points(0.003), "+0.3"),
        (figures.percent(0.873), "87.3"),
        (figures.percent(None), "—"),
        (figures.ending("a/bc/de", 7), "a/bc/de"),
        (figures.ending("a/bc/de", 6), "…/de"),
        (figures.ending("abcdefgh", 4), "…fgh"),
        (figures.p_value(0.049), "= 0.049"),
        (figures.p_value(0.0004), "< 0.001"),
        (figures.p_value(None), "= —"),
        (figures.interval([0.845, 0.896]), "84.5–89.6"),
        (figures.interval(None), "—"),
        (figures.span([4.181, 4.62]), "4.18–4.62"),
        (figures.span([None, 1.0]), "—"),
        (figures.points_span([-0.009, 0.015]), "−0.9 to +1.5"),
        (figures.megabytes(3_600_000), "3.60"),
        (figures.counted(1, "class", "classes"), "1 class"),
        (figures.counted(2624, "picture"), "2,624 pictures"),
    ],
)
def test_figures_for_people(shown: str, expected: str) -> None:
    assert shown == expected


def test_one_reason_of_several_engines_is_told_once() -> None:
    engines = [dict(example()["engines"][0], name=f"tensorrt-{p}", status="unavailable",
                    reason="it is not installed", accuracy=None, scenarios={})
               for p in ("fp32", "fp16")]  # fmt: skip
    lines = table(engines).splitlines()
    assert lines[-1] == "tensorrt-fp32, tensorrt-fp16: it is not installed"
    assert len(lines) == 4
