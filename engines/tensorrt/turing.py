"""What TensorRT-RTX lacks for Turing (sm75), replaced in the network."""

from typing import Any


def spread_products(trt: Any, network: Any) -> None:
    """Make sums of products of the FP32 matrix products, which RTX 1.x lacks for Turing.

    Each is of (batch, n) and a matrix (n, m): the last layer, too small for this to cost.
    """
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    for layer in layers:
        product = layer.get_output(0)
        if layer.type != trt.LayerType.MATRIX_MULTIPLY or product.dtype != trt.DataType.FLOAT:
            continue
        layer.__class__ = trt.IMatrixMultiplyLayer  # the binding gives every layer as ILayer
        if {layer.op0, layer.op1} != {trt.MatrixOperation.NONE} or len(product.shape) != 2:
            continue  # TensorRT names what it can't build
        left = network.add_shuffle(layer.get_input(0))
        left.reshape_dims = (0, 0, 1)  # 0 keeps a size
        right = network.add_shuffle(layer.get_input(1))
        right.reshape_dims = (1, *tuple(layer.get_input(1).shape))
        terms = network.add_elementwise(
            left.get_output(0), right.get_output(0), trt.ElementWiseOperation.PROD
        )
        total = network.add_reduce(terms.get_output(0), trt.ReduceOperation.SUM, 1 << 1, False)
        for reader in layers:
            for number in range(reader.num_inputs):
                tensor = reader.get_input(number)
                if tensor is not None and tensor.name == product.name:
                    reader.set_input(number, total.get_output(0))
