"""pipeline.run: who may write into a run folder, and when a stage is done again."""

import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.progress import Console
from engines.files import write_bytes
from pipeline import run as run_module
from pipeline.errors import PipelineError, UsageError
from pipeline.run import STAGES, Outcome, Run, versions

REPOSITORY = Path(__file__).parents[2]

# Holds a run until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from pipeline.run import Run
with Run(Path(sys.argv[1]), create=True):
    print("holding", flush=True)
    time.sleep(60)
"""


class Stage:
    """A stage that copies its input, in capitals, and counts how often it worked."""

    def __init__(self, run: Run, name: str, source: Path | None, target: Path) -> None:
        self.run, self.name, self.source, self.target = run, name, source, target
        self.worked = 0

    def __call__(self, **options: Any) -> dict[str, Any]:
        inputs = [self.source] if self.source else []
        return self.run.perform(self.name, inputs, options, self.work, Console(quiet=True))

    def work(self) -> Outcome:
        self.worked += 1
        text = self.source.read_bytes().upper() if self.source else b"pictures"
        write_bytes(self.target, text)
        return Outcome([self.target], {"bytes": len(text), "worked": self.worked})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path / "run", create=True) as opened:
        yield opened


@pytest.fixture
def retrain(run: Run) -> Stage:
    return Stage(run, "retrain", None, run.frozen_graph)


@pytest.fixture
def export(run: Run, retrain: Stage) -> Stage:
    retrain(steps=1)
    return Stage(run, "export", run.frozen_graph, run.onnx("fp32"))


def refused(act: Callable[[], object], kind: type[PipelineError] = UsageError) -> str:
    """The message of an error: one line."""
    with pytest.raises(kind) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_document(folder: Path, change: Callable[[Any], object]) -> None:
    document = json.loads((folder / "run.json").read_text())
    change(document)
    (folder / "run.json").write_text(json.dumps(document))


# Opening


def test_new_run(tmp_path: Path) -> None:
    with Run(tmp_path / "runs" / "solar cells", create=True) as run:
        assert run.folder.is_dir()
        assert all(run.stage(name) == {} for name in STAGES)
    with Run(tmp_path / "runs" / "solar cells"):
        pass


def test_missing_run_says_how_to_make_one(tmp_path: Path) -> None:
    message = refused(lambda: Run(tmp_path / "none"))
    assert f"edgetrt retrain --image-dir DIR --run {tmp_path / 'none'}" in message
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("create", [False, True])
def test_file_is_refused(tmp_path: Path, create: bool) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    assert "is a file" in refused(lambda: Run(tmp_path / "file", create))
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert "'thesis.tex'" in refused(lambda: Run(tmp_path, create=True))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    with Run(tmp_path, create=True):
        pass


def test_run_that_was_killed_while_being_made_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run.lock").touch()
    (tmp_path / ".tmp-run.json").write_text('{"sche')
    with Run(tmp_path, create=True) as run:
        assert run.stage("retrain") == {}


def test_two_processes_never_hold_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holding\n"
        assert "another edgetrt command" in refused(lambda: Run(folder))
        assert "another edgetrt command" in refused(lambda: Run(folder, create=True))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Run(folder):  # a killed process holds nothing
        pass


def test_lock_does_not_outlive_a_failure_to_open(tmp_path: Path) -> None:
    with Run(tmp_path / "run", create=True):
        pass
    (tmp_path / "run" / "run.json").write_text("{")
    refused(lambda: Run(tmp_path / "run"), PipelineError)
    with (tmp_path / "run" / "run.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_lock_is_not_inherited_by_a_program_that_is_started(tmp_path: Path) -> None:
    with Run(tmp_path, create=True):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    with child, Run(tmp_path):
        child.kill()


DAMAGES = {
    "empty": "",
    "cut off": '{"schema": 1, "stages": {',
    "no object": "[]",
    "no stages": '{"schema": 1}',
    "stages are a list": '{"schema": 1, "stages": []}',
    "stage is no object": '{"schema": 1, "stages": {"retrain": 5}}',
    "stage is half": '{"schema": 1, "stages": {"retrain": {"options": {}}}}',
}


@pytest.mark.parametrize("text", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_run_json(tmp_path: Path, text: str) -> None:
    with Run(tmp_path / "run", create=True):
        pass
    (tmp_path / "run" / "run.json").write_text(text)
    message = refused(lambda: Run(tmp_path / "run"), PipelineError)
    assert "run.json is damaged" in message
    assert "remove it" in message
    # What the message advises helps: every stage runs again, what is cached stays.
    (tmp_path / "run" / "bottlenecks").mkdir()
    (tmp_path / "run" / "run.json").unlink()
    with Run(tmp_path / "run", create=True) as run:
        assert run.stage("retrain") == {}
        assert run.bottlenecks.is_dir()


@pytest.mark.parametrize("schema", [0, 2, None, "1"])
def test_other_schema(tmp_path: Path, schema: object) -> None:
    with Run(tmp_path / "run", create=True):
        pass
    change_document(tmp_path / "run", lambda document: document.update(schema=schema))
    assert "not written by this version" in refused(lambda: Run(tmp_path / "run"))


# Skipping


def test_nothing_changed_is_skipped(retrain: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    first = retrain(steps=1, learning_rate=0.1)
    assert retrain(steps=1, learning_rate=0.1) == first
    assert retrain.worked == 1
    options = {"learning_rate": 0.1, "steps": 1}
    retrain.run.perform("retrain", [], options, retrain.work, Console())
    assert capsys.readouterr().err == "retrain: nothing changed since last time, skipped\n"
    assert retrain.worked == 1


def test_changed_option_runs_again(retrain: Stage) -> None:
    for steps in (1, 2, 1):
        retrain(steps=steps)
    retrain(steps=1, seed=0)
    assert retrain.worked == 4


def test_options_that_are_tuples_are_skipped_too(retrain: Stage) -> None:
    # JSON gives a list back.
    retrain(size=(224, 224))
    retrain(size=(224, 224))
    assert retrain.worked == 1


def test_changed_version_runs_again(retrain: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    retrain()
    monkeypatch.setattr(run_module, "versions", lambda: {**versions(), "tensorflow": "9.9"})
    retrain()
    assert retrain.worked == 2


def test_changed_input_runs_again(export: Stage) -> None:
    export()
    export()
    assert export.worked == 1
    export.run.frozen_graph.write_bytes(b"other")
    export()
    assert export.worked == 2
    assert export.target.read_bytes() == b"OTHER"


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_harmed_output_runs_again(export: Stage, harm: str) -> None:
    export()
    if harm == "damaged":
        export.target.write_bytes(b"PICTURET")
    else:
        export.target.unlink()
    export()
    assert export.worked == 2
    assert export.target.read_bytes() == b"PICTURES"


def test_failedwork_leaves_the_record_as_it_was(retrain: Stage) -> None:
    retrain(steps=1)
    before = retrain.run.stage("retrain")

    def fail() -> Outcome:
        raise PipelineError("no")

    with pytest.raises(PipelineError):
        retrain.run.perform("retrain", [], {"steps": 2}, fail, Console(quiet=True))
    assert retrain.run.stage("retrain") == before
    retrain(steps=1)
    assert retrain.worked == 1


def test_stages_are_recorded_beside_each_other(export: Stage) -> None:
    export(opset=13)
    record = export.run.stage("export")
    assert set(record["inputs"]) == {"model/frozen.pb"}
    assert set(record["outputs"]) == {"onnx/model.fp32.onnx"}
    assert record["options"] == {"opset": 13}
    assert record["versions"] == versions()
    assert record["seconds"] >= 0
    assert export.run.stage("retrain")["options"] == {"steps": 1}


def test_renamed_run_is_still_up_to_date(tmp_path: Path) -> None:
    with Run(tmp_path / "run", create=True) as run:
        Stage(run, "retrain", None, run.frozen_graph)()
    (tmp_path / "run").rename(tmp_path / "renamed")
    with Run(tmp_path / "renamed") as run:
        assert run.require("retrain")["results"] == {"bytes": 8, "worked": 1}
        again = Stage(run, "retrain", None, run.frozen_graph)
        again()
        assert again.worked == 0


# Requiring


def test_required_stage_that_never_ran(run: Run) -> None:
    message = refused(lambda: run.require("retrain"))
    assert "no finished stage 'retrain'" in message
    assert f"edgetrt retrain --image-dir DIR --run {run.folder}" in message


def test_first_missing_stage_is_named(export: Stage) -> None:
    message = refused(lambda: export.run.require("compare"))
    assert "no finished stage 'export'" in message
    assert f"edgetrt export --run {export.run.folder}" in message
    assert "--image-dir" not in message


def test_finished_stage_gives_its_record(export: Stage) -> None:
    export()
    assert export.run.require("export") == export.run.stage("export")


def test_stale_stage_is_noticed(retrain: Stage, export: Stage) -> None:
    export()
    retrain.run.frozen_graph.write_bytes(b"other")
    change_document(
        retrain.run.folder,
        lambda d: d["stages"]["retrain"]["outputs"].update(
            {"model/frozen.pb": run_module.sha256_of(retrain.run.frozen_graph)}
        ),
    )
    message = refused(lambda: retrain.run.require("export"))
    assert "frozen.pb has changed since stage 'export'" in message
    assert "edgetrt export" in message


@pytest.mark.parametrize("harm", ["is gone", "has changed"])
def test_harmed_output_of_an_earlier_stage_names_that_stage(export: Stage, harm: str) -> None:
    export()
    if harm == "is gone":
        export.run.frozen_graph.unlink()
    else:
        export.run.frozen_graph.write_bytes(b"picturet")
    message = refused(lambda: export.run.require("export"))
    assert f"frozen.pb {harm} since stage 'retrain'" in message


def test_every_stage_has_its_predecessor_before_it() -> None:
    names = list(STAGES)
    for name, before in STAGES.items():
        assert before is None or names.index(before) < names.index(name)


def test_versions_name_what_is_installed() -> None:
    import numpy

    found = versions()
    assert found["numpy"] == numpy.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
