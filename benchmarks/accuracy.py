"""How right an engine is, alone and beside the TensorFlow it was made from."""

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from benchmarks.statistics import mcnemar_exact, paired_interval, wilson_interval

TOP = 5  # classes, of which one must be the right one
BINS = 15  # of the calibration error, as in Guo et al.


def top1(predicted: np.ndarray, truth: np.ndarray) -> Dict[str, Any]:
    """How often the likeliest class is the right one.

    Args:
        predicted, truth: (N,) int class numbers, as given and as they are; N >= 1.

    Returns:
        "top1" (0..1), "ci95" (its 95 % interval, Wilson's), and "n".
    """
    right = int((predicted == truth).sum())
    return {
        "top1": right / len(truth),
        "ci95": list(wilson_interval(right, len(truth))),
        "n": len(truth),
    }


def paired(predicted: np.ndarray, reference: np.ndarray, truth: np.ndarray) -> Dict[str, float]:
    """Hold the classes that one engine gives against another's, picture by picture.

    Args:
        predicted, reference, truth: (N,) int class numbers; N >= 1.

    Returns:
        "agreement": share of pictures on which both gave the same class, right or wrong;
        "delta": top-1 of `predicted` minus that of `reference`, -1..1;
        "p_value": of the exact McNemar test that both are equally accurate.
    """
    only, only_reference = _only_one_right(predicted, reference, truth)
    return {
        "agreement": float((predicted == reference).mean()),
        "delta": (only - only_reference) / len(truth),
        "p_value": mcnemar_exact(only, only_reference),
    }


def measure(answers: np.ndarray, truth: np.ndarray, classes: int) -> Dict[str, Any]:
    """Accuracy of one engine.

    Args:
        answers: (N, classes) float32, the probabilities that it gave, finite; N >= 1. Of equal
            ones the first counts as the likelier.
        truth: (N,) int, the right class numbers, 0..classes-1.
        classes: how many there are.

    Returns:
        What `top1` does, and
        "top5": share of pictures whose class is among the five likeliest; None for five classes
        or fewer, of which it says nothing;
        "confusion": a row for each true class, with how often each class was given;
        "per_class": for each class "precision" (None if it was never given), "recall" (None if
        no picture is of it) and "support", how many pictures are of it;
        "calibration_error": see `calibration_error`.
    """
    predicted = answers.argmax(1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    return dict(
        top1(predicted, truth),
        top5=_top5(answers, truth) if classes > TOP else None,
        confusion=confusion.tolist(),
        per_class=[
            {
                "precision": _share(confusion[c, c], confusion[:, c].sum()),
                "recall": _share(confusion[c, c], confusion[c].sum()),
                "support": int(confusion[c].sum()),
            }
            for c in range(classes)
        ],
        calibration_error=calibration_error(answers, truth),
    )


def calibration_error(answers: np.ndarray, truth: np.ndarray) -> float:
    """How far an engine's certainty is from how often it is right: expected calibration error.

    Pictures go into 15 equal bins by the probability of their likeliest class; in each, the mean
    probability should be the share that is right. Sources: M. P. Naeini et al., "Obtaining Well
    Calibrated Probabilities Using Bayesian Binning", AAAI 2015; C. Guo et al., "On Calibration
    of Modern Neural Networks", ICML 2017, whose bins these are.

    Args:
        answers: (N, classes) float32 probabilities; N >= 1.
        truth: (N,) int class numbers.

    Returns:
        The mean difference over all pictures, 0 (perfect) .. 1.
    """
    certainty = answers.max(1).astype(np.float64)
    bins = np.clip(np.ceil(certainty * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, (answers.argmax(1) == truth) - certainty, BINS)
    # Probabilities are rounded to float32 and may pass 1 by a hair.
    return min(1.0, float(np.abs(gaps).sum()) / len(truth))


def compare(answers: np.ndarray, reference: np.ndarray, truth: np.ndarray) -> Dict[str, Any]:
    """Hold one engine's answers against another's on the same pictures.

    Args:
        answers, reference: (N, classes) float32 probabilities, finite; N >= 1.
        truth: (N,) int class numbers.

    Returns:
        What `paired` does of the likeliest classes, and
        "delta_ci95": the 95 % interval of "delta", as `paired_interval` gives it;
        "max_difference", "mean_difference": the largest and the mean absolute difference between
        two probabilities of the same class on the same picture, 0..1.
    """
    predicted, expected = answers.argmax(1), reference.argmax(1)
    only, only_reference = _only_one_right(predicted, expected, truth)
    difference = np.abs(answers - reference)
    return dict(
        paired(predicted, expected, truth),
        delta_ci95=list(paired_interval(only, only_reference, len(truth))),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean(dtype=np.float64)),
    )


def disagreements(
    answers: Dict[str, np.ndarray], reference_name: str, most: int = 12
) -> List[Tuple[int, str, float]]:
    """The pictures on which engines differ most from a reference.

    Args:
        answers: by engine, (N, classes) float32 probabilities of the same pictures.
        reference_name: the engine in `answers` to hold the others against.
        most: how many pictures at most.

    Returns:
        For each picture its place, the engine that differs most there, and by how much: the total
        variation distance, half the sum of all differences of probabilities, above 0 and up to 1.
        First those that get another class than the reference gives, the farthest first; then the
        others likewise.
    """
    reference = answers[reference_name]
    others = [name for name in answers if name != reference_name]
    if not others:
        return []
    expected = reference.argmax(1)
    distances = np.stack([_distance(answers[name], reference) for name in others])
    differ = np.stack([answers[name].argmax(1) != expected for name in others])
    # No distance is above 1: whoever gives another class comes before all who do not.
    rank = distances + 2 * differ
    engine, places = rank.argmax(0), np.arange(len(reference))
    order = np.argsort(-rank[engine, places], kind="mergesort")[:most]  # a stable one
    found = [(int(p), others[engine[p]], float(distances[engine[p], p])) for p in order]
    return [one for one in found if one[2] > 0]


def misclassified(
    answers: np.ndarray, truth: np.ndarray, names: Sequence[str], classes: Sequence[str]
) -> List[Dict[str, Any]]:
    """Pictures that get a wrong class, the surest mistakes first.

    Args:
        answers: (N, classes) float32 probabilities.
        truth: (N,) int class numbers.
        names: of the N pictures.
        classes: their names.

    Returns:
        For each "path" (its name), "truth" and "predicted" (names of classes), and "probability"
        of the latter.
    """
    predicted, sure = answers.argmax(1), answers.max(1)
    wrong = [
        {
            "path": names[place],
            "truth": classes[int(truth[place])],
            "predicted": classes[int(predicted[place])],
            "probability": float(sure[place]),
        }
        for place in np.flatnonzero(predicted != truth).tolist()
    ]
    return sorted(wrong, key=lambda mistake: -mistake["probability"])


def _only_one_right(
    predicted: np.ndarray, reference: np.ndarray, truth: np.ndarray
) -> Tuple[int, int]:
    """On how many pictures only the first is right, and on how many only the second."""
    right, reference_right = predicted == truth, reference == truth
    return int((right & ~reference_right).sum()), int((~right & reference_right).sum())


def _top5(answers: np.ndarray, truth: np.ndarray) -> float:
    own = answers[np.arange(len(truth)), truth][:, np.newaxis]
    first = np.arange(answers.shape[1]) < truth[:, np.newaxis]
    likelier = (answers > own) | ((answers == own) & first)
    return float((likelier.sum(1) < TOP).mean())


def _share(part: Any, whole: Any) -> Any:
    return int(part) / int(whole) if whole else None


def _distance(answers: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.minimum(np.abs(answers - reference).sum(1, dtype=np.float64) / 2, 1.0)
