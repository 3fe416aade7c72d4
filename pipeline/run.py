"""The run folder: where each stage finds its inputs and leaves its outputs, and what made them."""

import fcntl
import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.progress import Console
from engines import __version__
from engines.files import TEMPORARY, sha256_of, write_json
from pipeline.errors import PipelineError, UsageError
from pipeline.files import read_json

SCHEMA = 1

# Each stage, with the stage whose outputs it reads.
STAGES = {
    "retrain": None,
    "export": "retrain",
    "quantize": "export",
    "build": "quantize",
    "compare": "build",
}


# What is recorded of a finished stage.
RECORD = {"inputs", "options", "versions", "outputs", "results", "seconds", "finished"}


class Outcome(NamedTuple):
    """What a stage made.

    outputs: the files it wrote, inside the run folder.
    results: figures worth keeping, as JSON values.
    """

    outputs: list[Path]
    results: dict[str, Any]


class Run:
    """One pass of the pipeline over one set of pictures, as a folder.

    A `Run` holds the folder's lock while it is open, so that two commands never write into one
    run at the same time, and none reads while another writes. Use it as a context manager.
    """

    def __init__(self, folder: Path, create: bool = False, read_only: bool = False) -> None:
        """Open the run in `folder`.

        Args:
            create: make it if there is none.
            read_only: nothing will be written; several commands may do so at the same time.

        Raises:
            UsageError: there is no such run (and `create` is False), the folder is something
                else or has a name that is no UTF-8, or another command works in it.
            PipelineError: its run.json is damaged.
            OSError: the folder can't be written.
        """
        self.folder = folder
        self._file = folder / "run.json"
        try:
            str(folder).encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"--run {folder} is no UTF-8, and TensorFlow opens no such path; choose another"
            ) from None
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; --run takes a folder")
        if not create and not self._file.is_file():
            raise UsageError(
                f"{folder} is not a run folder (it has no run.json); "
                f"make one with: {command_for('retrain', folder)}"
            )
        # Without run.json a folder may still be a run: one whose making was cut off, or whose
        # damaged run.json was removed. The lock file, which is always made first, tells.
        if folder.is_dir() and not (self._file.exists() or (folder / "run.lock").exists()):
            foreign = next(folder.iterdir(), None)
            if foreign:
                raise UsageError(
                    f"{folder} holds other files ({foreign.name!r}, ...) and is no run folder; "
                    "choose a new --run"
                )
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock(read_only)
        try:
            for leftover in () if read_only else folder.rglob(f"{TEMPORARY}*"):
                leftover.unlink()  # of a killed command
            if not self._file.exists():
                write_json(self._file, {"schema": SCHEMA, "stages": {}})
            self._check_document()
        except BaseException:
            self.close()
            raise

    # What lies where in a run folder.
    dataset = property(lambda self: self.folder / "dataset.json")
    bottlenecks = property(lambda self: self.folder / "bottlenecks")
    backbone = property(lambda self: self.folder / "bottlenecks" / "backbone.onnx")
    keras_model = property(lambda self: self.folder / "model" / "retrained.keras")
    frozen_graph = property(lambda self: self.folder / "model" / "frozen.pb")
    labels = property(lambda self: self.folder / "model" / "labels.txt")
    logs = property(lambda self: self.folder / "logs")
    amax = property(lambda self: self.folder / "onnx" / "amax.json")
    calibration_cache = property(lambda self: self.folder / "onnx" / "calibration.cache")
    calibration_note = property(lambda self: self.folder / "onnx" / "calibration.json")
    engines = property(lambda self: self.folder / "engines")
    report = property(lambda self: self.folder / "report" / "report.json")
    report_page = property(lambda self: self.folder / "report" / "index.html")

    def onnx(self, variant: str) -> Path:
        """Path of `model.<variant>.onnx`: "fp32", "fp16", "int8", "int8-fp16"."""
        return self.folder / "onnx" / f"model.{variant}.onnx"

    def stage(self, name: str) -> dict[str, Any]:
        """What is recorded of stage `name`; empty if it never finished."""
        record: dict[str, Any] = read_json(self._file)["stages"].get(name, {})
        return record

    def require(self, name: str) -> dict[str, Any]:
        """The record of stage `name`, which must be finished and up to date.

        Raises:
            UsageError: it never ran, or something it was made from has changed since.
        """
        before = STAGES[name]
        if before is not None:
            self.require(before)
        record = self.stage(name)
        again = f"run: {command_for(name, self.folder)}"
        if not record:
            raise UsageError(f"{self.folder} has no finished stage '{name}' yet; {again}")
        for kind in ("inputs", "outputs"):
            for file, digest in record[kind].items():
                path = self.folder / file
                if not path.is_file():
                    raise UsageError(f"{path} is gone since stage '{name}'; {again}")
                if sha256_of(path) != digest:
                    raise UsageError(f"{path} has changed since stage '{name}'; {again}")
        return record

    def perform(
        self,
        name: str,
        inputs: list[Path],
        options: Mapping[str, Any],
        work: Callable[[], Outcome],
        console: Console,
    ) -> dict[str, Any]:
        """Do stage `name`, unless its inputs, options and versions are those of last time.

        Args:
            name: a key of `STAGES`.
            inputs: files in the run folder that the stage reads.
            options: what else decides the result, as JSON values.
            work: does it and returns its `Outcome`.

        Returns:
            The stage's results, as `work` gave them now or the last time.
        """
        wanted = {
            "inputs": {self._name(path): sha256_of(path) for path in inputs},
            "options": json.loads(json.dumps(dict(options))),  # as they come back: no tuples
            "versions": versions(),
        }
        record = self.stage(name)
        if all(record.get(key) == value for key, value in wanted.items()) and self._whole(record):
            console.say(f"{name}: nothing changed since last time, skipped")
            results: dict[str, Any] = record["results"]
            return results
        start = time.monotonic()
        outcome = work()
        seconds = time.monotonic() - start
        document = read_json(self._file)
        document["stages"][name] = {
            **wanted,
            "outputs": {self._name(path): sha256_of(path) for path in outcome.outputs},
            "results": outcome.results,
            "seconds": round(seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_json(self._file, document)
        console.say(f"{name}: done in {seconds:.1f} s")
        return outcome.results

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind and not self.dataset.exists():
            self._unmake()
        self.close()

    def _unmake(self) -> None:
        """Remove the folders that were made for this run, of which nothing came."""
        if self._made:
            for file in (self._file, self.folder / "run.lock"):
                file.unlink()
        for folder in self._made:
            with suppress(OSError):  # something else is in there by now
                folder.rmdir()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _whole(self, record: Mapping[str, Any]) -> bool:
        return all(
            (self.folder / file).is_file() and sha256_of(self.folder / file) == digest
            for file, digest in record["outputs"].items()
        )

    def _take_lock(self, read_only: bool) -> int:
        mode = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        lock = os.open(self.folder / "run.lock", mode | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_NB | (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX))
        except BlockingIOError:
            os.close(lock)
            raise UsageError(
                f"another edgetrt command is at work in {self.folder}; wait for it to end"
            ) from None
        return lock

    def _check_document(self) -> None:
        document = read_json(self._file)
        if isinstance(document, dict) and document.get("schema") != SCHEMA:
            raise UsageError(
                f"{self._file} was not written by this version of edgetrt; choose a new --run"
            )
        try:
            whole = all(set(record) >= RECORD for record in document["stages"].values())
        except (AttributeError, KeyError, TypeError):
            whole = False
        if not whole:
            raise PipelineError(
                f"{self._file} is damaged; remove it and run: {command_for('retrain', self.folder)}"
            )


def command_for(stage: str, folder: Path) -> str:
    """What to type to do a stage."""
    pictures = " --image-dir DIR" if STAGES[stage] is None else ""
    return f"edgetrt {stage}{pictures} --run {shlex.quote(str(folder))}"


def versions() -> dict[str, str]:
    """Versions of what decides a stage's result; no package is imported for it."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"edgetrt": __version__, "python": platform.python_version()}
    for package in (
        "keras", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "openvino",
        "tensorflow", "tensorrt", "tensorrt-rtx-cu12-bindings", "tf2onnx",
    ):  # fmt: skip
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
