"""Engines x pictures -> the measured part of a report, with engines whose answers are known."""

import base64
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import measure as module
from benchmarks.measure import REFERENCE, Picture, digest, entry_of, measure
from benchmarks.power import Rail
from benchmarks.progress import Console
from benchmarks.scenarios import DEFAULT, FROM_FILE, OFFLINE, QUICK, SCENARIOS, SINGLE_STREAM, Work
from benchmarks.table import table
from engines.engine import Engine, EngineError, TensorSpec
from engines.files import write_json
from engines.preprocess import load
from pipeline.report.read import read

CLASSES = ["defective", "functional"]
SIZE = 16
CONSOLE = Console(quiet=True)
FAST = QUICK._replace(queries=4, turns=2, warm_up=0.01, window=0.001)


class Fixed(Engine):
    """Gives every picture the same probabilities, and gives up after some batches."""

    backend, precision = "test", "fp32"
    output = TensorSpec("probabilities", (None, 2), "float32")
    input = TensorSpec("pixels", (None, SIZE, SIZE, 3), "uint8")

    def __init__(self, first: float, batches: float = np.inf) -> None:
        self.first, self.batches, self.closed = first, batches, False

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        self.check_pictures(pictures)
        self.batches -= 1
        if self.batches < 0:
            raise EngineError("out of memory")
        return np.tile(np.array([self.first, 1 - self.first], np.float32), (len(pictures), 1))

    def layer_times(self, pictures: np.ndarray, runs: int = 10) -> dict[str, float]:
        return {"all": 1.23456789} if self.first == 0.9 else {}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def test_split(pictures: Path) -> list[Picture]:
    files = [path for name in CLASSES for path in sorted((pictures / name).iterdir())[:3]]
    return [
        Picture(
            f"{path.parent.name}/{path.name}",
            path,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            CLASSES.index(path.parent.name),
        )
        for path in files
    ]


def run(
    engines: dict[str, Engine], pictures: list[Picture], scenarios: tuple[str, ...] = DEFAULT
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The report, and its entries by name."""

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(pictures), 4):
            yield np.stack([load(p.file, SIZE, SIZE) for p in pictures[start : start + 4]])

    entries = [
        entry_of(
            {"name": name, "backend": "test", "precision": "fp32", "target": "cpu",
             "status": "built"}
        )
        for name in engines
    ]  # fmt: skip
    report = measure(entries, engines, pictures, batches, CLASSES, Work(scenarios, FAST), CONSOLE)
    return report, {entry["name"]: entry for entry in report["engines"]}


def test_whole(test_split: list[Picture]) -> None:
    engines: dict[str, Engine] = {REFERENCE: Fixed(0.9), "same": Fixed(0.8), "other": Fixed(0.3)}
    report, entries = run(engines, test_split)
    assert report["schema"] == 2
    assert report["effort"] == "quick"
    assert report["dataset"] == {
        "classes": CLASSES,
        "test": 6,
        "truth": [0, 0, 0, 1, 1, 1],
        "test_digest": digest(test_split, CLASSES),
    }
    for name, answer in ((REFERENCE, 0), ("same", 0), ("other", 1)):
        entry = entries[name]
        assert entry["status"] == "ran"
        assert entry["answers"] == [answer] * 6
        assert entry["accuracy"]["top1"] == 0.5
        assert entry["accuracy"]["agreement"] == (1.0 if answer == 0 else 0.0)
        assert set(entry["scenarios"]) == set(DEFAULT)
        assert entry["speedup"]["ci95"][0] <= entry["speedup"]["value"]
        for result in entry["scenarios"].values():
            assert not result["valid"]
            assert result["starts"][0] >= 0  # since measuring began
            assert result["energy"] is None or result["energy"]["samples"]
    assert entries[REFERENCE]["speedup"]["value"] == 1.0
    assert report["preprocess_ms"]["n"] == FAST.queries
    assert report["layers"] == {REFERENCE: {"all": 1.23457}}
    assert report["misclassified_by"] == REFERENCE
    assert len(report["misclassified"]) == 3
    assert report["loadgen"]["engine"] in entries
    # On every picture "other" differs most.
    assert [one["engine"] for one in report["disagreements"]] == ["other"] * 6
    [one] = [d for d in report["disagreements"] if d["path"] == test_split[0].name]
    assert (one["truth"], one["label"], one["reference_label"]) == (*CLASSES, CLASSES[0])
    assert one["distance"] == pytest.approx(0.6)
    assert base64.b64decode(one["thumbnail"])[:3] == b"\xff\xd8\xff"


def test_engine_that_fails_leaves_the_others(test_split: list[Picture]) -> None:
    weak = Fixed(0.9, batches=1)
    engines: dict[str, Engine] = {REFERENCE: Fixed(0.9), "weak": weak, "strong": Fixed(0.9)}
    _, entries = run(engines, test_split, (SINGLE_STREAM,))
    assert list(engines) == [REFERENCE, "strong"]
    assert entries["weak"]["status"] == "unavailable"
    assert entries["weak"]["reason"] == "out of memory"
    assert (entries["weak"]["accuracy"], entries["weak"]["scenarios"]) == (None, {})
    assert weak.closed
    assert entries["strong"]["accuracy"]["n"] == len(test_split)


def test_engine_whose_answers_are_no_numbers_is_told_not_reported(
    test_split: list[Picture],
) -> None:
    _, entries = run(
        {REFERENCE: Fixed(0.9), "overflown": Fixed(np.nan)}, test_split, (SINGLE_STREAM,)
    )
    assert entries["overflown"]["status"] == "unavailable"
    assert "no numbers" in entries["overflown"]["reason"]


def test_nothing_to_compare_without_tensorflow(test_split: list[Picture]) -> None:
    with pytest.raises(EngineError, match="out of memory"):
        run({REFERENCE: Fixed(0.9, batches=0), "strong": Fixed(0.9)}, test_split)
    report, entries = run({"strong": Fixed(0.9)}, test_split, (SINGLE_STREAM,))
    assert "agreement" not in entries["strong"]["accuracy"]
    assert entries["strong"]["speedup"] is None
    assert report["disagreements"] == []
    assert "misclassified" not in report
    with pytest.raises(EngineError, match="no engine ran"):
        run({"weak": Fixed(0.9, batches=0)}, test_split)


def test_without_pictures_speed_alone_is_measured() -> None:
    weak = Fixed(0.9, batches=0)
    report, entries = run({REFERENCE: Fixed(0.9), "weak": weak}, [], SCENARIOS)
    entry = entries[REFERENCE]
    assert set(entry["scenarios"]) == set(SCENARIOS) - {FROM_FILE}
    assert (entry["accuracy"], entry["answers"]) == (None, None)
    assert report["preprocess_ms"] is None
    assert report["dataset"]["test"] == 0
    assert entries["weak"]["status"] == "unavailable"


@pytest.mark.parametrize("names", [[REFERENCE, "other"], ["other"]])
@pytest.mark.parametrize("count", [6, 1, 0])
def test_host_reads_what_was_measured(
    names: list[str], count: int, test_split: list[Picture], tmp_path: Path
) -> None:
    report, _ = run({name: Fixed(0.9) for name in names}, test_split[:count], SCENARIOS)
    about = {"name": "a", "architecture": None, "seed": None, "created": "2026-11-25T08:00:00Z"}
    file = tmp_path / "device.json"
    write_json(file, dict(report, run=about, environment={"python": "3.6.15"}))
    assert read(file)["engines"] == report["engines"]


class Constant:
    """A sensor of a machine that takes 3 W, and 7 W once it is at work."""

    name, rails = "test", [Rail("ALL", True, "the whole machine")]

    def __init__(self, sees: str = "cpu") -> None:
        self.reads, self.sees = 0, frozenset([sees])

    def read(self) -> dict[str, float]:
        self.reads += 1
        return {"power_w": 3.0 if self.reads < 8 else 7.0}


def test_power_is_told_with_what_it_is_of(
    test_split: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.power, "find", lambda: (Constant(), None))
    monkeypatch.setattr(module, "IDLE_SECONDS", {"quick": 0.5})
    report, entries = run({REFERENCE: Fixed(0.9)}, test_split, (OFFLINE,))
    found = report["power"]
    assert (found["source"], found["reason"], found["idle_w"]) == ("test", None, 3.0)
    assert found["idle_ci95"] == [3.0, 3.0]
    assert found["rails"] == [{"name": "ALL", "included": True, "why": "the whole machine"}]
    assert 1 < found["hz"] <= 11
    series = report["conditions"]["series"]
    assert series["seconds"][0] == 0
    assert len(series["power_w"]) == len(series["seconds"])
    # Too short a run for the sensor: nothing is made up.
    assert entries[REFERENCE]["scenarios"][OFFLINE]["energy"] is None


@pytest.mark.parametrize(("sees", "told"), [("cpu", True), ("gpu", False)])
def test_no_energy_by_a_sensor_that_does_not_see_the_engine(
    sees: str, told: bool, test_split: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.power, "find", lambda: (Constant(sees), None))
    monkeypatch.setattr(module, "IDLE_SECONDS", {"quick": 0.6})
    monkeypatch.setattr(module.power, "energy", lambda *_: {"mj": 1.0})
    _, entries = run({REFERENCE: Fixed(0.9)}, test_split, (OFFLINE,))
    assert bool(entries[REFERENCE]["scenarios"][OFFLINE]["energy"]) is told


def test_the_engine_that_ran_while_the_machine_throttled_is_named(
    test_split: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work = ""

    class Named(Fixed):
        def __init__(self, name: str) -> None:
            super().__init__(0.9)
            self.name = name

        def infer(self, pictures: np.ndarray) -> np.ndarray:
            nonlocal at_work
            at_work = self.name
            time.sleep(0.01)
            return super().infer(pictures)

    class Probe:
        def read(self) -> dict[str, float]:
            return {"throttled": float(at_work == "hot")}

    monkeypatch.setattr(module, "MONITOR_HZ", 500.0)
    monkeypatch.setattr(module.conditions, "ClocksProbe", Probe)
    monkeypatch.setattr(module.conditions, "look", lambda: {})
    engines: dict[str, Engine] = {name: Named(name) for name in (REFERENCE, "hot", "cool")}
    _, entries = run(engines, test_split, (SINGLE_STREAM,))
    found = {name: e["scenarios"][SINGLE_STREAM]["throttled_share"] for name, e in entries.items()}
    assert found == {REFERENCE: 0.0, "hot": 1.0, "cool": 0.0}
    assert table([entries["hot"]]).splitlines()[1].startswith("hot     ran, quick, throttled")


def test_engine_of_another_number_of_classes(test_split: list[Picture]) -> None:
    other = Fixed(0.9)
    other.output = TensorSpec("probabilities", (None, 3), "float32")
    with pytest.raises(EngineError, match="other knows 3 classes, and there are 2 labels"):
        run({REFERENCE: Fixed(0.9), "other": other}, test_split)


def test_engine_that_fails_under_loadgen_costs_nothing_else(
    test_split: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise EngineError("out of memory")

    monkeypatch.setattr(module.loadgen, "compare", fail)
    report, entries = run({REFERENCE: Fixed(0.9)}, test_split, (SINGLE_STREAM,))
    assert report["loadgen"] == {"reason": REFERENCE + " failed under it: out of memory"}
    assert SINGLE_STREAM in entries[REFERENCE]["scenarios"]


def test_digest_tells_pictures_and_classes_apart(test_split: list[Picture]) -> None:
    same = digest(test_split, CLASSES)
    assert same == digest(list(test_split), CLASSES)
    others = [
        (test_split[1:], CLASSES),
        (test_split[::-1], CLASSES),
        (test_split, ["defective", "good"]),
        ([test_split[0]._replace(sha256="0"), *test_split[1:]], CLASSES),
        ([test_split[0]._replace(label=1), *test_split[1:]], CLASSES),
    ]
    assert same not in [digest(*other) for other in others]
