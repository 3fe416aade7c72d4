"""A run as a Triton model repository: read by Triton's own protobuf, and it answers as the run."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.progress import Console
from engines import onnx_runtime
from engines.catalogue import load_engine, read_sidecar
from engines.files import sha256_of
from engines.preprocess import RECIPE, load
from pipeline import cli
from pipeline.errors import UsageError
from pipeline.run import Run
from pipeline.shapes import Shapes
from pipeline.triton import Model, config, export_triton

if TYPE_CHECKING:
    from tests.conftest import Finished

GOLDEN = Path(__file__).parents[1] / "golden" / "triton.pbtxt"
PLAN = "tensorrt-fp16-sm87"


@pytest.fixture
def run(finished: "Finished", tmp_path: Path) -> Path:
    """A copy of a finished run, as it may have come back from a device."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def export(run: Path, out: Path, **options: Any) -> dict[str, Any]:
    chosen = {"engine": None, "precision": None, "name": "small", **options}
    with Run(run, read_only=True) as opened:
        return export_triton(opened, out, console=Console(quiet=True), **chosen)


def parse(text: str) -> Any:
    """What Triton reads; an unknown field or a wrong type is an error."""
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    return text_format.Parse(text, ModelConfig())


def of(out: Path) -> Any:
    return parse((out / "small" / "config.pbtxt").read_text("ascii"))


def pixels_of(pictures: Path, count: int) -> np.ndarray:
    return np.stack([load(file, 64, 64) for file in sorted(pictures.rglob("*.png"))[:count]])


def put_plan(run: Path, change: Callable[[dict[str, Any]], Any] = lambda _: None) -> bytes:
    """An engine as the device program leaves it; Triton alone reads the plan."""
    data = b"a plan" * 100
    (run / "engines" / f"{PLAN}-0123456789ab.plan").write_bytes(data)
    sidecar = {
        "schema": 2, "name": PLAN, "backend": "tensorrt", "precision": "fp16", "target": "sm87",
        "onnx": "model.fp32.onnx", "onnx_sha256": sha256_of(run / "onnx" / "model.fp32.onnx"),
        "depends": {"tensorrt": "10.3.0", "cuda": "12.6", "gpu": "Orin", "batch": [1, 4, 16],
                    "workspace": 1 << 30, "int8": "explicit", "calibration": None},
        "status": "built", "reason": "", "file": f"{PLAN}-0123456789ab.plan",
        "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    change(sidecar)
    (run / "engines" / f"{PLAN}.json").write_text(json.dumps(sidecar))
    return data


def test_config_is_the_golden_one(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "models")
    assert (tmp_path / "models" / "small" / "config.pbtxt").read_text() == GOLDEN.read_text()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_graph_is_served_as_the_run_has_it(
    precision: str, run: Path, pictures: Path, tmp_path: Path
) -> None:
    """Sent what the configuration asks for, the model file answers as our engine does."""
    import onnxruntime

    out = tmp_path / "models"
    made = export(run, out, precision=precision)
    assert made["folder"] == str(out / "small") and made["engine"] == f"onnxruntime-{precision}"
    found = of(out)
    assert (found.name, found.platform) == ("small", "onnxruntime_onnx")
    assert found.parameters["edgetrt_preprocessing"].string_value == RECIPE
    file = out / "small" / "1" / found.default_model_filename
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (source,), (result,) = session.get_inputs(), session.get_outputs()
    (asked,), (given,) = found.input, found.output
    assert (asked.name, given.name) == (source.name, result.name)
    assert ["batch", *asked.dims] == source.shape and ["batch", *given.dims] == result.shape
    assert (asked.data_type, source.type) == (asked.DESCRIPTOR.file.enum_types_by_name["DataType"]
        .values_by_name["TYPE_FP32"].number, "tensor(float)")  # fmt: skip
    labels = (out / "small" / given.label_filename).read_text().splitlines()
    assert labels == ["defective", "functional"] and len(labels) == given.dims[0]

    batch = pixels_of(pictures, found.max_batch_size)
    assert len(batch) == 32
    (answers,) = session.run([given.name], {asked.name: batch.astype(np.float32)})
    if precision == "fp32":  # the engine that `edgetrt build` made
        engine = load_engine(run / "engines", read_sidecar(run / "engines/onnxruntime-fp32.json"))
    else:
        engine = onnx_runtime.load_graph(str(run / "onnx" / f"model.{precision}.onnx"), precision)
    with engine:
        np.testing.assert_allclose(answers, engine.infer(batch), atol=1e-5)


def test_warms_up_with_what_the_model_takes(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path)
    found = of(tmp_path)
    assert [warmup.batch_size for warmup in found.model_warmup] == [1, found.max_batch_size]
    for warmup in found.model_warmup:
        (key,) = warmup.inputs
        given = warmup.inputs[key]
        assert key == found.input[0].name and given.zero_data
        assert list(given.dims) == list(found.input[0].dims)
        assert given.data_type == found.input[0].data_type


def test_engine_says_where_it_runs(run: Path, tmp_path: Path) -> None:
    from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

    data = put_plan(run)
    made = export(run, tmp_path / "models", engine=PLAN)
    found = of(tmp_path / "models")
    assert (found.platform, found.default_model_filename) == ("tensorrt_plan", "model.plan")
    assert found.max_batch_size == 16  # its profile's
    assert found.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
    assert (tmp_path / "models" / "small" / "1" / "model.plan").read_bytes() == data
    notes = {key: value.string_value for key, value in found.parameters.items()}
    assert notes["edgetrt_engine"] == PLAN
    assert notes["edgetrt_made_for_gpu"] == "Orin"
    assert notes["edgetrt_made_for_tensorrt"] == "10.3.0"
    assert made["made_for"] == {"gpu": "Orin", "tensorrt": "10.3.0", "cuda": "12.6"}
    readme = (tmp_path / "models" / "small" / "README.txt").read_text()
    assert "Orin, with exactly TensorRT 10.3.0" in readme


def test_engine_of_onnx_runtime_stands_for_its_graph(run: Path, tmp_path: Path) -> None:
    """The file that was optimized for this processor is for no other."""
    export(run, tmp_path, engine="onnxruntime-fp32")
    model = (tmp_path / "small" / "1" / "model.onnx").read_bytes()
    assert model == (run / "onnx" / "model.fp32.onnx").read_bytes()


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "batch": (lambda s: s["depends"].update(batch=[2, 4, 8]), "no batch below 2"),
    "graph": (lambda s: s.update(onnx_sha256="0" * 64), "older model"),
    "file": (lambda s: s.update(sha256="0" * 64), "not the file that was built"),
    "gone": (lambda s: s.update(file="other.plan"), "not the file that was built"),
    "unbuilt": (lambda s: s.update(status="unavailable", reason="no GPU"), "no GPU"),
    "rtx": (lambda s: s.update(backend="tensorrt-rtx"), "no backend that loads"),
}


@pytest.mark.parametrize("change", REFUSED)
def test_engine_that_triton_could_not_serve(change: str, run: Path, tmp_path: Path) -> None:
    alter, message = REFUSED[change]
    put_plan(run, alter)
    with pytest.raises(UsageError, match=message):
        export(run, tmp_path / "models", engine=PLAN)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "openvino-fp32"},
        {"engine": "none-such"},
        {"engine": "../run"},
        {"engine": "onnxruntime-fp32", "precision": "fp32"},
        {"name": ""},
        {"name": ".."},
        {"name": "a/b"},
        {"name": "two\nlines"},
    ],
)
def test_wrong_use(options: dict[str, Any], run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        export(run, tmp_path / "models", **options)
    assert not (tmp_path / "models").exists()


def test_other_models_of_the_repository_stay(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "models" / "other" / "config.pbtxt"
    other.parent.mkdir(parents=True)
    other.write_text('name: "other"')
    export(run, tmp_path / "models")
    first = {p: p.read_bytes() for p in (tmp_path / "models").rglob("*") if p.is_file()}
    export(run, tmp_path / "models")
    assert {p: p.read_bytes() for p in (tmp_path / "models").rglob("*") if p.is_file()} == first
    with pytest.raises(UsageError, match="did not write"):
        export(run, tmp_path / "models", name="other")
    assert other.read_text() == 'name: "other"'


def test_any_name_comes_through_the_text_format() -> None:
    hostile = 'a"b\\c\n} name: "x" {\u00fc\u2028'
    model = Model(Path("x"), "model.plan", "tensorrt_plan", hostile, 1, {"gpu": hostile})
    found = parse(config("small", model, Shapes(hostile, 8, 9, hostile, 3)))
    assert found.name == "small"
    assert found.input[0].name == found.output[0].name == hostile
    assert list(found.input[0].dims) == [8, 9, 3]
    assert found.parameters["edgetrt_made_for_gpu"].string_value == hostile
    assert [list(warmup.inputs) for warmup in found.model_warmup] == [[hostile]]


def test_client_of_the_readme(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that stands there sends the pixels and asks for the classes by their names."""
    import tritonclient.http

    export(run, tmp_path / "models")
    readme = (tmp_path / "models" / "small" / "README.txt").read_text()
    lines = readme[readme.index("    import tritonclient") :].splitlines()
    picture = next(iter(sorted(pictures.rglob("*.png"))))
    shutil.copyfile(picture, tmp_path / "picture.jpg")  # what it is, its bytes say
    monkeypatch.chdir(tmp_path)
    sent: list[Any] = []

    class Answer:
        def as_numpy(self, name: str) -> np.ndarray:
            return np.array([name])

    class Client:
        def __init__(self, url: str) -> None:
            sent.append(url)

        def infer(self, model: str, inputs: list[Any], outputs: list[Any]) -> Answer:
            sent.extend([model, inputs, outputs])
            return Answer()

    monkeypatch.setattr(tritonclient.http, "InferenceServerClient", Client)
    exec("\n".join(line[4:] for line in lines), {})
    url, model, (source,), (wanted,) = sent
    assert (url, model) == ("localhost:8000", "small")
    found = of(tmp_path / "models")
    assert (source.name(), wanted.name()) == (found.input[0].name, found.output[0].name)
    assert list(source.shape()) == [1, *found.input[0].dims] and source.datatype() == "FP32"
    pixels = np.frombuffer(source._get_binary_data(), np.float32).reshape(source.shape())
    np.testing.assert_array_equal(pixels[0], load(picture, 64, 64))


def test_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "models"
    flags = ["export-triton", "--run", str(run), "--out", str(out)]
    assert cli.main([*flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(out / "run")
    assert cli.main([*flags, "--engine", "openvino-fp32"]) == 2
    assert "Triton" in capsys.readouterr().err
