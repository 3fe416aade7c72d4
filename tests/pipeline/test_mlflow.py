"""A report in MLflow: really logged, read back by MLflow's own client, and nothing sent home."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reports import HOSTILE, device, example, with_text

from pipeline import cli
from pipeline.errors import PipelineError
from pipeline.mlflow_log import EXPERIMENT, log

pytest.importorskip("mlflow")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder for MLflow."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return str(tmp_path / "mlruns")


def read_back(store: str, run: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store).get_run(run)


def test_what_was_logged_comes_back(store: str, tmp_path: Path) -> None:
    report = example()
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report))
    found = read_back(store, log(report, [file], store))
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "demo"
    one = report["engines"][4]
    single, offline = one["scenarios"]["single-stream"], one["scenarios"]["offline"]
    for name, value in {
        "top1": one["accuracy"]["top1"],
        "single_stream_p50_ms": single["p50"],
        "single_stream_p90_ms": single["p90"],
        "single_stream_p99_ms": single["p99"],
        "from_file_p90_ms": one["scenarios"]["from-file"]["p90"],
        "offline_ips": offline["ips"],
        "energy_mj": single["energy"]["mj"],
        "size_bytes": one["size_bytes"],
    }.items():
        assert found.data.metrics[f"openvino-int8/{name}"] == value
    assert "tensorrt-int8/top1" not in found.data.metrics
    wanted = {
        "architecture": "efficientnet_lite0", "seed": "0", "effort": "valid",
        "machine": "AMD EPYC 9B14", "governor": "performance", "environment/openvino": "2025.3.0",
    }  # fmt: skip
    assert found.data.params.items() >= wanted.items()
    assert found.data.tags["created"] == report["run"]["created"]
    assert found.data.tags["verdict"]
    [artifact] = Path(store).rglob("artifacts/report.json")
    assert json.loads(artifact.read_text()) == report


def test_runs_of_one_team_stand_together(store: str) -> None:
    found = [read_back(store, log(report, [], store)) for report in (example(), device())]
    assert len({run.info.experiment_id for run in found}) == 1
    assert found[1].data.params["power_mode"] == "MAXN (0)"
    assert "architecture" not in found[1].data.params


def test_any_name_is_made_one_that_mlflow_takes(store: str, tmp_path: Path) -> None:
    report = with_text(example(), HOSTILE)
    report["engines"][0]["name"] = "../../../outside"
    found = read_back(store, log(report, [], store))
    assert found.data.metrics["__.._.._outside/top1"] == report["engines"][0]["accuracy"]["top1"]
    assert all(name.count("/") == 1 for name in found.data.metrics)
    assert not list(tmp_path.rglob("outside"))
    assert {path.name for path in tmp_path.iterdir()} == {"mlruns"}


def test_failed_logging_is_marked_as_failed(store: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"--mlflow: .*nowhere.json"):
        log(example(), [tmp_path / "nowhere.json"], store)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("ftp://host/x", "unsupported URI"),
        (f"{__file__}/x", "Not a directory"),
    ],
)
def test_store_that_can_not_be_used(store: str, uri: str, words: str) -> None:
    with pytest.raises(PipelineError, match=f"^--mlflow: .*{words}"):
        log(example(), [], uri)


def test_without_mlflow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(example()))
    assert cli.main(["report", str(tmp_path), "--mlflow", str(tmp_path / "mlruns")]) == 1
    assert 'pip install "edgetrt[mlflow]"' in capsys.readouterr().err
    assert not (tmp_path / "mlruns").exists()


WATCHED = """
import socket, sys, threading
calls = []
real = socket.getaddrinfo
def watched(host, *rest, **more):
    calls.append(host)
    raise OSError("no network here")
socket.getaddrinfo = watched
from pipeline.cli import main
code = main(sys.argv[1:])
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(3)
print("called", calls)
sys.exit(code)
"""


def test_nothing_is_sent_and_nothing_left_elsewhere(tmp_path: Path) -> None:
    """MLflow counts what is done with it, and sends that to its makers, unless told not to."""
    home, work, file = tmp_path / "home", tmp_path / "work", tmp_path / "report.json"
    home.mkdir()
    work.mkdir()
    file.write_text(json.dumps(example()))
    # It also keeps quiet in tests and on build machines, by their environment.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "report", str(tmp_path), "--json",
         "--mlflow", str(tmp_path / "store")],
        capture_output=True, text=True, cwd=work, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told, called = done.stdout.splitlines()
    assert called == "called []"
    [run] = (tmp_path / "store").rglob(json.loads(told)["mlflow_run"])
    kept = {path.name for path in (run / "artifacts").iterdir()}
    assert kept == {"report.json", "index.html", "table.md", "table.csv"}
    assert not list(work.iterdir())
    left = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert left <= {(".cache", "matplotlib")}
