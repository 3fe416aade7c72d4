"""A stand-in for TensorRT that executes ONNX graphs with ONNX Runtime; for tests only.

It has the names of all versions from 8.2 to 11; which of them there are, and with which
arguments, the guard says, by what it knows of the real modules. Its GPU is that of the double of
pycuda, so what a program does with memory, streams and contexts has to fit together.

Where the real one is lenient, undefined or crashes, this one fails. Messages are the real ones
where they are known; the double's own begin with "the double: ".

Environment variable EDGETRT_DOUBLE_KILL=1: building ends like a process that the kernel kills
because memory ran out.
"""

from .building import Builder
from .calibration import (
    IInt8Calibrator,
    IInt8EntropyCalibrator,
    IInt8EntropyCalibrator2,
    IInt8LegacyCalibrator,
    IInt8MinMaxCalibrator,
)
from .configuration import IBuilderConfig, IOptimizationProfile, IProgressMonitor, ITimingCache
from .engine import EngineInspector, ICudaEngine, Runtime
from .enums import (
    BuilderFlag,
    CalibrationAlgoType,
    DataType,
    ErrorCode,
    LayerInformationFormat,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    TensorIOMode,
    TensorLocation,
)
from .execution import IExecutionContext, IProfiler
from .messages import ILogger, Logger
from .network import NUMPY, Dims, IHostMemory, ILayer, INetworkDefinition, ITensor
from .parser import OnnxParser, ParserError

__all__ = [
    "Builder", "BuilderFlag", "CalibrationAlgoType", "DataType", "Dims", "EngineInspector",
    "ErrorCode", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IHostMemory",
    "IInt8Calibrator", "IInt8EntropyCalibrator", "IInt8EntropyCalibrator2",
    "IInt8LegacyCalibrator", "IInt8MinMaxCalibrator", "ILayer", "ILogger", "INetworkDefinition",
    "IOptimizationProfile", "IProfiler", "IProgressMonitor", "ITensor", "ITimingCache",
    "LayerInformationFormat", "Logger", "MemoryPoolType", "NetworkDefinitionCreationFlag",
    "OnnxParser", "ParserError", "ProfilingVerbosity", "Runtime", "TensorIOMode",
    "TensorLocation", "init_libnvinfer_plugins", "nptype", "volume",
]  # fmt: skip


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    """There are no plugins."""
    return True


def volume(iterable: Dims) -> int:
    """How many elements a shape has."""
    size = 1
    for length in iterable:
        size *= length
    return size


def nptype(trt_type: DataType) -> type:
    """The numpy type of a TensorRT type."""
    return NUMPY[trt_type]
