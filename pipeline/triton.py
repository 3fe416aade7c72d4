"""A run as a model repository for NVIDIA's Triton Inference Server.

What stands in a config.pbtxt: triton-inference-server/common, protobuf/model_config.proto, and
the server's docs/user_guide/model_configuration.md.
"""

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.progress import Console
from engines import onnx_runtime
from engines.catalogue import PRECISIONS, is_made_of, read_sidecars
from engines.files import sha256_of
from engines.preprocess import RECIPE
from engines.settings import DEFAULT
from engines.tensorrt import standard
from engines.text import printable
from pipeline import out_folder
from pipeline.errors import PipelineError, UsageError
from pipeline.run import Run, command_for
from pipeline.shapes import Shapes, shapes_of

KIND = "export-triton"
BACKENDS = {onnx_runtime.BACKEND: "onnxruntime_onnx", standard.BACKEND: "tensorrt_plan"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LABELS = "labels.txt"
README = "README.txt"


class Model(NamedTuple):
    """What is to be served.

    source: the run's file, which becomes NAME/1/`file`.
    max_batch: the largest batch that it takes.
    made_for: GPU, TensorRT and CUDA that a plan runs on; {} for a graph, which runs anywhere.
    """

    source: Path
    file: str
    platform: str
    engine: str
    max_batch: int
    made_for: dict[str, str]


def export_triton(
    run: Run,
    out: Path,
    engine: str | None,
    precision: str | None,
    name: str | None,
    console: Console,
) -> dict[str, Any]:
    """Write a run's model into a Triton model repository.

    Args:
        out: the repository, which may hold other models; the model is the folder `name` in it.
        engine: of the run: one of ONNX Runtime, for the graph that it was made of, or a TensorRT
            one; None for the graph of `precision`.
        precision: "fp32" (as for None), "fp16" or "int8"; not together with `engine`.
        name: of the model; None for the run folder's.

    Returns:
        "folder" of the model, its "name", "platform", "engine", "max_batch_size" and "made_for".

    Raises:
        UsageError: no such engine, or one that Triton can't load; a name that is none; or
            there is something else in the model's place.
    """
    if engine is not None and precision is not None:
        raise UsageError("--engine has its precision in its name; give it or --precision")
    name = _checked_name(run.folder.resolve().name if name is None else name)
    folder = out / name
    out_folder.check_replaceable(folder, KIND)
    run.require("quantize")
    model = _graph(run, precision or "fp32") if engine is None else _find(run, engine)
    graph = run.onnx("fp32")  # names and shapes are the same in every variant
    shapes = shapes_of(graph)
    files = {
        "config.pbtxt": config(name, model, shapes).encode(),
        f"1/{model.file}": model.source.read_bytes(),
        LABELS: run.labels.read_bytes(),
        README: _readme(name, model, shapes).encode(),
    }
    made_from = {"engine": model.engine, "sha256": sha256_of(model.source), **model.made_for}
    out_folder.write(folder, KIND, made_from, files)
    console.say(f"export-triton: {folder}: {model.engine}, {model.platform}")
    if model.made_for:
        console.say("  it runs only on " + _in_words(model.made_for))
    console.say(f"  tritonserver --model-repository={shlex.quote(str(out.absolute()))}")
    return {
        "folder": str(folder),
        "name": name,
        "platform": model.platform,
        "engine": model.engine,
        "max_batch_size": model.max_batch,
        "made_for": model.made_for,
    }


def config(name: str, model: Model, shapes: Shapes) -> str:
    """The text of config.pbtxt.

    The input has a format, without which Triton's image_client refuses the model
    (triton-inference-server/server#3895). A batch waits for nothing: requests that are queued
    when an instance becomes free go together. Both ends of the range of batches are run once
    before the model is ready.
    """
    gpu_only = model.platform == BACKENDS[standard.BACKEND]
    picture = f"[ {shapes.height}, {shapes.width}, 3 ]"
    notes = {"edgetrt_engine": model.engine, "edgetrt_preprocessing": RECIPE}
    notes |= {f"edgetrt_made_for_{key}": value for key, value in model.made_for.items()}
    return (
        f"""\
# Written by edgetrt export-triton.
name: {_quoted(name)}
platform: {_quoted(model.platform)}
default_model_filename: {_quoted(model.file)}
max_batch_size: {model.max_batch}
input {{
  name: {_quoted(shapes.input)}
  data_type: TYPE_FP32
  format: FORMAT_NHWC
  dims: {picture}
}}
output {{
  name: {_quoted(shapes.output)}
  data_type: TYPE_FP32
  dims: [ {shapes.classes} ]
  label_filename: {_quoted(LABELS)}
}}
instance_group {{ count: 1, kind: {"KIND_GPU" if gpu_only else "KIND_AUTO"} }}
dynamic_batching {{ }}
"""
        + "".join(
            f"""\
model_warmup {{
  name: {_quoted(f"batch of {size}")}
  batch_size: {size}
  inputs {{
    key: {_quoted(shapes.input)}
    value {{ data_type: TYPE_FP32, dims: {picture}, zero_data: true }}
  }}
}}
"""
            for size in sorted({1, model.max_batch})
        )
        + "".join(
            f"""\
parameters {{
  key: {_quoted(key)}
  value {{ string_value: {_quoted(value)} }}
}}
"""
            for key, value in notes.items()
        )
    )


def _graph(run: Run, precision: str) -> Model:
    """A graph for Triton's ONNX Runtime; the batch that TensorRT engines take is its largest too.

    The graph as it was exported, not as ONNX Runtime optimized it for this processor.
    """
    impossible = run.stage("quantize")["results"].get("impossible", {}).get(precision)
    if impossible:
        raise UsageError(f"there is no {precision} graph in {run.folder}: {impossible}")
    platform = BACKENDS[onnx_runtime.BACKEND]
    engine = f"{onnx_runtime.BACKEND}-{precision}"
    graph = run.onnx(precision)
    return Model(graph, "model.onnx", platform, engine, DEFAULT.batch[2], {})


def _find(run: Run, name: str) -> Model:
    """The engine of a name, as Triton loads it."""
    if name in {f"{onnx_runtime.BACKEND}-{precision}" for precision in PRECISIONS}:
        return _graph(run, name.rpartition("-")[2])
    sidecars = read_sidecars(run.engines) if run.engines.is_dir() else []
    for sidecar in sidecars:
        if sidecar["name"] == name:
            return _plan(run, sidecar)
    names = [s["name"] for s in sidecars if s["status"] == "built" and s["backend"] in BACKENDS]
    there = f"there are: {', '.join(names)}" if names else command_for("build", run.folder)
    raise UsageError(f"no engine '{printable(name)}' that Triton loads in {run.folder}; {there}")


def _plan(run: Run, sidecar: dict[str, Any]) -> Model:
    name = sidecar["name"]
    if sidecar["backend"] not in BACKENDS:
        raise UsageError(
            f"Triton has no backend that loads {name}; take one of TensorRT or ONNX Runtime"
        )
    if sidecar["status"] != "built":
        raise UsageError(f"engine {name} was not built: {sidecar['reason']}")
    if not is_made_of(sidecar, run.folder / "onnx"):
        raise UsageError(
            f"engine {name} was built from an older model; run: {command_for('build', run.folder)}"
        )
    source = run.engines / sidecar["file"]
    if not source.is_file() or sha256_of(source) != sidecar["sha256"]:
        raise UsageError(f"{source} is not the file that was built; build it again")
    depends = sidecar["depends"]
    try:
        smallest, _, largest = (int(size) for size in depends["batch"])
        made_for = {key: str(depends[key]) for key in ("gpu", "tensorrt", "cuda")}
    except (KeyError, TypeError, ValueError):
        raise PipelineError(f"what is kept of engine {name} is damaged; build it again") from None
    if smallest > 1:
        raise UsageError(
            f"engine {name} takes no batch below {smallest}, and Triton sends single pictures; "
            "build it with --batch 1,..."
        )
    platform = BACKENDS[standard.BACKEND]
    return Model(source, "model.plan", platform, name, largest, made_for)


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise UsageError(
            f"'{printable(name)}' is no name for a model: letters, digits, dots, dashes and "
            "underlines, not a dash or dot first; give another --name"
        )
    return name


def _quoted(text: str) -> str:
    """A string as protobuf's text format has it: what is not plain ASCII as octal bytes."""
    plain = set(range(0x20, 0x7F)) - {ord('"'), ord("\\")}
    data = text.encode("utf-8", "surrogateescape")
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in data) + '"'


def _in_words(made_for: dict[str, str]) -> str:
    return "{gpu}, with exactly TensorRT {tensorrt} (built with CUDA {cuda})".format(**made_for)


def _readme(name: str, model: Model, shapes: Shapes) -> str:
    where = (
        f"It is a TensorRT engine, and runs only on {_in_words(model.made_for)}:\n"
        "take the release of Triton that has this TensorRT, or build the engine anew in its image."
        if model.made_for
        else "It is an ONNX graph: Triton's ONNX Runtime runs it on any processor or GPU."
    )
    return f"""\
{name}: a classifier for the Triton Inference Server, written by edgetrt export-triton
({model.engine}). {where}

The folder above this one is the model repository:

    tritonserver --model-repository=DIR

Input "{shapes.input}": float32 (N, {shapes.height}, {shapes.width}, 3), N up to {model.max_batch}.
RGB, the values of the pixels, 0 to 255: neither scaled nor shifted, which the network does itself.
Output "{shapes.output}": float32 (N, {shapes.classes}), probabilities that sum to 1.
{LABELS} names the classes in their order; Triton's classification extension uses it.

From picture file to pixels
The client does this: no backend that comes with Triton decodes pictures as the network learnt
them. Its answers are those of edgetrt only if the pixels are ({RECIPE}):
- turned upright by the picture's EXIF orientation; grey repeated to three channels; alpha dropped;
- squashed to {shapes.width} x {shapes.height} without a crop, whatever its proportions: averaged \
over areas (OpenCV's
  INTER_AREA) where it shrinks to half or less in one direction and grows in none, else
  INTER_LINEAR_EXACT; a JPEG at least four times as large is decoded at 1/2, 1/4 or 1/8 before.

With edgetrt and tritonclient[http] installed:

    import tritonclient.http
    from engines.preprocess import load

    pixels = load("picture.jpg", {shapes.height}, {shapes.width})[None].astype("float32")
    source = tritonclient.http.InferInput("{shapes.input}", pixels.shape, "FP32")
    source.set_data_from_numpy(pixels)
    wanted = tritonclient.http.InferRequestedOutput("{shapes.output}", class_count=3)
    client = tritonclient.http.InferenceServerClient("localhost:8000")
    print(client.infer("{name}", [source], outputs=[wanted]).as_numpy("{shapes.output}"))
"""
