"""Bottlenecks -> last layer: a softmax regression, trained in mini-batches."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.progress import Console
from engines.tensorflow_graph import import_tensorflow
from pipeline.errors import PipelineError

# Penalty on the squared weights, for bottlenecks scaled to a root mean square of 1. Together
# with a learning rate that falls to zero it held best over six sets of bottlenecks: solar cells
# (2 and 4 classes, and 150 pictures of them), emoji (10), digits (10, and 300 pictures of them).
WEIGHT_DECAY = 1e-3
VALIDATION_SAMPLE = 1000  # pictures whose accuracy is followed at each step
CHUNK = 4096  # rows looked at together where all are gone through


class Labelled(NamedTuple):
    """Bottlenecks of some pictures with their classes.

    table: (M, width) float32, usually mapped from the disk and never copied whole.
    rows: (N,) places in it.
    labels: (N,) class numbers.
    """

    table: np.ndarray
    rows: np.ndarray
    labels: np.ndarray

    def chunks(self) -> Iterator[np.ndarray]:
        """All bottlenecks in order, some at a time."""
        for start in range(0, len(self.rows), CHUNK):
            yield self.table[self.rows[start : start + CHUNK]]


class LastLayer(NamedTuple):
    """kernel (width, classes) and bias (classes,), float32: softmax(x @ kernel + bias)."""

    kernel: np.ndarray
    bias: np.ndarray

    def probabilities(self, labelled: Labelled) -> np.ndarray:
        """(N, classes) float32, each row summing to 1."""
        logits = [chunk @ self.kernel + self.bias for chunk in labelled.chunks()]
        powers = [np.exp(some - some.max(1, keepdims=True)) for some in logits]
        return np.concatenate([some / some.sum(1, keepdims=True) for some in powers])


@dataclass(frozen=True)
class Training:
    """How to train: steps >= 1, learning_rate > 0, pictures in a batch >= 1, seed of the order."""

    steps: int
    learning_rate: float
    batch_size: int
    seed: int


def train(
    train_set: Labelled,
    validation_set: Labelled,
    classes: int,
    training: Training,
    logs: Path,
    console: Console,
) -> LastLayer:
    """Train with Adam, cosine decay of the learning rate and a penalty on the weights.

    Bottlenecks are divided by their root mean square, which the kernel then takes over: one
    learning rate and penalty serve backbones whose features differ in size.

    Args:
        train_set: at least one picture.
        validation_set: followed, never trained on; may be empty.
        logs: folder for TensorBoard: loss and training accuracy of each batch under "train",
            accuracy under "validation".

    Raises:
        PipelineError: the bottlenecks are no finite numbers, or the training diverged.
    """
    tf = import_tensorflow()
    import keras

    scale = _root_mean_square(train_set)
    layer = keras.layers.Dense(
        classes, kernel_initializer="zeros", kernel_regularizer=keras.regularizers.L2(WEIGHT_DECAY)
    )
    layer.build((None, train_set.table.shape[1]))
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(training.learning_rate, training.steps)
    )
    optimizer.build(layer.trainable_variables)
    sample = _sample(validation_set, training.seed)
    followed = tf.constant(sample.table[sample.rows] / scale)
    followed_labels = tf.constant(sample.labels)

    def accuracy(logits: Any, labels: Any) -> Any:
        return tf.reduce_mean(tf.cast(tf.argmax(logits, 1) == labels, tf.float32))

    @tf.function(reduce_retracing=True)
    def step(features: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = layer(features)
            loss = tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            ) + tf.add_n(layer.losses)
        optimizer.apply(tape.gradient(loss, layer.trainable_variables))
        return loss, accuracy(logits, labels), accuracy(layer(followed), followed_labels)

    folder = logs / time.strftime("%Y%m%d-%H%M%S")
    train_log = tf.summary.create_file_writer(str(folder / "train"))
    validation_log = tf.summary.create_file_writer(str(folder / "validation"))
    with console.progress("training", training.steps, "steps") as advance:
        for number, batch in enumerate(_batches(len(train_set.rows), training)):
            features = train_set.table[train_set.rows[batch]] / scale
            loss, right, followed_right = step(
                tf.constant(features), tf.constant(train_set.labels[batch])
            )
            with train_log.as_default(number):
                tf.summary.scalar("loss", loss)
                tf.summary.scalar("accuracy", right)
            if len(sample.rows):
                with validation_log.as_default(number):
                    tf.summary.scalar("accuracy", followed_right)
            advance(1)
    train_log.close()
    validation_log.close()
    kernel, bias = layer.get_weights()
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise PipelineError("the training of the last layer diverged; lower --learning-rate")
    return LastLayer((kernel / scale).astype(np.float32), bias)


def _sample(labelled: Labelled, seed: int) -> Labelled:
    """At most `VALIDATION_SAMPLE` pictures, any of them: they come class by class."""
    order = np.random.default_rng(seed).permutation(len(labelled.rows))[:VALIDATION_SAMPLE]
    return labelled._replace(rows=labelled.rows[order], labels=labelled.labels[order])


def _root_mean_square(labelled: Labelled) -> np.float32:
    squares = sum(float(np.square(chunk, dtype=np.float64).sum()) for chunk in labelled.chunks())
    mean = squares / (len(labelled.rows) * labelled.table.shape[1])
    if not np.isfinite(mean):
        raise PipelineError(
            "the bottlenecks are not finite numbers; the weights of --architecture are damaged, "
            "or its pixels need another scaling"
        )
    return np.float32(np.sqrt(mean) or 1.0)


def _batches(pictures: int, training: Training) -> Iterator[np.ndarray]:
    """The places of each step's pictures: all of them once in a random order, then again."""
    random = np.random.default_rng(training.seed)
    waiting: np.ndarray = np.empty(0, np.int64)
    for _ in range(training.steps):
        while len(waiting) < min(training.batch_size, pictures):
            waiting = np.concatenate([waiting, random.permutation(pictures)])
        yield waiting[: training.batch_size]
        waiting = waiting[training.batch_size :]
