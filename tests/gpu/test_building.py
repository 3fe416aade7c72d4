"""Building engines: what is kept, what is refused, and what is said when it fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from known import KNOWN, ON_DOUBLE, Build, Built
from onnx import helper, numpy_helper

from benchmarks.device.selftest import ALLOWED
from benchmarks.orders import orders
from engines.catalogue import load_engine, module_of
from engines.orders import LAYERS
from engines.settings import DEFAULT, Settings
from engines.tensorrt import calibration_cache

PICTURES = KNOWN / "picture.png"


def test_engines_are_named_by_what_they_depend_on(built: Built, build: Build) -> None:
    folder, sidecars = built
    for precision, sidecar in sidecars.items():
        assert sidecar["status"] == "built", sidecar["reason"]
        assert sidecar["file"].startswith(sidecar["name"] + "-")
        assert (folder / sidecar["file"]).stat().st_size == sidecar["size_bytes"]
        assert sidecar["depends"]["tensorrt"]
        before = (folder / sidecar["file"]).stat().st_mtime_ns
        assert build(folder, precision) == sidecar  # there already
        assert (folder / sidecar["file"]).stat().st_mtime_ns == before


def test_other_settings_are_another_engine(build: Build, tmp_path: Path) -> None:
    first = build(tmp_path, "fp32", DEFAULT._replace(batch=(1, 1, 2)))
    second = build(tmp_path, "fp32", DEFAULT._replace(batch=(1, 1, 4)))
    assert first["file"] != second["file"]
    assert not (tmp_path / first["file"]).exists()
    assert (tmp_path / second["file"]).exists()


def test_layers_and_their_times_are_kept(built: Built) -> None:
    folder, sidecars = built
    for sidecar in sidecars.values():
        found = json.loads((folder / LAYERS / (sidecar["name"] + ".json")).read_text())
        assert len(found["layers"]["Layers"]) > 3
        assert found["milliseconds"]
        assert all(value >= 0 for value in found["milliseconds"].values())


def test_what_a_build_measured_is_kept_for_the_next(
    backend: str, built: object, build: Build, timing_caches: Path, tmp_path: Path
) -> None:
    if backend == "tensorrt-rtx":
        pytest.skip("TensorRT-RTX measures nothing during a build")
    [cache] = timing_caches.glob("timing-*.cache")
    assert cache.stat().st_size
    cache.write_bytes(b"damaged" * 100)
    assert build(tmp_path, "fp32")["status"] == "built"  # it is made anew
    assert not cache.read_bytes().startswith(b"damaged")


def test_progress_is_told(backend: str, tmp_path: Path) -> None:
    module = module_of(backend)
    told: list[tuple[str, int, int]] = []
    target = getattr(module, "target_here", lambda: None)()
    if target is None:
        pytest.skip("the target is known to `fulfil` only")
    module.build(
        str(KNOWN / "model.fp32.onnx"), str(tmp_path / "plan"), "fp32", target, DEFAULT,
        lambda *step: told.append(step),
    )  # fmt: skip
    if hasattr(pytest.importorskip("tensorrt"), "IProgressMonitor"):
        assert told
        assert all(0 <= done <= of for _, done, of in told)
    else:
        assert all("so far" in step for step in told)  # TensorRT 8 tells nothing


def test_int8_where_there_is_none(
    build: Build, precisions: list[str], tmp_path: Path, answers: dict[str, np.ndarray]
) -> None:
    if "int8" in precisions:
        pytest.skip("this GPU has INT8 instructions")
    refused = build(tmp_path, "int8")
    assert refused["status"] == "unavailable"
    assert "no INT8 instructions" in refused["reason"]
    assert "--precision fp16" in refused["reason"]
    assert "--force" in refused["reason"]
    forced = build(tmp_path, "int8", DEFAULT._replace(force=True))
    assert forced["status"] == "built"
    assert "no INT8 instructions" in forced["options"]["forced"]
    with load_engine(tmp_path, forced) as engine:
        apart = np.abs(engine.infer(answers["pictures"]) - answers["int8"]).max()
    assert apart <= ALLOWED["int8"]
    assert "no INT8 instructions" in build(tmp_path, "int8")["reason"]  # force is not remembered


@pytest.mark.skipif(not ON_DOUBLE, reason="only the double can be told to be killed")
def test_a_build_killed_for_memory_says_what_to_do(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETRT_DOUBLE_KILL", "1")
    failed = build(tmp_path, "fp32", DEFAULT._replace(workspace=300 << 20))
    assert failed["status"] == "unavailable"
    assert "killed" in failed["reason"]
    assert "smaller --workspace than 300 MiB" in failed["reason"]
    assert not list(tmp_path.glob("*.plan"))


def test_a_cache_folder_that_can_not_be_used_is_no_error(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    made = build(tmp_path, "fp32")
    assert made["status"] == "built", made["reason"]
    assert any("without a timing cache" in text for text in made["options"]["warnings"])


def test_what_lies_in_the_current_folder_is_not_run(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('json.py of the current folder was run')")
    monkeypatch.chdir(tmp_path)
    made = build(tmp_path, "fp32")
    assert made["status"] == "built", made["reason"]


def test_a_good_engine_stays_if_it_can_not_be_built_again(
    backend: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build(tmp_path, "fp32")
    monkeypatch.setattr(module_of(backend), "unavailable", lambda: "it is gone for a while")
    assert build(tmp_path, "fp32")["reason"] == "it is gone for a while"
    monkeypatch.undo()
    assert build(tmp_path, "fp32") == made
    assert (tmp_path / made["file"]).is_file()


class TestCalibrator:
    """INT8 by TensorRT's own calibrators, as long as it has some."""

    @pytest.fixture(params=["entropy", "minmax"])
    def settings(self, request: pytest.FixtureRequest, backend: str, precisions: list[str],
                 tmp_path: Path) -> Settings:  # fmt: skip
        if "int8" not in precisions or not self.has_calibrators(backend):
            pytest.skip("no INT8 by calibrators here")
        return DEFAULT._replace(
            int8=request.param,
            calibration_cache=str(tmp_path / "calibration.cache"),
            calibration_pictures=(str(PICTURES),) * 3,
        )

    @staticmethod
    def has_calibrators(backend: str) -> bool:
        if backend == "tensorrt-rtx":
            return False
        import tensorrt

        return hasattr(tensorrt, "IInt8EntropyCalibrator2")

    def test_gone_since_11(self, backend: str, build: Build, tmp_path: Path) -> None:
        if self.has_calibrators(backend):
            pytest.skip("this TensorRT has calibrators")
        if backend == "tensorrt-rtx":
            pytest.skip("never asked for")
        refused = build(tmp_path, "int8", DEFAULT._replace(int8="entropy"))
        assert refused["status"] == "unavailable"
        assert "no calibrators any more" in refused["reason"]

    @staticmethod
    def caches(timing_caches: Path) -> set[Path]:
        return set(timing_caches.glob("calibration-*.cache"))

    def test_what_pictures_gave_serves_the_next_build(
        self, settings: Settings, build: Build, timing_caches: Path, tmp_path: Path
    ) -> None:
        picture = tmp_path / "picture.png"
        picture.write_bytes(PICTURES.read_bytes())
        settings = settings._replace(calibration_pictures=(str(picture),) * 2)
        before = self.caches(timing_caches)
        made = build(tmp_path, "int8", settings)
        assert made["status"] == "built", made["reason"]
        assert settings.int8 in made["name"]
        [cache] = self.caches(timing_caches) - before
        written = cache.stat().st_mtime_ns
        again = build(tmp_path, "int8", settings._replace(batch=(1, 1, 2)))
        assert again["file"] != made["file"]
        assert cache.stat().st_mtime_ns == written
        pixels = np.asarray(cv2.imread(str(picture)))
        cv2.imwrite(str(picture), 255 - pixels)  # another picture of the same name
        other = build(tmp_path, "int8", settings)
        assert other["depends"]["calibration"] != made["depends"]["calibration"]
        assert len(self.caches(timing_caches) - before) == 2

    @pytest.fixture
    def written(self, settings: Settings, build: Build, timing_caches: Path,
                tmp_path: Path) -> tuple[Settings, dict[str, Any]]:  # fmt: skip
        """Settings with a cache in place of pictures, and the engine that the pictures gave."""
        (tmp_path / "pictures").mkdir()
        for cache in timing_caches.glob("calibration-*"):
            cache.unlink()
        made = build(tmp_path / "pictures", "int8", settings)
        [cache] = self.caches(timing_caches)
        note = json.loads((cache.parent / (cache.stem + ".json")).read_text())
        calibration_cache.keep(
            tmp_path / "calibration.cache", cache.read_bytes(), note["version"],
            note["algorithm"], note["onnx_sha256"],
        )  # fmt: skip
        cache.unlink()
        path = str(tmp_path / "calibration.cache")
        return settings._replace(calibration_pictures=(), calibration_cache=path), made

    def test_a_cache_serves_in_place_of_pictures(
        self, written: tuple[Settings, dict[str, Any]], build: Build, tmp_path: Path,
        answers: dict[str, np.ndarray],
    ) -> None:  # fmt: skip
        settings, made = written
        again = build(tmp_path, "int8", settings)
        assert again["status"] == "built", again["reason"]
        with load_engine(tmp_path / "pictures", made) as a, load_engine(tmp_path, again) as b:
            assert np.abs(a.infer(answers["pictures"]) - b.infer(answers["pictures"])).max() < 1e-3

    def test_a_cache_for_another_graph_is_refused(
        self, written: tuple[Settings, dict[str, Any]], build: Build, tmp_path: Path
    ) -> None:
        other = onnx.load(KNOWN / "model.fp32.onnx")
        other.doc_string = "another"
        onnx.save(other, tmp_path / "model.fp32.onnx")
        refused = build(tmp_path, "int8", written[0], tmp_path / "model.fp32.onnx")
        assert refused["status"] == "unavailable"
        assert "another graph" in refused["reason"]

    def test_a_cache_of_another_version_is_refused(
        self, written: tuple[Settings, dict[str, Any]], build: Build, tmp_path: Path
    ) -> None:
        cache = tmp_path / "calibration.cache"
        note = json.loads(cache.with_suffix(".json").read_text())
        data = re.sub(rb"^TRT-\d+", b"TRT-8001", cache.read_bytes())
        calibration_cache.keep(cache, data, "8.0.1", note["algorithm"], note["onnx_sha256"])
        refused = build(tmp_path, "int8", written[0])
        assert refused["status"] == "unavailable"
        assert "it was written for TRT-8001-" in refused["reason"]

    def test_neither_pictures_nor_cache(
        self, settings: Settings, build: Build, tmp_path: Path
    ) -> None:
        refused = build(tmp_path, "int8", settings._replace(calibration_pictures=()))
        assert refused["status"] == "unavailable"
        assert "needs training pictures" in refused["reason"]
        # The host writes caches for the entropy calibrator only.
        assert ("--calibration-cache" in refused["reason"]) == (settings.int8 == "entropy")

    def test_other_precisions_are_as_without(
        self, settings: Settings, backend: str, precisions: list[str]
    ) -> None:
        places = {backend: [module_of(backend).target_here()]}
        for order in orders([backend], precisions, places, settings):
            assert (order.settings == settings) == (order.precision == "int8")

    def test_a_picture_that_is_none(self, settings: Settings, build: Build, tmp_path: Path) -> None:
        bad = tmp_path / "bad.png"
        bad.write_bytes(b"no picture")
        refused = build(tmp_path, "int8", settings._replace(calibration_pictures=(str(bad),)))
        assert refused["status"] == "unavailable"
        assert "bad.png" in refused["reason"]


def _bad_graphs(folder: Path) -> dict[str, tuple[Path, str]]:
    """Graphs that no TensorRT takes, and a word that the error must have."""
    good = (KNOWN / "model.fp32.onnx").read_bytes()
    made: dict[str, tuple[Any, str]] = {
        "truncated": (good[: len(good) // 2], ""),
        "foreign": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, ""),
        "empty": (b"", ""),
    }
    unknown = onnx.load_from_string(good)
    unknown.graph.node[-1].op_type = "NoSuchOperator"
    made["unknown operator"] = (unknown.SerializeToString(), "NoSuchOperator")
    bias = onnx.load(KNOWN / "model.int8.onnx")
    conv = next(n for n in bias.graph.node if n.op_type == "Conv" and len(n.input) == 3)
    size = next(t for t in bias.graph.initializer if t.name == conv.input[2]).dims[0]
    for name, value in (
        ("b", np.zeros(size, np.int32)),
        ("s", np.ones(size, np.float32)),
        ("z", np.zeros(size, np.int32)),
    ):
        bias.graph.initializer.append(numpy_helper.from_array(value, name))
    node = helper.make_node("DequantizeLinear", ["b", "s", "z"], ["b/real"], "wide_bias", axis=0)
    bias.graph.node.insert(0, node)
    conv.input[2] = "b/real"
    made["int32 bias"] = (bias.SerializeToString(), "")
    paths = {}
    for name, (data, word) in made.items():
        path = folder / f"{name.replace(' ', '_')}.onnx"
        path.write_bytes(data)
        paths[name] = (path, word)
    return paths


@pytest.mark.parametrize(
    "kind", ["truncated", "foreign", "empty", "unknown operator", "int32 bias"]
)
def test_bad_graphs_are_one_clear_error(build: Build, tmp_path: Path, kind: str) -> None:
    path, word = _bad_graphs(tmp_path)[kind]
    refused = build(tmp_path, "fp32", graph=path)
    assert refused["status"] == "unavailable"
    assert path.name in refused["reason"]
    assert word in refused["reason"]
    assert "\n" not in refused["reason"].strip()
