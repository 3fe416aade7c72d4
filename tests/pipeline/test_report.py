"""The report page: self-contained, escaped, honest, the same every time."""

import copy
import re
import time
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.report import format as figures
from pipeline.report import plots
from pipeline.report.page import MAX_LISTED, render
from pipeline.report.verdict import verdict

HOSTILE = (
    '<script>alert(1)</script><img src="http://evil.example/x" onerror=1>'
    '"\' $\\frac{1}{0}$ \x00\x1b[31m\u202e\ud800 </svg></style> {{ 7*7 }} &amp; #000001 id="plots" '
)
VOID = {"meta", "link", "img", "br", "hr", "input"}


def engine(
    backend: str,
    precision: str,
    top1: float,
    delta: float,
    p_value: float,
    p50: float,
    **other: Any,
) -> dict[str, Any]:
    """An engine that ran: latencies with the long right tail that a shared machine gives them."""
    random = np.random.default_rng(round(1000 * p50))
    samples = p50 * (0.97 + 0.03 * random.lognormal(0, 1.0, 200))
    samples[random.integers(0, 200, 3)] *= 1.8
    p50, p90, p99 = np.quantile(samples, (0.5, 0.9, 0.99))
    return {
        "name": f"{backend}-{precision}",
        "backend": backend,
        "precision": precision,
        "target": "cpu",
        "status": "ran",
        "reason": "",
        "size_bytes": {"fp32": 13_500_000, "fp16": 6_800_000}.get(precision, 3_600_000),
        "build_seconds": 1.234,
        "accuracy": {
            "top1": top1,
            "ci95": [top1 - 0.028, top1 + 0.024],
            "agreement": 1 - 1.7 * abs(delta),
            "delta": delta,
            "p_value": p_value,
            "n": 656,
        },
        "latency_ms": {
            "p50": float(p50),
            "p90": float(p90),
            "p99": float(p99),
            "mean": float(samples.mean()),
            "n": 200,
            "samples": samples.tolist(),
        },
        "throughput_ips": float(1150 / p50),
        **other,
    }


def absent(backend: str, status: str, reason: str, **other: Any) -> dict[str, Any]:
    """An engine that did not run here."""
    nothing = dict.fromkeys(("size_bytes", "build_seconds", "accuracy", "latency_ms"))
    about = {"name": f"{backend}-int8", "backend": backend, "precision": "int8", "target": "cpu"}
    return {
        **about,
        **nothing,
        "throughput_ips": None,
        "status": status,
        "reason": reason,
        **other,
    }


TENSORFLOW = engine("tensorflow", "fp32", 0.870, 0.0, 1.0, 22.9, build_seconds=0.41)
BETTER = engine("openvino", "int8", 0.873, 0.003, 0.61, 5.21)
WORSE = engine("onnxruntime", "int8", 0.831, -0.039, 0.0007, 4.4)


def guard() -> dict[str, Any]:
    """What an accuracy guard found that returned four layers to float."""

    def accuracy(top1: float, n: int) -> dict[str, Any]:
        return {"top1": top1, "ci95": [top1 - 0.05, top1 + 0.04], "n": n}

    tried = [(0, 0.842, 0.851, 3.77), (1, 0.846, 0.853, 3.81), (2, 0.854, 0.861, 3.84),
             (4, 0.862, 0.866, 3.91)]  # fmt: skip
    layers = [f"block{i}/depthwise:0" for i in range(49)]
    return {
        "met": True,
        "max_drop": 0.5,
        "layers": 49,
        "float_layers": layers[:4],
        "ranking": [{"layer": name, "decibels": 12.25 + i} for i, name in enumerate(layers)],
        "backend": "openvino",
        "fp32": {"validation": accuracy(0.866, 257), "test": accuracy(0.870, 656), "p50_ms": 8.6},
        "points": [
            {
                "float_layers": count,
                "validation": accuracy(validation, 257),
                "test": accuracy(test, 656),
                "drop": round(100 * (0.866 - validation), 4),
                "p50_ms": p50,
            }
            for count, validation, test, p50 in tried
        ],
        "chosen": 3,
        "test": {"agreement": 0.981, "delta": -0.004, "p_value": 0.58},
        "seconds": 92.1,
    }


def example() -> dict[str, Any]:
    """A report like one of a run on the solar cells."""
    engines = [
        copy.deepcopy(TENSORFLOW),
        engine("onnxruntime", "fp32", 0.870, 0.0, 1.0, 9.87),
        engine("openvino", "fp32", 0.870, 0.0, 1.0, 8.64),
        engine("openvino", "fp16", 0.868, -0.002, 1.0, 8.51),
        copy.deepcopy(BETTER),
        copy.deepcopy(WORSE),
        absent(
            "tensorrt-rtx",
            "built",
            "built for SM 8.6; this machine has no NVIDIA GPU",
            target="sm86",
            size_bytes=4_410_000,
            build_seconds=21.7,
        ),
        absent("tensorrt", "unavailable", "tensorrt is not installed", target="sm62"),
    ]
    for one in engines:
        if one["accuracy"]:
            wrong = round(656 * (1 - one["accuracy"]["top1"]))
            missed = wrong // 2 + 9
            one["accuracy"]["confusion"] = [
                [217 - missed, missed],
                [wrong - missed, 439 - wrong + missed],
            ]
    return {
        "schema": 1,
        "run": {
            "name": "demo",
            "architecture": "efficientnet_lite0",
            "seed": 0,
            "created": "2026-11-23T12:00:00Z",
        },
        "dataset": {
            "images": 2624,
            "classes": ["defective", "functional"],
            "train": 1711,
            "validation": 257,
            "test": 656,
            "rejected": 3,
            "rejected_pictures": [
                {"path": "defective/cell0007.png", "reason": "truncated PNG"},
                {"path": "functional/notes.jpg", "reason": "no picture: text"},
                {"path": "functional/cell1401.png", "reason": "same bytes as cell1400.png"},
            ],
            "per_class": {
                "defective": {"train": 561, "validation": 82, "test": 217},
                "functional": {"train": 1150, "validation": 175, "test": 439},
            },
            "source": "elpv-dataset 1.0.0, Buerhop-Lutz et al. 2018, CC BY-NC-SA 4.0",
        },
        "engines": engines,
        "int8_head": {
            "fp32_head": {"top1": 0.840, "ci95": [0.810, 0.866]},
            "int8_head": {"top1": 0.873, "ci95": [0.845, 0.896]},
            "p_value": 0.0021,
            "used": "int8_head",
            "backend": "openvino",
        },
        "accuracy_guard": guard(),
        "misclassified": [
            {
                "path": f"defective/cell{37 * i:04}.png",
                "truth": "defective",
                "predicted": "functional",
                "probability": 0.98 - 0.005 * i,
            }
            for i in range(83)
        ],
        "stages": {
            "dataset": 2.31,
            "bottlenecks": 11.4,
            "retrain": 32.1,
            "export": 12.0,
            "quantize": 17.9,
            "build": 24.6,
            "compare": 48.2,
        },
        "environment": {
            "python": "3.11.7",
            "cpu": "AMD EPYC 9B14",
            "cores": 2,
            "tensorflow": "2.21.0",
            "onnxruntime": "1.23.2",
            "openvino": "2025.3.0",
        },
        "reproduce": [
            "edgetrt run --image-dir data/elpv --run runs/demo --testing-percentage 25",
            "edgetrt compare --run runs/demo --engines tensorflow,onnxruntime,openvino "
            "--precisions fp32,fp16,int8 --batch 32 --samples 200",
        ],
    }


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, in order, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def structure(self) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in self.tags]


def with_text(report: dict[str, Any], text: str) -> dict[str, Any]:
    """`report` with `text` for every string that a person or a file name can choose."""
    report = copy.deepcopy(report)
    report["run"] |= {"name": text, "architecture": text, "created": text}
    dataset = report["dataset"]
    dataset["classes"] = [text, "b" + text]
    dataset["per_class"] = dict(zip(dataset["classes"], dataset["per_class"].values(), strict=True))
    dataset["source"] = text
    dataset["rejected_pictures"] = [{"path": text, "reason": text}]
    for one in report["engines"]:
        one |= {"name": text, "reason": text, "target": text}
    report["misclassified"] = [{"path": text, "truth": text, "predicted": text, "probability": 0.5}]
    if found := report["accuracy_guard"]:
        ranking = [{"layer": text, "decibels": 9.0}]
        found |= {"backend": text, "float_layers": [text], "ranking": ranking}
    report["stages"] = {text: 1.0}
    report["environment"] = {text: text}
    report["reproduce"] = [text]
    return report


@pytest.fixture(scope="module")
def html() -> str:
    return render(example())


def test_page_is_well_formed_and_needs_nothing_but_itself(html: str) -> None:
    assert html.startswith("<!DOCTYPE html>")
    page = Page(html)
    assert not page.open
    assert "http" not in html.replace("http-equiv", "")
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "img")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#")[0] == "#" or attributes[name] == "data:,"


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
    drawings = [a for tag, a in page.tags if tag == "svg"]
    assert len(drawings) == 5
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
            for role in ("ink", "muted", "accent", "fp32", "fp16", "int8", "other"):
                dark, light = sorted(luminance(colours[c]) for c in (ground, role))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, role)


def test_every_engine_is_on_the_page_with_its_reason(html: str) -> None:
    text = Page(html).text
    for one in example()["engines"]:
        assert one["name"] in text
        assert one["reason"] in text
    assert "87.3 84.5–89.7" in text
    assert "−3.9 p < 0.001" in text
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
    drawing = Page(plots.confusion([[3, 1], [0, 4]], names, "c", 'a "label" <i>'))
    assert all(name in drawing.text for name in names)
    assert drawing.tags[0][1]["aria-label"] == 'a "label" <i>'
    assert "b" not in {tag for tag, _ in drawing.tags}


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), min_size=1))
def test_any_text_is_shown_escaped(text: str) -> None:
    report = example()
    for one in report["engines"]:
        one |= {"accuracy": None, "latency_ms": None}
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
    svg = plots.confusion(np.eye(count, dtype=int) * 7, names, "c", "label")
    labelled = count <= plots.MAX_LABELLED
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
    point = plots.Point(12, "fp16", low, high, 1.0, 1.0, 1.0)
    assert svg.count("<text") > 6
    assert ">12</text>" in plots.accuracy_against_latency([point], "a", "label")


def test_numbers_of_close_points_do_not_cover_each_other() -> None:
    points = [plots.Point(i, "int8", 5 + i / 1000, 6.0, 0.9, 0.8, 0.95) for i in range(1, 9)]
    points.append(plots.Point(9, "fp32", 20.0, 21.0, 0.9, 0.8, 0.95))
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
            one["latency_ms"]["samples"] *= 50
    report["misclassified"] = [
        {"path": f"{i}/" + "x" * 400, "truth": "t" * 400, "predicted": "q", "probability": 1.0}
        for i in range(5000)
    ]
    start = time.perf_counter()
    html = render(report)
    assert time.perf_counter() - start < 10
    assert len(html.encode()) < 3_000_000
    text = Page(html).text
    assert text.count("more in report.json") == 2
    assert "and 4,950 more in report.json" in text
    assert "<details><summary>Pictures per class" in html
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
    }
    page = Page(render(report))
    assert "No engine ran on this machine" in page.text
    assert "tensorflow is not installed" in page.text
    assert not any(tag == "svg" for tag, _ in page.tags)
    assert "Misclassified test pictures None." in page.text


def test_page_of_an_engine_without_accuracy_or_samples() -> None:
    report = example()
    report["engines"][4]["accuracy"] = None
    for one in report["engines"]:
        if one["latency_ms"]:
            del one["latency_ms"]["samples"]
    page = Page(render(report))
    assert "— — — 5.2" in page.text
    assert [a["aria-label"] for tag, a in page.tags if tag == "svg"] != []


def test_another_schema_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"schema 2.*edgetrt compare"):
        render({**example(), "schema": 2})


WITHOUT_DELTA = copy.deepcopy(BETTER)
WITHOUT_DELTA["accuracy"] |= {"delta": None, "p_value": None}


@pytest.mark.parametrize(
    ("engines", "sentence", "note"),
    [
        (
            [TENSORFLOW, BETTER],
            "INT8 on openvino: 4.4× as fast as TensorFlow at batch 1, 0.3 points more accurate, "
            "not a significant difference (p = 0.61, 656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, BETTER, WORSE],
            "INT8 on openvino: 4.4× as fast as TensorFlow",
            "Faster, but passed over: INT8 on onnxruntime (5.2×, −3.9 points, p < 0.001).",
        ),
        (
            [TENSORFLOW, WORSE],
            "INT8 on onnxruntime: 5.2× as fast as TensorFlow at batch 1, but 3.9 points less "
            "accurate, a significant loss (p < 0.001, 656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, engine("openvino", "fp16", 0.9, 0.03, 0.004, 11.0)],
            "FP16 on openvino: 2.1× as fast as TensorFlow at batch 1, 3.0 points more accurate "
            "(p = 0.004, 656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, engine("tensorrt", "fp16", 0.87, 0.0, 1.0, 0.9, target="sm87")],
            "FP16 on tensorrt for sm87: 25× as fast as TensorFlow at batch 1, equally accurate "
            "(p = 1.00, 656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, engine("onnxruntime", "fp32", 0.87, 0.0, 1.0, 22.7)],
            "FP32 on onnxruntime: no faster than TensorFlow at batch 1, equally accurate",
            "",
        ),
        (
            [TENSORFLOW, engine("onnxruntime", "int8", 0.85, -0.02, 0.09, 45.0)],
            "slower than TensorFlow at batch 1 (takes 2.0× as long), 2.0 points less accurate, "
            "not a significant difference (p = 0.090, 656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, WITHOUT_DELTA],
            "4.4× as fast as TensorFlow at batch 1, 87.3 % right, not compared with TensorFlow "
            "(656 test pictures).",
            "",
        ),
        (
            [TENSORFLOW, engine("onnxruntime", "fp32", 0.87, 0.0, 1.0, 9.0), WITHOUT_DELTA],
            "FP32 on onnxruntime: 2.5× as fast",
            "INT8 on openvino (4.4×, accuracy not compared).",
        ),
        (
            [TENSORFLOW, {**BETTER, "accuracy": None}],
            "4.4× as fast as TensorFlow at batch 1, accuracy not measured.",
            "",
        ),
        (
            [WITHOUT_DELTA],
            "INT8 on openvino: 5.22 ms per picture at batch 1 (TensorFlow did not run), "
            "87.3 % right, not compared",
            "",
        ),
        (
            [{**TENSORFLOW, "latency_ms": None}, BETTER],
            "5.22 ms per picture at batch 1 (TensorFlow latency was not measured), 0.3 points",
            "",
        ),
        (
            [TENSORFLOW, absent("tensorrt-rtx", "built", "no GPU", target="sm86")],
            "Only TensorFlow ran (22.9 ms per picture at batch 1, 87.0 % of 656 test pictures "
            "right): nothing to compare it with.",
            "1 engine built for another machine: the table says why.",
        ),
        (
            [{**TENSORFLOW, "latency_ms": None, "accuracy": None}],
            "Only TensorFlow ran (unmeasured): nothing to compare it with.",
            "",
        ),
        (
            [TENSORFLOW, {**BETTER, "latency_ms": None}],
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
        (figures.p_value(0.049), "= 0.049"),
        (figures.p_value(0.0004), "< 0.001"),
        (figures.p_value(None), "= —"),
        (figures.interval([0.845, 0.896]), "84.5–89.6"),
        (figures.interval(None), "—"),
        (figures.megabytes(3_600_000), "3.60"),
        (figures.counted(1, "class", "classes"), "1 class"),
        (figures.counted(2624, "picture"), "2,624 pictures"),
    ],
)
def test_figures_for_people(shown: str, expected: str) -> None:
    assert shown == expected
