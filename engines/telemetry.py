"""Libraries that count what is done with them, and send it to their makers unless told not to."""

import os
import sys


def stop_telemetry() -> None:
    """Keep ONNX Runtime and OpenVINO from doing so; call it before either is imported.

    ONNX Runtime does from 1.32 on, OpenVINO wherever it finds its package for it; both also leave
    an identifier in the home folder.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
