"""TensorRT-RTX: engines for RTX GPUs, built on a machine without one."""

from pathlib import Path
from typing import Any, Dict, Optional

from engines.engine import EngineError
from engines.targets import RTX_TARGETS
from engines.tensorrt.builder import MAX_BATCH, OPTIMAL_BATCH, build_plan

BACKEND = "tensorrt-rtx"
SUFFIX = ".plan"


def unavailable() -> Optional[str]:
    """Why it can't be used here; None if it can."""
    try:
        _module()
    except ImportError as error:
        return "TensorRT-RTX is not installed ({}); pip install tensorrt-rtx-cu12".format(error)
    return None


def build(onnx_path: str, engine_path: str, precision: str, target: str) -> Dict[str, Any]:
    """Build an engine for one compute capability.

    Args:
        onnx_path: graph with one input (batch, height, width, 3), typed throughout.
        engine_path: file to write.
        precision: "fp32", "fp16" or "int8"; the graph already has it.
        target: one of `RTX_TARGETS`, such as "sm86".

    Returns:
        The options that made it, the version, and the builder's warnings.

    Raises:
        EngineError: unknown target, or the parser or builder refuses.
    """
    if target not in RTX_TARGETS:
        raise EngineError(
            "TensorRT-RTX builds for {}, not for {}".format(", ".join(RTX_TARGETS), target)
        )
    trt = _module()

    def configure(config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0)

    plan = build_plan(trt, onnx_path, configure)
    Path(engine_path).write_bytes(plan.data)
    return {
        "tensorrt_rtx": trt.__version__,
        "batch": {"min": 1, "opt": OPTIMAL_BATCH, "max": MAX_BATCH},
        "strongly_typed": True,
        "warnings": plan.warnings,
    }


def _module() -> Any:
    # The package tensorrt-rtx-cu12 only hands on what its bindings package holds.
    try:
        import tensorrt_rtx
    except ImportError:
        import tensorrt_rtx_bindings as tensorrt_rtx
    return tensorrt_rtx
