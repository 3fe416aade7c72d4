"""The flags of `edgetrt`'s commands."""

import argparse
from pathlib import Path


def path(text: str) -> Path:
    """A path; nothing at all is none, though Path("") is the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("a path is expected; received nothing")
    return Path(text)


def common(parser: argparse.ArgumentParser) -> None:
    """What every command has."""
    add = parser.add_argument
    add("--quiet", action="store_true", help="say nothing but warnings and errors")
    add("--json", action="store_true", help="print the result as JSON")
    add("--debug", action="store_true", help="show where an error comes from")


def run(parser: argparse.ArgumentParser) -> None:
    """Which run."""
    parser.add_argument("--run", metavar="DIR", type=path, required=True, help="the run folder")


def retrain(parser: argparse.ArgumentParser) -> None:
    """What `retrain` is asked for."""
    add = parser.add_argument
    add("--image-dir", metavar="DIR", type=path, required=True,
        help="one folder of pictures for each class")  # fmt: skip
    add("--architecture", metavar="NAME", default="efficientnet_lite0",
        help="efficientnet_lite0|1|2, mobilenet_<alpha>_<size>, mobilenet_v2, inception_v3, or "
        "a .keras or .h5 model (%(default)s)")  # fmt: skip
    add("--weights", metavar="NAME", default="imagenet",
        help="imagenet, random, or a file (%(default)s)")  # fmt: skip
    add("--how-many-training-steps", metavar="N", type=int, default=400,
        help="batches that the last layer learns from (%(default)s)")  # fmt: skip
    add("--learning-rate", metavar="X", type=float, default=0.005,
        help="at the first step; it falls to 0 at the last (%(default)s)")  # fmt: skip
    add("--train-batch-size", metavar="N", type=int, default=100,
        help="pictures in a batch (%(default)s)")  # fmt: skip
    add("--testing-percentage", metavar="X", type=float, default=10.0,
        help="of the pictures, to measure accuracy on (%(default)g)")  # fmt: skip
    add("--validation-percentage", metavar="X", type=float, default=10.0,
        help="of the pictures, to watch the training with (%(default)g)")  # fmt: skip
    add("--seed", metavar="N", type=int, default=0,
        help="of the split and of everything random (%(default)s)")  # fmt: skip


def measuring(parser: argparse.ArgumentParser) -> None:
    """What is measured, and how thoroughly."""
    from benchmarks.flags import add_work

    add_work(parser)


def budgets(parser: argparse.ArgumentParser) -> None:
    """What `compare` holds its results against."""
    add = parser.add_argument
    add("--against", metavar="REPORT", type=path,
        help="another run folder or report.json: say what is slower, faster, more or less accurate "
        "than there")  # fmt: skip
    add("--max-latency-ms", metavar="X", type=float,
        help="budget: milliseconds (p90 of single-stream); of a budget the figure itself decides, "
        "not its interval")  # fmt: skip
    add("--max-accuracy-drop", metavar="X", type=float,
        help="budget: points of top-1 below TensorFlow's, or below --against")  # fmt: skip
    add("--engine", metavar="NAME",
        help="whose budgets these are (latency: the verdict's engine, which is the one that would "
        "be used; accuracy: every engine that ran, except TensorFlow's)")  # fmt: skip


def report(parser: argparse.ArgumentParser) -> None:
    """Which reports, and what becomes of them."""
    add = parser.add_argument
    add("runs", nargs="+", type=path, metavar="RUN",
        help="a run folder, or a report.json from anywhere, such as a device")  # fmt: skip
    add("--merge", action="store_true", help="several reports side by side, into --out")
    add("--out", metavar="DIR", type=path,
        help="folder for index.html, table.md and table.csv (beside the report.json); with --merge "
        "also for report.json, the reports in one")  # fmt: skip
    add("--mlflow", metavar="URI",
        help="also log the report to MLflow: a server or a folder")  # fmt: skip


def deploy(parser: argparse.ArgumentParser) -> None:
    """What is deployed, where and how."""
    from pipeline.deploy.flags import add_flags

    add_flags(parser)


def debug(parser: argparse.ArgumentParser) -> None:
    """What `debug` looks at."""
    add = parser.add_argument
    add("--precision", choices=["int8", "fp16"], default="int8",
        help="the graph to hold against FP32 (%(default)s)")  # fmt: skip
    add("--pictures", metavar="N", type=int, default=32,
        help="training pictures to do so on (%(default)s)")  # fmt: skip


def serve(parser: argparse.ArgumentParser) -> None:
    """What is served, and how."""
    from engines.flags import backends, precisions
    from engines.serve.options import add_serving

    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--bundle", metavar="FILE", type=path, help="serve this bundle")
    what.add_argument("--root", metavar="DIR", type=path, default=Path("~/edgetrt"),
        help="serve what is deployed there, and what is deployed next (%(default)s)")  # fmt: skip
    add("--engine", metavar="NAMES", type=backends,
        help="with --bundle: such as tensorrt (with commas; what runs here)")  # fmt: skip
    add("--precision", metavar="NAMES", type=precisions,
        help="with --bundle: fp32, fp16, int8 (with commas; what is fast here)")  # fmt: skip
    add_serving(parser)


def bundle(parser: argparse.ArgumentParser) -> None:
    """What `bundle` puts in."""
    add = parser.add_argument
    add("--out", metavar="FILE", type=path, required=True, help="such as model.edgetrt")
    add("--key", metavar="FILE", type=path,
        help="private key that signs it (the one that keygen made)")  # fmt: skip
    add("--unsigned", action="store_true", help="don't sign it: devices refuse it unless told")
    add("--name", metavar="NAME", help="of the model (the run folder's)")
    add("--precision", metavar="NAMES", type=_names,
        help="fp32, fp16, int8: what devices may build (with commas; all)")  # fmt: skip
    add("--target", metavar="NAMES", type=_names, default=[],
        help="boards and GPUs it is for, as 'targets' has them (with commas; any)")  # fmt: skip
    add("--with-tensorflow", action="store_true", help="put in frozen.pb, to compare with")
    add("--golden", metavar="N", type=int, default=8,
        help="pictures that every engine must answer right (%(default)s)")  # fmt: skip


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def quantize(parser: argparse.ArgumentParser) -> None:
    """What `quantize` is asked for."""
    add = parser.add_argument
    add("--calibration-images", metavar="N", type=int, default=256,
        help="training pictures to find the ranges of INT8 on (%(default)s)")  # fmt: skip
    add("--method", choices=["max", "entropy", "percentile"], default="percentile",
        help="how a range is chosen (%(default)s)")  # fmt: skip
    add("--no-int8-head", action="store_true", help="keep the FP32 last layer in the INT8 graphs")
    add("--max-accuracy-drop", metavar="X", type=float,
        help="points of top-1 that INT8 may lose on the validation pictures; the layers that harm "
        "it most are returned to float until that holds (no limit)")  # fmt: skip
    add("--calibration-cache", metavar="VERSION",
        help="also write onnx/calibration.cache for this TensorRT, such as 8.2.1, with which a "
        "device builds INT8 without pictures")  # fmt: skip


def triton(parser: argparse.ArgumentParser) -> None:
    """What `export-triton` writes."""
    add = parser.add_argument
    add("--out", metavar="DIR", type=path, required=True,
        help="the model repository; may hold other models")  # fmt: skip
    add("--engine", metavar="NAME",
        help="an engine of the run, of TensorRT or ONNX Runtime: tensorrt-fp16-sm87")  # fmt: skip
    add("--precision", choices=["fp32", "fp16", "int8"],
        help="without --engine: the ONNX graph to write (fp32)")  # fmt: skip
    add("--name", metavar="MODEL", help="of the model (the run folder's name)")


def deepstream(parser: argparse.ArgumentParser) -> None:
    """What `export-deepstream` writes."""
    add = parser.add_argument
    add("--out", metavar="DIR", type=path, required=True, help="folder to write")
    add("--precision", choices=["fp32", "fp16", "int8"],
        help="what nvinfer shall build (fp16, where network and target allow)")  # fmt: skip
    add("--target", metavar="NAME", help="the board or GPU it is for, such as TX2 or sm86 (any)")


def build(parser: argparse.ArgumentParser) -> None:
    """What `build` is asked for."""
    from engines.flags import add_settings

    add = parser.add_argument
    add("--engine", metavar="NAMES",
        help="onnxruntime, openvino, tensorrt-rtx, tensorrt (with commas; all)")  # fmt: skip
    add("--precision", metavar="NAMES", help="fp32, fp16, int8 (with commas; all)")
    add("--target", metavar="NAMES",
        help="for tensorrt-rtx: sm75 to sm121 (with commas; sm86,sm89)")  # fmt: skip
    add_settings(parser)


def classify(parser: argparse.ArgumentParser) -> None:
    """Which pictures, and by what."""
    add = parser.add_argument
    add("--engine", metavar="NAME",
        help="such as openvino-int8 (the fastest that lost no accuracy, as 'compare' found it; "
        "before that, tensorflow)")  # fmt: skip
    add("pictures", nargs="+", type=Path, metavar="PICTURE")


def targets(parser: argparse.ArgumentParser) -> None:
    """Which target."""
    parser.add_argument("name", nargs="*", metavar="NAME", help="all about one, such as AGX Orin")


def device_package(parser: argparse.ArgumentParser) -> None:
    """Where the program goes."""
    parser.add_argument("--out", metavar="FILE", type=path, default=Path("edgetrt-device.pyz"),
        help="file to write (%(default)s)")  # fmt: skip


def keygen(parser: argparse.ArgumentParser) -> None:
    """Where the keys go."""
    parser.add_argument("--out", metavar="FILE", type=path,
        help="private key; .pub.pem goes beside it (~/.config/edgetrt/signing.pem)")  # fmt: skip


def dataset(parser: argparse.ArgumentParser) -> None:
    """Which pictures, and where they go."""
    parser.add_argument("name", choices=["elpv"])
    parser.add_argument("--out", metavar="DIR", type=path, required=True, help="folder to fill")
