"""Training times: the lab's own way against `edgetrt retrain`, from pictures to last layer."""

import json
import sys
from pathlib import Path
from typing import Any, Dict, List

from benchmarks.peers.run_folder import RunFolder
from benchmarks.progress import Console
from benchmarks.ratios.command import Finished, edgetrt, scratch, timed

ROUNDS = 3
WAYS = {
    "poets": "TensorFlow for Poets' way: text files, one picture at a time",
    "edgetrt retrain": "this program, from an empty run folder",
}


def measure(run: RunFolder, rounds: int, console: Console) -> List[Dict[str, Any]]:
    """Train the run's last layer again both ways in turns, each from cold caches.

    Both are commands of their own, and take as many steps.

    Returns:
        For each way "name", "what", and of the rounds: "bottlenecks", "training" and "whole", in
        seconds, the whole with the start of the program and all that belongs to it; "top1" of
        the test split, and "ci95" and "n" of the last.

    Raises:
        RuntimeError: one of them failed; holds what it printed.
    """
    options = run.retrained
    found: Dict[str, List[Finished]] = {name: [] for name in WAYS}
    with console.progress("training", 2 * rounds, "turns") as advance:
        for _ in range(rounds):
            with scratch() as folder:
                found["poets"].append(_poets(run, folder, options))
                advance(1)
                found["edgetrt retrain"].append(_retrain(run, folder / "run", options))
                advance(1)
    return [dict(_row(found[name]), name=name, what=what) for name, what in WAYS.items()]


def _poets(run: RunFolder, folder: Path, options: Dict[str, Any]) -> Finished:
    done = timed(
        [
            sys.executable, "-m", "benchmarks.peers.poets", "--run", str(run.folder),
            "--pictures", str(run.pictures), "--bottlenecks", str(folder / "bottlenecks"),
            "--steps", str(options["steps"]), "--seed", str(options["seed"]),
        ]
    )  # fmt: skip
    return done._replace(result=json.loads(done.result))


def _retrain(run: RunFolder, folder: Path, options: Dict[str, Any]) -> Finished:
    return edgetrt(
        "retrain", "--image-dir", run.pictures, "--run", folder,
        "--architecture", options["architecture"], "--weights", options["weights"],
        "--how-many-training-steps", options["steps"],
        "--learning-rate", options["learning_rate"],
        "--train-batch-size", options["batch_size"], "--seed", options["seed"],
        "--testing-percentage", options["testing"],
        "--validation-percentage", options["validation"],
    )  # fmt: skip


def _row(rounds: List[Finished]) -> Dict[str, Any]:
    last = rounds[-1].result
    return {
        "bottlenecks": [done.result["seconds"]["bottlenecks"] for done in rounds],
        "training": [done.result["seconds"]["training"] for done in rounds],
        "whole": [done.seconds for done in rounds],
        "top1": [done.result["top1"] for done in rounds],
        "ci95": last["ci95"],
        "n": last["n"],
    }
