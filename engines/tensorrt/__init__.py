"""TensorRT and TensorRT-RTX: from an ONNX graph to an engine."""
