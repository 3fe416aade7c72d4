"""What is to be measured, as it is typed on a command line, on the host and on a device alike."""

import argparse
from typing import List, Tuple

from benchmarks.scenarios import DEFAULT, QUICK, SCENARIOS, Work


def add_work(parser: argparse.ArgumentParser) -> None:
    """Give a command the flags of `Work`."""
    parser.add_argument(
        "--scenario",
        metavar="NAMES",
        type=_scenarios,
        default=DEFAULT,
        help="{} (with commas; {})".format(", ".join(SCENARIOS), ",".join(DEFAULT)),
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure for seconds, not minutes; the results are marked, and prove nothing",
    )


def work_of(args: argparse.Namespace) -> Work:
    """What the flags of `add_work` ask for."""
    return Work(args.scenario, QUICK) if args.quick else Work(args.scenario)


def flags_of(work: Work) -> List[str]:
    """What to type for some work; nothing for what is so by default."""
    scenario = [] if work.scenarios == DEFAULT else ["--scenario", ",".join(work.scenarios)]
    return scenario + (["--quick"] if work.effort == QUICK else [])


def _scenarios(text: str) -> Tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in SCENARIOS:
            raise argparse.ArgumentTypeError(
                "it takes {}; received {}".format(", ".join(SCENARIOS), name)
            )
    return tuple(name for name in SCENARIOS if name in names)
