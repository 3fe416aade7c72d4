"""Run -> bundle: the one file that a device is sent."""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import distribution
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import engines
from benchmarks.progress import Console
from engines import __version__, onnx_runtime
from engines.bundle import archive
from engines.bundle.manifest import (
    GRAPHS,
    LABELS,
    MANIFEST,
    NAME,
    SCHEMA,
    SIGNATURE,
    Manifest,
    parse,
)  # fmt: skip
from engines.catalogue import PRECISIONS
from engines.engine import Engine
from engines.files import replacing, sha256_of
from engines.preprocess import RECIPE
from engines.targets import refusal
from engines.text import printable
from pipeline import golden
from pipeline.backbones import EFFICIENTNET_LITE, IMAGENET
from pipeline.compare import read_report
from pipeline.dataset import Dataset
from pipeline.errors import PipelineError, UsageError
from pipeline.keys import sign
from pipeline.retrain import trained_dataset
from pipeline.run import Run
from pipeline.targets import find

MOST_GOLDEN = 64  # pictures
# As their packages' LICENSE has it.
PACKAGED_WEIGHTS = "the backbone's weights, Copyright (c) 2020, ML Illustrated"
# In words for people, in `engines.preprocess` for programs.
PREPROCESSING = {
    "recipe": RECIPE,
    "orientation": "upright, as EXIF says",
    "resize": "squashed, no crop; area if it shrinks to half or less, else linear",
    "scaling": "in the graph",
}

Contents = dict[str, Path | bytes]


def make(
    run: Run,
    out: Path,
    key: Path | None,
    precisions: Sequence[str] | None = None,
    with_tensorflow: bool = False,
    targets: Sequence[str] = (),
    name: str | None = None,
    console: Console | None = None,
    *,
    cases: int,
) -> Manifest:
    """Write a bundle; the same run, key and versions give the same bytes.

    Args:
        out: such as model.edgetrt.
        key: what it is signed with; None: it is not.
        precisions: those that devices may build; None: all that the run has graphs for.
        with_tensorflow: put the frozen graph in too, for devices that compare with TensorFlow.
        targets: names of boards and GPUs that it is for; none: for any.
        name: what the model is called; None: as the run's folder.
        cases: how many golden pictures are chosen.

    Raises:
        UsageError: the run has no graphs yet, or an argument can't be.
        PipelineError: the pictures are gone.
        OSError: it can't be written.
    """
    console = console or Console(quiet=True)
    if out.exists() and not out.is_file():
        raise UsageError(f"{printable(out)} is no file; choose another --out")
    if precisions is not None and not set(precisions) <= set(PRECISIONS):
        raise UsageError(f"--precision takes {', '.join(PRECISIONS)}, with commas between them")
    if not 1 <= cases <= MOST_GOLDEN:
        raise UsageError(f"--golden takes 1 to {MOST_GOLDEN}; received {cases}")
    about: dict[str, Any] = {
        "schema": SCHEMA,
        "edgetrt": __version__,
        "name": _name(run, name),
        "targets": list(dict.fromkeys(find(target).name for target in targets)),
    }
    if key is not None:
        sign(b"", key)  # that a key is no good is said before the work
    quantized = run.require("quantize")
    possible = _precisions(precisions, quantized["results"].get("impossible", {}))
    about["precisions"] = _useful(possible, precisions, about["targets"], console)
    dataset = trained_dataset(run)
    console.say("bundle: choosing golden pictures ...")
    chosen = golden.choose(run, dataset, about["precisions"], cases, console)
    contents = _contents(run, about["precisions"], with_tensorflow)
    contents.update({f"golden/{case.name}": case.data for case in chosen})
    about["licences"] = _licences(run, dataset, contents)
    about["made_from"] = _origin(run, dataset, quantized)
    about["classes"] = dataset.classes
    about["input"] = _input(run, about["precisions"][0])
    about["preprocessing"] = PREPROCESSING
    about["accuracy"] = _accuracy(run)
    about["golden"] = {
        "tolerance": {p: golden.TOLERANCE[p] for p in about["precisions"]},
        "cases": [
            {"picture": f"golden/{case.name}", "probabilities": case.probabilities}
            for case in chosen
        ],
    }
    about["files"] = [_entry(path, contents[path]) for path in sorted(contents)]
    data = json.dumps(about, indent=1, sort_keys=True, allow_nan=False).encode()
    manifest = parse(data)  # nothing leaves here that a device would refuse
    signature = None if key is None else sign(data, key)
    _write(out, data, signature, contents)
    console.say(
        f"bundle: {out}, {out.stat().st_size / 1e6:.1f} MB, {len(chosen)} golden pictures, "
        f"release {manifest.id}, {'signed' if signature else 'NOT signed'}"
    )
    return manifest


def _name(run: Run, given: str | None) -> str:
    if given is None:
        # What a folder may be called, but a URL's part and a file may not, becomes a dash.
        words = re.sub(r"[^A-Za-z0-9._-]+", "-", run.folder.resolve().name).lstrip("._-")
        return words[:100] or "model"
    if not NAME.fullmatch(given):
        raise UsageError(
            f"--name {printable(given)}: up to 100 letters, digits, dots, dashes and underscores "
            "are expected, the first a letter or digit"
        )
    return given


def _precisions(given: Sequence[str] | None, impossible: dict[str, str]) -> list[str]:
    """Those that are wanted and have graphs; one that was asked for by name must have them."""
    for precision in given or ():
        if precision in impossible:
            raise UsageError(f"--precision {precision} can't be: {impossible[precision]}")
    return [p for p in PRECISIONS if p not in impossible and (given is None or p in given)]


def _useful(
    possible: list[str], given: Sequence[str] | None, targets: Sequence[str], console: Console
) -> list[str]:
    """Without those that none of the targets is made for; one asked for by name is an error."""
    able = [find(target).compute_capability for target in targets]
    useful = []
    for precision in possible:
        against = [refusal(precision, capability) for capability in able]
        if not against or None in against:
            useful.append(precision)
        elif given is not None:
            raise UsageError(f"--precision {precision} is for none of the targets: {against[0]}")
        else:
            console.say(f"bundle: {precision} is left out: {against[0]}")
    return useful


def _contents(run: Run, precisions: Sequence[str], with_tensorflow: bool) -> Contents:
    graphs = {graph for precision in precisions for graph in GRAPHS[precision]}
    if "int8" in precisions and run.onnx(golden.MIXED).is_file():
        graphs.add(f"onnx/{run.onnx(golden.MIXED).name}")
    contents: Contents = {path: run.folder / path for path in (LABELS, *graphs)}
    if GRAPHS["fp32"][0] in graphs and run.calibration_cache.is_file():
        contents["onnx/calibration.cache"] = run.calibration_cache  # of use with that graph alone
    if with_tensorflow:
        contents["model/frozen.pb"] = run.frozen_graph
    return contents


def _origin(run: Run, dataset: Dataset, quantized: dict[str, Any]) -> dict[str, Any]:
    retrained = run.stage("retrain")["options"]
    return {
        "created": quantized["finished"],
        # Of a model of the user's own, the name of its file and not the way to it.
        "architecture": printable(Path(retrained["architecture"]).name)[:200],
        "seed": retrained["seed"],
        "pictures": len(dataset.pictures),
        "dataset_sha256": dataset.fingerprint(),
    }


def _input(run: Run, precision: str) -> dict[str, Any]:
    engine: Engine
    with onnx_runtime.load_graph(str(run.onnx(precision)), precision, optimize=False) as engine:
        name, (_, height, width, channels), _ = engine.input
    return {
        "name": name,
        "height": height,
        "width": width,
        "channels": channels,
        "layout": "NHWC",
        "color": "RGB",
        "dtype": "uint8",
        "minimum": 0,
        "maximum": 255,
    }


def _accuracy(run: Run) -> dict[str, Any]:
    """What every engine got right when the run was compared; {} if it was not, or has changed."""
    try:
        run.require("compare")
    except UsageError:
        return {}
    return {
        entry["name"]: {"top1": entry["accuracy"]["top1"], "pictures": entry["accuracy"]["n"]}
        for entry in read_report(run)["engines"]
        if entry["accuracy"] is not None
    }


def _licences(run: Run, dataset: Dataset, contents: Contents) -> list[dict[str, str]]:
    """Put the licences that are known into `contents`; gives what they are of."""
    retrained = run.stage("retrain")["options"]
    apache = "licences/Apache-2.0.txt"
    contents[apache] = _own_licence()
    found = [{"of": "edgetrt", "licence": "Apache-2.0", "file": apache}]
    if retrained["architecture"] in EFFICIENTNET_LITE and retrained["weights"] == IMAGENET:
        # The other weights come from Keras, without a word about them.
        found.append({"of": PACKAGED_WEIGHTS, "licence": "Apache-2.0", "file": apache})
    if dataset.source:
        contents["licences/pictures.txt"] = dataset.source.encode("utf-8", "surrogateescape")
        found.append(
            {
                "of": "the golden pictures, and those that the model was trained on",
                "licence": "see the file",
                "file": "licences/pictures.txt",
            }
        )
    return found


def _own_licence() -> bytes:
    checkout = Path(str(engines.__file__)).parents[1] / "LICENSE"
    if checkout.is_file():
        return checkout.read_bytes()
    text = distribution("edgetrt").read_text("licenses/LICENSE")
    if text is None:
        raise PipelineError("edgetrt's own LICENSE is missing; install edgetrt again")
    return text.encode()


def _entry(path: str, content: Path | bytes) -> dict[str, Any]:
    if isinstance(content, bytes):
        return {
            "path": path,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    return {"path": path, "size": content.stat().st_size, "sha256": sha256_of(content)}


def _write(out: Path, data: bytes, signature: bytes | None, contents: Contents) -> None:
    head: Contents = {MANIFEST: data}
    if signature is not None:
        head[SIGNATURE] = signature
    with replacing(out) as temporary, ExitStack() as stack:

        def opened(content: Path | bytes) -> BinaryIO:
            if isinstance(content, bytes):
                return BytesIO(content)
            return stack.enter_context(content.open("rb"))

        with temporary.open("wb") as file:
            members = [*head.items(), *sorted(contents.items())]
            archive.write(file, [(name, opened(content)) for name, content in members])
        with archive.Bundle(temporary) as bundle:
            bundle.check()
