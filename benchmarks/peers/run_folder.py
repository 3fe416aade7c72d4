"""What the peers are made from: a run folder's graphs, its pictures and how they were split."""

import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from benchmarks.balanced import balanced
from engines.engine import EngineError
from engines.text import printable

SPLITS = ("train", "validation", "test")


class Picture(NamedTuple):
    """A labelled picture file; label: the number of its class."""

    path: str
    file: Path
    label: int


class RunFolder:
    """A run that went through `retrain`, `export` and `quantize`; it is only read.

    Attributes:
        classes: names; a picture's label is a place here.
        pictures: the folder that they lie in.
        retrained: the options that the last layer was trained with.
    """

    def __init__(self, folder: Path, pictures: Optional[Path] = None) -> None:
        """Read what a run was made from.

        Args:
            pictures: where they are now; where the run found them if None.

        Raises:
            EngineError: it is no such run, or its pictures are gone.
        """
        self.folder = folder
        dataset, record = _read(folder / "dataset.json"), _read(folder / "run.json")
        try:
            stages = record["stages"]
            self.pictures = pictures or Path(dataset["root"])
            self.classes = [str(name) for name in dataset["classes"]]
            self._splits = {
                split: [
                    Picture(p["path"], self.pictures / p["path"], self.classes.index(p["label"]))
                    for p in dataset["pictures"]
                    if p["split"] == split
                ]
                for split in SPLITS
            }
            self.retrained: Dict[str, Any] = dict(stages["retrain"]["options"])
            # The options of a stage that was not reached are of no use before its graphs are.
            self._calibration = int(
                stages.get("quantize", {}).get("options", {}).get("calibration_images", 0)
            )
            self._seed = int(self.retrained["seed"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EngineError("{} is damaged: {}".format(folder, printable(error))) from error
        if not self.split("test"):
            raise EngineError("{} has no test pictures".format(folder))
        for picture in self.split("test"):
            if not picture.file.is_file():
                raise EngineError(
                    "{} is not there; where are the run's pictures? --pictures DIR".format(
                        printable(picture.file)
                    )
                )

    def split(self, name: str) -> List[Picture]:
        """The pictures of "train", "validation" or "test", in the order of the scan."""
        return self._splits[name]

    def calibration(self) -> List[Picture]:
        """The training pictures that the run's INT8 graph was calibrated on."""
        train = self.split("train")
        labels = [self.classes[picture.label] for picture in train]
        return [train[place] for place in balanced(labels, self._calibration, self._seed)]

    def model(self, name: str) -> Path:
        """A file that `retrain` made, such as "frozen.pb".

        Raises:
            EngineError: it is not there.
        """
        return _there(self.folder / "model" / name, "retrain")

    def graph(self, precision: str) -> Path:
        """The ONNX graph of a precision.

        Raises:
            EngineError: it is not there.
        """
        stage = "export" if precision == "fp32" else "quantize"
        return _there(self.folder / "onnx" / "model.{}.onnx".format(precision), stage)


def _there(path: Path, stage: str) -> Path:
    if not path.is_file():
        raise EngineError("{} is not there; run: edgetrt {}".format(path, stage))
    return path


def _read(path: Path) -> Dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError("{} can't be read: {}".format(path, printable(error))) from error
    if not isinstance(document, dict):
        raise EngineError("{} is damaged".format(path))
    return document
