"""The stage `compare`: what of its files is measured, and what is made of that at any time."""

import types
from pathlib import Path
from typing import Any

import pytest
from reports import example

from benchmarks.progress import Console
from benchmarks.scenarios import QUICK, SINGLE_STREAM, Work
from pipeline import compare as module
from pipeline.compare import compare
from pipeline.run import Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run of which all stages before are done, and whose measuring gives `example`."""
    dataset = types.SimpleNamespace(fingerprint=lambda: "1", pictures=[], rejected=[], source="",
                                    split=lambda _: [], counts=dict)  # fmt: skip
    record: dict[str, Any] = {"results": {}, "options": {}, "outputs": {}}
    with Run(tmp_path / "run", create=True) as made:
        made.frozen_graph.parent.mkdir()
        made.frozen_graph.write_bytes(b"graph")
        made.engines.mkdir()
        own = made.stage
        monkeypatch.setattr(made, "require", lambda _: record)
        monkeypatch.setattr(made, "stage", lambda n: own(n) if n == "compare" else record)
        monkeypatch.setattr(module, "trained_dataset", lambda _: dataset)
        monkeypatch.setattr(module, "_report", lambda *_: example())
        yield made


def test_pages_are_made_again_without_measuring(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work((SINGLE_STREAM,), QUICK)
    first = compare(run, work, Console(quiet=False))
    files = {file.name: file.read_bytes() for file in run.report.parent.iterdir()}
    assert set(files) == {"report.json", "index.html", "table.md", "table.csv"}
    (run.report.parent / "table.csv").unlink()
    run.report_page.write_text("of another version")
    monkeypatch.setattr(module, "_report", lambda *_: pytest.fail("it was measured again"))
    assert compare(run, work, Console(quiet=False)) == first
    assert "compare: nothing changed" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in run.report.parent.iterdir()} == files
