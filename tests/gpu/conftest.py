"""TensorRT and the GPU at hand: `make test-gpu`, and on the doubles of both in `make test`.

Without a GPU and a TensorRT for it nothing here can be tested, and pytest ends with 5.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from known import CLASSES, KNOWN, Build, Built

from benchmarks.device.selftest import ALLOWED
from engines.catalogue import load_engine, module_of, none_runs
from engines.doctor import describe, device_versions, examine
from engines.engine import Engine
from engines.orders import Order, fulfil
from engines.settings import DEFAULT, Settings
from engines.targets import refusal
from engines.tensorrt.here import gpu_here, target_of


def pytest_sessionstart(session: pytest.Session) -> None:
    if not _backend():
        pytest.exit(
            "no NVIDIA GPU here with a TensorRT for it: nothing was tested\n"
            + describe(examine(device_versions())),
            returncode=pytest.ExitCode.NO_TESTS_COLLECTED,
        )


def pytest_report_header() -> list[str]:
    return [f"testing {_backend()}", *describe(examine(device_versions())).splitlines()]


def _backend() -> str | None:
    return next((name for name in ("tensorrt", "tensorrt-rtx") if not none_runs(name)), None)


@pytest.fixture(scope="session")
def backend() -> str:
    found = _backend()
    assert found
    return found


@pytest.fixture(scope="session")
def compute_capability() -> tuple[int, int]:
    gpu = gpu_here()
    assert gpu
    return gpu.compute_capability


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Timing caches of the tests stay out of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def timing_caches(_own_cache: Path) -> Path:
    return _own_cache / "edgetrt"


@pytest.fixture(scope="session")
def answers() -> dict[str, np.ndarray]:
    """Pictures of the known network, and what each of its variants answers."""
    with np.load(KNOWN / "answers.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def precisions(compute_capability: tuple[int, int]) -> list[str]:
    """Those that the GPU is made for."""
    return [p for p in ALLOWED if refusal(p, compute_capability) is None]


@pytest.fixture(scope="session")
def build(backend: str, compute_capability: tuple[int, int]) -> Build:
    """A function that builds an engine of the known network, or of another graph."""
    gpu = gpu_here()
    assert gpu

    def make(
        folder: Path, precision: str, settings: Settings = DEFAULT, graph: Path | None = None
    ) -> dict[str, Any]:
        order = Order(backend, precision, target_of(gpu), settings)
        return fulfil(order, graph or KNOWN / f"model.{order.graph}.onnx", folder, {})[0]

    return make


@pytest.fixture(scope="session")
def built(build: Build, precisions: list[str], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A folder with an engine of the known network in each precision, and their sidecars."""
    folder = tmp_path_factory.mktemp("engines")
    return folder, {precision: build(folder, precision) for precision in precisions}


@pytest.fixture
def engine(built: Built) -> Iterator[Engine]:
    """In FP32, for batches of 1 to 32."""
    with load_engine(built[0], built[1]["fp32"]) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def graph_of(backend: str) -> Callable[[str], str]:
    """Which variant of the graph a precision is built from here."""
    return lambda precision: str(module_of(backend).graph_for(precision, DEFAULT))


@pytest.fixture(scope="session")
def run(answers: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as it is copied to a device, its pictures in pictures/."""
    folder = tmp_path_factory.mktemp("device") / "run"
    (folder / "onnx").mkdir(parents=True)
    (folder / "model").mkdir()
    for graph in KNOWN.glob("*.onnx"):
        shutil.copyfile(graph, folder / "onnx" / graph.name)
    (folder / "model" / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    pictures = []
    for number, pixels in enumerate(answers["pictures"]):
        label = CLASSES[int(answers["fp32"][number].argmax())]
        path = folder / "pictures" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels[..., ::-1])
        about = {
            "path": f"{label}/{number}.png",
            "label": label,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for split in ("train", "test"):  # of so few each is in both
            pictures.append({**about, "split": split})
    (folder / "dataset.json").write_text(json.dumps({"pictures": pictures}))
    return folder
