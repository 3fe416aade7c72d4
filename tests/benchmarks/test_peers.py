"""What edgetrt is held against: that each peer answers, and that a missing one is told."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.balanced import balanced
from benchmarks.peers import benchmark_app, inference, poets, table, training
from benchmarks.peers.bare import computes_in
from benchmarks.peers.catalogue import Peer, peers
from benchmarks.peers.packages import make_importable
from benchmarks.peers.run_folder import RunFolder
from benchmarks.progress import Console
from benchmarks.scenarios import OFFLINE, SINGLE_STREAM, Effort
from engines import onnx_runtime
from engines.engine import Engine, EngineError
from engines.preprocess import load_good
from engines.tensorrt import standard
from pipeline.dataset import Dataset
from pipeline.quantize import calibration_pictures

if TYPE_CHECKING:
    from tests.conftest import Finished

REPOSITORY = Path(__file__).parents[2]
HERE = [peer for peer in peers() if not peer.name.startswith("polygraphy")]
BRIEF = Effort("quick", 2, 0.0, 2, window=0.001, warm_up=0.01)
# How far a peer's probabilities may be from those of ONNX Runtime on the same graph: one that
# rounds each product to 8 bits of mantissa, or quantizes by its own recipe, moves them.
TOLERANCE = {"tflite-int8": 0.1, "bare-openvino-fp32": 0.02, "bare-openvino-int8": 0.02}

APP_OUTPUT = """\
[Step 10/11] Measuring performance (Start inference synchronously, limits: 3000 ms duration)
[ INFO ] Benchmarking in inference only mode (inputs filling are not included in measurement loop).
[ INFO ] First inference took 14.37 ms
[Step 11/11] Dumping statistics report
[ INFO ] Execution Devices:['CPU']
[ INFO ] Count:            808 iterations
[ INFO ] Duration:         3000.47 ms
[ INFO ] Latency:
[ INFO ]    Median:        2.63 ms
[ INFO ]    Average:       3.66 ms
[ INFO ]    Min:           1.69 ms
[ INFO ]    Max:           9.71 ms
[ INFO ] Throughput:   269.29 FPS
"""


@pytest.fixture(scope="module")
def run(finished: Finished) -> RunFolder:
    return RunFolder(finished.folder)


@pytest.fixture(scope="module")
def pixels(run: RunFolder) -> np.ndarray:
    return np.stack([load_good(p.file, 64, 64) for p in run.split("train")[:5]])


def broken(_run: RunFolder) -> Engine:
    raise ImportError("No module named 'abacus'")


class Falters(Engine):
    """It opens, and fails on the first picture."""

    def __init__(self, run: RunFolder) -> None:
        with onnx_runtime.load_graph(str(run.graph("fp32"))) as engine:
            self.input, self.output = engine.input, engine.output

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        raise ValueError("out of beads")


@pytest.mark.parametrize("peer", HERE, ids=lambda peer: peer.name)
def test_peer_answers_as_our_engine(peer: Peer, run: RunFolder, pixels: np.ndarray) -> None:
    if peer.name.endswith("-f32") and computes_in() == "f32":
        with pytest.raises(EngineError, match="computes in f32"):
            peer.open(run)
        return
    precision = "int8" if "int8" in peer.name else "fp32"
    with onnx_runtime.load_graph(str(run.graph(precision)), precision) as ours:
        expected = ours.infer(pixels)
    with peer.open(run) as engine:
        assert engine.precision == precision
        assert engine.input.shape == (None, 64, 64, 3)
        assert engine.output.shape == (None, 2)
        tolerance = TOLERANCE.get(peer.name, 2e-3)
        np.testing.assert_allclose(engine.infer(pixels[:1]), expected[:1], atol=tolerance)
        np.testing.assert_allclose(engine.infer(pixels), expected, atol=tolerance)
        streamed = list(engine.stream([pixels[:2], pixels]))
        np.testing.assert_allclose(streamed[0], expected[:2], atol=tolerance)
        np.testing.assert_allclose(streamed[1], expected, atol=tolerance)
        first = engine.infer(pixels[:1])
        kept = first.copy()
        engine.infer(255 - pixels[:1])
        np.testing.assert_array_equal(first, kept)  # an answer is the caller's own


@pytest.mark.skipif(standard.none_runs() is None, reason="TensorRT runs here")
def test_polygraphy_without_a_gpu_is_told(run: RunFolder) -> None:
    peer = next(peer for peer in peers() if peer.name == "polygraphy-fp32")
    with pytest.raises(EngineError, match="TensorRT"):
        peer.open(run)


def test_missing_peers_are_told_and_the_others_measured(run: RunFolder, quiet: Console) -> None:
    bare = next(peer for peer in peers() if peer.name == "bare-onnxruntime-fp32")
    some = [Peer("abacus", "beads", "onnxruntime-fp32", broken), bare,
            Peer("falters", "few beads", "openvino-fp32", Falters)]  # fmt: skip
    rows = inference.measure(run, some, [], BRIEF, quiet)
    assert [row["name"] for row in rows] == [
        "tensorflow-fp32", "onnxruntime-fp32", "abacus", bare.name, "openvino-fp32", "falters",
    ]  # fmt: skip
    by_name = {row["name"]: row for row in rows}
    assert "No module named 'abacus'" in by_name["abacus"]["reason"]
    assert "out of beads" in by_name["falters"]["reason"]
    for name in ("abacus", "falters"):
        assert by_name[name]["status"] == inference.NOT_MEASURED
        assert by_name[name]["accuracy"] is None
        assert not by_name[name]["scenarios"]
    tensorflow, measured = by_name["tensorflow-fp32"], by_name[bare.name]
    assert measured["status"] == inference.MEASURED
    assert measured["accuracy"] == tensorflow["accuracy"]
    assert measured["accuracy"]["n"] == len(run.split("test"))
    assert set(measured["scenarios"]) == {SINGLE_STREAM, OFFLINE}
    low, high = measured["against_ours"]["ci95"]
    assert 0 < low <= measured["against_ours"]["value"] <= high
    assert tensorflow["against_ours"] is None
    text = table.inference_table(rows)
    assert "\n  bare-onnxruntime-fp32 " in text
    assert "\nfalters: not measured: ValueError('out of beads')" in text


def test_engine_of_an_older_model_is_told(
    finished: Finished, quiet: Console, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    graph = folder / "onnx" / "model.fp32.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    (folder / "engines" / "openvino-fp32.json").write_text("{}")
    rows = inference.measure(RunFolder(folder), [], [], BRIEF, quiet)
    reasons = {row["name"]: row["reason"] for row in rows}
    assert reasons["tensorflow-fp32"] == ""
    assert reasons["onnxruntime-fp32"] == "built from an older model; run: edgetrt build"
    assert "build it again" in reasons["openvino-fp32"]


def test_output_of_benchmark_app() -> None:
    assert benchmark_app.parse(APP_OUTPUT) == {
        "n": 808, "p50": 2.63, "mean": 3.66, "min": 1.69, "max": 9.71, "ips": 269.29,
    }  # fmt: skip
    quick = benchmark_app.parse(APP_OUTPUT.replace("1.69 ms", "21.5 us"))
    assert (quick["min"], quick["p50"]) == (0.0215, 2.63)
    for missing in ("Median", "Throughput", "Count"):
        with pytest.raises(EngineError, match="printed no"):
            benchmark_app.parse(APP_OUTPUT.replace(missing, "Something"))


def test_benchmark_app_runs(run: RunFolder) -> None:
    found = benchmark_app.run(run.graph("fp32"), 1)
    assert found["n"] > 0
    assert 0 < found["min"] <= found["p50"] <= found["max"]


def test_benchmark_app_that_fails_is_told(tmp_path: Path, run: RunFolder) -> None:
    (tmp_path / "model.onnx").write_bytes(run.graph("fp32").read_bytes()[:-1000])
    with pytest.raises(EngineError, match="can't read .*model.onnx"):
        benchmark_app.run(tmp_path / "model.onnx", 1)
    with pytest.raises(EngineError, match="benchmark_app failed: "):
        benchmark_app.run(run.graph("fp32"), -1)


def test_run_folder_knows_split_and_calibration(finished: Finished, run: RunFolder) -> None:
    dataset = Dataset.load(finished.folder / "dataset.json")
    for split in ("train", "validation", "test"):
        found = [(p.path, run.classes[p.label]) for p in run.split(split)]
        assert found == [(p.path, p.label) for p in dataset.split(split)]
    assert [p.path for p in run.calibration()] == [
        p.path for p in calibration_pictures(dataset, 8, 0)
    ]


def test_run_that_can_not_be_used_is_told(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="can't be read"):
        RunFolder(tmp_path)
    with pytest.raises(EngineError, match="--pictures"):
        RunFolder(finished.folder, tmp_path)
    for name in ("dataset.json", "run.json"):
        shutil.copy(finished.folder / name, tmp_path)
    (tmp_path / "run.json").write_text('{"stages": {"retrain": {}}}')
    with pytest.raises(EngineError, match="is damaged"):
        RunFolder(tmp_path)
    shutil.copy(finished.folder / "run.json", tmp_path)
    with pytest.raises(EngineError, match="edgetrt quantize"):
        RunFolder(tmp_path).graph("int8")


def test_balanced_choice() -> None:
    labels = ["a"] * 50 + ["b"] * 3 + ["c"] * 50
    chosen = balanced(labels, 21, 1)
    assert len(set(chosen)) == 21
    assert Counter(labels[place] for place in chosen) == {"a": 9, "b": 3, "c": 9}
    assert balanced(labels, 21, 1) == chosen != balanced(labels, 21, 2)
    assert sorted(balanced(labels, 1000, 1)) == list(range(103))
    assert balanced([], 5, 0) == []


def test_bottlenecks_are_text_and_computed_once(run: RunFolder, tmp_path: Path) -> None:
    asked = []

    def mean_colour(pictures: np.ndarray) -> np.ndarray:
        assert (pictures.shape, pictures.dtype) == ((1, 64, 64, 3), np.float32)
        asked.append(pictures)
        return pictures.mean((1, 2))

    files = poets.write_bottlenecks(run, mean_colour, (64, 64), tmp_path)
    pictures = [
        picture for split in ("train", "validation", "test") for picture in run.split(split)
    ]
    assert len(asked) == len(pictures) == len(list(tmp_path.rglob("*.txt"))) == 80
    first = run.split("test")[0]
    expected = load_good(first.file, 64, 64).astype(np.float32).mean((0, 1))
    numbers = files["test"][first.label][0].read_text().split(",")
    np.testing.assert_allclose([float(number) for number in numbers], expected, rtol=1e-5)
    assert poets.write_bottlenecks(run, mean_colour, (64, 64), tmp_path) == files
    assert len(asked) == 80


def test_last_layer_learns_from_text_files(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(3, 8))
    files: poets.Files = {}
    for split, count in (("train", 40), ("validation", 10), ("test", 20)):
        files[split] = {}
        for label, centre in enumerate(centres):
            for place in range(count):
                file = tmp_path / f"{split}-{label}-{place}.txt"
                file.write_text(",".join(map(str, 10 * (centre + random.normal(0, 0.2, 8)))))
                files[split].setdefault(label, []).append(file)
    result = poets.train(files, 3, 50, 0)
    assert result["n"] == 60
    assert result["top1"] > 0.95
    assert result["validation"][-1] > 0.9
    assert len(result["validation"]) == 6  # every ten steps, and after the last
    assert poets.train(files, 3, 50, 0) == result
    assert poets.train({**files, "validation": {}}, 3, 5, 0)["validation"] == []


def test_both_ways_of_training(run: RunFolder, quiet: Console) -> None:
    rows = training.measure(run, 1, quiet)
    assert [row["name"] for row in rows] == ["poets", "edgetrt retrain"]
    for row in rows:
        assert row["n"] == len(run.split("test"))
        assert 0 < row["bottlenecks"][0] < row["whole"][0]
        assert 0 < row["training"][0] < row["whole"][0]
    assert table.training_table(rows).splitlines()[1].startswith("poets ")


def wheel(folder: Path) -> str:
    """A package "abacus" 1.0; gives the SHA-256 of its file."""
    file = folder / "abacus-1.0-py3-none-any.whl"
    info = {
        "METADATA": "Metadata-Version: 2.1\nName: abacus\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(file, "w") as opened:
        record = ""
        contents = {"abacus.py": "BEADS = 100\n"}
        contents.update({f"abacus-1.0.dist-info/{name}": text for name, text in info.items()})
        for name, text in contents.items():
            opened.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            record += f"{name},sha256={digest.rstrip(b'=').decode()},{len(text)}\n"
        opened.writestr("abacus-1.0.dist-info/RECORD", record + "abacus-1.0.dist-info/RECORD,,\n")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_package_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    digest = wheel(tmp_path)
    with pytest.raises(EngineError, match="abacus==1.0 can't be had"):
        make_importable("abacus==1.0", "0" * 64)  # another file than the one that was meant
    make_importable("abacus==1.0", digest)
    import abacus  # type: ignore[import-not-found]

    assert abacus.BEADS == 100
    next(tmp_path.glob("*.whl")).unlink()
    make_importable("abacus==1.0", digest)
    with pytest.raises(EngineError, match="abacus==2.0 can't be had"):
        make_importable("abacus==2.0", digest)


def peers_command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", *map(str, arguments)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=300,
    )  # fmt: skip


def test_command_prints_for_programs(finished: Finished, pictures: Path) -> None:
    only = "bare-onnxruntime-fp32,benchmark_app-fp32"
    done = peers_command("--run", finished.folder, "--pictures", pictures, "--quick", "--json",
                         "--quiet", "--only", only)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["run"], result["effort"]) == ("run", "quick")
    assert result["conditions"]["before"]["processors"] >= 1
    assert "training" not in result
    rows = {row["name"]: row for row in result["inference"]}
    assert list(rows) == ["tensorflow-fp32", "onnxruntime-fp32", "bare-onnxruntime-fp32",
                          "openvino-fp32", "benchmark_app-fp32"]  # fmt: skip
    assert {row["status"] for row in rows.values()} == {inference.MEASURED}
    assert rows["benchmark_app-fp32"]["app"]["ips"] > 0
    assert "benchmark_app -hint latency" in table.inference_table(result["inference"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--run", "nowhere"], 1, "dataset.json can't be read"),
        (["--run", "nowhere", "--only", "abacus"], 2, "abacus is none of keras-predict"),
        ([], 2, "--run"),
    ],
)
def test_wrong_use(arguments: list[str], code: int, words: str) -> None:
    done = peers_command(*arguments)
    assert done.returncode == code
    assert words in done.stderr
