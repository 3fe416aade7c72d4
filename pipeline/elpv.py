"""The ELPV solar cells, laid out as a picture folder: the demo's pictures."""

import csv
from importlib.util import find_spec
from pathlib import Path

from benchmarks.progress import Console
from engines.files import write_bytes, write_text
from pipeline.dataset import SOURCE_FILE
from pipeline.errors import PipelineError, UsageError

PICTURES = 2624
SOURCE = """\
ELPV: 2,624 electroluminescence pictures of solar cells, 300x300, from the PyPI package
elpv-dataset 1.0.0.post1. Classes: 'functional' (defect probability 0 or 1/3) and 'defective'
(2/3 or 1). By S. Deitsch, V. Christlein, S. Berger, C. Buerhop-Lutz, A. Maier, F. Gallwitz
and C. Riess; see "Automatic classification of defective photovoltaic module cells in
electroluminescence images", Solar Energy 185 (2019) 455-468.
Licence: CC BY-NC-SA 4.0 (attribution, not for commercial use, share alike).
"""


def lay_out(folder: Path, console: Console) -> int:
    """Copy the pictures of the installed package elpv-dataset into one folder for each class.

    Pictures that are there already, unchanged, are left alone.

    Args:
        folder: made if need be; it must hold nothing else (dot files don't count).

    Returns:
        How many pictures were written now.

    Raises:
        UsageError: the package is not installed, or the folder holds something else.
        PipelineError: the package is not whole.
    """
    images, classes = installed_pictures()
    targets = {name: folder / label / name for name, label in classes.items()}
    _refuse_foreign(folder, {folder / SOURCE_FILE, *targets.values()})
    written = 0
    with console.progress("elpv", len(targets), "pictures") as advance:
        for name, target in targets.items():
            try:
                content = (images / name).read_bytes()
            except OSError as error:
                raise _not_whole(f"{images / name}: {error.strerror}") from error
            if not target.is_file() or target.read_bytes() != content:
                write_bytes(target, content)
                written += 1
            advance(1)
    write_text(folder / SOURCE_FILE, SOURCE)
    return written


def installed_pictures() -> tuple[Path, dict[str, str]]:
    """The folder of the installed package's pictures, and the class of each by its file name.

    Raises:
        UsageError: the package is not installed.
        PipelineError: the package is not whole.
    """
    spec = find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the pictures are not installed; pip install elpv-dataset")
    data = Path(spec.submodule_search_locations[0]) / "data"
    try:
        classes = _classes(data / "labels.csv")
    except (OSError, ValueError, csv.Error) as error:
        raise _not_whole(f"{data / 'labels.csv'}: {error}") from error
    if len(classes) != PICTURES:
        raise _not_whole(f"labels.csv lists {len(classes)} pictures, not {PICTURES}")
    return data / "images", classes


def _classes(labels: Path) -> dict[str, str]:
    """File name -> class; each line of the file has a path, a defect probability and a type."""
    classes = {}
    with labels.open(newline="") as file:
        for path, probability, _ in csv.reader(file, delimiter=" ", skipinitialspace=True):
            name = Path(path).name
            classes[name] = "defective" if float(probability) > 0.5 else "functional"
    return classes


def _not_whole(what: str) -> PipelineError:
    return PipelineError(f"the package elpv-dataset is not whole ({what}); install it again")


def _refuse_foreign(folder: Path, ours: set[Path]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --out takes a folder")
    ours = ours | {path.parent for path in ours}
    for path in (*folder.glob("[!.]*"), *folder.glob("[!.]*/[!.]*")):
        if path not in ours:
            raise UsageError(f"{folder} holds something else ({path.name!r}); choose another --out")
