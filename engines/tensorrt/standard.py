"""TensorRT 8, 10 and 11: engines for the very GPU they are built on."""

import hashlib
from pathlib import Path
from typing import Any, Dict, Optional

from engines.engine import Engine, EngineError
from engines.files import sha256_of
from engines.settings import DEFAULT, EXPLICIT, Settings
from engines.targets import Gpu, default_workspace, refusal
from engines.tensorrt.build import build_apart
from engines.tensorrt.builder import Progress
from engines.tensorrt.dialects import dialect_of
from engines.tensorrt.here import gpu_here, target_of, why_elsewhere, why_none_runs
from engines.tensorrt.runner import TensorRTEngine
from engines.tensorrt.v11 import V11

BACKEND = "tensorrt"
SUFFIX = ".plan"
UNKNOWN = "gpu"  # the target where there is no GPU


def unavailable() -> Optional[str]:
    """Why it can't build here; None if it can."""
    try:
        import tensorrt
    except ImportError as error:
        return (
            "TensorRT is not installed ({}). On a Jetson, whose JetPack brings it, build with the "
            "device program (edgetrt device-package); with another NVIDIA GPU: "
            "pip install tensorrt".format(error)
        )
    try:
        dialect_of(tensorrt)
    except EngineError as error:
        return str(error)
    if gpu_here() is None:
        return "there is no NVIDIA GPU, and TensorRT builds only for the GPU it runs on"
    return None


def target_here() -> str:
    """What engines are built for here: "sm62"; "gpu" where there is none."""
    gpu = gpu_here()
    return UNKNOWN if gpu is None else target_of(gpu)


def none_runs() -> Optional[str]:
    """Why no engine at all can run on this machine; None if some could."""
    return unavailable() or why_none_runs()


def cannot_run(sidecar: Dict[str, Any]) -> Optional[str]:
    """Why an engine that was built can't run on this machine; None if it can."""
    reason = unavailable()
    if reason is not None:
        return reason
    import tensorrt

    return why_elsewhere(sidecar, tensorrt.__version__)


def graph_for(precision: str, settings: Settings) -> str:
    """Which of the exported graphs a precision is built from; TensorRT 11's if none is here."""
    try:
        import tensorrt
    except ImportError:
        return V11.graph_for(precision, EXPLICIT)
    return dialect_of(tensorrt).graph_for(precision, settings.int8)


def depends(settings: Settings) -> Dict[str, Any]:
    """What an engine depends on, beside its graph and target."""
    import tensorrt

    gpu = _gpu()
    return {
        "tensorrt": tensorrt.__version__,
        "gpu": gpu.name,
        "batch": list(settings.batch),
        "workspace": settings.workspace or default_workspace(gpu.compute_capability),
        "int8": settings.int8,
        "calibration": _calibration(settings),
    }


def build(
    onnx_path: str,
    engine_path: str,
    precision: str,
    target: str,
    settings: Settings = DEFAULT,
    progress: Optional[Progress] = None,
) -> Dict[str, Any]:
    """Build an engine for this machine's first GPU.

    Args:
        onnx_path: the graph that `graph_for` names; one input (batch, height, width, 3).
        engine_path: file to write.
        precision: "fp32", "fp16" or "int8".
        target: as `target_here` gives it.

    Returns:
        "options" that made it, with a "note" where it was forced, and "layers".

    Raises:
        EngineError: the GPU is not made for that precision, TensorRT can't be asked for these
            settings, or the parser or builder refuses.
    """
    import tensorrt

    gpu = _gpu()
    if target != target_of(gpu):
        raise EngineError("TensorRT builds only for the GPU it runs on, not for {}".format(target))
    against = refusal(precision, gpu.compute_capability)
    if against is not None and not settings.force:
        raise EngineError(against + " (--force builds it all the same)")
    dialect = dialect_of(tensorrt)
    impossible = dialect.refuse(settings)
    if impossible is not None:
        raise EngineError(impossible)
    made = build_apart(
        "tensorrt",
        onnx_path,
        engine_path,
        precision,
        target,
        settings,
        settings.workspace or default_workspace(gpu.compute_capability),
        gpu.name,
        progress,
    )
    if against is not None:
        made["options"]["forced"] = against
    return made


def load(path: str, precision: str) -> Engine:
    """The engine in `path`, which `build` wrote and `cannot_run` has nothing against.

    Raises:
        EngineError: TensorRT refuses it, or CUDA fails.
    """
    import tensorrt

    return TensorRTEngine(dialect_of(tensorrt), BACKEND, precision, path)


def _calibration(settings: Settings) -> Optional[str]:
    """By what TensorRT's own calibration would differ from another."""
    if settings.int8 == EXPLICIT:
        return None
    if settings.calibration_pictures:
        return hashlib.sha256(
            "\n".join(settings.calibration_pictures).encode("utf-8", "surrogateescape")
        ).hexdigest()
    cache = Path(settings.calibration_cache or "")
    return sha256_of(cache) if cache.is_file() else None


def _gpu() -> Gpu:
    gpu = gpu_here()
    if gpu is None:
        raise EngineError("there is no NVIDIA GPU here")
    return gpu
