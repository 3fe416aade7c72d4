"""The manifest of a bundle: what is in it, and what it must answer.

A manifest may come from anyone: nothing in it is used before `parse` has checked it, and a path
that passed leads nowhere but into one of four folders.
"""

import hashlib
import json
import math
import re
from typing import Any, Callable, Dict, List, NamedTuple, Set, Tuple

from engines.catalogue import PRECISIONS
from engines.engine import EngineError

SCHEMA = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
LABELS = "model/labels.txt"

MAX_BYTES = 16 << 20  # of the manifest
MAX_CONTAINERS = 20_000  # of its objects and lists: five million empty ones would fit in MAX_BYTES
MAX_FILES = 1000
MAX_FILE_BYTES = 2**32 - 1  # what a ZIP without extensions holds
MAX_PATH = 200  # characters
MAX_SIDE, MAX_CASES = 2048, 100  # so that the golden pictures' pixels fit in memory together
MAX_TOLERANCE = 0.25  # a looser check of probabilities would be none

# The graphs that a bundle must have for a precision. TensorRT 8 makes FP16 of the FP32 one; what
# later ones make INT8 of, model.int8-fp16.onnx, can't be made of every network.
GRAPHS: Dict[str, Tuple[str, ...]] = {
    "fp32": ("onnx/model.fp32.onnx",),
    "fp16": ("onnx/model.fp32.onnx", "onnx/model.fp16.onnx"),
    "int8": ("onnx/model.int8.onnx",),
}

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a model
_FOLDERS = "onnx|model|golden|licences"
_PATH = re.compile("({})(/[A-Za-z0-9][A-Za-z0-9._-]*)+".format(_FOLDERS))
_SHA256 = re.compile("[0-9a-f]{64}")
_FIXED_INPUT = {
    "channels": 3,
    "layout": "NHWC",
    "color": "RGB",
    "dtype": "uint8",
    "minimum": 0,
    "maximum": 255,
}


class BundleError(EngineError):
    """A bundle is damaged, or none at all; the message says what is wrong and what to do."""


class File(NamedTuple):
    """A file of a bundle: where it lies, how many bytes it has, and their SHA-256 (hexadecimal)."""

    path: str
    size: int
    sha256: str


class Manifest(NamedTuple):
    """A manifest that was checked.

    data: the whole, as JSON values.
    files: everything in the bundle but the manifest and its signature, sorted by path.
    id: what the release is called: the first 16 digits of the SHA-256 of the manifest's bytes.
    """

    data: Dict[str, Any]
    files: List[File]
    id: str

    @property
    def name(self) -> str:
        """What the model is called; fit for a file name and a URL."""
        return str(self.data["name"])

    @property
    def classes(self) -> List[str]:
        """The names of the classes, in the order of the answer."""
        return list(self.data["classes"])

    @property
    def precisions(self) -> List[str]:
        """Those that engines may be built in."""
        return list(self.data["precisions"])

    @property
    def targets(self) -> List[str]:
        """The boards and GPUs that it is for, as `engines.boards` names them; none: for any."""
        return list(self.data["targets"])

    @property
    def picture(self) -> Tuple[int, int]:
        """Height and width of the pictures that the graphs take."""
        return self.data["input"]["height"], self.data["input"]["width"]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> File:
        """The file of that path.

        Raises:
            BundleError: there is none.
        """
        for file in self.files:
            if file.path == path:
                return file
        raise BundleError("the bundle has no {}".format(path))


def release_id(data: bytes) -> str:
    """What a release is called, from the bytes of its manifest."""
    return hashlib.sha256(data).hexdigest()[:16]


def parse(data: bytes) -> Manifest:
    """Check a manifest, every field of it.

    Raises:
        BundleError: it is damaged, breaks a rule, or has a schema that this version does not know.
    """
    if len(data) > MAX_BYTES:
        raise BundleError("the manifest has more than {} MiB".format(MAX_BYTES >> 20))
    if data.count(b"{") + data.count(b"[") > MAX_CONTAINERS:
        raise _damaged("it has more than {} lists and objects".format(MAX_CONTAINERS))
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_int=_int,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except (ValueError, RecursionError) as error:
        raise _damaged(str(error)) from error
    if not isinstance(value, dict):
        raise _damaged("it is no object")
    _check_schema(value.get("schema"))
    try:
        _check(value)
    except _WrongError as error:
        raise _damaged(str(error)) from None
    files = [File(entry["path"], entry["size"], entry["sha256"]) for entry in value["files"]]
    return Manifest(value, files, release_id(data))


class _WrongError(Exception):
    """A rule is broken; the message names the field."""


def _damaged(reason: str) -> BundleError:
    return BundleError(
        "the bundle's manifest is damaged ({}); make or fetch it again".format(reason)
    )


def _check_schema(schema: Any) -> None:
    if not _is_int(schema, 0, 2**31):
        raise _damaged("schema: a number is expected")
    if schema > SCHEMA:
        raise BundleError(
            "the bundle was made by a newer edgetrt (schema {}); update the one that reads it "
            "(schema {})".format(schema, SCHEMA)
        )
    if schema < SCHEMA:
        raise BundleError(
            "the bundle was made by an older edgetrt (schema {}; now {}); make it again with: "
            "edgetrt bundle".format(schema, SCHEMA)
        )


def _check(value: Dict[str, Any]) -> None:
    _fields(
        value,
        "the manifest",
        {
            "schema": bool,
            "name": lambda name: isinstance(name, str) and bool(NAME.fullmatch(name)),
            "edgetrt": _is_text,
            "made_from": lambda made_from: isinstance(made_from, dict),
            "classes": _are_classes,
            "input": lambda pixels: isinstance(pixels, dict),
            "preprocessing": lambda steps: isinstance(steps, dict),
            "precisions": lambda names: _are_unique(names) and set(names) <= set(PRECISIONS),
            "targets": lambda names: names == [] or _are_unique(names),
            "accuracy": lambda accuracy: isinstance(accuracy, dict),
            "golden": lambda golden: isinstance(golden, dict),
            "licences": lambda licences: isinstance(licences, list),
            "files": lambda files: isinstance(files, list),
        },
    )
    _check_origin(value)
    _check_pixels(value)
    paths = _check_files(value["files"])
    for path in [LABELS] + [graph for name in value["precisions"] for graph in GRAPHS[name]]:
        if path not in paths:
            raise _WrongError("files: {} is missing".format(path))
    for licence in value["licences"]:
        _fields(
            licence,
            "licences",
            {"of": _is_text, "licence": _is_text, "file": lambda file: _is_one_of(file, paths)},
        )
    _check_golden(value, paths)


def _check_origin(value: Dict[str, Any]) -> None:
    _fields(
        value["made_from"],
        "made_from",
        {
            "created": _is_text,
            "architecture": _is_text,
            "seed": lambda seed: _is_int(seed, -(2**63), 2**64),
            "pictures": lambda pictures: _is_int(pictures, 1, 2**53),
            "dataset_sha256": _is_sha256,
        },
    )
    for name, found in value["accuracy"].items():
        if not _is_text(name):
            raise _WrongError("accuracy: the name of an engine is expected")
        _fields(
            found,
            "accuracy",
            {"top1": _is_share, "pictures": lambda pictures: _is_int(pictures, 1, 2**53)},
        )


def _check_pixels(value: Dict[str, Any]) -> None:
    fixed: Dict[str, Callable[..., bool]] = {
        key: lambda found, wanted=wanted: type(found) is type(wanted) and found == wanted
        for key, wanted in _FIXED_INPUT.items()
    }
    sides = {side: lambda size: _is_int(size, 1, MAX_SIDE) for side in ("height", "width")}
    _fields(value["input"], "input", dict(fixed, name=_is_text, **sides))
    steps = dict.fromkeys(("recipe", "orientation", "resize", "scaling"), _is_text)
    _fields(value["preprocessing"], "preprocessing", steps)


def _check_files(files: List[Any]) -> Set[str]:
    """Check the files; gives their paths."""
    if not 1 <= len(files) <= MAX_FILES:
        raise _WrongError("files: 1 to {} are expected".format(MAX_FILES))
    for file in files:
        _fields(
            file,
            "files",
            {
                "path": _is_path,
                "size": lambda size: _is_int(size, 0, MAX_FILE_BYTES),
                "sha256": _is_sha256,
            },
        )
    paths = [file["path"] for file in files]
    if paths != sorted(paths):
        raise _WrongError("files: they are not sorted by path")
    # Where a disk makes no difference between A and a, one would overwrite the other.
    folded = [path.lower() for path in paths]
    if len(set(folded)) != len(folded):
        raise _WrongError("files: two have the same path")
    folders = {path[:end] for path in folded for end in range(len(path)) if path[end] == "/"}
    for path in folded:
        if path in folders:
            raise _WrongError("files: {} is a file and a folder".format(path))
    return set(paths)


def _check_golden(value: Dict[str, Any], paths: Set[str]) -> None:
    golden, precisions, count = value["golden"], value["precisions"], len(value["classes"])
    _fields(
        golden,
        "golden",
        {"tolerance": lambda tolerance: isinstance(tolerance, dict), "cases": _are_cases},
    )
    _fields(golden["tolerance"], "golden: tolerance", dict.fromkeys(precisions, _is_tolerance))

    def are_probabilities(found: Any) -> bool:
        return (
            isinstance(found, list)
            and len(found) == count
            and all(map(_is_share, found))
            and abs(sum(found) - 1) < 0.02  # they are rounded
        )

    for case in golden["cases"]:
        _fields(
            case,
            "golden: cases",
            {
                "picture": lambda path: _is_one_of(path, paths) and path.startswith("golden/"),
                "probabilities": lambda found: isinstance(found, dict),
            },
        )
        _fields(
            case["probabilities"],
            "golden: probabilities",
            dict.fromkeys(precisions, are_probabilities),
        )


def _fields(value: Any, where: str, rules: Dict[str, Callable[..., bool]]) -> None:
    """Raise _WrongError unless `value` is an object of these fields, each as its rule wants."""
    if not isinstance(value, dict):
        raise _WrongError("{}: an object is expected".format(where))
    for name in list(rules) + list(value):
        if name not in rules or name not in value:
            what = "unknown" if name in value else "missing"
            raise _WrongError("{}: {!r} is {}".format(where, name[:40], what))
    for name, rule in rules.items():
        if not rule(value[name]):
            # What was received may be long, and is a stranger's.
            received = repr(value[name])[:60] if _is_short(value[name]) else "something long"
            raise _WrongError("{}: {!r} can't be {}".format(where, name, received))


def _is_short(value: Any) -> bool:
    return not isinstance(value, (list, dict, str)) or len(value) < 60


def _is_int(value: Any, lowest: int, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _is_share(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    )  # NaN fails too


def _is_tolerance(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and 0 < value <= MAX_TOLERANCE


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_PATH and bool(_PATH.fullmatch(value))


def _is_one_of(value: Any, known: Set[str]) -> bool:
    return isinstance(value, str) and value in known


def _is_filled_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _are_cases(value: Any) -> bool:
    return _is_filled_list(value) and len(value) <= MAX_CASES


def _are_unique(names: Any) -> bool:
    return _is_filled_list(names) and all(map(_is_text, names)) and len(set(names)) == len(names)


def _are_classes(names: Any) -> bool:
    """Folder names of any kind, even those that are no UTF-8, but each on one line."""
    return (
        _is_filled_list(names)
        and all(isinstance(n, str) and 0 < len(n) <= 255 and n.splitlines() == [n] for n in names)
        and len(set(names)) == len(names)
    )


def _int(digits: str) -> int:
    # Reading a long one takes time that grows with the square of its length.
    if len(digits) > 20:
        raise ValueError("a number of {} digits".format(len(digits)))
    return int(digits)


def _no_constant(name: str) -> Any:
    raise ValueError("{} is no JSON".format(name))


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):  # other readers might take the other one
        raise ValueError("a name stands twice in an object")
    return value
