"""pipeline.last_layer: a softmax regression that learns, the same way every time."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from benchmarks.progress import Console
from pipeline import last_layer
from pipeline.errors import PipelineError
from pipeline.last_layer import Labelled, LastLayer, Training, train

WIDTH, CLASSES = 16, 3
TRAINING = Training(steps=60, learning_rate=0.02, batch_size=20, seed=0)


def toy(pictures: int = 90, size: float = 1.0, seed: int = 0) -> Labelled:
    """Bottlenecks in three clouds, whose centres differ in their first three features.

    The rows lie in the table in another order than the pictures, with strangers between them.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(pictures) % CLASSES
    rows = random.permutation(2 * pictures)[:pictures]
    table = random.normal(5, 50, (2 * pictures, WIDTH)).astype(np.float32)
    table[rows] = random.normal(0, 0.5, (pictures, WIDTH)) + 3 * np.eye(CLASSES, WIDTH)[labels]
    return Labelled(np.float32(size) * table, rows.astype(np.int64), labels.astype(np.int64))


NOTHING = toy()._replace(rows=np.array([], np.int64), labels=np.array([], np.int64))


def trained(
    logs: Path,
    train_set: Labelled | None = None,
    validation_set: Labelled | None = None,
    training: Training = TRAINING,
) -> LastLayer:
    return train(
        toy() if train_set is None else train_set,
        toy(seed=1) if validation_set is None else validation_set,
        CLASSES,
        training,
        logs,
        Console(quiet=True),
    )


def right(layer: LastLayer, labelled: Labelled) -> float:
    return float((layer.probabilities(labelled).argmax(1) == labelled.labels).mean())


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def layer(logs: Path) -> LastLayer:
    return trained(logs)


# Training


def test_learns_what_can_be_told_apart(layer: LastLayer) -> None:
    assert layer.kernel.shape == (WIDTH, CLASSES)
    assert layer.bias.shape == (CLASSES,)
    assert layer.kernel.dtype == layer.bias.dtype == np.float32
    assert right(layer, toy()) == 1.0
    assert right(layer, toy(300, seed=2)) == 1.0
    # It looks at the features that matter.
    assert np.abs(layer.kernel[:CLASSES]).min() > np.abs(layer.kernel[CLASSES:]).max()


def test_same_seed_gives_the_same_bits(layer: LastLayer, tmp_path: Path) -> None:
    again = trained(tmp_path)
    assert np.array_equal(again.kernel, layer.kernel)
    assert np.array_equal(again.bias, layer.bias)


def test_another_seed_takes_another_order(layer: LastLayer, tmp_path: Path) -> None:
    other = trained(tmp_path, training=Training(60, 0.02, 20, seed=1))
    assert not np.array_equal(other.kernel, layer.kernel)
    assert right(other, toy()) == 1.0


def test_validation_set_is_never_trained_on(layer: LastLayer, tmp_path: Path) -> None:
    wrong = toy(seed=1)
    wrong = wrong._replace(labels=(wrong.labels + 1) % CLASSES)
    assert np.array_equal(trained(tmp_path, validation_set=wrong).kernel, layer.kernel)


@pytest.mark.parametrize("size", [100.0, 1e-3])
def test_size_of_the_features_does_not_matter(
    layer: LastLayer, tmp_path: Path, size: float
) -> None:
    other = trained(tmp_path, toy(size=size), toy(size=size, seed=1))
    expected = layer.probabilities(toy(seed=2))
    found = other.probabilities(toy(size=size, seed=2))
    assert np.allclose(found, expected, atol=1e-4)


def test_features_that_are_all_zero(tmp_path: Path) -> None:
    zeros = toy()._replace(table=np.zeros_like(toy().table))
    probabilities = trained(tmp_path, zeros, zeros).probabilities(zeros)
    assert np.allclose(probabilities, 1 / CLASSES, atol=0.05)


def test_more_classes_than_the_pictures_show(tmp_path: Path) -> None:
    one = toy(30)._replace(labels=np.zeros(30, np.int64))
    assert right(trained(tmp_path, one, NOTHING), one) == 1.0


@pytest.mark.parametrize("batch_size", [1, 90, 91, 1000])
def test_any_batch_size(tmp_path: Path, batch_size: int) -> None:
    layer = trained(tmp_path, training=Training(60, 0.02, batch_size, 0))
    assert right(layer, toy()) > 0.95


def test_one_picture_and_one_step(tmp_path: Path) -> None:
    one = toy(1)
    layer = trained(tmp_path, one, NOTHING, Training(1, 0.02, 100, 0))
    assert layer.probabilities(one).argmax(1) == one.labels


def test_mapped_table_is_never_copied_whole(layer: LastLayer, tmp_path: Path) -> None:
    source = toy()
    source.table.tofile(tmp_path / "features")
    mapped = np.memmap(tmp_path / "features", np.float32, "r", shape=source.table.shape)
    assert np.array_equal(trained(tmp_path, source._replace(table=mapped)).kernel, layer.kernel)


@pytest.mark.parametrize("learning_rate", [1e38, 1e30])
def test_training_that_diverges_is_an_error(tmp_path: Path, learning_rate: float) -> None:
    with pytest.raises(PipelineError, match="--learning-rate"):
        trained(tmp_path, training=Training(60, learning_rate, 20, 0))


def test_features_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    source = toy()
    source.table[source.rows[7], 3] = np.inf
    with pytest.raises(PipelineError, match="not finite"):
        trained(tmp_path, source)


# Batches


@settings(max_examples=100, deadline=None)
@given(
    pictures=st.integers(1, 50),
    batch_size=st.integers(1, 120),
    steps=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_picture_comes_up_equally_often(
    pictures: int, batch_size: int, steps: int, seed: int
) -> None:
    batches = list(last_layer._batches(pictures, Training(steps, 0.1, batch_size, seed)))
    assert len(batches) == steps
    assert {len(batch) for batch in batches} == {min(batch_size, pictures)}
    count = Counter(np.concatenate(batches).tolist())
    times = [count[place] for place in range(pictures)]
    assert max(times) - min(times) <= 1


# Probabilities


def test_probabilities_follow_the_formula(layer: LastLayer) -> None:
    labelled = toy(10, seed=3)
    logits = labelled.table[labelled.rows].astype(np.float64) @ layer.kernel + layer.bias
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = layer.probabilities(labelled)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)


def test_probabilities_of_huge_logits_are_still_probabilities() -> None:
    huge = LastLayer(np.eye(WIDTH, CLASSES, dtype=np.float32) * 1e6, np.zeros(CLASSES, np.float32))
    found = huge.probabilities(toy())
    assert np.isfinite(found).all()
    assert np.allclose(found.sum(1), 1)


def test_probabilities_chunk_by_chunk(layer: LastLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = layer.probabilities(toy())
    monkeypatch.setattr(last_layer, "CHUNK", 7)
    assert [len(chunk) for chunk in toy(16).chunks()] == [7, 7, 2]
    assert np.allclose(layer.probabilities(toy()), whole, atol=1e-6)


# TensorBoard


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Step and value of each point, as TensorBoard reads them."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return [(e.step, float(make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]


def test_every_step_is_in_the_logs(layer: LastLayer, logs: Path) -> None:
    (folder,) = logs.iterdir()
    steps = list(range(TRAINING.steps))
    loss = curve(folder / "train", "loss")
    accuracy = curve(folder / "train", "accuracy")
    followed = curve(folder / "validation", "accuracy")
    for points in (loss, accuracy, followed):
        assert [step for step, _ in points] == steps
    # From nothing known (every class as likely) to everything.
    assert loss[0][1] == pytest.approx(np.log(CLASSES), abs=1e-5)
    assert loss[-1][1] < 0.2
    assert accuracy[-1][1] == followed[-1][1] == 1.0


def test_followed_pictures_are_of_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_layer, "VALIDATION_SAMPLE", 30)
    many = toy(300)
    order = np.argsort(many.labels, kind="stable")  # class by class, as a scan finds them
    sample = last_layer._sample(Labelled(many.table, many.rows[order], many.labels[order]), 0)
    assert set(Counter(sample.labels.tolist())) == set(range(CLASSES))
    label_of = dict(zip(many.rows.tolist(), many.labels.tolist(), strict=True))
    assert [label_of[row] for row in sample.rows.tolist()] == sample.labels.tolist()
    assert len(set(sample.rows.tolist())) == 30


def test_empty_validation_set_has_no_curve(tmp_path: Path) -> None:
    layer = trained(tmp_path, validation_set=NOTHING)
    assert right(layer, toy()) == 1.0
    (folder,) = tmp_path.iterdir()
    assert len(curve(folder / "train", "loss")) == TRAINING.steps
    events = EventAccumulator(str(folder / "validation")).Reload()
    assert events.Tags()["tensors"] == []
