"""TensorRT 11: strongly typed only; no calibrators, no precision flags."""

from typing import Any

from engines.tensorrt.dialect import Dialect


class V11(Dialect):
    """11.0 on, for GPUs, and from 11.4.1 on for AGX Orin and Thor."""

    name = "TensorRT 11"

    @staticmethod
    def is_spoken_by(trt: Any) -> bool:
        """See `Dialect.is_spoken_by`."""
        return not hasattr(trt.BuilderFlag, "FP16") and not hasattr(trt, "ComputeCapability")
