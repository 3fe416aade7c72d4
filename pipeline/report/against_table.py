"""What `pipeline.against.against` found between two reports, for a terminal and for the page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engines.text import aligned, printable
from pipeline.against import BETTER, CONTROL, NO_CONTROL, NOT_COMPARABLE, WORSE
from pipeline.report.format import p_value, percent, points, significant

HEADER = ("engine", "figure", "verdict", "before", "now", "change (95 %)")


def describe(found: Mapping[str, Any]) -> str:
    """A table of what was found, and what must be said of it."""
    rows = [
        (
            printable(engine["name"]),
            f"{row['name']}{', ' if row['unit'] else ''}{row['unit']}",
            row["verdict"] + (f" ({', '.join(row['marks'])})" if row["marks"] else ""),
            row["before"],
            row["now"],
            f"{row['change']} ({'..'.join(row['ends'])})" + (f", p {row['p']}" if row["p"] else ""),
        )
        for engine in found["engines"]
        for row in rows_of(engine)
    ]
    return "\n".join(
        [
            printable(f"against {found['of']['name']} of {found['of']['created']}: {count(found)}"),
            *([aligned([HEADER, *rows], left=3)] if rows else []),
            *map(printable, notes(found)),
        ]
    )


def count(found: Mapping[str, Any]) -> str:
    """How many figures became worse and better; the control's are none of them."""
    judged = _judged(found)
    worse, better = (sum(f["verdict"] in kinds for f in judged) for kinds in (WORSE, BETTER))
    return f"{worse} worse, {better} better, of {len(judged)} figures"


def rows_of(engine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of one of the "engines", each as people read it.

    Returns:
        Of each "name", "unit" ("" where the figures have it), "before", "now", "change", "ends"
        (of its interval), "p" ("" where the interval says it), "verdict", "kind" ("worse",
        "better" or "") and "marks".
    """
    return [_row(name, figure) for name, figure in engine["figures"].items()]


def notes(found: Mapping[str, Any]) -> list[str]:
    """What must be known of what was found, in lines."""
    figures = _figures(found)
    together = sum(f["verdict"] != NOT_COMPARABLE for f in _judged(found))
    missing = found["missing"].items()
    tests = {figure["test"] for figure in figures if "test" in figure}
    return [
        *(f"{name} ran there, not here: {why or 'no such engine'}" for name, why in missing),
        *(f"{name} ran here, not there" for name in found["added"]),
        *(f"speed and energy not comparable: {reason}" for reason in found["not_comparable"]),
        *found["notes"],
        *_of_control(found["control"], figures),
        *([f"verdicts: {together} figures judged together by Holm's correction, so that by chance "
           "any changes once in 20 such comparisons; each interval is its figure's alone"]
          if together > 1 else []),
        *(f"accuracy: {test}" for test in sorted(tests)),
    ]  # fmt: skip


def _figures(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [figure for engine in found["engines"] for figure in engine["figures"].values()]


def _judged(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [figure for figure in _figures(found) if CONTROL not in figure["marks"]]


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


def _row(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    verdict, is_share = figure["verdict"], figure["unit"] == "share"
    # A ratio is told as a change in percent, a difference of shares in points.
    low, high = (points(end if is_share else end - 1) for end in figure["ci95"])
    change = points(figure["change"] if is_share else figure["change"] - 1)
    return {
        "name": name,
        "unit": "" if is_share else figure["unit"],
        "before": f"{percent(figure['old'])} %" if is_share else significant(figure["old"]),
        "now": f"{percent(figure['new'])} %" if is_share else significant(figure["new"]),
        "change": f"{change} {'points' if is_share else '%'}",
        "ends": (low, high),
        "p": p_value(figure["p_value"]) if is_share else "",
        "verdict": verdict,
        "kind": "worse" if verdict in WORSE else "better" if verdict in BETTER else "",
        "marks": figure["marks"],
    }
