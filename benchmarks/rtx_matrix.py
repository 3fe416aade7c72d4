"""`python -m benchmarks.rtx_matrix`: every backbone in every precision, built for every RTX GPU.

Prints seconds and megabytes of each engine, built once by TensorRT-RTX on a machine that needs no
GPU. The graphs come from whole runs of edgetrt on a few pictures, calibrated and bias corrected.
"""

import argparse
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

from benchmarks.ratios.command import edgetrt, progress, scratch
from engines.catalogue import PRECISIONS, read_sidecars
from engines.targets import RTX_TARGETS

# Those without weights in a package are random: that changes neither sizes nor building.
BACKBONES = {
    "efficientnet_lite0": "imagenet",
    "efficientnet_lite1": "imagenet",
    "efficientnet_lite2": "imagenet",
    "mobilenet_0.25_224": "random",
    "mobilenet_0.5_224": "random",
    "mobilenet_0.75_224": "random",
    "mobilenet_1.0_224": "random",
    "mobilenet_v2": "random",
    "inception_v3": "random",
}
PICTURES = 40  # of each class
# Bottlenecks of random weights are so faint that a last layer trained on them would be too large
# for FP16; this one stays as it begins.
LEARNING_RATE = {"imagenet": "0.005", "random": "1e-20"}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rtx_matrix", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="BACKBONE", help=", ".join(BACKBONES))
    parser.add_argument("--pictures", type=Path, default=Path("data/elpv"))
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in BACKBONES]
    if unknown:
        parser.error("{} is none of {}".format(unknown[0], ", ".join(BACKBONES)))
    if not args.pictures.is_dir():
        parser.error("{}: no such folder; edgetrt dataset elpv --out data/elpv makes it".format(
            args.pictures))  # fmt: skip
    print(table(measure(args.pictures, args.names or list(BACKBONES))))


def measure(pictures: Path, names: List[str]) -> Dict[str, List[Dict[str, Any]]]:
    """Build all engines of some backbones, one after another.

    Args:
        pictures: a folder with one folder of pictures for each class.
        names: of `BACKBONES`.

    Returns:
        For each backbone what stands beside each engine, see `engines.catalogue.read_sidecars`.
    """
    built = {}
    with scratch() as folder:
        few = folder / "pictures"
        for source in (path for path in sorted(pictures.iterdir()) if path.is_dir()):
            (few / source.name).mkdir(parents=True)
            for picture in sorted(source.iterdir())[:PICTURES]:
                shutil.copyfile(str(picture), str(few / source.name / picture.name))
        for name in names:
            progress("rtx_matrix: {}".format(name))
            run = folder / name
            weights = BACKBONES[name]
            edgetrt(
                "retrain", "--image-dir", few, "--run", run, "--architecture", name,
                "--weights", weights, "--learning-rate", LEARNING_RATE[weights],
            )  # fmt: skip
            edgetrt("export", "--run", run)
            edgetrt("quantize", "--run", run)
            targets = ",".join(RTX_TARGETS)
            edgetrt("build", "--run", run, "--engine", "tensorrt-rtx", "--target", targets)
            built[name] = read_sidecars(run / "engines")
            shutil.rmtree(str(run))  # an engine of Inception has 88 MB
    return built


def table(built: Dict[str, List[Dict[str, Any]]]) -> str:
    """One line for each backbone and precision, and what the builder warned of or refused.

    Args:
        built: as `measure` gives it.
    """
    lines = [_line("seconds and MB, n = 1", RTX_TARGETS)]
    remarks: Dict[str, int] = Counter()
    for name, sidecars in built.items():
        engines = {(engine["precision"], engine["target"]): engine for engine in sidecars}
        for precision in PRECISIONS:
            row = [engines[precision, target] for target in RTX_TARGETS]
            lines.append(_line("{} {}".format(name, precision), [_cell(engine) for engine in row]))
            for engine in row:
                if engine["status"] != "built":
                    remarks["{}: {}".format(engine["status"], engine["reason"])] += 1
                for warning in engine.get("options", {}).get("warnings", {}):
                    remarks["warned: {}".format(warning.strip())] += 1
    lines += ["{} engines {}".format(count, remark) for remark, count in remarks.items()]
    return "\n".join(lines)


def _cell(engine: Dict[str, Any]) -> str:
    if engine["status"] != "built":
        return "-"
    return "{:.2f} {:6.1f}".format(engine["build_seconds"], engine["size_bytes"] / 1e6)


def _line(first: str, cells: Any) -> str:
    return "{:24}".format(first) + "".join("{:>13}".format(cell) for cell in cells)


if __name__ == "__main__":
    main()
