"""A run becomes a bundle that devices take."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bundles
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import onnx_runtime
from engines.bundle import golden as check_golden
from engines.bundle.archive import Bundle
from engines.bundle.manifest import Manifest
from engines.bundle.signature import fingerprint, verify
from engines.catalogue import load_engine, read_sidecars
from engines.preprocess import pixels
from pipeline import bundle, golden
from pipeline.cli import main
from pipeline.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.keys import generate, public_of
from pipeline.run import Run

if TYPE_CHECKING:
    from tests.conftest import Finished

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate(tmp_path / "keys" / "signing.pem")
    return tmp_path / "keys" / "signing.pem"


@pytest.fixture(scope="module")
def made(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed bundle, and its key."""
    folder = tmp_path_factory.mktemp("made")
    generate(folder / "signing.pem")
    with Run(finished.folder, read_only=True) as run:
        bundle.make(run, folder / "model.edgetrt", folder / "signing.pem", name="cells", cases=8)
    return folder / "model.edgetrt", folder / "signing.pem"


def opened(file: Path) -> Manifest:
    with Bundle(file) as found:
        found.check()
        return found.manifest


def make(finished: Finished, *flags: object) -> int:
    return main(["bundle", "--run", str(finished.folder), *map(str, flags)])


def test_holds_what_the_run_made(made: tuple[Path, Path], finished: Finished) -> None:
    manifest = opened(made[0])
    assert manifest.name == "cells"
    assert manifest.classes == ["defective", "functional"]
    assert manifest.picture == (64, 64)
    assert manifest.data["input"]["name"] == "pixels"
    assert manifest.data["made_from"]["pictures"] == 80
    for file in manifest.files:
        if file.path.split("/")[0] in ("onnx", "model"):
            data = (finished.folder / file.path).read_bytes()
            assert file.sha256 == hashlib.sha256(data).hexdigest()
    paths = {file.path for file in manifest.files}
    assert {f"onnx/model.{v}.onnx" for v in ("fp32", "fp16", "int8", "int8-fp16")} <= paths
    assert "model/frozen.pb" not in paths
    report = json.loads((finished.folder / "report" / "report.json").read_text())
    wanted = {e["name"]: e["accuracy"]["top1"] for e in report["engines"] if e["accuracy"]}
    assert {n: a["top1"] for n, a in manifest.data["accuracy"].items()} == wanted
    assert set(wanted) == {"tensorflow-fp32", "onnxruntime-fp32", "openvino-fp32"}


def test_what_golden_pictures_cannot_show_is_said(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One picture alone has nobody to be told apart from, and no channels of others."""
    assert make(finished, "--out", tmp_path / "x", "--unsigned", "--golden", 1, "--quiet") == 0
    told = capsys.readouterr().err
    assert "the same answer to every picture would pass in FP32, FP16, INT8" in told
    assert "blue and red exchanged would pass in FP32, FP16, INT8" in told


def test_says_nothing_of_the_machine_it_was_made_on(
    made: tuple[Path, Path], finished: Finished
) -> None:
    with Bundle(made[0]) as found:
        text = found.manifest_bytes.decode()
    assert str(finished.folder.parent) not in text
    assert '"architecture": "own.keras"' in text


def test_licences(made: tuple[Path, Path]) -> None:
    manifest = opened(made[0])
    assert [entry["of"] for entry in manifest.data["licences"]] == ["edgetrt"]
    with Bundle(made[0]) as found, found.open("licences/Apache-2.0.txt") as stream:
        assert stream.read() == (REPOSITORY / "LICENSE").read_bytes()


def test_golden_pictures_are_test_pictures_of_every_class(
    made: tuple[Path, Path], finished: Finished
) -> None:
    manifest = opened(made[0])
    dataset = Dataset.load(finished.folder / "dataset.json")
    labels = {p.sha256: p.label for p in dataset.split("test")}
    cases = [manifest.file(case["picture"]) for case in manifest.data["golden"]["cases"]]
    assert [case.path for case in cases] == [*(f"golden/{n}.png" for n in range(8)), "golden/8.bmp"]
    assert {labels[case.sha256] for case in cases[:-1]} == {"defective", "functional"}
    assert len({case.sha256 for case in cases}) == 9


def test_engines_of_the_run_pass(
    made: tuple[Path, Path], finished: Finished, tmp_path: Path
) -> None:
    with Bundle(made[0]) as found:
        bundles.unpack(found, tmp_path / "release")
        manifest = found.manifest
    sidecars = read_sidecars(finished.folder / "engines")
    assert len(sidecars) == 2
    for sidecar in sidecars:
        with load_engine(finished.folder / "engines", sidecar) as engine:
            result = check_golden.check(engine, "fp32", manifest, tmp_path / "release")
            assert result.ok, result
            assert result.worst < 1e-4
    for precision in ("fp16", "int8"):
        graph = tmp_path / "release" / "onnx" / f"model.{precision}.onnx"
        with onnx_runtime.load_graph(str(graph), precision) as engine:
            assert check_golden.check(engine, precision, manifest, tmp_path / "release").ok


def test_same_run_same_bytes(made: tuple[Path, Path], finished: Finished, tmp_path: Path) -> None:
    """Whatever the umask, the locale, the time zone, the order of sets and the processors."""
    file, key = made
    again = tmp_path / "elsewhere" / "again.edgetrt"
    command: list[Any] = [sys.executable, "-m", "pipeline.cli", "bundle", "--run", finished.folder,
               "--out", again, "--key", key, "--name", "cells", "--quiet"]  # fmt: skip
    surroundings = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", "import os, sys; os.umask(0o77); os.sched_setaffinity(0, {min("
         "os.sched_getaffinity(0))}); os.execv(sys.argv[1], sys.argv[1:])", *command],
        cwd=REPOSITORY, env={**os.environ, **surroundings}, check=True,
    )  # fmt: skip
    assert again.read_bytes() == file.read_bytes()


def test_signature_is_what_openssl_verifies(made: tuple[Path, Path], tmp_path: Path) -> None:
    file, key = made
    with Bundle(file) as found:
        assert found.signature is not None
        (tmp_path / "data").write_bytes(found.manifest_bytes)
        (tmp_path / "signature").write_bytes(found.signature)
        verify(found.manifest_bytes, found.signature, public_of(key))
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", key.with_suffix(".pub.pem"),
         "-signature", tmp_path / "signature", tmp_path / "data"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "Verified OK\n")


def test_command(
    finished: Finished, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "some.edgetrt"
    flags = ["--precision", "fp16", "--target", "tx2,AGX Orin", "--with-tensorflow", "--golden", 2]
    assert make(finished, "--out", out, "--key", key, "--json", *flags) == 0
    told = json.loads(capsys.readouterr().out)
    manifest = opened(out)
    assert told == {
        "file": str(out),
        "size_bytes": out.stat().st_size,
        "release": manifest.id,
        "name": "run",
        "signed_by": fingerprint(public_of(key)),
    }
    assert manifest.precisions == ["fp16"]
    assert manifest.targets == ["TX2", "AGX Orin"]
    assert len(manifest.data["golden"]["cases"]) == 3
    paths = {file.path for file in manifest.files}
    # TensorRT 8 makes FP16 of the FP32 graph.
    assert {"onnx/model.fp32.onnx", "onnx/model.fp16.onnx", "model/frozen.pb"} <= paths
    assert "onnx/model.int8.onnx" not in paths


def test_unsigned_and_without_a_key(
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    out = tmp_path / "model.edgetrt"
    assert make(finished, "--out", out) == 2
    assert "edgetrt keygen makes one" in capsys.readouterr().err
    assert not out.exists()
    assert make(finished, "--out", out, "--unsigned", "--golden", 1) == 0
    assert "NOT signed" in capsys.readouterr().err
    with Bundle(out) as found:
        assert found.signature is None
    assert make(finished, "--out", out, "--unsigned", "--key", tmp_path / "key") == 2
    # The one that keygen makes is found without being told.
    assert main(["keygen"]) == 0
    assert make(finished, "--out", out, "--golden", 1) == 0
    with Bundle(out) as found:
        assert found.signature is not None
        public = (tmp_path / "config" / "edgetrt" / "signing.pub.pem").read_bytes()
        verify(found.manifest_bytes, found.signature, public)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--precision", "fp8"], "--precision takes fp32, fp16, int8"),
        (["--precision", ""], "--precision takes"),
        (["--target", "toaster"], "'toaster' is no target"),
        (["--golden", "0"], "--golden takes 1 to 64"),
        (["--golden", "65"], "--golden takes 1 to 64"),
        (["--name", "a/b"], "--name a/b"),
        (["--name", ""], "--name"),
    ],
)
def test_wrong_use(
    flags: list[str],
    reason: str,
    finished: Finished,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert make(finished, "--out", tmp_path / "out", "--unsigned", *flags) == 2
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert make(finished, "--out", tmp_path, "--unsigned") == 2


def test_run_that_is_not_ready(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    out = tmp_path / "model.edgetrt"
    out.write_bytes(b"the one before")
    command = ["bundle", "--run", str(run), "--out", str(out), "--unsigned"]
    (run / "onnx" / "model.int8.onnx").write_bytes(b"changed")
    assert main(command) == 2
    assert "has changed since stage 'quantize'; run: edgetrt quantize" in capsys.readouterr().err
    document = json.loads((run / "run.json").read_text())
    del document["stages"]["quantize"]
    (run / "run.json").write_text(json.dumps(document))
    assert main(command) == 2
    assert "no finished stage 'quantize' yet" in capsys.readouterr().err
    assert out.read_bytes() == b"the one before"


def test_run_of_a_network_that_is_not_for_fp16(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    document = json.loads((run / "run.json").read_text())
    quantized = document["stages"]["quantize"]
    quantized["results"]["impossible"] = dict.fromkeys(["fp16", "int8-fp16"], "w reaches 1e+06")
    for variant in ("fp16", "int8-fp16"):
        (run / "onnx" / f"model.{variant}.onnx").unlink()
        del quantized["outputs"][f"onnx/model.{variant}.onnx"]
    (run / "run.json").write_text(json.dumps(document))
    command = ["bundle", "--run", str(run), "--out", str(tmp_path / "x"), "--unsigned"]
    assert main(command) == 0
    manifest = opened(tmp_path / "x")
    assert manifest.precisions == ["fp32", "int8"]
    graphs = [file.path for file in manifest.files if file.path.startswith("onnx/")]
    assert graphs == ["onnx/model.fp32.onnx", "onnx/model.int8.onnx"]
    capsys.readouterr()
    assert main([*command, "--precision", "int8,fp16"]) == 2
    assert "--precision fp16 can't be: w reaches 1e+06" in capsys.readouterr().err


def test_pictures_that_are_gone(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    dataset = json.loads((run / "dataset.json").read_text())
    (run / "dataset.json").write_text(json.dumps({**dataset, "root": str(tmp_path)}))
    assert main(["bundle", "--run", str(run), "--out", str(tmp_path / "x"), "--unsigned"]) == 1
    assert "though it was a good picture" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_report_of_another_model_says_nothing_of_this_one(
    finished: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    report = run / "report" / "report.json"
    report.write_text(report.read_text() + " ")
    with Run(run, read_only=True) as opened_run:
        manifest = bundle.make(opened_run, tmp_path / "x", None, cases=1)
    assert manifest.data["accuracy"] == {}


def test_calibration_cache_goes_with_the_fp32_graph(finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    (run / "onnx" / "calibration.cache").write_bytes(b"TRT-8201-EntropyCalibration2\n")
    for precisions, there in ((["fp32", "int8"], True), (["int8"], False)):
        with Run(run, read_only=True) as opened_run:
            manifest = bundle.make(opened_run, tmp_path / "x", None, precisions, cases=1)
        paths = {file.path for file in manifest.files}
        assert ("onnx/calibration.cache" in paths) == there


@pytest.mark.parametrize(
    ("folder", "name"),
    [("demo", "demo"), ("line 3/é", "model"), ("Zelle für Zelle", "Zelle-f-r-Zelle"), ("..x", "x")],
)
def test_name_is_the_folders(folder: str, name: str, finished: Finished, tmp_path: Path) -> None:
    place = tmp_path / folder
    place.parent.mkdir(exist_ok=True)
    shutil.copytree(finished.folder, place)
    with Run(place, read_only=True) as run:
        assert bundle._name(run, None) == name
        with pytest.raises(UsageError):
            bundle._name(run, name + "/")


@given(st.integers(1, 9), st.integers(1, 9), st.randoms())
def test_bmp_is_read_as_it_was_written(height: int, width: int, random: object) -> None:
    picture = np.random.default_rng(height * 10 + width).integers(0, 256, (height, width, 3))
    picture = picture.astype(np.uint8)
    assert np.array_equal(pixels(golden.bmp(picture), height, width), picture)


def test_blind_spots() -> None:
    sharp = np.array([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]])
    assert golden.blind_spots({"fp32": sharp}, {"fp32": np.array([0.3, 0.7])}) == []
    close = np.array([0.79, 0.21])
    assert golden.blind_spots(
        {"fp32": sharp, "fp16": sharp, "int8": sharp}, {"fp32": close, "fp16": close, "int8": close}
    ) == ["an engine with blue and red exchanged would pass in FP16, INT8"]
    flat = np.array([[0.5, 0.5], [0.51, 0.49], [0.5, 0.5]])
    found = golden.blind_spots({"fp32": flat, "int8": flat}, {"fp32": flat[0], "int8": flat[0]})
    assert sorted(found) == [
        "an engine with blue and red exchanged would pass in FP32, INT8",
        "an engine with classes in another order would pass in INT8",
        "an engine with the same answer to every picture would pass in INT8",
    ]


def test_steadiest_pictures_of_every_class_are_chosen() -> None:
    answers = {
        "fp32": np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.3, 0.7], [0.2, 0.8]]),
        "int8": np.array([[0.5, 0.5], [0.8, 0.2], [0.69, 0.31], [0.4, 0.6], [0.25, 0.75]]),
    }
    assert golden._steadiest(answers, 4) == [1, 4, 2, 3]
    assert golden._steadiest(answers, 9) == [1, 4, 2, 3, 0]


def test_what_no_target_is_made_for_is_left_out(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--unsigned", "--golden", 1, "--target"]
    assert make(finished, "--out", tmp_path / "tx2", *flags, "tx2,nano") == 0
    assert "int8 is left out: sm62" in capsys.readouterr().err
    assert opened(tmp_path / "tx2").precisions == ["fp32", "fp16"]
    assert make(finished, "--out", tmp_path / "both", *flags, "tx2,agx orin") == 0
    assert opened(tmp_path / "both").precisions == ["fp32", "fp16", "int8"]
    assert make(finished, "--out", tmp_path / "none", *flags, "tx2", "--precision", "int8") == 2
    assert "--precision int8 is for none of the targets: sm62" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
