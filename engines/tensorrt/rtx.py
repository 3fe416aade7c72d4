"""TensorRT-RTX: engines for RTX GPUs, built on a machine without one."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Optional

from engines.cache import cache_file, forget_oldest
from engines.engine import Engine, EngineError
from engines.files import write_bytes
from engines.settings import DEFAULT, Settings
from engines.targets import RTX_TARGETS
from engines.tensorrt.apart import build_apart
from engines.tensorrt.builder import Progress
from engines.tensorrt.dialect import Contexts, Dialect
from engines.tensorrt.here import gpu_here, target_of, why_elsewhere, why_no_gpu
from engines.tensorrt.runner import TensorRTEngine
from engines.tensorrt.turing import spread_products

BACKEND = "tensorrt-rtx"
SUFFIX = ".plan"


class Rtx(Dialect):
    """1.x: builds for named compute capabilities; compiles for good at the first run."""

    name = "TensorRT-RTX"

    @staticmethod
    def is_spoken_by(trt: Any) -> bool:
        """See `Dialect.is_spoken_by`."""
        return hasattr(trt, "ComputeCapability")

    def adapt_network(self, network: Any, target: str) -> None:
        """See `Dialect.adapt_network`."""
        if target == "sm75":
            spread_products(self.trt, network)

    def set_target(self, config: Any, target: str) -> None:
        """See `Dialect.set_target`."""
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(self.trt.ComputeCapability, target.upper()), 0)

    def set_workspace(self, config: Any, size: int) -> None:
        """Nothing: kernels are chosen only where the engine runs."""

    def set_timing_cache(self, config: Any, data: bytes) -> Any:
        """None: nothing is timed during a build, and a cache would ask for a GPU."""
        return None

    def contexts(self, runtime: Any, engine: Any, plan: bytes) -> Contexts:
        """See `Dialect.contexts`; what was compiled at a first run is kept."""
        digest = hashlib.sha256(plan).hexdigest()
        cache = cache_file("runtime", self.trt.__version__, digest)
        return CachedContexts(self.trt, engine, cache)


class CachedContexts(Contexts):
    """Contexts that share what was compiled for this GPU, in this run and earlier ones."""

    def __init__(self, trt: Any, engine: Any, path: Path) -> None:
        super().__init__(engine)
        self._path = path
        self._config = engine.create_runtime_config()
        self._cache = self._config.create_runtime_cache()
        self._before = b""
        with suppress(OSError):
            self._before = self._path.read_bytes()
            self._cache.deserialize(self._before)
        self._config.set_runtime_cache(self._cache)
        self._config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # By default kernels for a new batch size are compiled while slower ones serve it: what is
        # measured would not be what runs a moment later.
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._config.dynamic_shapes_kernel_specialization_strategy = eager

    def create(self) -> Any:
        """See `Contexts.create`."""
        return self._engine.create_execution_context(self._config)

    def save(self) -> None:
        """See `Contexts.save`."""
        data = bytes(self._cache.serialize())
        if data != self._before:
            with suppress(OSError):  # the next start is slower then, and nothing else
                write_bytes(self._path, data)
                forget_oldest(self._path)


def unavailable() -> Optional[str]:
    """Why it can't build here; None if it can."""
    try:
        _module()
    except ImportError as error:
        gpu = gpu_here()
        if gpu is not None and target_of(gpu) not in RTX_TARGETS:
            return "TensorRT-RTX is not installed, and builds none for {}".format(target_of(gpu))
        return "TensorRT-RTX is not installed ({}); pip install tensorrt-rtx-cu12".format(error)
    return None


def none_runs() -> Optional[str]:
    """Why no engine at all can run on this machine; None if some could."""
    reason = unavailable() or why_no_gpu()
    gpu = gpu_here()
    if reason is None and gpu is not None and target_of(gpu) not in RTX_TARGETS:
        reason = "it builds none for {}".format(target_of(gpu))
    return reason


def cannot_run(sidecar: Dict[str, Any]) -> Optional[str]:
    """Why an engine that was built can't run on this machine; None if it can."""
    return why_elsewhere(sidecar, version()) or none_runs()


def graph_for(precision: str, settings: Settings) -> str:
    """Which of the exported graphs a precision is built from."""
    return Rtx.graph_for(precision, settings.int8)


def depends(settings: Settings) -> Dict[str, Any]:
    """What an engine depends on, beside its graph and target."""
    return {"tensorrt": _module().__version__, "batch": list(settings.batch)}


def build(
    onnx_path: str,
    engine_path: str,
    precision: str,
    target: str,
    settings: Settings = DEFAULT,
    progress: Optional[Progress] = None,
) -> Dict[str, Any]:
    """Build an engine for one compute capability.

    Args:
        onnx_path: graph with one input (batch, height, width, 3), typed throughout.
        engine_path: file to write.
        precision: "fp32", "fp16" or "int8"; the graph already has it.
        target: one of `RTX_TARGETS`, such as "sm86".

    Returns:
        "options" that made it, and "layers" where the GPU it is for is at hand.

    Raises:
        EngineError: unknown target, or the parser or builder refuses.
    """
    if target not in RTX_TARGETS:
        raise EngineError(
            "TensorRT-RTX builds for {}, not for {}".format(", ".join(RTX_TARGETS), target)
        )
    gpu = gpu_here()
    return build_apart(
        _module().__name__,
        onnx_path,
        engine_path,
        precision,
        target,
        settings,
        workspace=0,
        gpu=gpu.name if gpu is not None and target_of(gpu) == target else None,
        progress=progress,
    )


def load(data: bytes, path: str, precision: str) -> Engine:
    """An engine that `build` wrote and `cannot_run` has nothing against.

    Args:
        data: the engine; it was checked before, as it is native code.
        path: where it is from.

    Raises:
        EngineError: TensorRT-RTX refuses it, or CUDA fails.
    """
    return TensorRTEngine(Rtx(_module()), BACKEND, precision, data, path)


def version() -> Optional[str]:
    """The version that is installed; None if there is none."""
    try:
        return str(_module().__version__)
    except ImportError:
        return None


def _module() -> Any:
    # The package tensorrt-rtx-cu12 only hands on what its bindings package holds.
    try:
        import tensorrt_rtx
    except ImportError:
        import tensorrt_rtx_bindings as tensorrt_rtx
    return tensorrt_rtx
