"""A report as a run of MLflow, so that it stands among the other experiments of a team."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import numbers
from engines.text import printable
from pipeline.errors import PipelineError
from pipeline.report.format import shortened
from pipeline.report.verdict import verdict

EXPERIMENT = "edgetrt"
MAX_TEXT = 500  # characters that every MLflow server takes as the value of a parameter
AT_ONCE = 500  # metrics that a server takes in one request


def log(report: Mapping[str, Any], artifacts: Sequence[Path], uri: str) -> str:
    """Log a report to MLflow as one run of the experiment `EXPERIMENT`.

    Args:
        report: as `pipeline.report.read.read` gives it.
        artifacts: files to keep with it.
        uri: of an MLflow server, or a folder; with the whole of MLflow also a database.

    Returns:
        MLflow's id of the run.

    Raises:
        PipelineError: MLflow is not installed, or refuses.
    """
    # MLflow asks before it writes into a folder, which it advises against for teams; here a
    # person named that folder. It would also try for minutes to reach a server.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise PipelineError(
            f'--mlflow needs MLflow ({error}); install it with: pip install "edgetrt[mlflow]"'
        ) from error
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=None)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        where = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        name = shortened(printable(report["run"]["name"]), 200)
        run = client.create_run(where, run_name=name).info.run_id
        ended = "FAILED"
        try:
            now = client.get_run(run).info.start_time
            client.log_batch(
                run,
                params=[Param(key, value) for key, value in _parameters(report)],
                tags=[RunTag(key, value) for key, value in _tags(report)],
            )
            metrics = [Metric(key, value, now, 0) for key, value in _metrics(report)]
            for first in range(0, len(metrics), AT_ONCE):
                client.log_batch(run, metrics=metrics[first : first + AT_ONCE])
            for file in artifacts:
                client.log_artifact(run, str(file))
            ended = "FINISHED"
        finally:
            client.set_terminated(run, ended)
    except (MlflowException, OSError) as error:  # requests' errors are OSErrors
        raise PipelineError(f"--mlflow: {shortened(printable(error), 500)}") from error
    return str(run)


def _metrics(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures of each engine, such as ("openvino-int8/single_stream_p90_ms", 5.58)."""
    for engine in report["engines"]:
        for key, value in numbers(engine).items():
            if value is not None and not key.endswith(("_low", "_high")):
                yield f"{_legal(engine['name'])}/{key}", value


def _parameters(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What made the result: model, effort, machine and versions."""
    conditions = report["conditions"]["before"]
    found = {
        **{key: report["run"][key] for key in ("architecture", "seed")},
        "effort": report["effort"],
        "test_pictures": report["dataset"]["test"],
        **{key: conditions[key] for key in ("machine", "processors", "governor", "power_mode")},
        "gpus": ", ".join(conditions["gpus"]) or None,
        **{f"environment/{_legal(key)}": v for key, v in report["environment"].items()},
    }
    for key, value in found.items():
        if value is not None:
            yield key, _short(value)


def _tags(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "verdict", _short(verdict(report["engines"]).sentence)
    yield "created", _short(report["run"]["created"])
    yield "test_digest", _short(report["dataset"]["test_digest"])
    yield "report_schema", str(report["schema"])


def _short(value: Any) -> str:
    return shortened(printable(value), MAX_TEXT)


def _legal(name: str) -> str:
    """`name` with only those characters that MLflow takes in the name of a metric anywhere."""
    return shortened(re.sub(r"[^A-Za-z0-9_.-]|^\.+", "_", name), 80).replace("…", "_") or "_"
