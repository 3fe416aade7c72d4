"""A run for DeepStream: read by GLib's own parser, with a graph that answers as the run's does."""

import ctypes
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from networks import SIZE, Network, pixels
from networks import run as answers_of

from benchmarks.progress import Console
from engines import onnx_runtime
from engines.catalogue import module_of
from engines.preprocess import decode, load
from engines.tensorrt import calibration_cache
from pipeline import cli
from pipeline.bilinear import measure
from pipeline.dataset import Dataset, scan
from pipeline.deepstream import channels_first, export_deepstream, label_line, prove
from pipeline.errors import PipelineError, UsageError
from pipeline.quantize import _write_calibration_cache
from pipeline.run import Run

if TYPE_CHECKING:
    from tests.conftest import Finished

GOLDEN = Path(__file__).parents[1] / "golden"
rtx = module_of("tensorrt-rtx")


class KeyFile:
    """GLib's GKeyFile, with which nvinfer reads its configuration."""

    def __init__(self, path: Path) -> None:
        self._glib = glib = ctypes.CDLL("libglib-2.0.so.0")
        for name in ("g_key_file_new", "g_key_file_get_string", "g_key_file_get_keys",
                     "g_key_file_get_integer_list", "g_key_file_get_double_list"):  # fmt: skip
            getattr(glib, name).restype = ctypes.c_void_p
        glib.g_key_file_get_double.restype = ctypes.c_double
        self._file = ctypes.c_void_p(glib.g_key_file_new())
        self._ask(glib.g_key_file_load_from_file, str(path).encode(), 0)

    def keys(self) -> list[str]:
        names = self._list("keys", ctypes.c_char_p)
        return [name.decode() for name in names]

    def string(self, key: str) -> str:
        found = self._get("string", key)
        return ctypes.cast(found, ctypes.c_char_p).value.decode()  # type: ignore[union-attr]

    def integer(self, key: str) -> int:
        return int(self._get("integer", key))

    def double(self, key: str) -> float:
        return float(self._get("double", key))

    def boolean(self, key: str) -> bool:
        return bool(self._get("boolean", key))

    def integers(self, key: str) -> list[int]:
        return self._list("integer_list", ctypes.c_int, key.encode())

    def doubles(self, key: str) -> list[float]:
        return self._list("double_list", ctypes.c_double, key.encode())

    def _get(self, kind: str, key: str) -> Any:
        return self._ask(getattr(self._glib, f"g_key_file_get_{kind}"), b"property", key.encode())

    def _list(self, kind: str, item: Any, *key: bytes) -> list[Any]:
        length = ctypes.c_size_t()
        function = getattr(self._glib, f"g_key_file_get_{kind}")
        found = self._ask(function, b"property", *key, ctypes.byref(length))
        return ctypes.cast(found, ctypes.POINTER(item))[: length.value]

    def _ask(self, function: Any, *arguments: Any) -> Any:
        error = ctypes.c_void_p()
        answer = function(self._file, *arguments, ctypes.byref(error))
        assert not error, f"GLib refuses {arguments}"
        return answer


def labels_as_nvinfer(text: str) -> list[list[str]]:
    """One list for each output: each line that is not empty, cut at every ";"."""
    return [line.split(";") for line in text.split("\n") if line]


@pytest.fixture
def run(finished: "Finished", tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def calibrate(run: Path, version: str) -> None:
    """As `edgetrt quantize --calibration-cache VERSION` does."""
    with Run(run) as opened:
        _write_calibration_cache(opened, version)


def export(run: Path, out: Path, **options: Any) -> dict[str, Any]:
    chosen = {"precision": None, "target": None, **options}
    with Run(run, read_only=True) as opened:
        return export_deepstream(opened, out, console=Console(quiet=True), **chosen)


def test_configuration_is_the_golden_one(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    found = (tmp_path / "out" / "config_infer.txt").read_text()
    assert found == (GOLDEN / "deepstream.fp16.txt").read_text()
    calibrate(run, "8.5.2")
    export(run, tmp_path / "out", precision="int8", target="xavier nx")
    found = (tmp_path / "out" / "config_infer.txt").read_text()
    assert found == (GOLDEN / "deepstream.int8.txt").read_text()


@pytest.mark.parametrize(("precision", "mode"), [("fp32", 0), ("int8", 1), ("fp16", 2)])
def test_glib_reads_what_nvinfer_asks_for(
    precision: str, mode: int, run: Path, tmp_path: Path
) -> None:
    calibrate(run, "10.3.0")
    out = tmp_path / "out"
    export(run, out, precision=precision, target="Orin NX")
    found = KeyFile(out / "config_infer.txt")
    assert found.integer("network-mode") == mode
    assert found.integer("network-type") == 1
    assert found.integer("process-mode") == found.integer("gie-unique-id") == 1
    assert found.integer("batch-size") == 1 and found.integer("gpu-id") == 0
    assert found.double("classifier-threshold") == 0
    assert found.double("net-scale-factor") == 1 and found.doubles("offsets") == [0, 0, 0]
    assert found.integer("model-color-format") == 0
    assert found.boolean("maintain-aspect-ratio") is False
    assert found.integer("scaling-filter") == 1 and found.integer("scaling-compute-hw") == 0
    graph = onnx.load(out / found.string("onnx-file")).graph
    shape = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert found.integer("network-input-order") == 0
    assert shape == ["batch", *found.integers("infer-dims")] == ["batch", 3, 64, 64]
    assert found.string("output-blob-names") == graph.output[0].name
    # The name that nvinfer writes the engine under: of the graph, batch size, GPU and mode.
    engine = f"{found.string('onnx-file')}_b1_gpu0_{precision}.engine"
    assert found.string("model-engine-file") == engine
    labels = labels_as_nvinfer((out / found.string("labelfile-path")).read_text())
    assert labels == [["defective", "functional"]]
    assert ("int8-calib-file" in found.keys()) == (precision == "int8")  # noqa: SIM118
    if precision == "int8":
        cache = (out / found.string("int8-calib-file")).read_bytes()
        assert cache == (run / "onnx" / "calibration.cache").read_bytes()


def test_graph_answers_as_the_run(run: Path, pictures: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    model = onnx.load(tmp_path / "out" / "model.onnx")
    batch = np.stack([load(file, 64, 64) for file in sorted(pictures.rglob("*.png"))])
    (found,) = answers_of(model, batch.transpose(0, 3, 1, 2))
    with onnx_runtime.load_graph(str(run / "onnx" / "model.fp32.onnx")) as engine:
        np.testing.assert_allclose(found, engine.infer(batch), atol=1e-6)


def test_channels_first_is_the_same_network(small: Network) -> None:
    before = small.onnx.SerializeToString()
    turned = channels_first(small.onnx)
    assert small.onnx.SerializeToString() == before
    batch = pixels(5)
    (wanted,), (found,) = (
        answers_of(small.onnx, batch),
        answers_of(turned, batch.transpose(0, 3, 1, 2)),
    )
    np.testing.assert_array_equal(found, wanted)
    made = {name for node in small.onnx.graph.node for name in node.output}
    assert made <= {name for node in turned.graph.node for name in node.output}
    assert prove(small.onnx, turned) == 0


@pytest.mark.skipif(rtx.unavailable() is not None, reason="there is no TensorRT-RTX here")
def test_nvidias_parser_takes_channels_first(small: Network, tmp_path: Path) -> None:
    import tensorrt_rtx_bindings as trt

    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(channels_first(small.onnx).SerializeToString()), parser.get_error(0)
    assert tuple(network.get_input(0).shape) == (-1, 3, SIZE, SIZE)


def test_another_network_is_not_proved(mobile: Network) -> None:
    wrong = channels_first(mobile.onnx)
    next(n for n in wrong.graph.node if n.op_type == "Transpose").attribute[0].ints[:] = [
        0,
        3,
        2,
        1,
    ]
    with pytest.raises(PipelineError, match="axes"):
        prove(mobile.onnx, wrong)


def test_calibration_cache_knows_the_tensors_of_the_graph(run: Path, tmp_path: Path) -> None:
    calibrate(run, "10.3.0")
    export(run, tmp_path / "out", precision="int8")
    _, scales = calibration_cache.read((tmp_path / "out" / "calibration.cache").read_bytes())
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    tensors = {name for node in graph.node for name in node.output}
    assert scales and set(scales) <= tensors | {graph.input[0].name}


@pytest.mark.parametrize("target", ["TX2", "tx1", "Jetson Nano", "TX2 NX", "TX2i"])
def test_no_int8_for_boards_without_it(target: str, run: Path, tmp_path: Path) -> None:
    calibrate(run, "8.2.1")  # their TensorRT
    with pytest.raises(UsageError, match="no INT8 instructions.*use --precision fp16"):
        export(run, tmp_path / "out", precision="int8", target=target)
    assert not (tmp_path / "out").exists()
    assert export(run, tmp_path / "out", target=target)["precision"] == "fp16"


def no_cache(run: Path) -> None:
    """As after a `quantize` that was not asked for one."""


def damaged(run: Path) -> None:
    calibrate(run, "10.3.0")
    with (run / "onnx" / "calibration.cache").open("ab") as file:
        file.write(b"more: 3c010a14\n")


def of_another_graph(run: Path) -> None:
    calibrate(run, "10.3.0")
    note = run / "onnx" / "calibration.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "onnx_sha256": "0" * 64}))


def of_another_tensorrt(run: Path) -> None:
    calibrate(run, "8.2.1")


@pytest.mark.parametrize("make", [no_cache, damaged, of_another_graph, of_another_tensorrt])
def test_int8_needs_a_cache_that_fits(
    make: Callable[[Path], None], run: Path, tmp_path: Path
) -> None:
    make(run)
    with pytest.raises(UsageError, match="--calibration-cache VERSION"):
        export(run, tmp_path / "out", precision="int8", target="Orin Nano")
    assert not (tmp_path / "out").exists()


def test_fp16_that_overflows(run: Path, tmp_path: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["stages"]["quantize"]["results"]["impossible"] = {"fp16": "it reaches 90000"}
    (run / "run.json").write_text(json.dumps(record))
    assert export(run, tmp_path / "out")["precision"] == "fp32"
    with pytest.raises(UsageError, match="it reaches 90000"):
        export(run, tmp_path / "out", precision="fp16")


def test_label_that_would_be_two() -> None:
    assert labels_as_nvinfer(label_line(["a b", "c"])) == [["a b", "c"]]
    with pytest.raises(UsageError, match="'a;b'"):
        label_line(["a;b", "c"])


def test_what_resizing_changes_is_measured(run: Path, tmp_path: Path) -> None:
    """By hand, on the same pictures: 300 x 300 becomes 64 x 64, where we average."""
    import cv2

    made = export(run, tmp_path / "out")["resizing"]
    dataset = Dataset.load(run / "dataset.json")
    files = [Path(dataset.root) / picture.path for picture in dataset.split("test")]
    assert made["pictures"] == len(files) and made["smallest"] == made["largest"] == "300 x 300"
    whole = [decode(file.read_bytes()) for file in files]
    theirs = np.stack([cv2.resize(p, (64, 64), interpolation=cv2.INTER_LINEAR) for p in whole])
    with onnx_runtime.load_graph(str(run / "onnx" / "model.fp32.onnx")) as engine:
        found = engine.infer(theirs)
        wanted = engine.infer(np.stack([load(file, 64, 64) for file in files]))
    moved = np.abs(found - wanted)
    assert made["largest_change"] == pytest.approx(moved.max(), abs=1e-6) and moved.max() > 0.001
    assert made["mean_change"] == pytest.approx(moved.mean(), abs=1e-6)
    assert made["flips"] == (found.argmax(1) != wanted.argmax(1)).sum()
    readme = (tmp_path / "out" / "README.txt").read_text()
    assert f"{made['largest_change']:.4f} at" in " ".join(readme.split())


def test_pictures_of_the_right_size_are_not_changed(
    finished: "Finished", pictures: Path, tmp_path: Path
) -> None:
    import cv2

    for file in sorted(pictures.rglob("*.png"))[::4]:
        folder = tmp_path / "exact" / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / file.name), load(file, 64, 64)[..., ::-1])
    dataset = scan(tmp_path / "exact", 10, 10, 0, Console(quiet=True))
    graph = finished.folder / "onnx" / "model.fp32.onnx"
    found = measure(dataset, dataset.pictures, graph, (64, 64))
    assert found.pictures == 20 and found.largest == "64 x 64"
    assert found.largest_change == found.mean_change == found.flips == 0


def test_without_the_pictures(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = json.loads((run / "dataset.json").read_text())
    (run / "dataset.json").write_text(json.dumps({**dataset, "root": str(tmp_path / "gone")}))
    assert export(run, tmp_path / "out")["resizing"] is None
    assert "was not measured" in capsys.readouterr().err
    assert "was not measured" in (tmp_path / "out" / "README.txt").read_text()


def test_same_run_same_bytes_and_nothing_foreign_is_lost(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run, out)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    export(run, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    (out / "config_infer.txt").write_text("[property]\nbatch-size=8\n")
    with pytest.raises(UsageError, match="config_infer.txt"):
        export(run, out)
    with pytest.raises(UsageError, match="did not write"):
        export(run, run / "onnx")


def test_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["export-deepstream", "--run", str(run), "--out", str(tmp_path / "out")]
    assert cli.main([*flags, "--json", "--target", "agx orin"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["target"] == "AGX Orin"
    assert "probability" in printed.err
    assert cli.main([*flags, "--target", "no-such"]) == 2
    assert cli.main([*flags, "--target", "TX2", "--precision", "int8"]) == 2
    assert "INT8" in capsys.readouterr().err
