"""Time and memory of ten times the pictures."""

import shutil
from pathlib import Path
from typing import List

from benchmarks.ratios.command import Finished, edgetrt, progress, scratch
from benchmarks.ratios.figure import Figure, ratio

TIMES = 10


def measure(pictures: Path) -> List[Figure]:
    """Retrain on all pictures, and on ten different copies of each.

    Args:
        pictures: a folder with one folder of pictures for each class.
    """
    with scratch() as folder:
        many = folder / "many"
        _multiply(pictures, many)
        progress("growth: the pictures as they are")
        one = _retrain(pictures, folder / "one")
        progress("growth: {} times as many".format(TIMES))
        ten = _retrain(many, folder / "ten")
    sides = [ten.seconds], [one.seconds]
    peaks = [ten.peak_bytes / 2**20], [one.peak_bytes / 2**20]
    counted = "{} times the pictures: ".format(TIMES)
    return [
        ratio(counted + "wall time of retrain", "s", *sides, goal=10.5, at_least=False),
        ratio(counted + "peak memory of retrain", "MiB", *peaks, goal=1.2, at_least=False),
    ]


def _retrain(pictures: Path, run: Path) -> Finished:
    return edgetrt("retrain", "--image-dir", pictures, "--run", run)


def _multiply(pictures: Path, many: Path) -> None:
    """Copy every picture ten times, each with other bytes behind the picture's end."""
    for source in sorted(pictures.glob("*/*.*")):
        target = many / source.parent.name
        target.mkdir(parents=True, exist_ok=True)
        for number in range(TIMES):
            copy = target / "{}-{}".format(number, source.name)
            shutil.copyfile(str(source), str(copy))
            with copy.open("ab") as opened:
                opened.write(b"%d" % number)
