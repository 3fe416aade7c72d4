"""Engines x test pictures -> report.json: how right and how fast each one is."""

import os
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.accuracy import compare as compare_answers
from benchmarks.accuracy import measure
from benchmarks.latency import (
    BATCH,
    BATCHES,
    ROUNDS,
    interleaved_latencies,
    interleaved_throughputs,
)
from benchmarks.statistics import summarize
from engines.catalogue import TENSORFLOW, load_engine, read_sidecars, runs_here
from engines.engine import Engine, EngineError, processors
from engines.tensorflow_graph import load as load_tensorflow
from pipeline import loader
from pipeline.dataset import Dataset
from pipeline.errors import printable
from pipeline.files import sha256_of, write_json, write_text
from pipeline.progress import Console
from pipeline.run import STAGES, Outcome, Run, versions

SCHEMA = 1
REFERENCE = "tensorflow-fp32"


def compare(run: Run, console: Console) -> dict[str, Any]:
    """Stage 5: run every engine that can run here, and TensorFlow, on the whole test split.

    Returns:
        The report, as it is written to report/report.json (see docs in README).
    """
    from pipeline.report.page import render

    record = run.require("build")
    report: dict[str, Any] = {}

    def work() -> Outcome:
        start = time.monotonic()
        report.update(_report(run, console))
        report["stages"]["compare"] = round(time.monotonic() - start, 3)
        write_json(run.report, report)
        write_text(run.report_page, render(report))
        return Outcome([run.report, run.report_page], {})

    inputs = [run.frozen_graph] + [run.folder / file for file in record["outputs"]]
    run.perform("compare", inputs, {"schema": SCHEMA}, work, console)
    return report or read_report(run)
