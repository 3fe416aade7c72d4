"""The device program's command line; nothing but flags and calls."""

import argparse
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, List, Optional

from benchmarks.device.folder import COPY, Folder, WrongUseError
from benchmarks.device.release import commands as release_commands
from benchmarks.flags import add_work
from benchmarks.progress import Console
from benchmarks.streams import open_closed_streams, show_anything
from engines import __version__
from engines.engine import EngineError
from engines.flags import add_settings, backends, precisions, settings_of
from engines.settings import check
from engines.telemetry import stop_telemetry
from engines.text import printable

OK, FAILED, WRONG_USE, INTERRUPTED, NOBODY_READS = 0, 1, 2, 130, 141


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> Any:
        """Print what is wrong and exit with 2."""
        print("edgetrt-device: {} (see --help)".format(printable(message)), file=sys.stderr)
        raise SystemExit(WRONG_USE)


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 1 failed work, 2 wrong use, 130 interrupted, 141 nobody reads the output.
    """
    stop_telemetry()
    open_closed_streams()
    show_anything()
    args = _parser().parse_args(arguments)
    try:
        code = args.command(args, Console(args.quiet))
        sys.stdout.flush()
        return code or OK
    except BrokenPipeError:  # as with `| head`; what waits to be written goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except WrongUseError as error:
        return _complain(error, args, WRONG_USE)
    except (EngineError, OSError) as error:
        return _complain(error, args, FAILED)
    except KeyboardInterrupt:
        print("edgetrt-device: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        unexpected = "unexpected {}: {} (--debug shows where)".format(type(error).__name__, error)
        return _complain(unexpected, args, FAILED)


def _complain(error: Any, args: argparse.Namespace, code: int) -> int:
    if args.debug:
        traceback.print_exc()
    print("edgetrt-device: {}".format(printable(error)), file=sys.stderr)
    return code


def _doctor(args: argparse.Namespace, console: Console) -> None:
    from engines.doctor import describe, device_versions, examine

    found = examine(dict(device_versions(), edgetrt=__version__))
    print(json.dumps(found) if args.json else describe(found))


def _build(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.device.build import build

    settings = settings_of(args)
    wrong = check(settings)
    if wrong is not None:
        raise WrongUseError(wrong)
    with Folder(args.run, writes=True) as folder:
        made = build(
            folder,
            args.engine,
            args.precision,
            settings,
            args.pictures,
            args.calibration_images,
            console,
        )
    _show(args, made)


def _classify(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.device.classify import classify

    with Folder(args.run) as folder:
        found = classify(folder, args.engine, args.files)
    _show(args, found)
    for picture in [] if args.json else found:
        print(printable(picture["path"]))
        for answer in picture.get("top", ()):
            print("  {:7.2%}  {}".format(answer["probability"], printable(answer["label"])))
    bad = [picture for picture in found if "error" in picture]
    for picture in bad:
        console.warn("{}: {}".format(picture["path"], picture["error"]))
    if bad:
        raise EngineError("{} of {} picture(s) could not be used".format(len(bad), len(found)))


def _benchmark(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.device.benchmark import benchmark
    from benchmarks.flags import work_of
    from benchmarks.table import table

    work = work_of(args)
    with Folder(args.run, writes=True) as folder:
        report = benchmark(folder, args.pictures, args.cuda_graph, work, console)
    _show(args, report)
    if not args.json:
        print(table(report["engines"]))
        print("report: {}".format(printable(folder.report)))


def _selftest(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.device.selftest import selftest

    checks = []
    for check_ in selftest():
        checks.append(check_)
        if not args.json:
            word = {True: "ok", False: "FAILED", None: "-"}[check_.passed]
            print("{:7} {}: {}".format(word, check_.name, printable(check_.what)), flush=True)
    _show(args, [check_._asdict() for check_ in checks])
    failed = [check_.name for check_ in checks if check_.passed is False]
    if failed:
        raise EngineError("failed: {}".format(", ".join(failed)))


def _show(args: argparse.Namespace, results: Any) -> None:
    if args.json:
        print(json.dumps(results))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="edgetrt-device", description="Build, run and measure engines here.")
    parser.add_argument("--version", action="version", version="edgetrt-device " + __version__)
    commands = parser.add_subparsers(metavar="COMMAND")
    commands.required = True
    commands.dest = "name"

    def command(name: str, run: Any, summary: str, on_run: bool = True) -> Any:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        sub.add_argument("--debug", action="store_true", help="show where an error comes from")
        if on_run:
            sub.add_argument(
                "--run", metavar="DIR", type=Path, required=True, help="a run, or its " + COPY
            )
        sub.set_defaults(command=run)
        return sub

    command("doctor", _doctor, "what this device has, and what it can build and run", False)
    build = command("build", _build, "build the engines that this device can")
    build.add_argument(
        "--engine",
        metavar="NAMES",
        type=backends,
        help="such as tensorrt (with commas; what is installed)",
    )
    build.add_argument(
        "--precision",
        metavar="NAMES",
        type=precisions,
        help="fp32, fp16, int8 (with commas; what the GPU is for)",
    )
    build.add_argument(
        "--pictures",
        metavar="DIR",
        type=Path,
        help="for --int8 entropy and minmax: the labelled pictures, of which training ones "
        "calibrate",
    )
    build.add_argument(
        "--calibration-images",
        metavar="N",
        type=int,
        default=256,
        help="how many of them (%(default)s)",
    )
    add_settings(build)
    classify = command("classify", _classify, "the most likely classes of pictures")
    classify.add_argument("--engine", metavar="NAME", help="such as tensorrt-fp16-sm62")
    classify.add_argument("files", nargs="+", type=Path, metavar="PICTURE")
    benchmark = command("benchmark", _benchmark, "latency of every engine, and accuracy")
    benchmark.add_argument(
        "--pictures",
        metavar="DIR",
        type=Path,
        help="the labelled pictures, whose test split is answered (without: latency only)",
    )
    benchmark.add_argument(
        "--cuda-graph",
        action="store_true",
        help="measure TensorRT's engines also with their batches recorded as CUDA graphs",
    )
    add_work(benchmark)
    command("selftest", _selftest, "build and run a small network whose answers are known", False)
    release_commands.add(command)
    return parser
