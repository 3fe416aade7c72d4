"""TensorRT 10: strongly typed where the graph says all, weakly typed for its calibrators."""

from typing import Any, Optional

from engines.settings import Settings
from engines.tensorrt.dialect import Dialect


class V10(Dialect):
    """10.0 to 10.16; Orin, Thor and other GPUs."""

    name = "TensorRT 10"

    @staticmethod
    def is_spoken_by(trt: Any) -> bool:
        """See `Dialect.is_spoken_by`."""
        return hasattr(trt.BuilderFlag, "FP16") and hasattr(
            trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"
        )

    @property
    def newest_opset(self) -> int:
        """20 from 10.0 on, 24 from 10.13 on, which also has runtime configurations."""
        return 24 if hasattr(self.trt.ICudaEngine, "create_runtime_config") else 20

    def refuse(self, settings: Settings) -> Optional[str]:
        """See `Dialect.refuse`."""
        return None

    def create_network(self, builder: Any, calibrated: bool) -> Any:
        """See `Dialect.create_network`."""
        if calibrated:
            return builder.create_network(0)
        flag = self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return builder.create_network(1 << int(flag))

    def set_precision(self, config: Any, precision: str, calibrator: Optional[Any]) -> None:
        """Only a calibrator needs flags; with strong types they would be an error."""
        if calibrator is not None:
            config.set_flag(self.trt.BuilderFlag.FP16)
            config.set_flag(self.trt.BuilderFlag.INT8)
            config.int8_calibrator = calibrator
