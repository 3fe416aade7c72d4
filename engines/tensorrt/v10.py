"""TensorRT 10 and 11: engines for the very GPU they are built on."""

from pathlib import Path
from typing import Any, Dict, Optional

from engines.engine import EngineError
from engines.targets import find_gpus, has_fast_fp16, has_int8
from engines.tensorrt.builder import MAX_BATCH, OPTIMAL_BATCH, build_plan

BACKEND = "tensorrt"
SUFFIX = ".plan"
WORKSPACE = 1 << 30  # bytes the builder may use for a layer's scratch space


def unavailable() -> Optional[str]:
    """Why it can't be used here; None if it can."""
    try:
        import tensorrt
    except ImportError as error:
        return (
            "TensorRT is not installed ({}); a Jetson's JetPack brings it, "
            "with another NVIDIA GPU: pip install tensorrt".format(error)
        )
    if not hasattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return "TensorRT {} is older than 10".format(tensorrt.__version__)
    if not find_gpus():
        return "there is no NVIDIA GPU, and TensorRT builds only for the GPU it runs on"
    return None


def build(onnx_path: str, engine_path: str, precision: str, target: str) -> Dict[str, Any]:
    """Build an engine for this machine's first GPU.

    Args:
        onnx_path: graph with one input (batch, height, width, 3), typed throughout.
        engine_path: file to write.
        precision: "fp32", "fp16" or "int8"; the graph already has it.
        target: "gpu".

    Returns:
        The options that made it, the version, the GPU, and the builder's warnings.

    Raises:
        EngineError: the GPU is not made for that precision, or the parser or builder refuses.
    """
    import tensorrt

    gpu = find_gpus()[0]
    if precision == "int8" and not has_int8(gpu.compute_capability):
        raise EngineError("{} has no INT8 instructions; use fp16".format(gpu.name))
    if precision == "fp16" and not has_fast_fp16(gpu.compute_capability):
        raise EngineError("{} is slower in FP16; use fp32".format(gpu.name))

    def configure(config: Any) -> None:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE)

    plan = build_plan(tensorrt, onnx_path, configure)
    Path(engine_path).write_bytes(plan.data)
    return {
        "tensorrt": tensorrt.__version__,
        "gpu": gpu.name,
        "compute_capability": list(gpu.compute_capability),
        "batch": {"min": 1, "opt": OPTIMAL_BATCH, "max": MAX_BATCH},
        "strongly_typed": True,
        "workspace_bytes": WORKSPACE,
        "warnings": plan.warnings,
    }
