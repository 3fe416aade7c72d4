"""Accuracy of FP32 and INT8, and their latency, over several splits."""

from pathlib import Path
from typing import List

import numpy as np

from benchmarks.ratios.command import edgetrt, progress, scratch
from benchmarks.ratios.figure import Figure, mean_difference, ratio
from benchmarks.scenarios import SINGLE_STREAM

SEEDS = 4
TESTING = 25  # percent, as S. Deitsch et al., Solar Energy 185 (2019) 455, split this set
SVM = 82.44  # percent of that paper's support vector machine; its own network reached 88.42


def measure(pictures: Path) -> List[Figure]:
    """Run the whole pipeline once for each seed, and read its reports.

    Args:
        pictures: the ELPV solar cells, laid out by `edgetrt dataset elpv`.
    """
    fp32: List[float] = []
    int8: List[float] = []
    tensorflow_ms: List[float] = []
    int8_ms: List[float] = []
    with scratch() as folder:
        for seed in range(SEEDS):
            progress("quality: seed {}, {} seeds".format(seed, SEEDS))
            report = edgetrt(
                "run", "--image-dir", pictures, "--run", folder / str(seed), "--seed", seed,
                "--testing-percentage", TESTING, "--engine", "openvino",
                "--precision", "fp32,int8", "--scenario", SINGLE_STREAM,
            ).result  # fmt: skip
            engines = {engine["name"]: engine for engine in report["engines"]}
            fp32.append(100 * engines["tensorflow-fp32"]["accuracy"]["top1"])
            int8.append(100 * engines["openvino-int8"]["accuracy"]["top1"])
            tensorflow_ms.append(engines["tensorflow-fp32"]["scenarios"][SINGLE_STREAM]["p90"])
            int8_ms.append(engines["openvino-int8"]["scenarios"][SINGLE_STREAM]["p90"])
    return [
        Figure("FP32 test accuracy, mean", "%", fp32, [], float(np.mean(fp32)), SVM, True),
        mean_difference("INT8 minus FP32 test accuracy", "%", int8, fp32, -0.5),
        ratio("latency p90 of TensorFlow over INT8 OpenVINO", "ms", tensorflow_ms, int8_ms, 3),
    ]
