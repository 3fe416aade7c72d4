"""TensorFlow on a frozen graph: the baseline that every other engine is held against."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional

import numpy as np

from engines.engine import Engine, EngineError, TensorSpec

BACKEND = "tensorflow"

# Names of the frozen graph's input and output, and so of every graph made from it.
INPUT, OUTPUT = "pixels", "probabilities"


def unavailable() -> Optional[str]:
    """Why it can't be used here; None if it can."""
    try:
        from importlib.util import find_spec
    except ImportError as error:
        return str(error)
    if find_spec("tensorflow") is None:
        return "TensorFlow is not installed; pip install tensorflow"
    return None


def load(path: str, precision: str = "fp32") -> Engine:
    """The frozen GraphDef in `path` as an engine.

    Raises:
        EngineError: it is no frozen graph with the input "pixels" and output "probabilities".
    """
    return TensorFlowEngine(path)


class TensorFlowEngine(Engine):
    """A frozen graph, called as one TensorFlow function."""

    backend = BACKEND
    precision = "fp32"

    def __init__(self, path: str) -> None:
        tf = import_tensorflow()
        graph = tf.compat.v1.GraphDef()
        try:
            graph.ParseFromString(Path(path).read_bytes())
            wrapped = tf.compat.v1.wrap_function(
                lambda: tf.import_graph_def(graph, name=""), signature=[]
            )
            self._function = wrapped.prune(INPUT + ":0", OUTPUT + ":0")
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            raise EngineError(
                "{} is no frozen graph from '{}' to '{}': {}".format(path, INPUT, OUTPUT, error)
            ) from error
        except Exception as error:  # protobuf's DecodeError differs from version to version
            raise EngineError("{} is no frozen graph: {}".format(path, error)) from error
        self._constant = tf.constant
        source, result = self._function.inputs[0], self._function.outputs[0]
        self.input = TensorSpec(INPUT, (None, *tuple(source.shape.as_list()[1:])), "float32")
        self.output = TensorSpec(OUTPUT, (None, *tuple(result.shape.as_list()[1:])), "float32")

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`."""
        self.check_pictures(pictures)
        result = self._function(self._constant(pictures.astype(np.float32)))
        probabilities: np.ndarray = result.numpy()
        return probabilities


def import_tensorflow() -> Any:
    """TensorFlow, without its start-up messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Else it takes all of the GPU's memory, which on a Jetson is everyone's.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    with _stderr_silenced():
        import tensorflow

    tensorflow.get_logger().setLevel("ERROR")
    if not tensorflow.executing_eagerly():  # TensorFlow 1.15, which can do so as well
        tensorflow.compat.v1.enable_eager_execution()
    return tensorflow


@contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Send to nowhere what is written to stderr, by native code too.

    While it is loaded, TensorFlow 2.21 logs through a library that takes no heed of
    TF_CPP_MIN_LOG_LEVEL yet.
    """
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
