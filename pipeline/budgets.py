"""What an engine may take and lose, so that `edgetrt compare` can stop a build in CI."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.scenarios import RESULT, SINGLE_STREAM
from engines.catalogue import TENSORFLOW
from pipeline.against import accuracy_change, pairs
from pipeline.errors import BudgetError, PipelineError, UsageError
from pipeline.report.format import counted, number, significant, span
from pipeline.report.verdict import verdict

Report = Mapping[str, Any]
Engine = Mapping[str, Any]  # one entry of "engines" in a report


class Budgets(NamedTuple):
    """What must hold of the engines of a report. A figure itself decides, not its interval.

    engine: the name of the only one; None for the one that the report's verdict speaks of, which
        is the one that would be used, as to latency, and as to accuracy all that ran, except
        TensorFlow's: the verdict passes over those that lost some, so it would hide the loss.
    max_latency_ms: of single-stream's result; None for no limit.
    max_accuracy_drop: points of top-1 below TensorFlow's, or below what another report says of
        the same engine; None for no limit.
    """

    engine: str | None
    max_latency_ms: float | None
    max_accuracy_drop: float | None

    def check(self) -> None:
        """Raise UsageError for what is no budget."""
        for flag, value in (
            ("--max-latency-ms", self.max_latency_ms),
            ("--max-accuracy-drop", self.max_accuracy_drop),
        ):
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"{flag} must be a number, 0 or above; received {value:g}")
        if self.engine is not None and not self.given:
            raise UsageError(
                "--engine names the engine that a budget is for; give --max-latency-ms or "
                "--max-accuracy-drop too"
            )

    def check_name(self, names: Collection[str]) -> None:
        """Raise UsageError unless `engine` is one of a run's."""
        if self.engine is not None and self.engine not in names:
            raise UsageError(
                f"--engine {self.engine} is unknown; the run has {', '.join(names) or 'none'}"
            )

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return self.max_latency_ms is not None or self.max_accuracy_drop is not None

    def enforce(self, report: Report, other: Report | None) -> None:
        """Hold `report` to the budgets.

        Args:
            other: the report that accuracy may not drop below; None for TensorFlow's in `report`.

        Raises:
            BudgetError: at least one is broken; the message names each.
            UsageError: there is no such engine.
            PipelineError: what a budget is for was not measured.
        """
        if not self.given:
            return
        named = self._named(report)
        broken: list[str] = []
        if self.max_latency_ms is not None:
            broken += _too_slow(named or _judged(report), self.max_latency_ms, report["effort"])
        if self.max_accuracy_drop is not None:
            for engine in [named] if named else _rivals(report):
                broken += _too_wrong(engine, self.max_accuracy_drop, report, other)
        if broken:
            raise BudgetError(f"budget broken: {'; '.join(broken)}")

    def _named(self, report: Report) -> Engine | None:
        if self.engine is None:
            return None
        named = {engine["name"]: engine for engine in report["engines"]}
        self.check_name(named)
        engine: Engine = named[self.engine]
        if engine["status"] != "ran":
            raise PipelineError(
                f"{self.engine} did not run here, so its budget can't be checked: "
                f"{engine['reason'] or engine['status']}"
            )
        return engine


NO_RIVAL = (
    "no engine besides TensorFlow was measured, so a budget has nothing to hold; the table says "
    "why, and --engine names another"
)


def _judged(report: Report) -> Engine:
    found = verdict(report["engines"]).engine
    if found is None:
        raise PipelineError(NO_RIVAL)
    return found


def _rivals(report: Report) -> Sequence[Engine]:
    found = [e for e in report["engines"] if e["status"] == "ran" and e["backend"] != TENSORFLOW]
    if not found:
        raise PipelineError(NO_RIVAL)
    return found


def _too_slow(engine: Engine, most: float, effort: str) -> Iterator[str]:
    result, figure = engine["scenarios"].get(SINGLE_STREAM), RESULT[SINGLE_STREAM]
    if not result:
        raise PipelineError(
            f"{engine['name']} was not measured in {SINGLE_STREAM}, so --max-latency-ms can't "
            "be checked; add that to --scenario"
        )
    if result[figure] > most:
        doubt = "" if result["valid"] else f" (not valid: {result['why']})"
        yield (
            f"{engine['name']} takes {significant(result[figure])} ms ({figure} of "
            f"{SINGLE_STREAM}, 95 % interval {span(result['ci95'][figure])}), "
            f"--max-latency-ms is {most:g}"
            f"{' (quick: proves nothing)' if effort == 'quick' else doubt}"
        )


def _too_wrong(engine: Engine, most: float, report: Report, other: Report | None) -> Iterator[str]:
    if not engine["accuracy"]:
        raise PipelineError(
            f"the accuracy of {engine['name']} was not measured, so --max-accuracy-drop can't "
            "be checked"
        )
    change, (low, high), below = _change(engine, report, other)
    if round(-100 * change, 9) > most:
        pictures = counted(engine["accuracy"]["n"], "test picture")
        yield (
            f"{engine['name']} has {_points(-change)} points of top-1 less than {below} "
            f"(95 % interval {_points(-high)}..{_points(-low)}, {pictures}), "
            f"--max-accuracy-drop is {most:g}"
        )


def _change(
    engine: Engine, report: Report, other: Report | None
) -> tuple[float, tuple[float, float], str]:
    """By how much top-1 changed (a fraction), with its 95 % interval, and from what."""
    if other is not None:
        matched = [old for new, old in pairs(report, other) if new["name"] == engine["name"]]
        if not matched or not matched[0]["accuracy"]:
            raise PipelineError(
                f"--against has no accuracy of {engine['name']}, so --max-accuracy-drop can't be "
                "checked; --engine names another"
            )
        found = accuracy_change(engine, matched[0], report, other)
        return found["change"], tuple(found["ci95"]), f"{matched[0]['name']} of --against"
    accuracy = engine["accuracy"]
    if accuracy.get("delta") is None:
        raise PipelineError(
            "TensorFlow did not run, so --max-accuracy-drop has nothing to go by; give --against"
        )
    bounds = accuracy.get("delta_ci95") or (accuracy["delta"],) * 2
    return accuracy["delta"], tuple(bounds), "TensorFlow"


def _points(fraction: float) -> str:
    return number(100 * fraction, ".2f")
