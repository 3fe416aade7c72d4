"""An engine against the golden cases of a bundle."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from known import KNOWN

from engines import onnx_runtime
from engines.bundle import golden
from engines.bundle.manifest import BundleError, Manifest, parse
from engines.engine import Engine, EngineError
from engines.preprocess import load

Change = Callable[[np.ndarray], np.ndarray]


class Changed(Engine):
    """An engine with a fault, in what it sees or what it says."""

    def __init__(self, engine: Engine, sees: Change | None, says: Change | None) -> None:
        self._engine = engine
        self._sees, self._says = sees, says
        self.sizes: list[int] = []

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        self.sizes.append(len(pictures))
        seen = self._sees(pictures) if self._sees else pictures
        answers = self._engine.infer(np.ascontiguousarray(seen))
        return self._says(answers) if self._says else answers


@pytest.fixture(scope="module")
def engine() -> Engine:
    return onnx_runtime.load_graph(str(KNOWN / "model.fp32.onnx"), optimize=False)


@pytest.fixture(scope="module")
def release(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    """An unpacked bundle of two pictures that the known network answers differently."""
    folder = tmp_path_factory.mktemp("release")
    files = bundles.contents()
    import cv2

    picture: Any = cv2.imread(str(KNOWN / "picture.png"))
    dark = cv2.imencode(".png", (picture // 8) * [1, 2, 6])[1].tobytes()
    files["golden/1.png"] = dark
    for path, data in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    value = bundles.describe(files)
    value["golden"]["cases"] = []
    for name in ("golden/0.png", "golden/1.png"):
        shown = load(folder / name, bundles.SIDE, bundles.SIDE)[np.newaxis]
        answer = [float(p) for p in engine.infer(shown)[0]]
        value["golden"]["cases"].append(
            {"picture": name, "probabilities": dict.fromkeys(bundles.PRECISIONS, answer)}
        )
    return parse(bundles.encode(value)), folder


def test_the_right_engine(engine: Engine, release: tuple[Manifest, Path]) -> None:
    watched = Changed(engine, None, None)
    found = golden.check(watched, "fp32", *release)
    assert found.ok
    assert found.worst < 1e-5
    assert found.allowed == 0.005
    assert watched.sizes == [1, 1, 2]


FAULTS: list[tuple[Change | None, Change | None]] = [
    (lambda pictures: pictures[..., ::-1], None),
    (lambda pictures: pictures // 255, None),
    (lambda pictures: 255 - pictures, None),
    (None, lambda answers: np.roll(answers, 1, axis=1)),
    (None, lambda answers: answers[:, ::-1]),
    (None, lambda answers: np.full_like(answers, 1 / 3)),
    (None, lambda answers: answers + 0.006),
    (None, lambda answers: np.log(answers + 1e-6)),
    # Right for one picture, wrong for several.
    (None, lambda answers: answers[::-1]),
    (None, lambda answers: answers if len(answers) == 1 else np.zeros_like(answers)),
]


@pytest.mark.parametrize("fault", range(len(FAULTS)))
def test_a_wrong_engine(fault: int, engine: Engine, release: tuple[Manifest, Path]) -> None:
    found = golden.check(Changed(engine, *FAULTS[fault]), "fp32", *release)
    assert not found.ok
    assert found.worst > found.allowed
    assert "expected" in found.what
    assert any(name in found.what for name in ("golden/0.png", "golden/1.png"))


@pytest.mark.parametrize(
    ("says", "what"),
    [
        (lambda answers: np.full_like(answers, np.nan), "are no numbers"),
        (lambda answers: np.full_like(answers, np.inf), "are no numbers"),
        (lambda answers: answers[:, :2], "have the shape"),
        (lambda answers: np.concatenate([answers, answers]), "have the shape"),
    ],
)
def test_answers_that_are_none(
    says: Change, what: str, engine: Engine, release: tuple[Manifest, Path]
) -> None:
    found = golden.check(Changed(engine, None, says), "fp32", *release)
    assert not found.ok
    assert what in found.what
    json.dumps(found, allow_nan=False)


def test_answers_of_several_shapes(engine: Engine, release: tuple[Manifest, Path]) -> None:
    sizes = iter([2, 3, 3])
    changed = Changed(engine, None, lambda answers: answers[:, : next(sizes)])
    with pytest.raises(EngineError, match="don't fit each other"):
        golden.check(changed, "fp32", *release)


def test_the_tolerance_is_that_of_the_precision(
    engine: Engine, release: tuple[Manifest, Path]
) -> None:
    off = Changed(engine, None, lambda answers: answers + np.float32(0.01))
    assert [golden.check(off, p, *release).ok for p in bundles.PRECISIONS] == [False, True, True]
    off = Changed(engine, None, lambda answers: answers + np.float32(0.05))
    assert [golden.check(off, p, *release).ok for p in bundles.PRECISIONS] == [False, False, True]


def test_classes_of_other_names_or_order(
    engine: Engine, release: tuple[Manifest, Path], tmp_path: Path
) -> None:
    manifest, folder = release
    value = copy.deepcopy(manifest.data)
    value["classes"] = value["classes"][1:] + value["classes"][:1]
    with pytest.raises(BundleError, match="classes in their order"):
        golden.check(engine, "fp32", parse(bundles.encode(value)), folder)
    with pytest.raises(BundleError, match=r"labels\.txt can't be read"):
        golden.check(engine, "fp32", manifest, tmp_path)


def test_pictures_prepared_otherwise(engine: Engine, release: tuple[Manifest, Path]) -> None:
    manifest, folder = release
    value = copy.deepcopy(manifest.data)
    value["preprocessing"]["recipe"] = "rgb8-exif-crop/1"
    with pytest.raises(BundleError, match="rgb8-exif-crop/1, here as rgb8-exif-squash/2"):
        golden.check(engine, "fp32", parse(bundles.encode(value)), folder)


def test_a_picture_that_is_none(
    engine: Engine, release: tuple[Manifest, Path], tmp_path: Path
) -> None:
    manifest, folder = release
    for path in ("model/labels.txt", "golden/0.png", "golden/1.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes((folder / path).read_bytes())
    (tmp_path / "golden/1.png").write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"golden/1\.png: not a JPEG"):
        golden.check(engine, "fp32", manifest, tmp_path)
