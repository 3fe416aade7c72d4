"""Which dialect the installed TensorRT speaks."""

from typing import Any

from engines.engine import EngineError
from engines.tensorrt.dialect import Dialect
from engines.tensorrt.rtx import Rtx
from engines.tensorrt.v8 import V8
from engines.tensorrt.v10 import V10
from engines.tensorrt.v11 import V11

DIALECTS = (V8, V10, V11, Rtx)


def dialect_of(trt: Any) -> Dialect:
    """The dialect of a module, by what it has.

    Raises:
        EngineError: it speaks none of them, or several.
    """
    spoken = [dialect for dialect in DIALECTS if dialect.is_spoken_by(trt)]
    if len(spoken) != 1:
        raise EngineError(
            "TensorRT {} is neither 8, 10, 11 nor RTX as they are known here".format(
                getattr(trt, "__version__", "of no version")
            )
        )
    return spoken[0](trt)
