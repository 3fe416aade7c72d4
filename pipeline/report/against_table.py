"""What changed between two reports, for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engines.text import aligned, printable
from pipeline.against import BETTER, CONTROL, NO_CONTROL, NOT_COMPARABLE, WORSE
from pipeline.report.format import number, p_value, percent, points, significant

HEADER = ("engine", "figure", "verdict", "before", "now", "change (95 %)")


def describe(found: Mapping[str, Any]) -> str:
    """A table of what `pipeline.against.against` found, and what must be said of it."""
    figures = [
        (engine["name"], name, figure)
        for engine in found["engines"]
        for name, figure in engine["figures"].items()
    ]
    judged = [f for *_, f in figures if CONTROL not in f["marks"]]
    together = sum(f["verdict"] != NOT_COMPARABLE for f in judged)
    worse, better = (sum(f["verdict"] in kinds for f in judged) for kinds in (WORSE, BETTER))
    missing = found["missing"].items()
    tests = {figure["test"] for *_, figure in figures if "test" in figure}
    rows = [(printable(engine), *_cells(name, figure)) for engine, name, figure in figures]
    told = [
        *(f"{name} ran there, not here: {why or 'no such engine'}" for name, why in missing),
        *(f"{name} ran here, not there" for name in found["added"]),
        *(f"speed and energy not comparable: {reason}" for reason in found["not_comparable"]),
        *found["notes"],
        *_of_control(found["control"], [f for *_, f in figures]),
        *([f"verdicts: {together} figures judged together by Holm's correction, so that by chance "
           "any changes once in 20 such comparisons; each interval is its figure's alone"]
          if together > 1 else []),
        *(f"accuracy: {test}" for test in sorted(tests)),
    ]  # fmt: skip
    of = f"against {found['of']['name']} of {found['of']['created']}"
    return "\n".join(
        [
            printable(f"{of}: {worse} worse, {better} better, of {len(judged)} figures"),
            *([aligned([HEADER, *rows], left=3)] if rows else []),
            *map(printable, told),
        ]
    )


def _of_control(control: str | None, figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What speed and energy are held against."""
    if any(f["unit"] != "share" and not {CONTROL, NO_CONTROL} & {*f["marks"]}
           for f in figures):  # fmt: skip
        yield f"change of speed and energy: beside that of {control}, which took turns with it"
    if any(NO_CONTROL in f["marks"] for f in figures):
        yield (
            f"{NO_CONTROL}: TensorFlow was not measured for it in both, so what the machine did "
            "counts as the engine's"
        )


def _cells(name: str, figure: Mapping[str, Any]) -> tuple[str, ...]:
    marks = f" ({', '.join(figure['marks'])})" if figure["marks"] else ""
    low, high = figure["ci95"]
    if name == "accuracy":
        shown = [f"{percent(figure[key])} %" for key in ("old", "new")]
        change = f"{points(figure['change'])} points ({points(low)}..{points(high)})"
        change += f", p {p_value(figure['p_value'])}"
    else:
        shown = [significant(figure[key]) for key in ("old", "new")]
        change = f"{_signed(figure['change'])} % ({_signed(low)}..{_signed(high)})"
    unit = "" if name == "accuracy" else f", {figure['unit']}"
    return (f"{name}{unit}", figure["verdict"] + marks, *shown, change)


def _signed(ratio: float) -> str:
    return number(100 * (ratio - 1), "+.1f")
