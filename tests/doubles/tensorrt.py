"""The module `tensorrt` as the version EDGETRT_DOUBLE has it, played by `tensorrt_double`.

Needs tests/tensorrt_api on the path: the guard there lets nothing through that the real module
of that version does not have.
"""

import os
import sys

if not os.environ.get("EDGETRT_DOUBLE"):
    raise ImportError("this tensorrt is a test double; EDGETRT_DOUBLE says what it is to play")

import tensorrt_double  # type: ignore[import-not-found]
from guard import guarded_module

sys.modules[__name__] = guarded_module(os.environ["EDGETRT_DOUBLE"], tensorrt_double)
