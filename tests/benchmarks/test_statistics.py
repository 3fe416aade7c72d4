"""Intervals and p-values against their definitions, in exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics import (
    Z95,
    block_percentile,
    block_weights,
    interval,
    mann_kendall,
    mcnemar_exact,
    percentiles,
    rank_interval,
    theil_sen,
    wilson_interval,
)


@given(st.integers(1, 5000), st.data())
def test_wilson_bounds_are_where_the_score_test_just_rejects(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    share = successes / n
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    for bound in (low, high):
        if 1e-9 < bound < 1 - 1e-9:
            score = abs(share - bound) / math.sqrt(bound * (1 - bound) / n)
            assert score == pytest.approx(Z95, rel=1e-6)


def test_wilson_covers_the_truth_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    for truth, n in ((0.5, 30), (0.86, 100), (0.97, 300)):
        drawn = random.binomial(n, truth, 4000)
        covered = [
            low <= truth <= high for low, high in (wilson_interval(int(k), n) for k in drawn)
        ]
        assert 0.92 < np.mean(covered) < 0.98


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial_test(a: int, b: int) -> None:
    n = a + b
    tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(min(a, b) + 1))
    assert mcnemar_exact(a, b) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-9)


def test_mcnemar_of_many_pictures() -> None:
    assert 0 <= mcnemar_exact(0, 100_000) < 1e-300
    assert mcnemar_exact(50_000, 50_000) == 1


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=50))
def test_summary_is_in_order_and_in_milliseconds(seconds: list[float]) -> None:
    found = percentiles(seconds)
    assert found["n"] == len(seconds)
    assert min(seconds) * 999.999 <= found["p50"] <= found["p90"] <= found["p99"]
    assert found["p99"] <= max(seconds) * 1000.001
    assert found["mean"] == pytest.approx(1e3 * math.fsum(seconds) / len(seconds))


def test_summary_of_known_numbers() -> None:
    found = percentiles([n / 1000 for n in range(101)])
    assert found == pytest.approx({"p50": 50, "p90": 90, "p99": 99, "mean": 50, "n": 101})


def test_each_resample_has_as_many_blocks_as_there_are() -> None:
    weights = block_weights(7)
    assert weights.shape == (1000, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == block_weights(7)).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.15)


@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=8), min_size=1, max_size=6),
    st.sampled_from([1.0, 50.0, 90.0, 99.0, 100.0]),
)
def test_percentile_of_resamples_is_that_of_the_blocks_written_out(
    blocks: list[list[float]], percent: float
) -> None:
    weights = block_weights(len(blocks), 20)
    found = block_percentile(blocks, percent, weights)
    for row, value in zip(weights, found, strict=True):
        drawn = [v for count, block in zip(row, blocks, strict=True) for v in block * count]
        rank = max(1, math.ceil(percent / 100 * len(drawn)))
        assert value == sorted(drawn)[rank - 1]


def test_interval_covers_the_truth_of_correlated_measurements() -> None:
    """Turns that are slow or fast as a whole: drawn one by one, the interval would be too short."""
    random = np.random.default_rng(2)
    covered = []
    for _ in range(200):
        levels = random.normal(10, 1, 20)
        blocks = [level + random.normal(0, 0.1, 30) for level in levels]
        value = float(np.median(np.concatenate(blocks)))
        low, high = interval(block_percentile(blocks, 50, block_weights(20)), value)
        assert low <= value <= high
        covered.append(low <= 10 <= high)
    assert 0.88 < np.mean(covered) <= 1


def test_slope_withstands_outliers() -> None:
    moments = np.arange(20.0)
    values = 3 * moments + 7
    values[[3, 8, 15]] = 1000
    assert theil_sen(moments, values) == pytest.approx(3, abs=0.2)
    assert theil_sen([5.0], [1.0]) == 0


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12))
def test_slope_is_between_those_of_the_pairs(values: list[float]) -> None:
    moments = np.arange(len(values)) ** 1.5
    slopes = [
        (values[j] - values[i]) / (moments[j] - moments[i])
        for i in range(len(values))
        for j in range(i + 1, len(values))
    ]
    slope = theil_sen(moments, values)
    assert min(slopes) <= slope <= max(slopes)
    assert theil_sen(moments, [-value for value in values]) == pytest.approx(-slope, abs=1e-9)


def test_trend_worked_by_hand() -> None:
    """Of the 6 pairs 5 rise and 1 falls: S = 4, its variance 26 / 3, Z = 3 / sqrt(26 / 3)."""
    assert mann_kendall([10, 15, 14, 20]) == pytest.approx(math.erfc(1.01905 / math.sqrt(2)), 1e-4)


def test_trend() -> None:
    assert mann_kendall(range(20)) < 1e-6
    assert mann_kendall([-n for n in range(20)]) == mann_kendall(range(20))
    assert mann_kendall([1.0] * 20) == 1
    assert mann_kendall([1, 2, 3]) == 1
    random = np.random.default_rng(5)
    p_values = [mann_kendall(random.normal(size=20)) for _ in range(1000)]
    assert 0.03 < np.mean(np.array(p_values) < 0.05) < 0.07


@pytest.mark.parametrize(("percent", "n"), [(50.0, 60), (90.0, 60), (90.0, 1024), (99.0, 1024)])
def test_interval_of_ranks_covers_the_truth_95_times_in_100(percent: float, n: int) -> None:
    random = np.random.default_rng(7)
    truth = percent / 100  # of numbers drawn evenly from 0 to 1
    bounds = [rank_interval(random.random(n), percent) for _ in range(1000)]
    assert 0.93 < np.mean([low <= truth <= high for low, high in bounds]) <= 1


@given(st.lists(st.floats(0, 9), min_size=1, max_size=30), st.sampled_from([50.0, 90.0, 99.0]))
def test_interval_of_ranks_is_of_the_values(values: list[float], percent: float) -> None:
    low, high = rank_interval(np.array(values), percent)
    assert low in values and high in values
    assert low <= np.percentile(values, percent, method="inverted_cdf") <= high
