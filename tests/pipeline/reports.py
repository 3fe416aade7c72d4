"""Reports to make pages of, and how a test reads a page.

`example` is of a host, `device` of a board without TensorFlow, `troubled` of a host that gave
results which need a warning. Their numbers only look like those of a run.
"""

import base64
import copy
import functools
import io
from html.parser import HTMLParser
from statistics import NormalDist
from typing import Any

import numpy as np

TURNS = 20
PER_TURN = 60  # queries
TENSORFLOW_P50 = 22.9  # ms
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
    """An engine that ran; p50: of single-stream, ms."""
    ratio = TENSORFLOW_P50 / p50
    return {
        "name": f"{backend}-{precision}",
        "backend": backend,
        "precision": precision,
        "target": "cpu",
        "status": "ran",
        "reason": "",
        "int8": "explicit" if precision == "int8" else None,
        "batch": None,
        "size_bytes": {"fp32": 13_500_000, "fp16": 6_800_000}.get(precision, 3_600_000),
        "build_seconds": 1.234,
        "options": {},
        "accuracy": accuracy(top1, delta, p_value),
        "answers": None,
        "scenarios": {
            "single-stream": latency(p50, 0.0, power=46.2),
            "multi-stream": latency(6.1 * p50, 70.0),
            "from-file": {
                **latency(p50 + 1.9, 140.0),
                "preparing_ms": {"p50": 1.87, "p90": 2.04, "p99": 2.9, "mean": 1.91, "n": 1200},
            },
            "offline": offline(1150 / p50, 210.0),
        },
        "gpu_ms": None,
        "speedup": {"value": ratio, "ci95": [0.95 * ratio, 1.05 * ratio]},
        **other,
    }


def accuracy(top1: float, delta: float, p_value: float, n: int = 656) -> dict[str, Any]:
    """How right an engine is on `n` pictures of two classes."""
    wrong = round(n * (1 - top1))
    missed = wrong // 2 + 9
    first = n // 3 - 1
    confusion = [[first - missed, missed], [wrong - missed, n - first - wrong + missed]]
    given = [confusion[0][i] + confusion[1][i] for i in (0, 1)]
    return {
        "top1": top1,
        "ci95": [top1 - 0.028, top1 + 0.024],
        "n": n,
        "top5": None,
        "confusion": confusion,
        "per_class": [
            {
                "precision": confusion[i][i] / given[i],
                "recall": confusion[i][i] / sum(confusion[i]),
                "support": sum(confusion[i]),
            }
            for i in (0, 1)
        ],
        "calibration_error": 0.0314,
        "agreement": 1 - 1.7 * abs(delta),
        "delta": delta,
        "delta_ci95": [delta - 0.012, delta + 0.012],
        "p_value": p_value,
        "max_difference": 0.31,
        "mean_difference": 0.0123,
    }


@functools.cache
def _shape() -> np.ndarray:
    """Times of a shared machine in units of their median: a long tail to the right."""
    n = TURNS * PER_TURN
    normal = np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])
    return 0.97 + 0.03 * np.exp(normal)


def latency(p50: float, start: float, power: float = 0.0, **other: Any) -> dict[str, Any]:
    """Result of a scenario that times single queries.

    start: of the first turn, seconds. power: W under load; 0: not measured.
    """
    random = np.random.default_rng(round(1000 * p50))
    samples = p50 * random.permutation(_shape())
    low, middle, high = np.quantile(samples, (0.5, 0.9, 0.99)).tolist()
    quantiles = {"p50": low, "p90": middle, "p99": high}
    mj = (power - 21.4) * p50
    return {
        **quantiles,
        "mean": float(samples.mean()),
        "n": len(samples),
        "ci95": {name: [0.98 * value, 1.03 * value] for name, value in quantiles.items()},
        "seconds": float(samples.sum()) / 1e3,
        "valid": True,
        "why": "",
        "warm_up": {"queries": 48, "seconds": 0.9, "steady": True},
        "drift": {"percent": 0.4, "p_value": 0.47},
        "throttled": False,
        "samples": [round(float(value), 4) for value in samples],
        "turns": [PER_TURN] * TURNS,
        "starts": [start + 3.3 * turn + p50 / 20 for turn in range(TURNS)],
        "energy": {"mj": mj, "ci95": [0.97 * mj, 1.04 * mj], "loaded_w": power, "samples": 130}
        if power
        else None,
        **other,
    }


def offline(ips: float, start: float, **other: Any) -> dict[str, Any]:
    """Result of the scenario that counts pictures per second."""
    return {
        "ips": ips,
        "ci95": [0.985 * ips, 1.012 * ips],
        "n": 20_480,
        "seconds": 20_480 / ips,
        "valid": True,
        "why": "",
        "warm_up": {"queries": 6, "seconds": 1.1, "steady": True},
        "drift": {"percent": -0.2, "p_value": 0.71},
        "throttled": False,
        "turns": [ips * (1 + 0.01 * (turn % 3 - 1)) for turn in range(TURNS)],
        "starts": [start + 3.3 * turn for turn in range(TURNS)],
        "energy": None,
        **other,
    }


def absent(backend: str, status: str, reason: str, **other: Any) -> dict[str, Any]:
    """An engine that did not run here."""
    about = {"name": f"{backend}-int8", "backend": backend, "precision": "int8", "target": "cpu"}
    nothing = ("int8", "batch", "size_bytes", "build_seconds", "accuracy", "answers", "gpu_ms",
               "speedup")  # fmt: skip
    return {
        **about,
        **dict.fromkeys(nothing),
        "options": {},
        "scenarios": {},
        "status": status,
        "reason": reason,
        **other,
    }


TENSORFLOW = engine("tensorflow", "fp32", 0.870, 0.0, 1.0, TENSORFLOW_P50, build_seconds=0.41)
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


@functools.cache
def thumbnail(number: int) -> str:
    """A small JPEG, base64."""
    from PIL import Image

    y, x = np.mgrid[:120, :120]
    light = 110 + 60 * np.sin((x + 9 * number) / 11) * np.cos(y / 17) + 20 * (x % 24 < 2)
    file = io.BytesIO()
    Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def disagreement(number: int) -> dict[str, Any]:
    """A picture that an engine answers otherwise than TensorFlow."""
    return {
        "path": f"defective/cell{111 * number:04}.png",
        "truth": "defective",
        "engine": "onnxruntime-int8" if number % 3 else "openvino-int8",
        "label": "functional",
        "probability": 0.81 - 0.03 * number,
        "reference_label": "defective",
        "reference_probability": 0.72 - 0.02 * number,
        "distance": 0.53 - 0.04 * number,
        "thumbnail": thumbnail(number),
    }


def conditions(**other: Any) -> dict[str, Any]:
    """What a quiet host was doing."""
    return {
        "machine": "AMD EPYC 9B14",
        "processors": 2,
        "governor": "performance",
        "cpu_mhz": 3698.2,
        "load": 0.31,
        "gpus": [],
        "gpu_mhz": None,
        "power_mode": None,
        "jetson_clocks": None,
        "temperatures_c": {"x86_pkg_temp": 51.0},
        "throttled": [],
        **other,
    }


def series(seconds: int = 280) -> dict[str, Any]:
    """What a monitor at 1 Hz read; it missed some."""
    time = np.arange(seconds)
    wave = np.sin(time / 9.0)
    power: list[float | None] = (42 + 4 * wave + (time > 200)).round(2).tolist()
    power[17] = power[18] = None
    return {
        "seconds": time.astype(float).tolist(),
        "power_w": power,
        "cpu_mhz": (3690 + 8 * wave).round(1).tolist(),
        "temperature_c": (63 - 12 * np.exp(-time / 60)).round(1).tolist(),
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
    layers = {
        f"block{i}/{kind}": 1.2 / (i + 1.5) for i in range(16) for kind in ("expand", "project")
    }
    return {
        "schema": 2,
        "run": {
            "name": "demo",
            "architecture": "efficientnet_lite0",
            "seed": 0,
            "created": "2026-11-23T12:00:00Z",
        },
        "effort": "valid",
        "dataset": {
            "images": 2624,
            "classes": ["defective", "functional"],
            "train": 1711,
            "validation": 257,
            "test": 656,
            "test_digest": "5e" * 32,
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
        "preprocess_ms": {"p50": 1.86, "p90": 2.02, "p99": 2.71, "mean": 1.9, "n": 1024},
        "conditions": {
            "before": conditions(),
            "after": conditions(cpu_mhz=3691.0, load=1.94, temperatures_c={"x86_pkg_temp": 63.0}),
            "differences": [],
            "series": series(),
        },
        "power": {
            "source": "RAPL",
            "reason": None,
            "rails": [
                {"name": "package-0", "included": True, "why": "the whole processor"},
                {"name": "core", "included": False, "why": "part of package-0"},
            ],
            "idle_w": 21.4,
            "idle_ci95": [21.1, 21.8],
            "hz": 10.0,
        },
        "loadgen": {
            "engine": "openvino-int8",
            "version": "5.1.2",
            "ours_ms": 5.58,
            "loadgen_ms": 5.61,
            "ratio": 1.005,
            "ci95": [0.988, 1.021],
            "n": 1024,
            "agrees": True,
        },
        "disagreements": [disagreement(number) for number in range(7)],
        "layers": {"openvino-int8": layers},
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
        "misclassified_by": "tensorflow-fp32",
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
            "edgetrt compare --run runs/demo --scenario single-stream,offline,from-file",
        ],
    }


def troubled() -> dict[str, Any]:
    """A quick look on a machine that got hot: throttled, unlike before, one engine never warm."""
    report = example()
    report["effort"] = "quick"
    for one in report["engines"]:
        for result in one["scenarios"].values():
            result |= {"valid": False, "why": "quick: 60 queries of 1,024"}
    tensorflow, best = report["engines"][0], report["engines"][4]
    tensorflow["scenarios"]["single-stream"]["warm_up"]["steady"] = False
    hot = best["scenarios"]["single-stream"]
    hot |= {"throttled": True, "drift": {"percent": 23.4, "p_value": 0.0002}}
    hot["throttled_share"] = 0.35
    slower = [
        round(value * (1 + 0.25 * (i // PER_TURN) / TURNS), 4)
        for i, value in enumerate(hot["samples"])
    ]
    hot["samples"] = slower
    found = report["conditions"]
    found["after"] |= {
        "governor": "powersave",
        "cpu_mhz": 2450.0,
        "throttled": ["processor is too hot"],
    }
    found["differences"] = [
        "the governors of the processors' clocks differ: performance and powersave",
        "the machine was throttled: processor is too hot",
    ]
    seconds = found["series"]["seconds"]
    found["series"]["throttled"] = [1 if 40 < s < 75 or s > 180 else 0 for s in seconds]
    report["loadgen"] |= {"loadgen_ms": 7.1, "ratio": 1.27, "ci95": [1.2, 1.33], "agrees": False}
    return report


def device() -> dict[str, Any]:
    """A report that a board made: nothing of training, and no TensorFlow to compare with."""
    alone = ("agreement", "delta", "delta_ci95", "p_value", "max_difference", "mean_difference")
    engines = [
        engine("tensorrt", "fp32", 0.870, 0.0, 1.0, 9.1, target="sm62"),
        engine("tensorrt", "fp16", 0.868, 0.0, 1.0, 6.3, target="sm62"),
    ]
    for one in engines:
        one["speedup"] = None
        for key in alone:
            del one["accuracy"][key]
        del one["scenarios"]["multi-stream"]
        p50 = one["scenarios"]["single-stream"]["p50"]
        one["gpu_ms"] = {"upload": 0.21, "compute": 0.9 * p50, "download": 0.02}
    whole = example()
    board = {
        "machine": "NVIDIA Jetson TX2", "processors": 6, "governor": "schedutil",
        "cpu_mhz": 2035.2, "gpus": ["NVIDIA Tegra X2"], "gpu_mhz": 1300.5,
        "power_mode": "MAXN (0)", "jetson_clocks": True,
        "temperatures_c": {"BCPU-therm": 38.5, "GPU-therm": 36.0},
    }  # fmt: skip
    rails = [
        {"name": "VDD_SYS_GPU", "included": True, "why": ""},
        {"name": "VDD_IN", "included": False, "why": "the sum of all rails"},
    ]
    return {
        **{key: whole[key] for key in ("schema", "effort", "preprocess_ms", "disagreements")},
        "run": {
            "name": "demo",
            "architecture": None,
            "seed": None,
            "created": "2026-11-24T09:00:00Z",
        },
        "dataset": {
            key: whole["dataset"][key] for key in ("classes", "test", "test_digest")
        },
        "engines": engines,
        "conditions": {
            "before": conditions(**board),
            "after": conditions(**board),
            "differences": [],
            "series": {**series(), "gpu_mhz": [1300.5] * 280},
        },
        "power": {
            "source": "INA3221 (iio)", "reason": None, "rails": rails, "idle_w": 3.1, "hz": 10.0,
        },
        "loadgen": {"reason": "mlcommons_loadgen is not installed"},
        "disagreements": [],
        "layers": {"tensorrt-fp16": {"conv1": 0.9, "conv2": 0.4, "softmax": 0.01}},
        "environment": {"python": "3.6.9", "tensorrt": "8.2.1"},
    }  # fmt: skip


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
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def structure(self) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in self.tags]


def with_text(report: dict[str, Any], text: str) -> dict[str, Any]:
    """`report` with `text` for every string that a person, a file or a machine can choose."""
    report = copy.deepcopy(report)
    report["run"] |= {"name": text, "architecture": text, "created": text}
    report["effort"] = "valid"
    dataset = report["dataset"]
    dataset["classes"] = [text, "b" + text]
    dataset |= {"source": text, "test_digest": text}
    if "per_class" in dataset:
        counts = dataset["per_class"].values()
        dataset["per_class"] = dict(zip(dataset["classes"], counts, strict=True))
    dataset["rejected_pictures"] = [{"path": text, "reason": text}]
    chosen = report["layers"] and next(iter(report["layers"]))
    for one in report["engines"]:
        if one["name"] == chosen:
            report["layers"] = {text: {text: 2.0, "b" + text: 1.0}}
        one |= {"name": text, "reason": text, "target": text, "options": {"forced": text}}
        for result in one["scenarios"].values():
            result |= {"valid": False, "why": text}
    mistake = {"path": text, "truth": text, "predicted": text, "probability": 0.5}
    report |= {"misclassified": [mistake], "misclassified_by": text}
    if found := report.get("accuracy_guard"):
        ranking = [{"layer": text, "decibels": 9.0}]
        found |= {"backend": text, "float_layers": [text], "ranking": ranking}
    named = ("path", "truth", "engine", "label", "reference_label", "thumbnail")
    for one in report["disagreements"]:
        one |= dict.fromkeys(named, text)
    around = report["conditions"]
    around["differences"] = [text]
    for when in ("before", "after"):
        around[when] |= {"machine": text, "governor": text, "power_mode": text, "gpus": [text],
                         "temperatures_c": {text: 50.0}, "throttled": [text]}  # fmt: skip
    rail = {"name": text, "included": True, "why": text}
    report["power"] |= {"source": text, "rails": [rail, {**rail, "included": False}]}
    if "engine" in report["loadgen"]:
        report["loadgen"] |= {"engine": text, "version": text}
    if found := report.get("against"):
        found |= {"of": {"name": text, "created": text}, "not_comparable": [text], "notes": [text],
                  "control": text, "missing": {text: text}, "added": [text]}  # fmt: skip
        for one in found["engines"]:
            one |= {"name": text, "other": text}
            for figure in one["figures"].values():
                figure |= {"unit": text, "verdict": text, "marks": [text]}
    report["stages"] = {text: 1.0}
    report["environment"] = {text: text}
    report["reproduce"] = [text]
    return report
