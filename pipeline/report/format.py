"""Measured figures as people read them; an em dash where nothing was measured."""

import math
from typing import Any, TypeGuard

NOT_MEASURED = "—"
SIGNIFICANT = 0.05  # a p-value below this is called a real difference


def measured(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite number (neither null, absent, NaN nor infinite)."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(value: Any, spec: str = ",") -> str:
    """`value` by format specification `spec`, with a true minus sign."""
    return format(value, spec).replace("-", "−") if measured(value) else NOT_MEASURED


def significant(value: Any) -> str:
    """`value` to three significant digits, without exponent: 0.0123, 4.57, 23.1, 1,234."""
    if not measured(value):
        return NOT_MEASURED
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    return number(value, f",.{min(max(0, 2 - magnitude), 9)}f")


def percent(fraction: Any) -> str:
    """A fraction 0..1 as percent with one decimal, without the sign: 0.873 -> 87.3."""
    return number(100 * fraction, ".1f") if measured(fraction) else NOT_MEASURED


def interval(bounds: Any) -> str:
    """A pair of fractions as a range in percent: [0.845, 0.896] -> 84.5–89.6."""
    if not bounds or not all(measured(bound) for bound in bounds):
        return NOT_MEASURED
    return f"{percent(bounds[0])}–{percent(bounds[1])}"


def span(bounds: Any) -> str:
    """A pair of figures as a range: [4.181, 4.62] -> 4.18–4.62."""
    if not bounds or not all(measured(bound) for bound in bounds):
        return NOT_MEASURED
    return f"{significant(bounds[0])}–{significant(bounds[1])}"


def points(delta: Any) -> str:
    """A difference of fractions in signed percentage points: 0.003 -> +0.3."""
    if not measured(delta):
        return NOT_MEASURED
    rounded = round(100 * delta, 1)
    return number(rounded, "+.1f") if rounded else "0.0"


def points_span(bounds: Any) -> str:
    """A pair of differences of fractions as a range: [-0.009, 0.015] -> −0.9 to +1.5."""
    if not bounds or not all(measured(bound) for bound in bounds):
        return NOT_MEASURED
    return f"{points(bounds[0])} to {points(bounds[1])}"


def p_value(p: Any) -> str:
    """A p-value with its sign of relation: "= 0.61", "= 0.004", "< 0.001"."""
    if not measured(p):
        return f"= {NOT_MEASURED}"
    if p < 0.001:
        return "< 0.001"
    # Two decimals, but never so few that 0.049 and 0.051 look the same.
    return f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def megabytes(size: Any) -> str:
    """Bytes in units of 10^6 bytes: 3600000 -> 3.60."""
    return significant(size / 1e6) if measured(size) else NOT_MEASURED


def counted(count: int, noun: str, plural: str = "") -> str:
    """`count` and its noun: 1 picture, 2,624 pictures."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shortened(text: str, length: int) -> str:
    """`text`, cut to at most `length` characters; an ellipsis stands for the rest."""
    return text if len(text) <= length else text[: length - 1] + "…"


def ending(text: str, length: int) -> str:
    """The end of a path of at most `length` characters; an ellipsis stands for the rest."""
    if len(text) <= length:
        return text
    part, slash, whole = text[1 - length :].partition("/")
    return f"…/{whole}" if slash else f"…{part}"
