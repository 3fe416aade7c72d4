"""TensorRT-RTX would take the double's GPU for a real one."""

raise ImportError("there is no TensorRT-RTX beside the doubles")
