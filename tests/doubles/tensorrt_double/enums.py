"""The enumerations, with the members of all versions; the numbers are the guard's business."""

from enum import Enum, auto


class DataType(Enum):
    FLOAT = auto()
    HALF = auto()
    BF16 = auto()
    INT8 = auto()
    INT32 = auto()
    INT64 = auto()
    BOOL = auto()
    UINT8 = auto()


class BuilderFlag(Enum):
    FP16 = auto()
    BF16 = auto()
    INT8 = auto()
    FP8 = auto()
    TF32 = auto()
    DEBUG = auto()
    GPU_FALLBACK = auto()
    STRICT_TYPES = auto()
    REFIT = auto()
    DISABLE_TIMING_CACHE = auto()
    EDITABLE_TIMING_CACHE = auto()
    SPARSE_WEIGHTS = auto()
    OBEY_PRECISION_CONSTRAINTS = auto()
    PREFER_PRECISION_CONSTRAINTS = auto()
    DIRECT_IO = auto()
    VERSION_COMPATIBLE = auto()
    STRIP_PLAN = auto()


class NetworkDefinitionCreationFlag(Enum):
    EXPLICIT_BATCH = auto()
    STRONGLY_TYPED = auto()


class MemoryPoolType(Enum):
    WORKSPACE = auto()
    DLA_MANAGED_SRAM = auto()
    DLA_LOCAL_DRAM = auto()
    DLA_GLOBAL_DRAM = auto()
    TACTIC_DRAM = auto()
    TACTIC_SHARED_MEMORY = auto()


class ProfilingVerbosity(Enum):
    LAYER_NAMES_ONLY = auto()
    NONE = auto()
    DETAILED = auto()


class LayerInformationFormat(Enum):
    ONELINE = auto()
    JSON = auto()


class TensorIOMode(Enum):
    NONE = auto()
    INPUT = auto()
    OUTPUT = auto()


class TensorLocation(Enum):
    DEVICE = auto()
    HOST = auto()


class CalibrationAlgoType(Enum):
    LEGACY_CALIBRATION = auto()
    ENTROPY_CALIBRATION = auto()
    ENTROPY_CALIBRATION_2 = auto()
    MINMAX_CALIBRATION = auto()


class ErrorCode(Enum):
    SUCCESS = auto()
    INTERNAL_ERROR = auto()
    MEM_ALLOC_FAILED = auto()
    MODEL_DESERIALIZE_FAILED = auto()
    INVALID_VALUE = auto()
    INVALID_GRAPH = auto()
    INVALID_NODE = auto()
    UNSUPPORTED_GRAPH = auto()
    UNSUPPORTED_NODE = auto()
