"""Accuracy of one engine, and of two beside each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.accuracy import compare, measure
from benchmarks.statistics import mcnemar_exact


def test_a_handful_of_pictures() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 1])
    found = measure(predicted, truth, 3)
    assert found["top1"] == 0.5
    assert found["n"] == 6
    assert found["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    low, high = found["ci95"]
    assert low < 0.5 < high


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=60))
def test_two_engines(answers: list[tuple[int, int, int]]) -> None:
    truth, first, second = np.array(answers).T
    found = compare(first, second, truth)
    tops = [measure(predicted, truth, 4)["top1"] for predicted in (first, second)]
    assert found["delta"] == pytest.approx(tops[0] - tops[1])
    assert found["agreement"] == sum(a == b for a, b in zip(first, second, strict=True)) / len(
        truth
    )
    only_first = sum(a == t != b for t, a, b in answers)
    only_second = sum(b == t != a for t, a, b in answers)
    assert found["p_value"] == mcnemar_exact(only_first, only_second)
    back = compare(second, first, truth)
    assert back["delta"] == -found["delta"]
    assert back["p_value"] == found["p_value"]
    assert np.sum(measure(first, truth, 4)["confusion"]) == len(truth)
