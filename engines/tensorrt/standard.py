"""TensorRT 8, 10 and 11: engines for the very GPU they are built on."""

from typing import Any, Dict, Optional

from engines.engine import Engine, EngineError
from engines.settings import DEFAULT, EXPLICIT, Settings
from engines.targets import Gpu, default_workspace, find_board, find_cuda, refusal
from engines.tensorrt.apart import build_apart
from engines.tensorrt.builder import Progress
from engines.tensorrt.calibrator import fingerprint
from engines.tensorrt.dialects import dialect_of
from engines.tensorrt.here import gpu_here, target_of, why_elsewhere, why_no_gpu
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
        if find_board() is not None:
            return (
                "TensorRT can't be imported ({}): JetPack's is for the system's own python3, and "
                "in its package python3-libnvinfer".format(error)
            )
        return (
            "TensorRT is not installed ({}). On a Jetson, whose JetPack brings it, build with the "
            "device program (edgetrt device-package); with another NVIDIA GPU: "
            "pip install tensorrt".format(error)
        )
    try:
        dialect_of(tensorrt)
    except EngineError as error:
        return str(error)
    reason = why_no_gpu()
    return reason and reason + "; TensorRT builds only for the GPU it runs on"


def target_here() -> str:
    """What engines are built for here: "sm62"; "gpu" where there is none."""
    gpu = gpu_here()
    return UNKNOWN if gpu is None else target_of(gpu)


def none_runs() -> Optional[str]:
    """Why no engine at all can run on this machine; None if some could."""
    return unavailable()


def cannot_run(sidecar: Dict[str, Any]) -> Optional[str]:
    """Why an engine that was built can't run on this machine; None if it can."""
    return why_elsewhere(sidecar, version()) or none_runs()


def graph_for(precision: str, settings: Settings) -> str:
    """Which of the exported graphs a precision is built from; TensorRT 11's if none is here."""
    try:
        import tensorrt
    except ImportError:
        return V11.graph_for(precision, EXPLICIT)
    return dialect_of(tensorrt).graph_for(precision, settings.int8)


def refuse(precision: str, settings: Settings) -> Optional[str]:
    """Why an engine is not built here though it could be asked for; None if it is."""
    import tensorrt

    against = refusal(precision, _gpu().compute_capability)
    if against is not None and not settings.force:
        return against + " (--force builds it all the same)"
    return dialect_of(tensorrt).refuse(settings)


def depends(settings: Settings) -> Dict[str, Any]:
    """What an engine depends on, beside its graph and target."""
    import tensorrt

    gpu = _gpu()
    return {
        "tensorrt": tensorrt.__version__,
        "cuda": find_cuda(),
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
        "options" that made it, with "forced" where the GPU is not made for it, and "layers".

    Raises:
        EngineError: the target is another, or the parser or builder refuses.
    """
    gpu = _gpu()
    if target != target_of(gpu):
        raise EngineError("TensorRT builds only for the GPU it runs on, not for {}".format(target))
    against = refusal(precision, gpu.compute_capability)
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


def load(data: bytes, path: str, precision: str) -> Engine:
    """An engine that `build` wrote and `cannot_run` has nothing against.

    Args:
        data: the engine; it was checked before, as it is native code.
        path: where it is from.

    Raises:
        EngineError: TensorRT refuses it, or CUDA fails.
    """
    import tensorrt

    return TensorRTEngine(dialect_of(tensorrt), BACKEND, precision, data, path)


def _calibration(settings: Settings) -> Optional[str]:
    """By what TensorRT's own calibration would differ from another."""
    return None if settings.int8 == EXPLICIT else fingerprint(settings)


def version() -> Optional[str]:
    """The version that is installed; None if there is none."""
    try:
        import tensorrt
    except ImportError:
        return None
    return str(tensorrt.__version__)


def _gpu() -> Gpu:
    gpu = gpu_here()
    if gpu is None:
        raise EngineError(str(why_no_gpu()))
    return gpu
