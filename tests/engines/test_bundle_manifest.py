"""A manifest is a stranger's: what breaks a rule is refused, whatever it is."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import bundles
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines.bundle import manifest
from engines.bundle.manifest import BundleError, parse

GOOD = bundles.describe(bundles.contents())
REPOSITORY = Path(__file__).parents[2]
Change = Callable[[dict[str, Any]], Any]


def changed(change: Change) -> bytes:
    value = copy.deepcopy(GOOD)
    change(value)
    return bundles.encode(value)


def put(*path: Any) -> Change:
    """Put the last of `path` where the others lead."""

    def change(value: Any) -> None:
        for key in path[:-2]:
            value = value[key]
        value[path[-2]] = path[-1]

    return change


def test_a_good_one() -> None:
    found = parse(bundles.encode(GOOD))
    assert found.data == GOOD
    assert (found.name, found.precisions, found.targets) == ("small", ["fp32", "fp16", "int8"], [])
    assert found.classes == ["bright", "dark", "neither"]
    assert found.picture == (bundles.SIDE, bundles.SIDE)
    assert found.size == sum(map(len, bundles.contents().values()))
    assert found.file("model/labels.txt").size == 20
    assert len(found.id) == 16
    assert found.id != parse(changed(put("name", "other"))).id
    with pytest.raises(BundleError, match=r"no model/x"):
        found.file("model/x")


@pytest.mark.parametrize(
    "change",
    [put("targets", ["TX2", "AGX Orin"]), put("accuracy", {}), put("licences", []),
     put("classes", ["\udcff", "two words", "é"]), put("golden", "tolerance", "int8", 0.25)],
)  # fmt: skip
def test_what_may_be(change: Change) -> None:
    parse(changed(change))


PATHS = ["/etc/passwd", "../x", "golden/../../x", "golden/..", "golden/./x", "golden//x", "golden/",
         "golden", "onnx\\x", "golden/.x", "golden/-x", "golden/x\0", "golden/x\n", "golden/é",
         "engines/x.json", "program.pyz", "release.json", "manifest.json", "run.lock", "~/x",
         "C:/x", "golden/" + 200 * "x", "", None, 1, ["golden/x"]]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_lead_elsewhere(path: Any) -> None:
    def change(value: Any) -> None:
        value["files"].append({"path": path, "size": 1, "sha256": "0" * 64})
        value["files"].sort(key=lambda file: str(file["path"]))

    with pytest.raises(BundleError, match="files: 'path' can't be"):
        parse(changed(change))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["golden/0.png"], "two have the same path"),
        (["golden/0.PNG"], "two have the same path"),
        (["golden/a/b", "golden/a"], "a file and a folder"),
        (["golden/a/b/c", "golden/A"], "a file and a folder"),
        ([f"golden/{number}" for number in range(1000)], "1 to 1000 are expected"),
    ],
)
def test_paths_in_each_others_way(more: list[str], reason: str) -> None:
    def change(value: Any) -> None:
        value["files"] += [{"path": path, "size": 1, "sha256": "0" * 64} for path in more]
        value["files"].sort(key=lambda file: file["path"])

    with pytest.raises(BundleError, match=reason):
        parse(changed(change))


@pytest.mark.parametrize(
    "change",
    [
        put("name", "a/b"), put("name", ""), put("name", ".."), put("name", 101 * "x"),
        put("name", "a\n"), put("edgetrt", 1), put("made_from", "seed", True),
        put("made_from", "dataset_sha256", "0" * 63), put("made_from", "created", "\x1b[31m"),
        put("classes", []), put("classes", ["a", "a", "b"]), put("classes", ["a", "b\n", "c"]),
        put("classes", ["a", "", "c"]), put("classes", ["a", "b"]), put("classes", "abc"),
        put("input", "height", 0), put("input", "height", 2049), put("input", "height", 64.0),
        put("input", "layout", "NCHW"), put("input", "color", "BGR"), put("input", "channels", 3.0),
        put("input", "minimum", False), put("input", "dtype", "float32"), put("input", {}),
        put("preprocessing", {"recipe": "x"}), put("preprocessing", []),
        put("precisions", []), put("precisions", ["fp8"]), put("precisions", ["fp32", "fp32"]),
        put("precisions", [["fp32"]]), put("precisions", {}), put("targets", [1]),
        put("targets", None), put("accuracy", {"a": {"top1": 1.5, "pictures": 1}}),
        put("accuracy", {"a": {"top1": 0.5, "pictures": 0}}), put("accuracy", []),
        put("golden", "cases", GOOD["golden"]["cases"] * 101), put("golden", "cases", []),
        put("golden", "cases", {}), put("golden", "cases", [1]),
        put("golden", "cases", 0, "picture", "golden/9.png"),
        put("golden", "cases", 0, "picture", "model/labels.txt"),
        put("golden", "cases", 0, "picture", ["golden/0.png"]),
        put("golden", "cases", 0, "probabilities", "int8", [0.5, 0.5]),
        put("golden", "cases", 0, "probabilities", "int8", [0.5, 0.5, 0.5]),
        put("golden", "cases", 0, "probabilities", "int8", [1.5, -0.25, -0.25]),
        put("golden", "cases", 0, "probabilities", "int8", ["0.5", 0.25, 0.25]),
        put("golden", "cases", 0, "probabilities", "int8", {"a": 1, "b": 0, "c": 0}),
        put("golden", "cases", 0, "probabilities", {"fp32": [0.5, 0.25, 0.25]}),
        put("golden", "tolerance", "int8", 0), put("golden", "tolerance", "int8", 1.0),
        put("golden", "tolerance", "int8", 0.26), put("golden", "tolerance", {"fp32": 0.1}),
        put("licences", 0, "file", "licences/other.txt"), put("licences", 0, "file", 1),
        put("licences", [1]), put("files", []), put("files", {}), put("files", 0, "size", -1),
        put("files", 0, "size", 2**32), put("files", 0, "size", 1.0), put("files", 0, "size", True),
        put("files", 0, "sha256", "G" * 64), put("files", 0, "sha256", "A" * 64),
        put("files", 0, "more", 1), put("files", 0, []), put("more", 1),
        lambda value: value.pop("classes"), lambda value: value["files"].reverse(),
        lambda value: value["files"].pop(2), lambda value: value["files"].pop(6),
    ],
)  # fmt: skip
def test_broken_rules(change: Change) -> None:
    with pytest.raises(BundleError, match="manifest is damaged .*; make or fetch it again"):
        parse(changed(change))


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (2, r"made by a newer edgetrt \(schema 2\); update"),
        (9, "newer"),
        (0, r"made by an older edgetrt .*make it again"),
        (-1, "damaged"),
        (True, "damaged"),
        (1.0, "damaged"),
        ("1", "damaged"),
        (None, "damaged"),
        ([], "damaged"),
    ],
)
def test_other_schemas(schema: Any, reason: str) -> None:
    # Whatever else it says: another schema has other fields.
    with pytest.raises(BundleError, match=reason):
        parse(bundles.encode({"schema": schema, "what": "ever"}))
    with pytest.raises(BundleError, match=reason):
        parse(changed(put("schema", schema)))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"1", b"\xff\xfe", b'{"schema": NaN}',
        b'{"schema": 1e999}', b'{"schema": 1, "schema": 1}', b"[" * 10_000, b'{"a":' * 10_000,
        b'{"schema": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_no_manifest_at_all(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse(data)


@pytest.mark.parametrize("name", ["NaN", "Infinity", "1e999", "-1e999", "9" * 400])
@pytest.mark.parametrize("where", ["tolerance", "probability"])
def test_numbers_that_are_none(name: str, where: str) -> None:
    text = bundles.encode(GOOD).decode()
    old = '"int8": 0.08' if where == "tolerance" else "0.5,"
    data = text.replace(old, old.replace("0.08", name).replace("0.5", name), 1)
    assert data != text
    with pytest.raises(BundleError):
        parse(data.encode())


@pytest.mark.parametrize(
    ("opening", "filling"),
    [
        ("[", "[],"),
        ("[", "{},"),
        ("[", '"ab",'),
        ("[", "0.1,"),
        ("[", "9" * 1000 + ","),
        ('"', "\\u0041"),
        ("1, ", '"a":1,'),
    ],
)
def test_the_largest_one_takes_little_time_and_memory(opening: str, filling: str) -> None:
    script = (
        "import resource, sys, time\n"
        "from engines.bundle.manifest import MAX_BYTES, BundleError, parse\n"
        "opening, filling = '{\"schema\": ' + sys.argv[1], sys.argv[2]\n"
        "data = (opening + filling * ((MAX_BYTES - 20) // len(filling))).encode()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "start = time.monotonic()\n"
        "try:\n"
        "    parse(data)\n"
        "except BundleError as error:\n"
        "    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    print(most - before, time.monotonic() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, opening, filling],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    kib, seconds = map(float, done.stdout.split())
    assert kib < 400 << 10
    assert seconds < 20


def test_more_than_the_largest_one() -> None:
    with pytest.raises(BundleError, match="more than 16 MiB"):
        parse(bundles.encode(GOOD) + b" " * manifest.MAX_BYTES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.data())
def test_any_other_value_anywhere_is_refused_or_good(data: st.DataObject) -> None:
    """No field makes it raise anything else, and what passes is safe."""
    value: Any = copy.deepcopy(GOOD)
    inside = value
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inside[key], dict | list) or not inside[key] or data.draw(st.booleans()):
            break
        inside = inside[key]
    inside[key] = data.draw(JSON)
    try:
        found = parse(json.dumps(value).encode())
    except BundleError as error:
        assert len(str(error)) < 400
        return
    for file in found.files:
        assert file.path.split("/")[0] in ("onnx", "model", "golden", "licences")
        assert ".." not in file.path.split("/")


@given(st.binary(max_size=200))
@example(b'{"schema":1}')
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse(data)


@given(st.data())
def test_any_damaged_byte(data: st.DataObject) -> None:
    good = bundles.encode(GOOD)
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[place]))
    bad = good[:place] + bytes([other]) + good[place + 1 :]
    with suppress(BundleError):  # and no other error
        assert parse(bad).id != parse(good).id
