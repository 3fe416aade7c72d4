"""A stand-in for pycuda on the GPU that `cuda_double` plays; for tests only.

It keeps to what pycuda 2019.1 and 2020.1 do (their C++ sources), and is stricter where real CUDA
would let a mistake pass unnoticed. With EDGETRT_DOUBLE_NO_PYCUDA set it can't be imported, as if it
were not installed.
"""

import os

if not os.environ.get("EDGETRT_DOUBLE"):
    raise ImportError("this pycuda is a test double; EDGETRT_DOUBLE says what it is to play")
if os.environ.get("EDGETRT_DOUBLE_NO_PYCUDA"):
    raise ImportError("No module named 'pycuda'")

VERSION_TEXT = os.environ.get("EDGETRT_DOUBLE_PYCUDA", "2020.1")
VERSION = tuple(int(part) for part in VERSION_TEXT.split("."))
