"""Intervals and p-values against their definitions, in exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics import Z95, mcnemar_exact, summarize, wilson_interval


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
    found = summarize(seconds)
    assert found["n"] == len(seconds)
    assert min(seconds) * 999.999 <= found["p50"] <= found["p90"] <= found["p99"]
    assert found["p99"] <= max(seconds) * 1000.001
    assert found["mean"] == pytest.approx(1e3 * math.fsum(seconds) / len(seconds))


def test_summary_of_known_numbers() -> None:
    found = summarize([n / 1000 for n in range(101)])
    assert found == pytest.approx({"p50": 50, "p90": 90, "p99": 99, "mean": 50, "n": 101})
