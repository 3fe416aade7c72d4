"""`edgetrt debug` names the layer that was spoilt, and every decibel is the right one."""

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from networks import (
    CLASSES,
    Network,
    answers,
    batches,
    by_hand,
    makers,
    nodes,
    pixels,
    run,
    weights,
)
from onnx import ModelProto, numpy_helper

from pipeline import calibration, cli
from pipeline.accuracy_guard import decibels
from pipeline.debug import Moved, compare, describe, standing_out
from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.half import to_fp16
from pipeline.last_layer import LastLayer
from pipeline.qdq import insert_qdq, quantized_inputs, quantized_layers
from pipeline.side_by_side import in_fp32
from pipeline.surgery import constants, find_last_layer, set_constant, set_last_layer, up_to

if TYPE_CHECKING:
    from tests.conftest import Finished

PICTURES = pixels(6)


def quantize(model: ModelProto, pictures: np.ndarray = PICTURES) -> ModelProto:
    amax = calibration.largest_values(model, batches(pictures))
    return insert_qdq(model, {tensor: amax[tensor] for tensor in quantized_inputs(model)})


def copy(model: ModelProto) -> ModelProto:
    other = ModelProto()
    other.CopyFrom(model)
    return other


def scaled(model: ModelProto, name: str, factor: float) -> ModelProto:
    """A copy with one constant another."""
    other = copy(model)
    value = constants(model)[name]
    set_constant(other, name, (value * factor).astype(value.dtype))
    return other


def by_numpy(exact: np.ndarray, rough: np.ndarray) -> float:
    return decibels(float((exact.astype(float) ** 2).sum()), float(((rough - exact) ** 2).sum()))


def worst(layers: list[Moved]) -> Moved:
    return min(layers, key=lambda layer: layer.own)


def by_name(layers: list[Moved]) -> dict[str, Moved]:
    return {layer.tensor: layer for layer in layers}


def finding(layers: list[Moved]) -> dict[str, Any]:
    """As `debug` gives it."""
    guilty = standing_out(layers)
    return {
        "precision": "int8",
        "pictures": len(PICTURES),
        "layers": [
            {
                **layer._asdict(),
                "own": layer.own if math.isfinite(layer.own) else None,
                "inputs": layer.inputs,
                "whole": layer.whole if math.isfinite(layer.whole) else None,
                "stands_out": layer in guilty,
            }
            for layer in layers
        ],
    }


# What is found


def test_identical_graphs_are_exact(small: Network) -> None:
    layers = compare(small.onnx, copy(small.onnx), batches(PICTURES))
    floats = calibration.float_tensors(up_to(small.onnx, find_last_layer(small.onnx).bottlenecks))
    assert [layer.tensor for layer in layers] == floats[1:]
    assert [layer.place for layer in layers] == list(range(1, len(layers) + 1))
    assert all((layer.own, layer.whole) == (math.inf, math.inf) for layer in layers)
    assert standing_out(layers) == []
    shown = describe(finding(layers)).splitlines()
    assert shown[1].split()[-2:] == ["exact", "exact"]
    assert shown[-1].endswith(f"none of {len(layers)} layers stands out (>)")


def test_spoilt_weights_are_found(small: Network) -> None:
    quantized = quantize(small.onnx)
    convolutions = [node.output[0] for node in quantized_layers(small.onnx)]
    sound = compare(small.onnx, quantized, batches(PICTURES))
    assert standing_out(sound) == []
    # The first, one in the middle and the last.
    for name in (convolutions[0], convolutions[len(convolutions) // 2], convolutions[-1]):
        weight = makers(small.onnx)[name].input[1]
        spoilt = scaled(quantized, f"{weight}/scale", 40)
        layers = compare(small.onnx, spoilt, batches(PICTURES))
        assert worst(layers).tensor == name
        assert [layer.tensor for layer in standing_out(layers)] == [name]
        # Its input is as good as before: its weights are to blame. No other layer is.
        found, before = by_name(layers), by_name(sound)
        assert found[name].inputs == before[name].inputs
        assert found[name].own < min(found[name].inputs.values()) - 10
        for other in layers:
            if other.tensor != name:
                assert other.own == pytest.approx(before[other.tensor].own)
        assert layers[-1].whole < sound[-1].whole
        first = describe(finding(layers)).splitlines()[1].split()
        assert first[:3] == [">", name, "Conv"]


def test_spoilt_range_of_an_input_is_found(residual: Network) -> None:
    quantized = quantize(residual.onnx)
    last = quantized_layers(residual.onnx)[-1]
    source = last.input[0]
    spoilt = scaled(quantized, f"{source}/scale", 40)
    layers = compare(residual.onnx, spoilt, batches(PICTURES))
    found = worst(layers)
    assert source in found.inputs
    assert found in standing_out(layers)
    # Nothing is wrong with its weights: what its input lost is what it lacks.
    assert found.own == pytest.approx(found.inputs[source], abs=6)
    readers = {node.output[0] for node in quantized_inputs(residual.onnx)[source]}
    assert {layer.tensor for layer in standing_out(layers)} <= readers


def test_every_decibel_of_the_whole_graph(small: Network) -> None:
    quantized = quantize(small.onnx)
    layers = compare(small.onnx, quantized, batches(PICTURES))
    names = [layer.tensor for layer in layers]
    exact, rough = (run(model, PICTURES, *names) for model in (small.onnx, quantized))
    for layer, one, other in zip(layers, exact, rough, strict=True):
        assert layer.whole == pytest.approx(by_numpy(one, other), abs=0.01)


def test_every_decibel_of_a_layer_alone(mobile: Network) -> None:
    quantized = quantize(mobile.onnx)
    found = by_name(compare(mobile.onnx, quantized, batches(PICTURES)))
    exact = dict(zip(found, run(mobile.onnx, PICTURES, *found), strict=True))
    values = constants(quantized)

    def rounded(tensor: str) -> np.ndarray:
        scale = values[f"{tensor}/scale"]
        return (np.clip(np.round(exact[tensor] / scale), -128, 127) * scale).astype(np.float32)

    pointwise = [
        node
        for node in nodes(mobile.onnx, "Conv")
        if constants(mobile.onnx)[node.input[1]].shape[2:] == (1, 1)
    ]
    assert len(pointwise) > 3
    for node in pointwise:
        source, weight = node.input[0], values[node.input[1]]
        scales = values[f"{node.input[1]}/scale"].reshape(-1, 1, 1, 1)
        kernel = (np.round(weight / scales) * scales)[:, :, 0, 0]
        bias = values[node.input[2]].reshape(-1, 1, 1)
        product = np.einsum("oc,nchw->nohw", kernel, rounded(source)) + bias
        layer = found[node.output[0]]
        assert layer.own == pytest.approx(by_numpy(exact[layer.tensor], product), abs=0.01)
        expected = by_numpy(exact[source], rounded(source))
        assert layer.inputs == {source: pytest.approx(expected, abs=0.01)}


def test_layers_that_are_in_float_are_exact(mobile: Network) -> None:
    amax = calibration.largest_values(mobile.onnx, batches(PICTURES))
    kept = quantized_layers(mobile.onnx)[3].output[0]
    quantized = insert_qdq(mobile.onnx, amax, [kept])
    layer = by_name(compare(mobile.onnx, quantized, batches(PICTURES)))[kept]
    assert (layer.own, layer.inputs) == (math.inf, {})
    assert math.isfinite(layer.whole)


def test_another_last_layer_is_not_looked_at(mobile: Network) -> None:
    other = copy(mobile.onnx)
    width = constants(mobile.onnx)[find_last_layer(mobile.onnx).kernel].shape[0]
    set_last_layer(other, LastLayer(weights(width, CLASSES), weights(CLASSES)))
    assert (answers(other, PICTURES) != answers(mobile.onnx, PICTURES)).any()
    layers = compare(mobile.onnx, other, batches(PICTURES))
    assert {layer.whole for layer in layers} == {math.inf}


def test_batches_do_not_matter(mobile: Network) -> None:
    quantized = quantize(mobile.onnx)
    one, all_of_them = (compare(mobile.onnx, quantized, batches(PICTURES, n)) for n in (1, 6))
    assert one == all_of_them
    assert one != compare(mobile.onnx, quantized, batches(PICTURES[:3]))


def test_what_is_no_number_is_named() -> None:
    model = by_hand("a = Conv (x, w)  last = Relu (a)", 4, {"w": weights(4, 3, 1, 1)})
    broken = copy(model)
    value = weights(4, 3, 1, 1)
    value[0] = np.inf
    set_constant(broken, "w", value)
    with pytest.raises(PipelineError, match="^tensor a is no finite number"):
        compare(model, broken, batches(pixels(2, size=8)))


def test_layer_that_is_always_zero() -> None:
    zero = {"w": np.zeros((4, 3, 1, 1), np.float32)}
    model = by_hand("last = Conv (x, w)", 4, zero)
    shifted = copy(model)
    set_constant(shifted, "w", np.ones((4, 3, 1, 1), np.float32))
    layer = by_name(compare(model, shifted, batches(pixels(2, size=8))))["last"]
    assert -500 < layer.own < -300


# FP16


def test_fp16_is_rounded_after_every_layer(small: Network) -> None:
    half = to_fp16(small.onnx)
    layers = compare(small.onnx, half, batches(PICTURES))
    names = [layer.tensor for layer in layers]
    wide = in_fp32(half)
    assert not any(t.data_type == numpy_helper.from_array(np.float16(0)).data_type
                   for t in wide.graph.initializer)  # fmt: skip
    exact, rough = (run(model, PICTURES, *names) for model in (small.onnx, wide))
    for layer, one, other in zip(layers, exact, rough, strict=True):
        np.testing.assert_array_equal(other, other.astype(np.float16).astype(np.float32))
        assert layer.whole == pytest.approx(by_numpy(one, other), abs=0.05)
    assert 40 < layers[-1].whole < 90
    # Within what 11 bits of each number allow.
    np.testing.assert_allclose(answers(wide, PICTURES), answers(half, PICTURES), atol=5e-3, rtol=0)


def test_spoilt_fp16_layer_is_found(residual: Network) -> None:
    half = to_fp16(residual.onnx)
    node = nodes(residual.onnx, "Conv")[2]
    layers = compare(residual.onnx, scaled(half, node.input[1], 1.05), batches(PICTURES))
    assert worst(layers).tensor == node.output[0]
    assert [layer.tensor for layer in standing_out(layers)] == [node.output[0]]


# The command


@pytest.fixture
def copied(finished: "Finished", tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "copy"))


def test_json(finished: "Finished", capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat() for file in finished.folder.rglob("*") if file.is_file()}
    for precision in ("int8", "fp16"):
        flags = ["--run", str(finished.folder), "--precision", precision, "--pictures", "5"]
        assert cli.main(["debug", *flags, "--json"]) == 0
        said = capsys.readouterr()
        found = json.loads(said.out)
        assert (found["precision"], found["pictures"]) == (precision, 5)
        assert "debug: 5/5 pictures" in said.err
        convolutions = [layer for layer in found["layers"] if layer["operation"] == "Conv"]
        assert len(convolutions) == 2
        assert all(15 < layer["own"] < 100 for layer in convolutions)
        assert all(len(layer["inputs"]) == (precision == "int8") for layer in convolutions)
    assert before == {file: file.stat() for file in finished.folder.rglob("*") if file.is_file()}


def test_table(finished: "Finished", capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["debug", "--run", str(finished.folder), "--pictures", "5", "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    header, *rows, last = said.out.splitlines()
    assert header.split()[:3] == ["layer", "operation", "place"]
    own = [row.split()[-3 if "Conv" in row else -2] for row in rows]
    numbers = [math.inf if cell == "exact" else float(cell) for cell in own]
    assert numbers == sorted(numbers)
    assert numbers[0] < numbers[-1] == math.inf
    assert last.startswith("int8 against fp32 on 5 training pictures: ")


def test_more_pictures_than_there_are(
    finished: "Finished", capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--run", str(finished.folder), "--pictures", "100000", "--json"]
    assert cli.main(["debug", *flags]) == 0
    dataset = read_json(finished.folder / "dataset.json")
    train = [picture for picture in dataset["pictures"] if picture["split"] == "train"]
    assert json.loads(capsys.readouterr().out)["pictures"] == len(train)


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["debug", "--run", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert "is not a run folder" in error
    assert "edgetrt retrain" in error


def test_no_int8_graph(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "onnx" / "model.int8.onnx").unlink()
    assert cli.main(["debug", "--run", str(copied)]) == 2
    error = capsys.readouterr().err
    assert "model.int8.onnx is gone" in error
    assert "edgetrt quantize" in error


def test_run_that_is_not_quantized_yet(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = read_json(copied / "run.json")
    del document["stages"]["quantize"]
    (copied / "run.json").write_text(json.dumps(document))
    assert cli.main(["debug", "--run", str(copied)]) == 2
    assert "has no finished stage 'quantize' yet; run: edgetrt quantize" in capsys.readouterr().err


def test_graph_that_could_not_be_made(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = read_json(copied / "run.json")
    reason = "constant w reaches 1e+06, beyond FP16's 65504"
    document["stages"]["quantize"]["results"]["impossible"] = {"fp16": reason}
    (copied / "run.json").write_text(json.dumps(document))
    assert cli.main(["debug", "--run", str(copied), "--precision", "fp16"]) == 2
    assert capsys.readouterr().err == f"edgetrt: model.fp16.onnx could not be made: {reason}\n"


def test_no_pictures(finished: "Finished", capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["debug", "--run", str(finished.folder), "--pictures", "0"]) == 2
    assert "--pictures must be at least 1; received 0" in capsys.readouterr().err
