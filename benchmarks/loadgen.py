"""An engine under LoadGen, MLPerf's own load generator, beside the same engine timed by us.

LoadGen (package mlcommons-loadgen) sends the queries and takes the time itself, so it has nothing
in common with `benchmarks.latency` but the engine.
"""

import json
import signal
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from benchmarks.latency import measure
from benchmarks.progress import Console
from benchmarks.scenarios import SINGLE_STREAM, Effort
from engines.engine import Engine, EngineError

MODULE = "mlperf_loadgen"  # "mlcommons_loadgen" holds nothing, and hides this one once imported
PACKAGE = "mlcommons-loadgen"
PAIRS = 12  # runs of each, in turns
CUT = 2  # of their ratios at either end are outside the interval
WITHIN = 0.05  # the share by which the two may differ
CALLS_MS = 0.005  # or so much: LoadGen's way to the engine is longer by the calls from C++
PERCENTILE = "result_90.00_percentile_latency_ns"
QUERIES = "result_query_count"
VERSION = "loadgen_version"  # such as "6.0.17 @ d6147c7eb7"


def unavailable() -> Optional[str]:
    """Why LoadGen can't be used here; None if it can."""
    return None if find_spec(MODULE) else "pip install {}".format(PACKAGE)


def compare(
    engine: Engine, name: str, pixels: np.ndarray, effort: Effort, console: Console
) -> Dict[str, Any]:
    """Time an engine in SingleStream by LoadGen and by ourselves, in turns.

    Args:
        engine: warm.
        name: of it, for the report.
        pixels: (N, height, width, 3) uint8; the queries go through them.
        effort: its queries, seconds and warm-up are shared out among `PAIRS` runs of each side.

    Returns:
        "engine", "version" of LoadGen, "ours_ms" and "loadgen_ms" (medians of the runs' p90),
        "ratio" (the median of ours over LoadGen's, pair by pair), its "ci95", "n" (queries of
        each side) and "agrees": True where the whole interval lies within `WITHIN` of 1 (or within
        `CALLS_MS`), False where it lies outside, None where it is too wide to tell. Or "reason":
        why it was not done.

    Raises:
        EngineError: the engine failed, by whichever side it was asked.
    """
    reason = unavailable()
    if reason is not None:
        return {"reason": reason}
    share = effort._replace(
        queries=-(-effort.queries // PAIRS),
        seconds=effort.seconds / PAIRS,
        turns=1,
        warm_up=effort.warm_up / PAIRS,
    )
    ours: List[float] = []
    theirs: List[float] = []
    count = 0
    with console.progress("LoadGen", PAIRS, "pairs") as advance:
        for _ in range(PAIRS):
            timed = measure(SINGLE_STREAM, {name: engine}, pixels, (), share, lambda _: None)
            seconds = [s for turn in timed[name].turns for s in turn.seconds]
            ours.append(_p90(seconds))
            found = _run(engine, pixels, len(seconds))
            theirs.append(found[PERCENTILE] / 1e6)
            count += int(found[QUERIES])
            advance(1)
    ratio, (low, high) = _median_interval(np.divide(ours, theirs))
    return {
        "engine": name,
        "version": found[VERSION].split()[0],
        "ours_ms": float(np.median(ours)),
        "loadgen_ms": float(np.median(theirs)),
        "ratio": ratio,
        "ci95": [low, high],
        "n": count,
        "agrees": _agrees(low, high, max(WITHIN, CALLS_MS / float(np.median(theirs)))),
    }


def _agrees(low: float, high: float, within: float) -> Optional[bool]:
    if 1 - within <= low and high <= 1 + within:
        return True
    return False if high < 1 - within or low > 1 + within else None


def _p90(seconds: Sequence[float]) -> float:
    """The 90th percentile in ms, of the rank that LoadGen takes (its results.cc).

    Interpolated, that of a short run would be the lower of the two.
    """
    return 1e3 * sorted(seconds)[len(seconds) * 9 // 10]


def _median_interval(ratios: np.ndarray) -> Tuple[float, List[float]]:
    """The median of `PAIRS` ratios, and those between which the true one lies in 95 % of cases.

    Without the `CUT` lowest and highest of 12 values, the outer ones have the true median between
    them with a probability of 1 - 2 * (1 + 12 + 66) / 2 ** 12 = 96 %, whatever the values'
    distribution: a disturbed pair or two move nothing.
    """
    low, high = np.sort(ratios)[[CUT, -CUT - 1]]
    return float(np.median(ratios)), [float(low), float(high)]


def _run(engine: Engine, pixels: np.ndarray, queries: int) -> Dict[str, Any]:
    """What LoadGen says of one run, by its own keys."""
    import mlperf_loadgen as lg

    pictures = [pixels[place : place + 1] for place in range(len(pixels))]
    failed: List[BaseException] = []

    def answer(samples: Sequence[Any]) -> None:
        for sample in samples:
            try:
                if not failed:
                    engine.infer(pictures[sample.index])
            except Exception as error:  # let through, it would crash LoadGen's C++
                failed.append(error)
            lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0)])

    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.SingleStream
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = queries
    settings.min_duration_ms = 0
    with TemporaryDirectory(prefix="edgetrt-loadgen-") as folder:
        log = lg.LogSettings()
        log.enable_trace = False
        log.log_output.outdir = folder
        log.log_output.copy_summary_to_stdout = log.log_output.copy_detail_to_stdout = False
        system = lg.ConstructSUT(answer, lambda: None)
        library = lg.ConstructQSL(len(pictures), len(pictures), _nothing, _nothing)
        try:
            # Else it obeys a file of that name in the working directory.
            no_audit = str(Path(folder) / "audit.config")
            with _interrupts_to(failed):
                lg.StartTestWithLogSettings(system, library, settings, log, no_audit)
        finally:
            lg.DestroyQSL(library)
            lg.DestroySUT(system)
        if failed:
            raise failed[0]
        return _details(Path(folder) / "mlperf_log_detail.txt")


@contextmanager
def _interrupts_to(failed: List[BaseException]) -> Iterator[None]:
    """Note Ctrl-C in a list instead of raising it."""

    def note(_number: int, _frame: Any) -> None:
        failed.append(KeyboardInterrupt())

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _nothing(_samples: Sequence[int]) -> None:
    """Pictures are in memory already."""


def _details(path: Path) -> Dict[str, Any]:
    """What LoadGen wrote down, by key.

    Raises:
        EngineError: it is not whole: LoadGen says nothing of a disk that is full.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        said = [json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith(":::MLLOG ")]
        found = {entry["key"]: entry["value"] for entry in said}
    except (OSError, ValueError, KeyError) as error:
        raise EngineError("LoadGen's log can't be read: {}".format(error)) from error
    missing = [key for key in (PERCENTILE, QUERIES, VERSION) if key not in found]
    if missing:
        raise EngineError("LoadGen's log lacks {}; is the disk full?".format(missing[0]))
    return found
