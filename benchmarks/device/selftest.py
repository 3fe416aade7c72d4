"""`selftest`: whether everything on this device works and answers right, on a network we know."""

import io
import pkgutil
import tempfile
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple, Optional

import numpy as np

from engines.catalogue import MODULES, PRECISIONS, load_engine, module_of, none_runs
from engines.engine import EngineError
from engines.files import write_bytes
from engines.orders import Order, fulfil
from engines.preprocess import pixels
from engines.targets import refusal
from engines.tensorrt import rtx, standard
from engines.tensorrt.here import gpu_here, target_of

ON_GPU = (standard.BACKEND, rtx.BACKEND)

# The largest difference of a probability from ONNX Runtime on the very graph: rounding to FP16
# or TF32, and INT8 where a value lies between two steps.
ALLOWED = {"fp32": 0.005, "fp16": 0.02, "int8": 0.08}


class Check(NamedTuple):
    """One thing that was tried; `passed` is None for what this device can't or need not do."""

    name: str
    passed: Optional[bool]
    what: str


def selftest() -> Iterator[Check]:
    """Decode a picture, then build and run the known network in all that is installed here."""
    answers = np.load(io.BytesIO(_known("answers.npz")), allow_pickle=False)
    yield _decoding(answers["decoded"])
    for backend in MODULES:
        reason = module_of(backend).unavailable()
        if reason is None and none_runs(backend) is not None:
            reason = "it builds for other machines only"
        for precision in [] if reason else PRECISIONS:
            yield _engine(backend, precision, answers)
        if reason is not None:
            yield Check(backend, None, reason)


def _decoding(wanted: np.ndarray) -> Check:
    try:
        found = pixels(_known("picture.png"), *wanted.shape[:2])
    except ImportError as error:
        return Check("decoding", False, "OpenCV can't be imported ({})".format(error))
    apart = int(np.abs(found.astype(int) - wanted.astype(int)).max())
    return Check("decoding", apart <= 1, "largest difference of a pixel {} of 255".format(apart))


def _engine(backend: str, precision: str, answers: Mapping[str, np.ndarray]) -> Check:
    """Build one engine of the known network, run it, and hold it against the answers."""
    gpu = gpu_here() if backend in ON_GPU else None
    order = Order(backend, precision, target_of(gpu) if gpu else "cpu")
    against = refusal(precision, gpu.compute_capability) if gpu else None
    if against is not None:
        return Check(order.name, None, against)
    with tempfile.TemporaryDirectory() as name:
        graph = Path(name) / "model.{}.onnx".format(order.graph)
        write_bytes(graph, _known(graph.name))
        sidecar, _ = fulfil(order, graph, Path(name), {})
        if sidecar["status"] != "built":
            return Check(order.name, False, sidecar["reason"])
        try:
            with load_engine(name, sidecar) as engine:
                # One at a time and all at once: batches are engines' weak spot.
                one = np.concatenate([engine.infer(p[np.newaxis]) for p in answers["pictures"]])
                all_at_once = engine.infer(answers["pictures"])
        except EngineError as error:
            return Check(order.name, False, str(error))
    wanted = answers[order.graph]
    apart = float(max(np.abs(one - wanted).max(), np.abs(all_at_once - wanted).max()))
    return Check(
        order.name,
        apart <= ALLOWED[precision],
        "largest difference of a probability {:.5f} (allowed {}), built in {:.1f} s".format(
            apart, ALLOWED[precision], sidecar["build_seconds"]
        ),
    )


def _known(name: str) -> bytes:
    """A file of benchmarks/device/known/, also out of a zip file."""
    data = pkgutil.get_data("benchmarks.device", "known/" + name)
    if data is None:
        raise EngineError("{} is missing from this program".format(name))
    return data
