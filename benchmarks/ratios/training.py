"""Wall time of 400 training steps on bottlenecks that are there already."""

from pathlib import Path
from typing import List

from benchmarks.ratios.command import edgetrt, progress, scratch
from benchmarks.ratios.figure import Figure, amount

STEPS = 400
ROUNDS = 5


def measure(pictures: Path) -> List[Figure]:
    """Retrain once to compute the bottlenecks, then time the training of further runs.

    Opening the cache and importing what trains count; building the backbone does not.

    Args:
        pictures: a folder with one folder of pictures for each class.
    """
    seconds = []
    with scratch() as folder:
        for seed in range(ROUNDS + 1):
            progress("training: round {} of {}".format(seed, ROUNDS))
            # Another seed each time, or the stage would be skipped.
            result = edgetrt(
                "retrain", "--image-dir", pictures, "--run", folder / "run",
                "--how-many-training-steps", STEPS, "--seed", seed,
            ).result  # fmt: skip
            laps = result["seconds"]
            if not result["computed"]:
                seconds.append(laps["bottlenecks"] + laps["training"])
    name = "{} training steps on warm bottlenecks, load included".format(STEPS)
    return [amount(name, "s", seconds, 5)]
