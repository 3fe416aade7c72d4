"""The statistics that every figure in a report is given with."""

import math
from typing import Dict, Sequence, Tuple

import numpy as np

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def wilson_interval(successes: int, n: int) -> Tuple[float, float]:
    """The 95 % interval of a proportion, by Wilson's score.

    It holds near 0 and 1 and for few trials, where the usual plus or minus does not.
    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.

    Args:
        successes: 0..n.
        n: number of trials, at least 1.

    Returns:
        Lower and upper bound, 0..1.
    """
    share = successes / n
    square = Z95 * Z95
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value that two classifiers, asked the same pictures, are equally good.

    Only pictures that one of them gets right and the other wrong count; under the null
    hypothesis each of these is a fair coin. Source: Q. McNemar, Psychometrika 12 (1947) 153,
    in its exact binomial form.

    Args:
        only_first: pictures that only the first gets right.
        only_second: pictures that only the second gets right.

    Returns:
        p, 0..1; 1.0 where they never differ.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * sum(math.exp(value) for value in logs))


def summarize(seconds: Sequence[float]) -> Dict[str, float]:
    """Percentiles and mean of durations.

    Args:
        seconds: at least one duration.

    Returns:
        "p50", "p90", "p99" and "mean" in milliseconds, and "n".
    """
    milliseconds = np.asarray(seconds, np.float64) * 1e3
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    return {
        "p50": float(p50),
        "p90": float(p90),
        "p99": float(p99),
        "mean": float(milliseconds.mean()),
        "n": len(milliseconds),
    }
