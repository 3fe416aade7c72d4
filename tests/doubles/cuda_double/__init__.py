"""A stand-in for a GPU and its driver, which is this machine's processor; for tests only.

The doubles of TensorRT and of pycuda work on it, and the driver's library is played by it.
"""

import os

if not os.environ.get("EDGETRT_DOUBLE"):
    raise ImportError("this GPU is a test double; EDGETRT_DOUBLE says what it is to play")

from . import _driver  # noqa: E402 - that it plays at all has to be asked for first

_driver.register()
