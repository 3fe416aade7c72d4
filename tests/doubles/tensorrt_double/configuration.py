"""How to build: flags, limits, profiles, and what is used and told during a build."""

import json
from collections.abc import Sequence

from cuda_double import _gpu

from . import messages, plan
from .calibration import IInt8Calibrator
from .enums import BuilderFlag, MemoryPoolType, ProfilingVerbosity
from .network import Dims, IHostMemory
from .played import played


class IProgressMonitor:
    """What people derive their progress bars from."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins."""
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step is done; False ends the build."""
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        """A phase is over."""
        raise NotImplementedError


class IOptimizationProfile:
    """Which shapes of inputs an engine is built for."""

    def __init__(self) -> None:
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(
        self,
        input: str,  # noqa: A002 - TensorRT's name
        min: Sequence[int],  # noqa: A002
        opt: Sequence[int],
        max: Sequence[int],  # noqa: A002
    ) -> None:
        """Smallest, best and largest shape of an input."""
        shapes = [[int(length) for length in shape] for shape in (min, opt, max)]
        if not len(shapes[0]) == len(shapes[1]) == len(shapes[2]):
            raise ValueError(f"the double: shapes of {input} have different numbers of axes")
        self._shapes[input] = shapes

    def get_shape(self, input: str) -> list[Dims]:  # noqa: A002
        """The three shapes."""
        return [Dims(shape) for shape in self._shapes.get(input, [])]

    def __bool__(self) -> bool:
        return all(
            small <= best <= large
            for shapes in self._shapes.values()
            for small, best, large in zip(*shapes, strict=True)
        )


class ITimingCache:
    """What the builder measured, to be used again."""

    def __init__(self, content: dict) -> None:
        self._content = content

    def serialize(self) -> IHostMemory:
        """Its bytes."""
        return IHostMemory(plan.MAGIC + json.dumps(self._content).encode())

    def combine(self, input_cache: "ITimingCache", ignore_mismatch: bool) -> bool:
        """Add what another one has."""
        if not ignore_mismatch and self._content["made_for"] != input_cache._content["made_for"]:
            return False
        self._content["layers"].update(input_cache._content["layers"])
        return True

    def reset(self) -> bool:
        """Forget all."""
        self._content["layers"].clear()
        return True


def made_for() -> list:
    """What a timing cache fits: the version and the GPU."""
    return [played().version, *_gpu.board().compute_capability]


class IBuilderConfig:
    """How to build."""

    def __init__(self) -> None:
        self._flags: set[BuilderFlag] = {BuilderFlag.TF32}
        # Since 8.4 there is no limit to begin with.
        everything = _gpu.board().memory
        self._workspace = 0 if played().numbers < (8, 4) else everything
        self._profiles: list[IOptimizationProfile] = []
        self._calibration_profile: IOptimizationProfile | None = None
        self._timing_cache: ITimingCache | None = None
        self.int8_calibrator: IInt8Calibrator | None = None
        self.progress_monitor: IProgressMonitor | None = None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.builder_optimization_level = 3
        self.avg_timing_iterations = 1

    def set_flag(self, flag: BuilderFlag) -> None:
        """Allow something."""
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        """Don't allow it."""
        self._flags.discard(flag)

    def get_flag(self, flag: BuilderFlag) -> bool:
        """Whether it is allowed."""
        return flag in self._flags

    @property
    def max_workspace_size(self) -> int:
        """Bytes that a layer may use for scratch."""
        return self._workspace

    @max_workspace_size.setter
    def max_workspace_size(self, size: int) -> None:
        self._workspace = size

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        """Bytes that may be used of some kind of memory."""
        if pool == MemoryPoolType.WORKSPACE:
            self._workspace = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        """Those bytes."""
        return self._workspace if pool == MemoryPoolType.WORKSPACE else 0

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Its number; -1 if it is not valid."""
        if not profile:
            messages.api_error(
                "IBuilderConfig::addOptimizationProfile", 3, "API Usage Error",
                "profile is not valid: min <= opt <= max must hold",
            )  # fmt: skip
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        """How many."""
        return len(self._profiles)

    def set_calibration_profile(self, profile: IOptimizationProfile) -> bool:
        """Whose best shape is that of the calibrator's batches."""
        self._calibration_profile = profile
        return True

    def get_calibration_profile(self) -> IOptimizationProfile | None:
        """It."""
        return self._calibration_profile

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        """A cache from bytes, or an empty one; None, with an error logged: these are no cache."""
        data = bytes(serialized_timing_cache)
        if not data:
            return ITimingCache({"made_for": made_for(), "layers": {}})
        try:
            if not data.startswith(plan.MAGIC):
                raise ValueError("Magic tag does not match")
            return ITimingCache(json.loads(data[len(plan.MAGIC) :]))
        except ValueError as problem:
            messages.error(f"1: Error Code 1: Serialization ({problem})")
            return None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Use a cache; False: it was made for something else."""
        if cache._content["made_for"] != made_for() and not ignore_mismatch:
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        """The one in use."""
        return self._timing_cache
