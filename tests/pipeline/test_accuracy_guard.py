"""The accuracy guard: the worst layers go back to float, until the budget holds or it is said."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from networks import answers, by_hand, nodes, pixels, weights
from onnx import ModelProto, load

from benchmarks.progress import Console
from engines.tensorrt import calibration_cache
from pipeline import calibration, cli
from pipeline.accuracy_guard import Candidate, keep_accuracy, rank
from pipeline.errors import UsageError
from pipeline.export import export
from pipeline.files import read_json
from pipeline.last_layer import Labelled, LastLayer
from pipeline.qdq import insert_qdq, quantizable_inputs, quantized_layers
from pipeline.quantize import Options, quantize
from pipeline.retrain import Options as Retraining
from pipeline.retrain import retrain
from pipeline.run import Run
from pipeline.surgery import backbone_of

if TYPE_CHECKING:
    from tests.conftest import Finished

PICTURES = pixels(16, size=8)
VALIDATION, TEST = 100, 200


def ranges(model: ModelProto) -> dict[str, float]:
    amax = calibration.largest_values(model, lambda: iter([PICTURES]))
    return {tensor: amax[tensor] for tensor in quantizable_inputs(model)}


def lopsided() -> ModelProto:
    """One channel is a thousand times as large as the others, and its reader makes it small."""
    loud = weights(4, 4, 1, 1, seed=1)
    loud[0] *= 1000
    soft = weights(4, 4, 1, 1, seed=2)
    soft[:, 0] /= 1000
    return by_hand(
        "a = Conv (x, w)  r = Relu (a)  b = Conv (r, loud)  s = Relu (b)  c = Conv (s, soft)"
        "  t = Relu (c)  last = Conv (t, v)",
        4,
        {"w": weights(4, 3, 1, 1), "loud": np.abs(loud), "soft": soft, "v": weights(4, 4, 1, 1)},
    )


def test_terrible_layer_is_the_worst(quiet: Console) -> None:
    model = lopsided()
    found = rank(model, ranges(model), PICTURES, quiet)
    assert sorted(layer for layer, _ in found) == ["a", "b", "c", "last"]
    assert [d for _, d in found] == sorted(d for _, d in found)
    assert found[0].layer == "c"
    assert found[0].decibels < found[1].decibels - 10


def test_worst_in_float_helps_most(quiet: Console) -> None:
    model = lopsided()
    exact = answers(backbone_of(model), PICTURES)

    def error(layer: str) -> float:
        quantized = insert_qdq(model, ranges(model), [layer])
        rough = answers(backbone_of(quantized), PICTURES)
        return float(((rough - exact) ** 2).sum())

    errors = {layer: error(layer) for layer in ("a", "b", "c", "last")}
    assert min(errors, key=lambda layer: errors[layer]) == "c"
    assert errors["c"] < min(e for layer, e in errors.items() if layer != "c") / 10


def test_layer_that_changes_nothing_is_the_last(quiet: Console) -> None:
    model = by_hand(
        "a = Conv (x, w)  c = Conv (x, zero)  last = Concat <axis = 1> (a, c)",
        8,
        {"w": weights(4, 3, 1, 1), "zero": np.zeros((4, 3, 1, 1), np.float32)},
    )
    found = rank(model, ranges(model), PICTURES, quiet)
    assert found[1] == ("c", math.inf)
    assert math.isfinite(found[0].decibels)


# The search, with networks that are made to be wrong as often as a test wants it


def deep() -> ModelProto:
    """Eight layers to quantize: 1, 2 and 4 can be returned to float."""
    body = "".join(f"a{i} = Conv (a{i - 1}, w{i})  " for i in range(1, 8))
    constants = {f"w{i}": weights(4, 4, 1, 1, seed=i) for i in range(1, 8)}
    return by_hand(
        f"a0 = Conv (x, w)  {body}last = Relu (a7)", 4, {"w": weights(4, 3, 1, 1), **constants}
    )


def wrong_on(model: ModelProto, validation: int, test: int) -> Candidate:
    """A classifier with so many wrong answers; each bottleneck says which class it is taken for."""

    def split(wrong: int, count: int) -> Labelled:
        truth = np.arange(count) % 2
        given = np.where(np.arange(count) < wrong, 1 - truth, truth)
        return Labelled(np.eye(2, dtype=np.float32)[given], np.arange(count), truth)

    layer = LastLayer(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    splits = {"validation": split(validation, VALIDATION), "test": split(test, TEST)}
    return Candidate(model, layer, splits, {})


Search = Callable[[dict[int, int], float], tuple[Candidate, dict[str, Any], list[list[str]]]]


@pytest.fixture
def search(tmp_path: Path, quiet: Console) -> Search:
    return lambda wrong, max_drop: _search(wrong, max_drop, tmp_path, quiet)


def _search(
    wrong: dict[int, int], max_drop: float, folder: Path, console: Console
) -> tuple[Candidate, dict[str, Any], list[list[str]]]:
    """Let the guard look for a graph where `wrong` tells how wrong each number of floats is."""
    model, asked = deep(), []

    def make(floats: Sequence[str]) -> Candidate:
        asked.append(list(floats))
        quantized = insert_qdq(model, ranges(model), floats)
        # On the test pictures it is the other way round: they must not decide.
        return wrong_on(quantized, wrong[len(floats)], 100 - 2 * wrong[len(floats)])

    reference = wrong_on(model, 10, 20)
    best, found = keep_accuracy(make, reference, ranges(model), max_drop, PICTURES, folder, console)
    json.dumps(found, allow_nan=False)
    assert [point["float_layers"] for point in found["points"]] == [len(some) for some in asked]
    assert found["seconds"] > 0
    return best, found, asked


def test_layers_return_until_the_budget_holds(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    best, found, asked = search({0: 20, 1: 18, 2: 15}, 5)
    order = [ranked["layer"] for ranked in found["ranking"]]
    assert sorted(order) == [f"a{i}" for i in range(8)]
    assert asked == [[], order[:1], order[:2]]
    assert (found["met"], found["chosen"], found["layers"]) == (True, 2, 8)
    assert found["float_layers"] == order[:2]
    assert best.model == insert_qdq(deep(), ranges(deep()), order[:2])
    assert [point["drop"] for point in found["points"]] == [10, 8, 5]
    assert found["fp32"]["validation"]["top1"] == 0.9
    point = found["points"][2]
    assert point["validation"] == {"top1": 0.85, "ci95": pytest.approx([0.767, 0.907], abs=1e-3),
                                   "n": VALIDATION}  # fmt: skip
    assert point["test"]["top1"] == 0.65
    assert found["test"]["delta"] == pytest.approx(0.65 - 0.9)
    assert found["test"]["p_value"] < 1e-6
    assert found["fp32"]["p50_ms"] > 0 and all(point["p50_ms"] > 0 for point in found["points"])
    assert found["backend"] in ("openvino", "onnxruntime")
    assert capsys.readouterr().err == ""


def test_budget_that_can_not_be_met(search: Search, capsys: pytest.CaptureFixture[str]) -> None:
    best, found, asked = search({0: 20, 1: 14, 2: 19, 4: 14}, 3.5)
    assert [len(floats) for floats in asked] == [0, 1, 2, 4]
    assert (found["met"], found["chosen"]) == (False, 1)
    assert found["float_layers"] == asked[1]
    assert best.model == insert_qdq(deep(), ranges(deep()), asked[1])
    assert capsys.readouterr().err == (
        "warning: INT8 can't be kept within --max-accuracy-drop 3.5: the best found loses 4.00 "
        "points on the validation pictures, with 1 of 8 layers in float; it is kept all the same\n"
    )


@pytest.mark.parametrize(("budget", "told"), [(0.5, True), (1, False), (0, False)])
def test_budget_of_less_than_a_picture(
    search: Search, capsys: pytest.CaptureFixture[str], budget: float, told: bool
) -> None:
    search({0: 10}, budget)
    said = capsys.readouterr().err
    assert ("one of 100 validation pictures is 1.00 points, more than the 0.5" in said) == told


@pytest.mark.parametrize("wrong", [10, 3])
def test_nothing_is_done_where_nothing_is_lost(search: Search, wrong: int) -> None:
    _, found, asked = search({0: wrong}, 0)
    assert asked == [[]]
    assert (found["met"], found["chosen"], found["float_layers"]) == (True, 0, [])
    assert found["ranking"] == []
    assert len(found["points"]) == 1


# The stage


@pytest.fixture(scope="module")
def brightness(cells: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Solar cells as they are, and others darkened: the mean of the pixels tells them apart."""
    root = tmp_path_factory.mktemp("brightness")
    for name, share, start in (("bright", 1.0, 0), ("dark", 0.2, 1)):
        (root / name).mkdir()
        for file in cells["functional"][start::20][:40]:
            cell = share * np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
            assert cv2.imwrite(str(root / name / file.name), cell.astype(np.uint8))
    return root


def loud_model(folder: Path, layers: int) -> Path:
    """A Keras model in which each layer but the first reads a soft channel beside a loud one.

    Only the soft one says anything: the loud one is always 1000, so that INT8 rounds the soft
    one, of 0 to 1, to 0.
    """
    from engines.tensorflow_graph import import_tensorflow

    import_tensorflow()
    import keras

    pixels = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    convolutions = [keras.layers.Conv2D(2, 1, activation="relu") for _ in range(layers)]
    for convolution in convolutions:
        x = convolution(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(pixels, keras.layers.Dense(2)(x))
    loud, nothing = [1000, 0], [0, 0]
    mean, pass_on = np.array([[0, 1 / 3]] * 3), np.array([[0, 0], [0, 1]])  # of the soft channel
    for place, convolution in enumerate(convolutions):
        kernel = pass_on if place else mean
        last = place == layers - 1
        convolution.set_weights([kernel[None, None], np.array(nothing if last else loud)])
    file = folder / f"loud{layers}.keras"
    model.save(file)
    return file


def exported(pictures: Path, model: Path, folder: Path, console: Console) -> Path:
    options = Retraining(pictures, str(model), steps=200, learning_rate=0.05, testing=25,
                         validation=25)  # fmt: skip
    with Run(folder, create=True) as run:
        assert retrain(run, options, console)["top1"] > 0.8
        export(run, console)
    return folder


@pytest.fixture(scope="module")
def loud_run(brightness: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loud")
    return exported(brightness, loud_model(folder, 2), folder / "run", Console(quiet=True))


def test_stage_returns_the_terrible_layer_to_float(loud_run: Path, quiet: Console) -> None:
    with Run(loud_run) as run:
        plain = quantize(run, Options(method="max"), quiet)
        assert "accuracy_guard" not in plain
        without = run.onnx("int8").read_bytes()
        assert read_json(run.amax)["float_layers"] == []

        generous = quantize(run, Options(method="max", max_accuracy_drop=100.0), quiet)
        assert generous["accuracy_guard"]["met"]
        assert run.onnx("int8").read_bytes() == without

        options = Options(method="max", max_accuracy_drop=5.0, calibration_cache="8.2.1")
        results = quantize(run, options, quiet)
        guard = results["accuracy_guard"]
        convolutions = nodes(load(run.onnx("fp32")), "Conv")
        terrible = convolutions[1]
        assert guard["float_layers"] == [terrible.output[0]]
        assert guard["ranking"][0]["layer"] == terrible.output[0]
        assert guard["met"] and guard["chosen"] == 1
        lost, kept = (point["drop"] for point in guard["points"])
        assert lost > 20 and kept <= 5
        assert results["int8_head"]["int8_head"]["top1"] == guard["points"][1]["test"]["top1"]

        for variant in ("int8", "int8-fp16"):
            first, second = nodes(load(run.onnx(variant)), "Conv")
            assert [name.endswith("/dequantized") for name in first.input[:2]] == [True, True]
            assert not any(name.endswith("/dequantized") for name in second.input)
        assert read_json(run.amax)["float_layers"] == guard["float_layers"]
        _, scales = calibration_cache.read(run.calibration_cache.read_bytes())
        assert terrible.input[0] not in scales
        assert convolutions[0].input[0] in scales
        assert not (run.bottlenecks / "trial").exists()
        assert quantize(run, options, quiet) == results, "skipped, with the same results"


def test_stage_says_that_the_budget_is_not_met(
    brightness: Path, tmp_path: Path, quiet: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two layers are terrible, and of three only one can be returned."""
    folder = exported(brightness, loud_model(tmp_path, 3), tmp_path / "run", quiet)
    with Run(folder) as run:
        assert len(quantized_layers(load(run.onnx("fp32")))) == 3
        guard = quantize(run, Options(method="max", max_accuracy_drop=0.5), quiet)["accuracy_guard"]
        assert not guard["met"]
        assert run.stage("quantize")["results"]["accuracy_guard"] == guard
        assert [point["float_layers"] for point in guard["points"]] == [0, 1]
        assert min(point["drop"] for point in guard["points"]) > 20
        said = capsys.readouterr().err
        assert "can't be kept within --max-accuracy-drop 0.5: the best found loses" in said
        assert run.onnx("int8").exists()


def test_guard_needs_validation_pictures(
    loud_run: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import quantize as stage
    from pipeline.dataset import Dataset

    with Run(loud_run) as run:
        dataset = Dataset.load(run.dataset)
        dataset.pictures[:] = [p for p in dataset.pictures if p.split != "validation"]
        monkeypatch.setattr(stage, "trained_dataset", lambda _: dataset)
        with pytest.raises(UsageError, match=r"this run has none; .* run: edgetrt retrain"):
            quantize(run, Options(max_accuracy_drop=1.0), quiet)


def test_run_without_validation_pictures_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--validation-percentage", "0", "--max-accuracy-drop", "1"]
    run = tmp_path / "run"
    assert cli.main(["run", "--image-dir", str(tmp_path), "--run", str(run), *flags]) == 2
    assert "give a --validation-percentage above 0" in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize("drop", [-0.1, math.nan, math.inf, -math.inf])
def test_budget_that_is_none(drop: float) -> None:
    with pytest.raises(UsageError, match=r"--max-accuracy-drop must be a number of percentage"):
        Options(max_accuracy_drop=drop)


def test_report_has_the_curve_of_the_last_time(finished: "Finished", tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    int8 = (folder / "onnx" / "model.int8.onnx").read_bytes()
    for flags, guarded in ((["--max-accuracy-drop", "50"], True), ([], False)):
        assert cli.main(["run", "--run", str(folder), *finished.briefly, *flags]) == 0
        assert (folder / "onnx" / "model.int8.onnx").read_bytes() == int8
        report = read_json(folder / "report" / "report.json")
        assert bool(report["accuracy_guard"]) == guarded
        [command] = report["reproduce"]
        assert ("--max-accuracy-drop 50.0" in command) == guarded
        page = (folder / "report" / "index.html").read_text()
        assert ("Accuracy guard</h2>" in page) == guarded
