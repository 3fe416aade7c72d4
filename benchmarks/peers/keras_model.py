"""TensorFlow as its users run a Keras model: `predict`, a function of it, and one by XLA."""

from pathlib import Path
from typing import Any

import numpy as np

from engines.engine import Engine, TensorSpec
from engines.tensorflow_graph import BACKEND, import_tensorflow


class KerasEngine(Engine):
    """A Keras model."""

    backend = BACKEND
    precision = "fp32"

    def __init__(self, model: Any) -> None:
        """Take a model, pixels in to probabilities out."""
        self._model = model
        self.input = TensorSpec("pixels", tuple(model.input_shape), "float32")
        self.output = TensorSpec("probabilities", tuple(model.output_shape), "float32")


class Predict(KerasEngine):
    """The model's own `predict`."""

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`."""
        probabilities: np.ndarray = self._model.predict(pictures.astype(np.float32), verbose=0)
        return probabilities


class Function(KerasEngine):
    """The model as one graph; compiled by XLA if asked for."""

    def __init__(self, model: Any, xla: bool) -> None:
        KerasEngine.__init__(self, model)
        tf = import_tensorflow()
        self._constant = tf.constant
        # Traced, and by XLA compiled, once for each size of batch.
        self._function = tf.function(model, jit_compile=xla)

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`."""
        probabilities: np.ndarray = self._function(
            self._constant(pictures.astype(np.float32))
        ).numpy()
        return probabilities


def load(file: Path) -> Any:
    """The Keras model in a file."""
    import_tensorflow()
    import keras

    return keras.models.load_model(str(file))
