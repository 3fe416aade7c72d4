"""Take out of every quantized convolution the mean error that quantization put in.

Rounded weights and clipped activations shift the mean of a convolution's output; through forty
layers the shifts add up to most of what INT8 loses. Each convolution's bias takes its own shift
back, after those of the layers before it were corrected.

Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019, appendix D (with pictures); A. Finkelstein et al., arXiv 1906.03193.
"""

from collections.abc import Callable

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, shape_inference
from onnx.utils import Extractor

from pipeline.calibration import bytes_each, channel_means
from pipeline.surgery import constants, set_constant

BATCH = 8  # pictures computed at a time: bounds what lies between two convolutions
# The outputs of convolutions are kept for all pictures. At 512 MiB EfficientNet-Lite gets its 32;
# larger networks get fewer, but never so few that their means are those of one picture or two.
MOST_BYTES = 512 << 20
FEWEST = 4


def correct_biases(
    quantized: ModelProto, model: ModelProto, pixels: np.ndarray, advance: Callable[[int], None]
) -> None:
    """Change the biases of `quantized` so that each channel of each convolution keeps its mean.

    Args:
        quantized: what `qdq.insert_qdq` made of `model`.
        model: FP32.
        pixels: (N, height, width, 3) uint8; 32 pictures gave as much as 128. Fewer of them are
            used where the outputs of convolutions are so large that they would fill the memory.
        advance: told of each convolution that is done.
    """
    values = constants(quantized)
    convolutions = [node for node in quantized.graph.node if node.op_type == "Conv"]
    outputs = [conv.output[0] for conv in convolutions]
    walk = _Walk(quantized)
    pixels = pixels[: walk.affordable(bytes_each(model, pixels[0], outputs))]
    walk.begin(pixels)
    means = channel_means(model, pixels, outputs)
    for conv in convolutions:
        output = walk.compute(conv)
        shift = (means[conv.output[0]] - output.mean((0, 2, 3), np.float64)).astype(np.float32)
        output += shift.reshape(-1, 1, 1)  # what the layers after this one shall see
        name = f"{conv.output[0]}/corrected_bias"
        bias = values[conv.input[2]] if len(conv.input) > 2 else np.float32(0)
        set_constant(quantized, name, bias + shift)
        del conv.input[2:]
        conv.input.append(name)
        advance(1)


class _Walk:
    """The outputs of a graph's convolutions, in order, each computed from those before it."""

    def __init__(self, model: ModelProto) -> None:
        self._extractor = Extractor(shape_inference.infer_shapes(model, strict_mode=True))
        self._input = model.graph.input[0].name
        self._made_by = {name: node for node in model.graph.node for name in node.output}
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        self._sources = {node.output[0]: self._sources_of(node) for node in convolutions}
        self._known: dict[str, np.ndarray] = {}

    def affordable(self, sizes: dict[str, int]) -> int:
        """How many pictures there is memory for, if each takes `sizes` bytes of each output."""
        together = (
            sizes[output] + sum(sizes.get(source, 0) for source in sources)
            for output, sources in self._sources.items()
        )
        return max(MOST_BYTES // max(together, default=1), FEWEST)

    def begin(self, pixels: np.ndarray) -> None:
        """Compute from these pictures (N, height, width, 3) from here on."""
        self._known = {self._input: pixels}

    def compute(self, conv: NodeProto) -> np.ndarray:
        """The output of `conv`, the next one; what no later one needs is forgotten."""
        output = conv.output[0]
        sources = self._sources.pop(output)
        part = self._extractor.extract_model(sources, [output])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            part.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        count = len(self._known[sources[0]])
        whole = np.empty(0, np.float32)
        for start in range(0, count, BATCH):
            places = slice(start, start + BATCH)
            batch = {k: self._known[k][places].astype(np.float32, copy=False) for k in sources}
            [computed] = session.run(None, batch)
            if not start:
                whole = np.empty((count, *computed.shape[1:]), np.float32)
            whole[places] = computed
        needed = {name for names in self._sources.values() for name in names}
        self._known = {k: v for k, v in self._known.items() if k in needed}
        self._known[output] = whole
        return whole

    def _sources_of(self, conv: NodeProto) -> list[str]:
        """The graph's input and the outputs of other convolutions that `conv` depends on next."""
        found: dict[str, None] = {}
        waiting = list(conv.input)
        while waiting:
            name = waiting.pop()
            node = self._made_by.get(name)
            if node is None or node.op_type == "Conv":
                found[name] = None
            else:
                waiting += node.input
        return [name for name in found if name in self._made_by or name == self._input]
