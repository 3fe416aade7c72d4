"""Golden cases: pictures whose probabilities are known, that every engine must give again.

They go all the way, from a picture file's bytes to the classes by name: a decoder of other
pixels, channels or classes in another order, and a layer computed otherwise all show in them.
"""

from pathlib import Path
from typing import Any, List, NamedTuple

import numpy as np

from engines.bundle.manifest import LABELS, BundleError, Manifest
from engines.engine import Engine, EngineError
from engines.preprocess import RECIPE, load_good


class Golden(NamedTuple):
    """How an engine did.

    ok: every probability is as near as it must be.
    worst: the largest difference of a probability; 1 where there is none to speak of.
    allowed: the largest that may be.
    what: in words, for people.
    """

    ok: bool
    worst: float
    allowed: float
    what: str


def check(engine: Engine, precision: str, manifest: Manifest, folder: Path) -> Golden:
    """Ask an engine every golden case, one picture at a time and all at once.

    Args:
        precision: whose probabilities it must give: one of the manifest's.
        folder: where the bundle's files lie.

    Raises:
        EngineError: the engine fails, a file of the bundle is gone or another, or the pictures
            are prepared otherwise here than where the bundle was made.
    """
    pictures = load_pictures(manifest, folder)
    try:
        alone = np.concatenate([engine.infer(picture[np.newaxis]) for picture in pictures])
        together = engine.infer(pictures)
    except ValueError as error:  # answers of several shapes
        raise EngineError("the engine's answers don't fit each other: {}".format(error)) from error
    found = [compare(alone, precision, manifest), compare(together, precision, manifest)]
    return max(found, key=lambda golden: (not golden.ok, golden.worst))


def load_pictures(manifest: Manifest, folder: Path) -> np.ndarray:
    """The golden pictures as an engine takes them: (cases, height, width, 3), uint8.

    Raises:
        EngineError: see `check`.
    """
    recipe = manifest.data["preprocessing"]["recipe"]
    if recipe != RECIPE:
        raise BundleError(
            "the bundle's pictures are prepared as {}, here as {}; make the bundle again, or use "
            "the edgetrt that made it ({})".format(recipe, RECIPE, manifest.data["edgetrt"])
        )
    check_labels(manifest, folder)
    files = [folder / case["picture"] for case in manifest.data["golden"]["cases"]]
    return np.stack([load_good(file, *manifest.picture) for file in files])


def check_labels(manifest: Manifest, folder: Path) -> None:
    """Raise BundleError unless the labels that a release names its answers by are its classes."""
    try:
        labels = (folder / LABELS).read_text("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise BundleError("{} can't be read: {}".format(folder / LABELS, error.strerror)) from error
    if labels != manifest.classes:
        raise BundleError(
            "{} does not list the bundle's classes in their order".format(folder / LABELS)
        )


def compare(answers: Any, precision: str, manifest: Manifest) -> Golden:
    """Hold answers against the golden cases, for whoever got them in another way.

    Args:
        answers: (cases, classes), in the order of the manifest's cases.
    """
    golden = manifest.data["golden"]
    allowed: float = golden["tolerance"][precision]
    cases: List[Any] = golden["cases"]
    wanted = np.array([case["probabilities"][precision] for case in cases], np.float64)
    found = np.asarray(answers, np.float64)
    if found.shape != wanted.shape:
        shape = "answers have the shape {}, not {}".format(found.shape, wanted.shape)
        return Golden(False, 1.0, allowed, shape)
    if not np.isfinite(found).all():
        return Golden(False, 1.0, allowed, "answers are no numbers (NaN or infinite)")
    differences = np.abs(found - wanted)
    case, label = divmod(int(differences.argmax()), differences.shape[1])
    worst = float(differences[case, label])
    what = "{} of {}: {:.4f}, expected {:.4f}, at most {:g} off".format(
        manifest.classes[label],
        cases[case]["picture"],
        found[case, label],
        wanted[case, label],
        allowed,
    )
    return Golden(worst <= allowed, worst, allowed, what)
