"""A run as a classifier for Gst-nvinfer, the element of NVIDIA's DeepStream that infers.

What nvinfer does with a key is as its sources say, which DeepStream installs under
sources/gst-plugins/gst-nvinfer (gstnvinfer_property_parser.cpp) and sources/libs/nvdsinfer
(nvdsinfer_context_impl.cpp, nvdsinfer_model_builder.cpp); the keys are listed in its Plugin Guide,
"Gst-nvinfer File Configuration Specifications".
The graphs are of opset 13, which TensorRT reads from 8 on; the first DeepStream with that is 6.0
(its "Readme First").
"""

import hashlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper

from benchmarks.balanced import balanced
from benchmarks.progress import Console
from engines.boards import Board
from engines.preprocess import RECIPE
from engines.targets import refusal
from engines.tensorrt import calibration_cache
from engines.text import printable
from pipeline import out_folder
from pipeline.bilinear import Difference, measure
from pipeline.errors import PipelineError, UsageError
from pipeline.files import read_json
from pipeline.retrain import trained_dataset
from pipeline.run import Run, command_for
from pipeline.shapes import Shapes, shapes_of
from pipeline.surgery import rename
from pipeline.targets import Target, find

KIND = "export-deepstream"
CONFIG, GRAPH, CACHE, LABELS, README = (
    "config_infer.txt", "model.onnx", "calibration.cache", "labels.txt", "README.txt",
)  # fmt: skip
NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}  # NvDsInferNetworkMode
PICTURES = 64  # test pictures that the two ways of resizing are compared on
TOLERANCE = 1e-5  # of a probability, between the two layouts of the input


def export_deepstream(
    run: Run, out: Path, precision: str | None, target: str | None, console: Console
) -> dict[str, Any]:
    """Write what nvinfer needs to build and run the classifier on the device.

    Args:
        out: the folder to write.
        precision: "fp32", "fp16" or "int8"; None for FP16 where that can be and is the faster.
        target: board or GPU that it is for, as `pipeline.targets.find` takes it; None for any.

    Returns:
        "folder", "config", "precision", "target", and "resizing": a `Difference` as JSON, or None
        where the test pictures are not there any more.

    Raises:
        UsageError: the target is not made for the precision; INT8 without a calibration cache,
            or with one for another TensorRT; a label that nvinfer can't read; or there is
            something else in the place of `out`.
        PipelineError: the graph with its input's axes changed answers otherwise.
    """
    out_folder.check_replaceable(out, KIND)
    board = None if target is None else find(target)
    run.require("quantize")
    chosen = _choose(run, precision, board)
    labels = run.labels.read_text("utf-8", "surrogateescape").splitlines()
    shapes = shapes_of(run.onnx("fp32"))
    original = onnx.load(run.onnx("fp32"))
    model = channels_first(original)
    prove(original, model)
    files = {
        CONFIG: config(chosen, shapes, board).encode(),
        GRAPH: model.SerializeToString(),
        LABELS: label_line(labels).encode("utf-8", "surrogateescape"),
    }
    tensorrt = None
    if chosen == "int8":
        files[CACHE], tensorrt = _calibration(run, board)
    resizing = _measure(run, shapes, console)
    files[README] = _readme(chosen, shapes, board, tensorrt, resizing).encode()
    made_from = {"graph_sha256": hashlib.sha256(files[GRAPH]).hexdigest(), "precision": chosen}
    out_folder.write(out, KIND, made_from, files)
    console.say(
        f"export-deepstream: {out / CONFIG}, {chosen}" + (f", {board.name}" if board else "")
    )
    if resizing is not None:
        console.say("  " + str(resizing))
    return {
        "folder": str(out),
        "config": str(out / CONFIG),
        "precision": chosen,
        "target": board.name if board else None,
        "resizing": resizing._asdict() if resizing else None,
    }


def channels_first(model: ModelProto) -> ModelProto:
    """The same network with pixels as (batch, 3, height, width), which every nvinfer takes.

    DeepStream 4's parser has no network-input-order at all, and 7.1 was seen to refuse an ONNX
    graph of the other order whatever that key says. All other tensors keep their names, by which
    a calibration cache knows them.
    """
    changed = ModelProto()
    changed.CopyFrom(model)
    source = changed.graph.input[0]
    name = source.name
    inside = f"{name}/channels_last"
    rename(changed, name, inside)
    batch, height, width, channels = source.type.tensor_type.shape.dim
    shape = [batch.dim_param, channels.dim_value, height.dim_value, width.dim_value]
    source.CopyFrom(helper.make_tensor_value_info(name, source.type.tensor_type.elem_type, shape))
    turn = helper.make_node("Transpose", [name], [inside], name=inside, perm=[0, 2, 3, 1])
    changed.graph.node.insert(0, turn)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def prove(channels_last: ModelProto, channels_first: ModelProto) -> float:
    """Hold the two layouts of one network against each other, on noise.

    Returns:
        The largest difference of a probability.

    Raises:
        PipelineError: it is above `TOLERANCE`.
    """
    _, height, width, _ = (
        dim.dim_value for dim in channels_last.graph.input[0].type.tensor_type.shape.dim
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.float32)
    wanted = _answers(channels_last, pixels)
    found = _answers(channels_first, pixels.transpose(0, 3, 1, 2))
    difference = float(np.abs(found - wanted).max())
    if not difference <= TOLERANCE:  # also if it is NaN
        raise PipelineError(
            f"with its input's axes changed, the graph differs by {difference:.2g} in a "
            f"probability (at most {TOLERANCE:g} is right)"
        )
    return difference


def label_line(labels: Sequence[str]) -> str:
    """The label file of a classifier with one output: all labels on one line, ";" between them.

    nvinfer takes each line for the labels of one output layer (parseLabelsFile).

    Raises:
        UsageError: a label has a ";", for which the format has no escape.
    """
    for label in labels:
        if ";" in label:
            raise UsageError(
                f"the class {printable(label)!r} has a ';', with which DeepStream tells labels "
                "apart; rename its folder and train anew"
            )
    return ";".join(labels) + "\n"


def config(precision: str, shapes: Shapes, target: Target | None) -> str:
    """The text of nvinfer's configuration.

    The scaling filter is named because the library's default one takes the nearest pixel
    (NvBufSurfTransformInter_Default in nvbufsurftransform.h). An engine file that is not there yet
    is built from the graph and written under this name. A threshold of 0 lets every answer through,
    which is then always the likeliest class.
    """
    mode = NETWORK_MODES[precision]
    cache = f"int8-calib-file={CACHE}\n" if precision == "int8" else ""
    made_for = f", for {target.name}" if target else ""
    return f"""\
# A classifier for Gst-nvinfer, written by edgetrt export-deepstream{made_for}. See {README}.
[property]
gpu-id=0
gie-unique-id=1
# 1: whole frames. For objects that a detector finds: 2, operate-on-gie-id, another gie-unique-id.
process-mode=1
# 1: classifier
network-type=1
onnx-file={GRAPH}
model-engine-file={GRAPH}_b1_gpu0_{precision}.engine
{cache}# 0: FP32, 1: INT8, 2: FP16
network-mode={mode}
# As many as there are streams; then also in the name of the engine file.
batch-size=1
labelfile-path={LABELS}
output-blob-names={shapes.output}
classifier-threshold=0

# The network scales the pixels itself: it takes them as 0 to 255, RGB, channels first.
infer-dims=3;{shapes.height};{shapes.width}
network-input-order=0
model-color-format=0
net-scale-factor=1
offsets=0;0;0
# Squashed, as in training. 1: bilinear. 0: on a Jetson by the VIC, else by the GPU.
maintain-aspect-ratio=0
scaling-filter=1
scaling-compute-hw=0
"""


def _measure(run: Run, shapes: Shapes, console: Console) -> Difference | None:
    try:
        dataset = trained_dataset(run)
        test = dataset.split("test")
        some = [test[place] for place in balanced([p.label for p in test], PICTURES, 0)]
        if not some:
            return None
        return measure(dataset, some, run.onnx("fp32"), (shapes.height, shapes.width))
    except PipelineError as error:
        console.warn(f"what DeepStream's resizing does was not measured: {error}")
        return None


def _answers(model: ModelProto, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    answers: np.ndarray = session.run(None, {model.graph.input[0].name: pixels})[0]
    return answers


def _choose(run: Run, precision: str | None, target: Target | None) -> str:
    """The precision: the one asked for, or FP16 where that can be and is the faster."""
    overflows = run.stage("quantize")["results"].get("impossible", {}).get("fp16")
    against = None if target is None else refusal(precision or "fp16", target.compute_capability)
    if precision is None:
        return "fp32" if overflows or against else "fp16"
    if against:
        raise UsageError(against)
    if precision == "fp16" and overflows:
        raise UsageError(f"FP16 can't hold this network: {overflows}; use --precision fp32")
    return precision


def _calibration(run: Run, target: Target | None) -> tuple[bytes, str]:
    """The calibration cache, and the TensorRT that it is for.

    nvinfer asks for INT8 only where it has a calibration cache, which it reads as TensorRT's
    EntropyCalibrator2, and never calibrates itself: a cache of another version would end the
    build (NvDsInferInt8Calibrator). So it is given the FP32 graph, not the one with Q/DQ.
    """
    missing = f"{command_for('quantize', run.folder)} --calibration-cache VERSION"
    if not run.calibration_cache.is_file():
        raise UsageError(
            "DeepStream takes INT8 only with a calibration cache, for its very TensorRT; make it "
            f"with: {missing}"
        )
    note = read_json(run.calibration_note)
    version = str(note.get("version")) if isinstance(note, dict) else ""
    digest = hashlib.sha256(run.onnx("fp32").read_bytes()).hexdigest()
    algorithm = calibration_cache.ALGORITHMS[0]
    wrong = calibration_cache.why_not(run.calibration_cache, version, algorithm, digest)
    if wrong:
        raise UsageError(f"{run.calibration_cache} can't be used: {wrong}; make it with: {missing}")
    if isinstance(target, Board):
        known = [jetpack.tensorrt for jetpack in target.jetpacks]
        if not any(version == release or version.startswith(f"{release}.") for release in known):
            raise UsageError(
                f"{run.calibration_cache} is for TensorRT {version}, and {target.name} has "
                f"{' or '.join(known)}; make it with: {missing}"
            )
    return run.calibration_cache.read_bytes(), version


def _readme(
    precision: str,
    shapes: Shapes,
    target: Target | None,
    tensorrt: str | None,
    resizing: Difference | None,
) -> str:
    made_for = target.name if target else "any board or GPU that is made for it"
    measured = textwrap.fill(
        f"Measured when this was written: {resizing}."
        if resizing
        else "What that changes was not measured: there were no test pictures.",
        width=98,
        initial_indent="  ",
        subsequent_indent="  ",
    )
    int8 = (
        f"""
INT8 is TensorRT's own, of the FP32 graph and {CACHE}, as in the engines that edgetrt
names tensorrt-int8-entropy: nvinfer takes no other. The cache is for TensorRT {tensorrt}, exactly;
another version refuses it.
"""
        if tensorrt
        else ""
    )
    return f"""\
A classifier for DeepStream's Gst-nvinfer, written by edgetrt export-deepstream
in {precision.upper()} for {made_for}.

    ... ! nvinfer config-file-path={CONFIG} ! ...

nvinfer builds the engine on the device when it first starts (some minutes) and writes it beside
{GRAPH}. The graph is ONNX of opset 13: TensorRT 8 or later, so DeepStream 6.0 or later.
With another batch-size, gpu-id or network-mode, change the name of model-engine-file as well.
The classes are in {LABELS}; the likeliest one is attached as classifier metadata.
{int8}
Layout: edgetrt's own graphs take pixels as height, width, channels. This one takes channels first,
as any nvinfer can give them (network-input-order=0); it was proved to answer alike.
Same as in training: RGB, 0 to 255, squashed to {shapes.width} x {shapes.height} without a crop.

Where nvinfer's pixels are not those that the network learnt ({RECIPE})
- Resizing. edgetrt averages areas where a picture shrinks to half or less in one direction and
  grows in none; nvinfer's scaling-filter is one for all sizes. Bilinear (1) comes closest for less
  shrinking. For frames of {2 * shapes.width} x {2 * shapes.height} and more, on a GPU, try \
scaling-filter=3 (supersampling),
  which averages as well, with scaling-compute-hw=1.
{measured}
- Colours. Frames of a video come as NV12: half the resolution in colour, and the conversion's
  own rounding. Not measured.
- A picture's EXIF orientation is not applied: turn such pictures before.
- A JPEG is decoded by nvjpegdec, not by libjpeg-turbo, and always at its full size.
"""
