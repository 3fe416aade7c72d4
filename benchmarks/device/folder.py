"""A run folder as it is on a device: the parts of it that were copied there."""

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from benchmarks.measure import Picture
from engines.engine import EngineError
from engines.picture_file import PictureError
from engines.preprocess import pixels, read_picture

# What the stages on the host leave in a run, and what the device needs of it.
COPY = "onnx/, model/ and dataset.json"


class WrongUseError(Exception):
    """The command can't be carried out as given (exit code 2)."""


class Folder:
    """The folder that `--run` names; locked as long as it is open.

    Raises WrongUseError if it is no run, or another command is at work in it.
    """

    def __init__(self, path: Path, writes: bool = False) -> None:
        self.path = path
        self.graphs, self.engines = path / "onnx", path / "engines"
        self.frozen_graph = path / "model" / "frozen.pb"
        if not self.graphs.is_dir():
            raise WrongUseError("{} is no run: copy {} of one there".format(path, COPY))
        self._lock = self._take_lock(writes)

    def graph(self, variant: str) -> Path:
        """The exported graph of a variant: "fp32", "fp16", "int8", "int8-fp16"."""
        return self.graphs / "model.{}.onnx".format(variant)

    @property
    def calibration_cache(self) -> Path:
        """Where `edgetrt quantize --calibration-cache` writes."""
        return self.graphs / "calibration.cache"

    def labels(self) -> List[str]:
        """The names of the classes, in the order of the answer."""
        try:
            text = (self.path / "model" / "labels.txt").read_text("utf-8", "surrogateescape")
        except OSError as error:
            raise WrongUseError(
                "{}: {}; copy {} of the run".format(self.path, error, COPY)
            ) from error
        return text.splitlines()

    @property
    def report(self) -> Path:
        """Where `benchmark` writes; never the report that `edgetrt compare` made in this folder."""
        return self.path / "report" / "device.json"

    def pictures(self, split: str, root: Path) -> List[Picture]:
        """Those of a split that are on this device, in the order of dataset.json.

        Args:
            split: "train", "validation" or "test".
            root: the folder of class folders, or what was copied of it.

        Raises:
            WrongUseError: none is there, or dataset.json is not.
        """
        labels = self.labels()
        found = []
        for entry in self._dataset():
            path = _inside(root, entry.get("path"))
            if entry.get("split") == split and entry.get("label") in labels and path.is_file():
                label = labels.index(entry["label"])
                found.append(Picture(entry["path"], path, str(entry.get("sha256")), label))
        if not found:
            raise WrongUseError("none of the run's {} pictures is in {}".format(split, root))
        return found

    def _dataset(self) -> List[Dict[str, Any]]:
        try:
            pictures = json.loads((self.path / "dataset.json").read_text("utf-8"))["pictures"]
            return [dict(entry) for entry in pictures]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise WrongUseError(
                "{}/dataset.json can't be read ({}); copy {} of the run".format(
                    self.path, error, COPY
                )
            ) from error

    def _take_lock(self, writes: bool) -> Optional[int]:
        mode = os.O_RDWR | os.O_CREAT if writes else os.O_RDONLY
        try:
            lock = os.open(str(self.path / "run.lock"), mode | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            return None  # nothing was ever built here
        try:
            fcntl.flock(lock, fcntl.LOCK_NB | (fcntl.LOCK_EX if writes else fcntl.LOCK_SH))
        except BlockingIOError:
            os.close(lock)
            raise WrongUseError(
                "another command is at work in {}; wait for it to end".format(self.path)
            ) from None
        return lock

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._lock is not None:
            os.close(self._lock)


def _inside(root: Path, name: Any) -> Path:
    """A path below `root`; one that leads out of it is refused."""
    bad = not isinstance(name, str) or name.startswith("/") or "\0" in name
    if bad or ".." in name.split("/"):
        raise EngineError("dataset.json names a picture outside its folder: {!r}".format(name))
    try:  # in the C locale, Python 3.6 takes no letters beyond ASCII for a file's name
        return root / os.fsdecode(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise EngineError("dataset.json has a name that is none: {!a}".format(name)) from None


def load(picture: Picture, size: Tuple[int, int]) -> np.ndarray:
    """The pixels of a picture of the run, (height, width, 3) uint8.

    Raises:
        EngineError: it is not the picture that the run was made with, or none at all.
    """
    try:
        data = read_picture(picture.file)
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            raise PictureError("it is not the picture of this name that the run was made with")
        return pixels(data, *size)
    except PictureError as error:
        raise EngineError("{}: {}".format(picture.file, error)) from error
