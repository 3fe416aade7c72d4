"""Accuracy of one engine, and of two beside each other."""

import json
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.accuracy import (
    calibration_error,
    compare,
    disagreements,
    measure,
    misclassified,
    paired,
    top1,
)
from benchmarks.statistics import mcnemar_exact, paired_interval

CLASSES = 4


def rows(*shares: list[float]) -> np.ndarray:
    return np.array(shares, np.float32)


def sure(numbers: list[int] | np.ndarray, classes: int) -> np.ndarray:
    """The answers of an engine that has no doubts."""
    return np.eye(classes, dtype=np.float32)[numbers]


def some(seed: int, count: int, classes: int = CLASSES, sharp: float = 2) -> np.ndarray:
    """Random answers."""
    powers = np.exp(np.random.default_rng(seed).normal(0, sharp, (count, classes)))
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def random_truth(seed: int, count: int, classes: int = CLASSES) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, count)


SEEDS = st.integers(0, 2**16)
COUNTS = st.integers(1, 60)


# One engine


def test_a_handful_of_pictures() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2])
    found = measure(sure([0, 0, 1, 1, 0, 1], 3), truth, 3)
    assert found["top1"] == 0.5
    assert found["n"] == 6
    assert found["top5"] is None
    assert found["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert found["per_class"] == [
        {"precision": 2 / 3, "recall": 2 / 3, "support": 3},
        {"precision": 1 / 3, "recall": 1 / 2, "support": 2},
        {"precision": None, "recall": 0.0, "support": 1},
    ]
    assert found["calibration_error"] == 0.5
    low, high = found["ci95"]
    assert low < 0.5 < high
    assert top1(np.array([0, 0, 1, 1, 0, 1]), truth) == {
        key: found[key] for key in ("top1", "ci95", "n")
    }


def test_class_without_a_picture_has_no_recall() -> None:
    assert measure(sure([1, 0], 2), np.array([0, 0]), 2)["per_class"][1] == {
        "precision": 0.0,
        "recall": None,
        "support": 0,
    }


def test_top5_by_hand() -> None:
    falling = [0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05]
    answers = rows(*[falling] * 4)
    assert measure(answers, np.array([0, 4, 5, 6]), 7)["top5"] == 0.5
    assert measure(answers[:, :6], np.array([0, 4, 5, 1]), 6)["top5"] == 0.75


def test_top5_of_an_engine_that_can_not_tell() -> None:
    # All ten classes are equally likely: the first counts as the likeliest, as for top-1.
    found = measure(np.full((10, 10), 0.1, np.float32), np.arange(10), 10)
    assert (found["top1"], found["top5"]) == (0.1, 0.5)


def test_calibration_error_by_hand() -> None:
    # 0.9 twice, one of them right: |1 - 1.8|; 0.6 once, right: |1 - 0.6|; over three pictures.
    answers = rows([0.9, 0.1], [0.1, 0.9], [0.4, 0.6])
    assert calibration_error(answers, np.array([0, 0, 1])) == pytest.approx((0.8 + 0.4) / 3)


def test_too_sure_and_not_sure_enough_do_not_cancel_out() -> None:
    # Right at 0.55 and wrong at 0.45 more lie in different bins.
    answers = rows([0.55, 0.45], [0.95, 0.05])
    assert calibration_error(answers, np.array([0, 1])) == pytest.approx((0.45 + 0.95) / 2)


@pytest.mark.parametrize(("share", "right"), [(0.5, 5), (0.6, 6), (0.7, 7), (0.8, 8), (1.0, 10)])
def test_perfect_calibration(share: float, right: int) -> None:
    answers = rows(*[[share, 1 - share]] * 10)
    truth = np.array([0] * right + [1] * (10 - right))
    assert calibration_error(answers, truth) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("edge", "beside"), [(9 / 15, 9.5 / 15), (9 / 15, 8.5 / 15)])
def test_edge_of_a_bin(edge: float, beside: float) -> None:
    # Bins are open below and closed above, (8/15, 9/15]: two errors in one bin cancel out.
    answers = rows([edge - 1e-6, 1 - edge], [beside, 1 - beside])
    truth = np.array([0, 1])
    apart = (abs(1 - edge) + beside) / 2
    together = abs(1 - edge - beside) / 2
    expected = together if beside < edge else apart
    assert calibration_error(answers, truth) == pytest.approx(expected, abs=1e-5)


@given(SEEDS, COUNTS, st.integers(2, 9))
def test_one_engine(seed: int, count: int, classes: int) -> None:
    answers, truth = some(seed, count, classes), random_truth(seed + 1, count, classes)
    found = measure(answers, truth, classes)
    low, high = found["ci95"]
    assert 0 <= low <= found["top1"] <= high <= 1
    assert found["top1"] == (answers.argmax(1) == truth).mean()
    assert np.sum(found["confusion"]) == count
    assert 0 <= found["calibration_error"] <= 1
    supports = [one["support"] for one in found["per_class"]]
    assert supports == np.bincount(truth, minlength=classes).tolist()
    weighted = sum((one["recall"] or 0) * one["support"] for one in found["per_class"])
    assert weighted / count == pytest.approx(found["top1"])
    given_each = np.bincount(answers.argmax(1), minlength=classes)
    for one, times in zip(found["per_class"], given_each, strict=True):
        assert (one["precision"] is None) == (times == 0)
        assert (one["recall"] is None) == (one["support"] == 0)
    if classes > 5:
        best = [truth[i] in np.argsort(-answers[i])[:5] for i in range(count)]
        assert found["top5"] == np.mean(best) >= found["top1"]
    else:
        assert found["top5"] is None
    json.dumps(found, allow_nan=False)


@given(SEEDS, COUNTS)
def test_sure_engine_is_wrong_by_its_mistakes(seed: int, count: int) -> None:
    answers = sure(random_truth(seed, count), CLASSES)
    found = measure(answers, random_truth(seed + 1, count), CLASSES)
    assert found["calibration_error"] == pytest.approx(1 - found["top1"])


def test_probability_above_one_by_a_hair() -> None:
    answers = rows([np.nextafter(np.float32(1), np.float32(2)), 0.0])
    assert calibration_error(answers, np.array([1])) == 1.0


def test_mistakes_the_surest_first() -> None:
    answers = rows([0.4, 0.6], [0.9, 0.1], [0.2, 0.8])
    found = misclassified(answers, np.array([0, 0, 0]), ["a", "b", "c"], ["cat", "dog"])
    assert [(m["path"], m["truth"], m["predicted"]) for m in found] == [
        ("c", "cat", "dog"),
        ("a", "cat", "dog"),
    ]
    assert found[0]["probability"] == pytest.approx(0.8)


# Two engines


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=60))
def test_two_engines(answers: list[tuple[int, int, int]]) -> None:
    truth, first, second = np.array(answers).T
    found = compare(sure(first, CLASSES), sure(second, CLASSES), truth)
    tops = [top1(predicted, truth)["top1"] for predicted in (first, second)]
    assert found["delta"] == pytest.approx(tops[0] - tops[1])
    assert found["agreement"] == sum(a == b for a, b in zip(first, second, strict=True)) / len(
        truth
    )
    only_first = sum(a == t != b for t, a, b in answers)
    only_second = sum(b == t != a for t, a, b in answers)
    assert found["p_value"] == mcnemar_exact(only_first, only_second)
    low, high = found["delta_ci95"]
    assert -1 <= low <= found["delta"] <= high <= 1
    assert found["max_difference"] == float((first != second).any())
    assert paired(first, second, truth) == {
        key: found[key] for key in ("agreement", "delta", "p_value")
    }


@given(SEEDS, COUNTS)
def test_the_other_way_round(seed: int, count: int) -> None:
    first, second, truth = some(seed, count), some(seed + 1, count), random_truth(seed, count)
    found, back = compare(first, second, truth), compare(second, first, truth)
    assert back["delta"] == -found["delta"]
    for key in ("agreement", "p_value", "max_difference", "mean_difference"):
        assert back[key] == found[key]
    low, high = found["delta_ci95"]
    # Drawn anew, by chance a picture or two apart.
    assert back["delta_ci95"] == pytest.approx([-high, -low], abs=3 / count)


@given(SEEDS, COUNTS)
def test_beside_itself(seed: int, count: int) -> None:
    answers = some(seed, count)
    bound = min(1.0, 1.959964 * np.sqrt(2) / (count + 2))  # what none among so many still allows
    found = compare(answers, answers, random_truth(seed, count))
    assert found.pop("delta_ci95") == pytest.approx([-bound, bound], abs=1e-6)
    assert found == {
        "agreement": 1.0,
        "delta": 0.0,
        "p_value": 1.0,
        "max_difference": 0.0,
        "mean_difference": 0.0,
    }


def test_differences_of_probabilities_by_hand() -> None:
    found = compare(rows([0.9, 0.1], [0.5, 0.5]), rows([0.6, 0.4], [0.5, 0.5]), np.array([0, 0]))
    assert found["max_difference"] == pytest.approx(0.3, abs=1e-6)
    assert found["mean_difference"] == pytest.approx(0.15, abs=1e-6)


def test_interval_by_hand() -> None:
    # (11 - 1) / 102, and 1.96 standard errors of sqrt(12 / 102 - (10 / 102) ** 2) / sqrt(102).
    assert paired_interval(10, 0, 100) == pytest.approx((0.0343, 0.1618), abs=1e-4)


@given(st.integers(1, 2000), st.data())
def test_interval_holds_what_was_seen_and_grows_with_what_differs(
    n: int, data: st.DataObject
) -> None:
    more = data.draw(st.integers(0, n))
    fewer = data.draw(st.integers(0, n - more))
    low, high = paired_interval(more, fewer, n)
    assert -1 <= low <= (more - fewer) / n <= high <= 1
    assert paired_interval(fewer, more, n) == pytest.approx((-high, -low))
    if more + fewer + 2 <= n:  # one more of each kind: the same difference, less sure
        wider = paired_interval(more + 1, fewer + 1, n)
        assert wider[0] <= low + 1e-12 and wider[1] >= high - 1e-12


@pytest.mark.parametrize(("more", "fewer"), [(300, 200), (50, 50), (0, 400)])
def test_interval_of_many_pictures_is_the_normal_one(more: int, fewer: int) -> None:
    n = 5000
    delta = (more - fewer) / n
    spread = np.sqrt(((more + fewer) / n - delta**2) / n)
    expected = (delta - 1.96 * spread, delta + 1.96 * spread)
    assert paired_interval(more, fewer, n) == pytest.approx(expected, abs=0.15 * spread)


@pytest.mark.parametrize(
    ("n", "shares"),
    [(400, (0.1, 0.06)), (637, (0.03, 0.03)), (637, (0.004, 0.0)), (50, (0.04, 0.0)),
     (26, (0.1, 0.05)), (100, (0.0, 0.0))],
)  # fmt: skip
def test_interval_covers_the_truth_as_often_as_it_says(n: int, shares: tuple[float, float]) -> None:
    random = np.random.default_rng(0)
    truth = shares[0] - shares[1]
    drawn = random.multinomial(n, [*shares, 1 - sum(shares)], 4000)
    intervals = [paired_interval(int(more), int(fewer), n) for more, fewer, _ in drawn]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert covered >= 0.945  # 95 %, less two standard errors of the simulation


def test_a_hundred_thousand_pictures_in_a_blink() -> None:
    count = 100_000
    first, second = some(0, count, 10), some(1, count, 10)
    truth = random_truth(2, count, 10)
    start = time.perf_counter()
    found = compare(first, second, truth)
    assert time.perf_counter() - start < 2
    assert found["delta_ci95"][1] - found["delta_ci95"][0] < 0.01


# Where they differ


def test_those_with_another_class_come_first() -> None:
    reference = rows([0.9, 0.1], [0.55, 0.45], [0.6, 0.4], [0.2, 0.8])
    answers = {
        "tensorflow": reference,
        "near": rows([0.9, 0.1], [0.45, 0.55], [0.6, 0.4], [0.2, 0.8]),
        "far": rows([0.55, 0.45], [0.51, 0.49], [0.3, 0.7], [0.2, 0.8]),
    }
    found = disagreements(answers, "tensorflow")
    # The last picture is answered alike by all. Of picture 1 both are 0.1 or less away, and the
    # one that names another class is told of.
    assert [(place, name) for place, name, _ in found] == [(2, "far"), (1, "near"), (0, "far")]
    assert [distance for *_, distance in found] == pytest.approx([0.3, 0.1, 0.35], abs=1e-6)
    assert disagreements(answers, "tensorflow", most=1) == found[:1]


def test_another_class_counts_for_more_than_distance() -> None:
    answers = {
        "tensorflow": rows([0.51, 0.49]),
        "surer": rows([0.99, 0.01]),
        "other": rows([0.49, 0.51]),
    }
    [(place, name, distance)] = disagreements(answers, "tensorflow")
    assert (place, name) == (0, "other")
    assert distance == pytest.approx(0.02, abs=1e-6)


def test_nobody_to_differ() -> None:
    answers = some(0, 5)
    assert disagreements({"tensorflow": answers}, "tensorflow") == []
    assert disagreements({"tensorflow": answers, "same": answers.copy()}, "tensorflow") == []


@given(SEEDS, COUNTS, st.integers(1, 4))
def test_disagreements(seed: int, count: int, engines: int) -> None:
    reference = some(seed, count)
    others = {str(i): some(seed + i + 1, count) for i in range(engines)}
    found = disagreements({"reference": reference, **others}, "reference")
    places = [place for place, *_ in found]
    assert len(places) == len(set(places)) == min(12, count)
    expected = reference.argmax(1)
    keys = []
    for place, name, distance in found:
        by_hand = np.abs(others[name][place] - reference[place]).sum() / 2
        assert distance == pytest.approx(by_hand, abs=1e-6)
        assert 0 < distance <= 1
        keys.append((others[name][place].argmax() != expected[place], distance))
    assert all(one >= other for one, other in pairwise(keys))


def test_farthest_is_one() -> None:
    answers = {"reference": sure([0], 2), "other": sure([1], 2)}
    assert disagreements(answers, "reference") == [(0, "other", 1.0)]
