"""`python -m benchmarks.peers --run DIR`: what people would use instead, beside our engines."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from benchmarks import conditions
from benchmarks.peers import inference, table, training
from benchmarks.peers.catalogue import TRAINING, apps, peers
from benchmarks.peers.run_folder import RunFolder
from benchmarks.progress import Console
from benchmarks.scenarios import QUICK, THOROUGH
from engines.engine import EngineError
from engines.text import printable

SCHEMA = 1


def main(arguments: Optional[List[str]] = None) -> int:
    """Measure and print; returns 1 if nothing could be measured."""
    names = [*(peer.name for peer in peers()), *(app.name for app in apps()), TRAINING]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a run folder")
    parser.add_argument("--pictures", type=Path, metavar="DIR",
                        help="where the run's pictures are now (where it found them)")  # fmt: skip
    parser.add_argument("--only", metavar="NAMES",
                        help="{} (with commas; all)".format(", ".join(names)))  # fmt: skip
    parser.add_argument("--quick", action="store_true",
                        help="measure for seconds, not minutes; it proves nothing")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    args = parser.parse_args(arguments)
    chosen = args.only.split(",") if args.only else names
    unknown = [name for name in chosen if name not in names]
    if unknown:
        parser.error("{} is none of {}".format(printable(unknown[0]), ", ".join(names)))
    console = Console(args.quiet)
    try:
        result = _measure(RunFolder(args.run, args.pictures), chosen, args.quick, console)
    except (EngineError, RuntimeError) as error:
        print("error: " + printable(error), file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print("\n\n".join(_tables(result)))
    return 0


def _measure(run: RunFolder, chosen: List[str], quick: bool, console: Console) -> Dict[str, Any]:
    effort = QUICK if quick else THOROUGH
    result: Dict[str, Any] = {"schema": SCHEMA, "run": run.folder.name, "effort": effort.name}
    before = conditions.look()
    some = [peer for peer in peers() if peer.name in chosen]
    programs = [app for app in apps() if app.name in chosen]
    if some or programs:
        result["inference"] = inference.measure(run, some, programs, effort, console)
    if TRAINING in chosen:
        result["training"] = training.measure(run, 1 if quick else training.ROUNDS, console)
    after = conditions.look()
    differences = conditions.differences(before, after)
    for difference in differences:
        console.warn(difference)
    result["conditions"] = {"before": before, "after": after, "differences": differences}
    return result


def _tables(result: Dict[str, Any]) -> List[str]:
    tables = []
    if "inference" in result:
        tables.append(table.inference_table(result["inference"]))
    if "training" in result:
        tables.append(table.training_table(result["training"]))
    return tables


if __name__ == "__main__":
    sys.exit(main())
