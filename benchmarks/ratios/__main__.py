"""`python -m benchmarks.ratios [NAME ...]`: measure, and print each figure beside its goal."""

import argparse
import importlib
import json
import sys
from pathlib import Path

MEASUREMENTS = ("startup", "bottlenecks", "training", "growth", "quality", "overhead")


def main() -> int:
    """Run the measurements asked for; returns 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratios", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--pictures", type=Path, default=Path("data/elpv"))
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in MEASUREMENTS]
    if unknown:
        parser.error("{} is none of {}".format(unknown[0], ", ".join(MEASUREMENTS)))
    if not args.pictures.is_dir():
        parser.error("{}: no such folder; edgetrt dataset elpv --out data/elpv makes it".format(
            args.pictures))  # fmt: skip
    figures = []
    for name in args.names or MEASUREMENTS:
        measured = importlib.import_module("benchmarks.ratios." + name).measure(args.pictures)
        figures.extend(measured)
        if not args.json:
            print("\n".join(map(str, measured)), flush=True)
    if args.json:
        print(json.dumps([figure.as_json() for figure in figures], indent=1))
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
