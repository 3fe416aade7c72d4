"""The last layer trained the way of TensorFlow for Poets, for comparison only.

Every picture goes through the network alone, and its bottleneck is kept as a text file of
numbers with commas. Each step of plain gradient descent picks 100 pictures, a class first and
then one of its pictures, and reads their text files again; every ten steps the accuracy is taken
on as many validation pictures. Written from that description, with today's TensorFlow.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from benchmarks.accuracy import top1
from benchmarks.peers import keras_model
from benchmarks.peers.run_folder import SPLITS, Picture, RunFolder
from engines.preprocess import load_good
from engines.tensorflow_graph import import_tensorflow

BATCH = 100
LEARNING_RATE = 0.01
EVALUATED = 10  # steps between two looks at the accuracy
SPREAD = 0.001  # standard deviation of the first weights

Files = Dict[str, Dict[int, List[Path]]]  # the text files of each split by class


def write_bottlenecks(
    run: RunFolder, infer: Callable[[np.ndarray], np.ndarray], size: Tuple[int, int], folder: Path
) -> Files:
    """Compute each picture's bottleneck and write it as text, unless its file is there.

    Args:
        infer: pixels (1, height, width, 3), float32, to bottlenecks (1, width).
        size: height and width of the pixels.
        folder: where a folder for each class is made.
    """
    files: Files = {split: {} for split in SPLITS}
    for split in SPLITS:
        for place, picture in enumerate(run.split(split)):
            file = folder / str(picture.label) / "{}-{}.txt".format(split, place)
            if not file.exists():
                _write_bottleneck(picture, infer, size, file)
            files[split].setdefault(picture.label, []).append(file)
    return files


def train(files: Files, classes: int, steps: int, seed: int) -> Dict[str, Any]:
    """Train on text files.

    Returns:
        "top1", "ci95" and "n" of the test split, and "validation": the accuracies on the way.
    """
    tf = import_tensorflow()
    choose = np.random.RandomState(seed)
    width = len(_read(next(iter(files["train"].values()))[0]))
    first = tf.random.stateless_truncated_normal((width, classes), (seed, 0), stddev=SPREAD)
    weights, biases = tf.Variable(first), tf.Variable(tf.zeros(classes))

    @tf.function(reduce_retracing=True)
    def logits(features: Any) -> Any:
        return tf.matmul(features, weights) + biases

    @tf.function(reduce_retracing=True)
    def step(features: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits(features))
            loss = tf.reduce_mean(losses)
        for variable, gradient in zip((weights, biases), tape.gradient(loss, (weights, biases))):
            variable.assign_sub(LEARNING_RATE * gradient)
        return loss

    def right(features: np.ndarray, labels: np.ndarray) -> float:
        return float((logits(tf.constant(features)).numpy().argmax(1) == labels).mean())

    followed = []
    for number in range(steps):
        features, labels = _batch(files["train"], choose)
        step(tf.constant(features), tf.constant(labels))
        if number % EVALUATED == 0 or number == steps - 1:
            right(features, labels)
            if files["validation"]:
                followed.append(right(*_batch(files["validation"], choose)))
    test = [(label, file) for label, some in sorted(files["test"].items()) for file in some]
    features = np.array([_read(file) for _, file in test], np.float32)
    predicted = logits(tf.constant(features)).numpy().argmax(1)
    return dict(top1(predicted, np.array([label for label, _ in test])), validation=followed)


def _write_bottleneck(
    picture: Picture, infer: Callable[[np.ndarray], np.ndarray], size: Tuple[int, int], file: Path
) -> None:
    pixels = load_good(picture.file, *size)[np.newaxis].astype(np.float32)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(",".join(str(value) for value in infer(pixels)[0]))


def _read(file: Path) -> List[float]:
    return [float(number) for number in file.read_text().split(",")]


def _batch(files: Dict[int, List[Path]], choose: Any) -> Tuple[np.ndarray, np.ndarray]:
    labels = choose.choice(sorted(files), BATCH)
    features = [_read(files[label][choose.randint(len(files[label]))]) for label in labels]
    return np.array(features, np.float32), labels


def main() -> None:
    """Train on a run's pictures from nothing, and print what it took as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.poets", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="whose backbone and split are used")
    parser.add_argument("--pictures", type=Path, help="where its pictures are now")
    parser.add_argument("--bottlenecks", type=Path, required=True, help="folder of the text files")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    run = RunFolder(args.run, args.pictures)
    tf = import_tensorflow()
    import keras

    whole = keras_model.load(run.model("retrained.keras"))
    function = tf.function(keras.Model(whole.input, whole.layers[-1].input))
    start = time.perf_counter()
    files = write_bottlenecks(
        run,
        lambda pixels: function(tf.constant(pixels)).numpy(),
        whole.input_shape[1:3],
        args.bottlenecks,
    )
    between = time.perf_counter()
    result = train(files, len(run.classes), args.steps, args.seed)
    seconds = {"bottlenecks": between - start, "training": time.perf_counter() - between}
    print(json.dumps(dict(result, seconds=seconds)))


if __name__ == "__main__":
    main()
