"""`edgetrt`: one command for each stage; nothing but calls."""

import argparse
import json
import os
import shlex
import sys
import traceback
from typing import Any, NoReturn

from benchmarks.progress import Console
from benchmarks.streams import open_closed_streams
from engines import __version__
from engines.telemetry import stop_telemetry
from engines.text import printable
from pipeline import flags
from pipeline.errors import BudgetError, PipelineError, UsageError
from pipeline.interrupts import end_on_signals

OK, FAILED, WRONG_USE, BUDGET, NOBODY_READS = 0, 1, 2, 3, 141
EXIT_CODES = "exit codes: 0 done, 1 failed, 2 wrong use, 3 a budget of compare is broken"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit with 2."""
        print(f"edgetrt: {printable(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(WRONG_USE)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: None for those of this process, which then also ends on signals.

    Returns:
        The exit code: 0, 1 failed work, 2 wrong use, 3 broken budget, 141 (SIGPIPE's) if nobody
        reads the output.
    """
    stop_telemetry()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    if arguments is None:
        open_closed_streams()
        end_on_signals()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            args = _parser().parse_args(arguments)
        finally:
            sys.stdout.flush()
        return _perform(args)
    except BrokenPipeError:  # as with `| head`
        _drop_output()
        return NOBODY_READS


def _perform(args: argparse.Namespace) -> int:
    try:
        args.command(args, Console(args.quiet))
        return OK
    except UsageError as error:
        _complain(str(error), args)
        return WRONG_USE
    except BudgetError as error:
        _complain(str(error), args)
        return BUDGET
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename or getattr(args, 'run', '')}: ".removeprefix(": ")
        _complain(f"{where}{error.strerror or error}; mend that and run the same again", args)
        return FAILED
    except Exception as error:
        if not args.debug and not _is_ours(error):
            _complain(f"unexpected {type(error).__name__}: {error} (--debug shows where)", args)
        else:
            _complain(str(error), args)
        return FAILED


def _drop_output() -> None:
    """Send to nowhere what waits to be written, which Python would try again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def _print(text: str) -> None:
    """Write a result to stdout, now: an error at Python's end would be none of ours."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from error


def _is_ours(error: Exception) -> bool:
    from engines.engine import EngineError

    return isinstance(error, PipelineError | EngineError)


def _complain(message: str, args: argparse.Namespace) -> None:
    if args.debug:
        traceback.print_exc()
    print(f"edgetrt: {printable(message)}", file=sys.stderr)


def _retrain(args: argparse.Namespace, console: Console) -> None:
    from pipeline.retrain import retrain
    from pipeline.run import Run

    options = _retrain_options(args)
    with Run(args.run, create=True) as run:
        _show(args, retrain(run, options, console))


def _export(args: argparse.Namespace, console: Console) -> None:
    from pipeline.export import export
    from pipeline.run import Run

    with Run(args.run) as run:
        _show(args, export(run, console))


def _quantize(args: argparse.Namespace, console: Console) -> None:
    from pipeline.quantize import quantize
    from pipeline.run import Run

    options = _quantize_options(args)
    with Run(args.run) as run:
        _show(args, quantize(run, options, console))


def _build(args: argparse.Namespace, console: Console) -> None:
    from pipeline.build import build
    from pipeline.run import Run

    options = _build_options(args)
    with Run(args.run) as run:
        _show(args, build(run, options, console))


def _compare(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.flags import work_of
    from benchmarks.measure import REFERENCE
    from engines.catalogue import read_sidecars
    from pipeline import publish
    from pipeline.against import against
    from pipeline.budgets import Budgets
    from pipeline.compare import compare
    from pipeline.report.read import find, read
    from pipeline.run import Run

    budgets = Budgets(args.engine, args.max_latency_ms, args.max_accuracy_drop)
    budgets.check()
    # Before the work: it may be the very report that is made anew.
    other = None if args.against is None else read(find(args.against))
    with Run(args.run) as run:
        if run.engines.is_dir():  # else the run is not built, as compare says
            budgets.check_name([REFERENCE, *(s["name"] for s in read_sidecars(run.engines))])
        report = compare(run, work_of(args), console)
        if other is not None:
            report = {**report, "against": against(report, other)}
            publish.write(report, run.report_page.parent)
        _show_report(args, report, run)
    budgets.enforce(report, other)


def _report(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.table import table
    from pipeline import publish
    from pipeline.mlflow_log import log
    from pipeline.report import merged_table
    from pipeline.report.read import find

    results: dict[str, Any] = {}
    if args.merge:
        if args.out is None or args.mlflow is not None:
            raise UsageError("--merge writes one page of all reports, and nothing else: give --out")
        report, files = publish.merge(args.runs, args.out)
        shown = merged_table.as_text(merged_table.rows(report["reports"]))
        for warning in report["warnings"]:
            console.warn(warning)
    elif len(args.runs) > 1:
        raise UsageError(f"{len(args.runs)} reports were given; --merge puts them side by side")
    else:
        report, files = publish.publish(args.runs[0], args.out)
        shown = f"{table(report['engines'])}\n{_verdict(report)}"
        if args.mlflow is not None:
            results["mlflow_run"] = log(report, [find(args.runs[0]), *files], args.mlflow)
    _show(args, {**results, "files": [str(file) for file in files]})
    if not args.json:
        _print(shown)
        for name, value in {**results, "report": files[0]}.items():
            _print(f"{name}: {printable(value)}")


def _run(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.flags import work_of
    from pipeline.build import build, refuse_unavailable
    from pipeline.compare import compare
    from pipeline.export import export
    from pipeline.quantize import quantize
    from pipeline.retrain import retrain
    from pipeline.run import Run

    options = _retrain_options(args), _quantize_options(args), _build_options(args)
    if options[1].max_accuracy_drop is not None and options[0].validation == 0:
        raise UsageError("--max-accuracy-drop decides on validation pictures: give a "
                         "--validation-percentage above 0")  # fmt: skip
    if args.engine is not None:
        refuse_unavailable(options[2])
    with Run(args.run, create=True) as run:
        retrain(run, options[0], console)
        export(run, console)
        quantize(run, options[1], console)
        build(run, options[2], console)
        _show_report(args, compare(run, work_of(args), console), run)


def _classify(args: argparse.Namespace, console: Console) -> None:
    from pipeline.classify import classify
    from pipeline.run import Run

    with Run(args.run, read_only=True) as run:
        results = classify(run, args.engine, args.pictures)
    bad = [result for result in results if "error" in result]
    for result in bad:
        console.warn(f"{result['path']}: {result['error']}")
    _show(args, results)
    for result in [] if args.json else results:
        if result not in bad:
            _print(printable(result["path"]))
            for answer in result["top"]:
                _print(f"  {answer['probability']:7.2%}  {printable(answer['label'])}")
    if bad:
        raise PipelineError(
            f"{len(bad)} of {len(results)} picture(s) could not be used; see the warnings"
        )


def _debug(args: argparse.Namespace, console: Console) -> None:
    from pipeline.debug import debug, describe
    from pipeline.run import Run

    with Run(args.run, read_only=True) as run:
        found = debug(run, args.precision, args.pictures, console)
    _print(json.dumps(found) if args.json else describe(found))


def _doctor(args: argparse.Namespace, console: Console) -> None:
    from engines.doctor import describe, examine, module_version
    from pipeline.run import versions

    pycuda = module_version("pycuda")
    found = examine(versions() | ({"pycuda": pycuda} if pycuda else {}))
    _print(json.dumps(found) if args.json else describe(found))


def _targets(args: argparse.Namespace, console: Console) -> None:
    from pipeline.targets import TARGETS, as_dict, describe, find, table

    if args.name:
        target = find(" ".join(args.name))
        _print(json.dumps(as_dict(target)) if args.json else describe(target))
    else:
        _print(json.dumps([as_dict(target) for target in TARGETS]) if args.json else table())


def _device_package(args: argparse.Namespace, console: Console) -> None:
    from pipeline.device_package import package

    size = package(args.out)
    console.say(f"device-package: {args.out}, {size / 1e3:.0f} kB; copy it to the device and run")
    console.say(f"  python3 {shlex.quote(args.out.name)} doctor")
    _show(args, {"file": str(args.out), "size_bytes": size})


def _export_triton(args: argparse.Namespace, console: Console) -> None:
    from pipeline.run import Run
    from pipeline.triton import export_triton

    with Run(args.run, read_only=True) as run:
        _show(args, export_triton(run, args.out, args.engine, args.precision, args.name, console))


def _export_deepstream(args: argparse.Namespace, console: Console) -> None:
    from pipeline.deepstream import export_deepstream
    from pipeline.run import Run

    with Run(args.run, read_only=True) as run:
        _show(args, export_deepstream(run, args.out, args.precision, args.target, console))


def _deploy(args: argparse.Namespace, console: Console) -> None:
    from pipeline.deploy.command import deploy

    results, shown, failure = deploy(args, console)
    _show(args, results)
    if not args.json:
        _print(shown)
    if failure:
        raise PipelineError(failure)


def _serve(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.device.release.here import serve_bundle
    from engines.engine import EngineError
    from engines.serve.options import serving_of
    from engines.serve.supervisor import serve

    try:
        options = serving_of(args)
    except EngineError as error:
        raise UsageError(str(error)) from error
    if args.bundle is None and (args.engine or args.precision):
        raise UsageError("--engine and --precision are for a --bundle")
    if args.bundle is None:
        serve(args.root.expanduser(), options, console.say)
    else:
        serve_bundle(args.bundle, args.engine, args.precision, options, console)


def _keygen(args: argparse.Namespace, console: Console) -> None:
    from engines.bundle.signature import fingerprint
    from pipeline.keys import default_key, generate

    key = args.out or default_key()
    public = generate(key)
    console.say(f"keygen: {key} signs; keep it secret. {public} verifies; give it to anyone")
    found = {"key": str(key), "public": str(public)}
    _show(args, found | {"fingerprint": fingerprint(public.read_bytes())})


def _bundle(args: argparse.Namespace, console: Console) -> None:
    from engines.bundle.signature import fingerprint
    from pipeline.bundle import make
    from pipeline.keys import key_for, public_of
    from pipeline.run import Run

    key = key_for(args.key, args.unsigned)
    with Run(args.run, read_only=True) as run:
        manifest = make(run, args.out, key, args.precision, args.with_tensorflow, args.target,
                        args.name, console, cases=args.golden)  # fmt: skip
    found = {"file": str(args.out), "size_bytes": args.out.stat().st_size,
             "release": manifest.id, "name": manifest.name}  # fmt: skip
    _show(args, found | {"signed_by": None if key is None else fingerprint(public_of(key))})


def _dataset(args: argparse.Namespace, console: Console) -> None:
    from pipeline.elpv import PICTURES, SOURCE, lay_out

    written = lay_out(args.out, console)
    for line in (f"elpv: {written} pictures written to {args.out}", *SOURCE.splitlines()):
        console.say(line)
    _show(args, {"folder": str(args.out), "pictures": PICTURES, "written": written})


def _show(args: argparse.Namespace, results: Any) -> None:
    if args.json:
        _print(json.dumps(results))


def _show_report(args: argparse.Namespace, report: dict[str, Any], run: Any) -> None:
    from benchmarks.table import table

    _show(args, report)
    if not args.json:
        _print(f"{table(report['engines'])}\n{_verdict(report)}")
        if "against" in report:
            from pipeline.report.against_table import describe

            _print(describe(report["against"]))
        _print(f"report: {printable(run.report_page)}")


def _verdict(report: dict[str, Any]) -> str:
    from pipeline.report.verdict import verdict

    found = verdict(report["engines"])
    return "\n".join(printable(line) for line in (found.sentence, found.note) if line)


def _retrain_options(args: argparse.Namespace) -> Any:
    from pipeline.retrain import Options

    return Options(
        args.image_dir, args.architecture, args.weights, args.how_many_training_steps,
        args.learning_rate, args.train_batch_size, args.testing_percentage,
        args.validation_percentage, args.seed,
    )  # fmt: skip


def _quantize_options(args: argparse.Namespace) -> Any:
    from pipeline.quantize import Options

    return Options(
        args.calibration_images, args.method, not args.no_int8_head, args.max_accuracy_drop,
        args.calibration_cache,
    )  # fmt: skip


def _build_options(args: argparse.Namespace) -> Any:
    from engines.flags import settings_of
    from pipeline.build import Options

    given = {"backends": args.engine, "precisions": args.precision, "targets": args.target}
    names: dict[str, Any] = {
        name: tuple(text.split(",")) for name, text in given.items() if text is not None
    }
    return Options(**names, settings=settings_of(args))


COMMANDS = (
    ("run", _run, "all stages: retrain, export, quantize, build, compare",
     (flags.run, flags.retrain, flags.quantize, flags.build, flags.measuring)),
    ("retrain", _retrain, "1. retrain the last layer on your pictures", (flags.run, flags.retrain)),
    ("export", _export, "2. export the frozen graph to ONNX and prove it", (flags.run,)),
    ("quantize", _quantize, "3. make FP16 and calibrated INT8 graphs", (flags.run, flags.quantize)),
    ("build", _build, "4. build what engines this machine can", (flags.run, flags.build)),
    ("compare", _compare, "5. accuracy and latency of every engine",
     (flags.run, flags.measuring, flags.budgets)),
    ("report", _report, "a report's page and tables again, or several side by side",
     (flags.report,)),
    ("classify", _classify, "the most likely classes of pictures", (flags.run, flags.classify)),
    ("debug", _debug, "which layers move the INT8 or FP16 graph away from FP32",
     (flags.run, flags.debug)),
    ("doctor", _doctor, "what this machine has, and what it can build and run", ()),
    ("targets", _targets, "what each board and GPU can do", (flags.targets,)),
    ("device-package", _device_package, "make the program that runs on a device",
     (flags.device_package,)),
    ("export-triton", _export_triton, "write a model repository for NVIDIA's Triton server",
     (flags.run, flags.triton)),
    ("export-deepstream", _export_deepstream, "write a classifier for NVIDIA's DeepStream",
     (flags.run, flags.deepstream)),
    ("deploy", _deploy, "bring a bundle to a device or a fleet, or roll it back", (flags.deploy,)),
    ("serve", _serve, "answer over HTTP (KServe v2) with a bundle, or what is deployed here",
     (flags.serve,)),
    ("keygen", _keygen, "make the pair of keys that bundles are signed with", (flags.keygen,)),
    ("bundle", _bundle, "one signed file of a run with all that a device needs",
     (flags.run, flags.bundle)),
    ("dataset", _dataset, "lay out a known set of pictures as a folder", (flags.dataset,)),
)  # fmt: skip
EPILOGS = {
    "compare": EXIT_CODES,
    "debug": "Decibels of signal to noise, more is better. The table begins with the layer that "
    "does most harm. own: a layer alone, given the very input it has in FP32; inputs: what "
    "quantizing its worst input alone does to it; where both are alike, the input's range is to "
    "blame, else the weights; whole: what it comes to behind all layers before. > marks layers 10 "
    "dB worse than the median one.",
}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="edgetrt",
        description="From a folder of labelled pictures to a proven TensorRT engine on a Jetson.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"edgetrt {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, summary, adders in COMMANDS:
        sub = commands.add_parser(name, help=summary, description=summary, epilog=EPILOGS.get(name))
        flags.common(sub)
        for add in adders:
            add(sub)
        sub.set_defaults(command=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
