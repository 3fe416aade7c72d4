"""The statistics that every figure in a report is given with."""

import math
from typing import Dict, List, Sequence, Tuple, Union

import numpy as np

Values = Union[Sequence[float], np.ndarray]

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
RESAMPLES = 1000  # of a bootstrap


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
    # Rounding must not leave out the share itself where it is 0 or 1.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


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


def paired_interval(only_first: int, only_second: int, n: int) -> Tuple[float, float]:
    """The 95 % interval of the difference in top-1 of two classifiers, asked the same pictures.

    By Wald, after one picture was added to each of the two kinds that tell the classifiers apart:
    so it holds for few pictures, and where only one of the two is ever right alone. Source:
    D. G. Bonett and R. M. Price, J. Educ. Behav. Stat. 37 (2012) 479, as M. W. Fagerland,
    S. Lydersen and P. Laake recommend it, Stat. Med. 33 (2014) 2850.

    Args:
        only_first: pictures that only the first gets right.
        only_second: pictures that only the second gets right.
        n: all pictures, at least 1.

    Returns:
        Lower and upper bound, -1..1.
    """
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    difference = first - second
    half = Z95 * math.sqrt((first + second - difference * difference) / (n + 2))
    return max(-1.0, difference - half), min(1.0, difference + half)


def percentiles(seconds: Values) -> Dict[str, float]:
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


def block_weights(blocks: int, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each block stands in each resample of a bootstrap; the same at each call.

    Blocks of neighbouring measurements are drawn whole, as neighbours are alike: drawn one by
    one, they would seem to say more than they do. Source: H. R. Kuensch, Ann. Statist. 17 (1989)
    1217, here with blocks that do not overlap.

    Returns:
        (resamples, blocks) int; each row sums to `blocks`.
    """
    random = np.random.RandomState(0)
    return random.multinomial(blocks, [1 / blocks] * blocks, size=resamples)


def block_percentile(blocks: Sequence[Values], percent: float, weights: np.ndarray) -> np.ndarray:
    """A percentile of each resample.

    Args:
        blocks: values, in blocks; none is empty.
        percent: 0..100; the nearest rank is taken.
        weights: as `block_weights` gives them for these blocks.

    Returns:
        (resamples,) float64.
    """
    values = np.concatenate([np.asarray(block, np.float64) for block in blocks])
    order = np.argsort(values, kind="mergesort")
    block_of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])[order]
    values = values[order]
    # To count through all values once for each resample takes seconds on a small board. So whole
    # pieces of them are counted first, and single values in the piece alone that has the rank.
    size = math.ceil(math.sqrt(len(values)))
    pieces = np.arange(len(values)) // size
    in_piece = np.zeros((pieces[-1] + 1, len(blocks)), np.int64)
    np.add.at(in_piece, (pieces, block_of), 1)
    reached = weights.dot(in_piece.cumsum(axis=0).T)
    wanted = np.maximum(np.ceil(percent / 100 * reached[:, -1:]), 1)
    piece = (reached < wanted).sum(axis=1)
    found = np.empty(len(weights))
    for number in np.unique(piece):
        rows = piece == number
        start = number * size
        before = reached[rows, number - 1] if number else np.zeros(rows.sum(), np.int64)
        inside = weights[rows][:, block_of[start : start + size]].cumsum(axis=1)
        places = (before[:, np.newaxis] + inside < wanted[rows]).sum(axis=1)
        found[rows] = values[start + places]
    return found


def rank_interval(values: np.ndarray, percent: float) -> Tuple[float, float]:
    """The 95 % interval of a percentile by the ranks that it may have, were all values unrelated.

    Source: W. J. Conover, Practical Nonparametric Statistics (1999), 3.2, by the normal
    approximation. Of too few values for a high percentile, the upper end is the largest, and less
    sure than that: of 60, one percent is less than one.

    Args:
        values: at least one.
        percent: 0..100.
    """
    n, share = len(values), percent / 100
    spread = Z95 * math.sqrt(n * share * (1 - share))
    low, high = math.floor(n * share - spread), math.ceil(n * share + spread)
    places = np.clip([low, high], 0, n - 1)
    first, second = np.partition(values, places)[places]
    return float(first), float(second)


def interval(resampled: np.ndarray, value: float) -> List[float]:
    """The 95 % interval of what was resampled, which holds the value itself.

    Args:
        resampled: (resamples,); value: the same figure of the measurements as they are.
    """
    low, high = np.percentile(resampled, [2.5, 97.5])
    return [min(float(low), value), max(float(high), value)]


def theil_sen(moments: Values, values: Values) -> float:
    """The slope of a line through points: the median of those of all pairs of them.

    One point in four may be an outlier without moving it far. Source: P. K. Sen, J. Am. Stat.
    Assoc. 63 (1968) 1379.

    Args:
        moments: of the values; no two are the same.
        values: as many; 0 is the slope of fewer than two.
    """
    x, y = np.asarray(moments, np.float64), np.asarray(values, np.float64)
    first, second = np.triu_indices(len(x), 1)
    if not len(first):
        return 0.0
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def mann_kendall(values: Values) -> float:
    """Two-sided p-value that values in order have no trend, by the normal approximation.

    Source: H. B. Mann, Econometrica 13 (1945) 245; the variance with ties and the correction for
    continuity are M. G. Kendall's (Rank Correlation Methods, 1975).

    Returns:
        p, 0..1; 1.0 for fewer than 4 values, which could show none.
    """
    y = np.asarray(values, np.float64)
    n = len(y)
    if n < 4:
        return 1.0
    first, second = np.triu_indices(n, 1)
    score = float(np.sign(y[second] - y[first]).sum())
    ties = np.unique(y, return_counts=True)[1].astype(np.float64)
    spread = n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())
    if not spread or not score:
        return 1.0
    z = (abs(score) - 1) / math.sqrt(spread / 18)
    return math.erfc(z / math.sqrt(2))
