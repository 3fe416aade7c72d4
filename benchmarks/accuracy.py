"""How right an engine is, alone and beside the TensorFlow it was made from."""

from typing import Any, Dict

import numpy as np

from benchmarks.statistics import mcnemar_exact, wilson_interval


def measure(predicted: np.ndarray, truth: np.ndarray, classes: int) -> Dict[str, Any]:
    """Accuracy of one engine.

    Args:
        predicted: (N,) int, the class numbers that it gave; N >= 1.
        truth: (N,) int, the right ones, 0..classes-1.
        classes: how many there are.

    Returns:
        "top1" (0..1), "ci95" (its 95 % interval), "n", and "confusion": a row for each true
        class, with how often each class was given.
    """
    right = int((predicted == truth).sum())
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    return {
        "top1": right / len(truth),
        "ci95": list(wilson_interval(right, len(truth))),
        "n": len(truth),
        "confusion": confusion.tolist(),
    }


def compare(predicted: np.ndarray, reference: np.ndarray, truth: np.ndarray) -> Dict[str, float]:
    """Hold one engine's answers against another's on the same pictures.

    Args:
        predicted, reference, truth: (N,) int class numbers; N >= 1.

    Returns:
        "agreement": share of pictures on which both gave the same class, right or wrong;
        "delta": top-1 of `predicted` minus that of `reference`, -1..1;
        "p_value": of the exact McNemar test that both are equally accurate.
    """
    right, reference_right = predicted == truth, reference == truth
    only = int((right & ~reference_right).sum())
    only_reference = int((~right & reference_right).sum())
    return {
        "agreement": float((predicted == reference).mean()),
        "delta": (only - only_reference) / len(truth),
        "p_value": mcnemar_exact(only, only_reference),
    }
