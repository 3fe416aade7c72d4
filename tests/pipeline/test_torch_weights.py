"""Old-format PyTorch files, written by hand here: whole ones are read, hostile ones refused."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import torch_weights
from pipeline.torch_weights import WeightsError, load_state_dict

# A small writer of pickles, opcode by opcode: what torch.save writes, and what it never would.
EMPTY_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
VERSION = pickle.dumps(1001, protocol=2)
SYSTEM = pickle.dumps(
    {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    },
    protocol=2,
)
WEIGHT = np.arange(6, dtype="<f4") / 4
STEPS = np.array([2**40], dtype="<i8")


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def number(value: int) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def items(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def numbers(*values: int) -> bytes:
    return items(*map(number, values))


def storage(key: str, length: int, kind: str = "FloatStorage") -> bytes:
    name = f"ctorch\n{kind}\n".encode()
    return items(text("storage"), name, text(key), text("cpu"), number(length), b"N") + b"Q"


def tensor(
    source: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    args = (source, number(offset), numbers(*shape), numbers(*strides), b"\x89", EMPTY_ORDERED_DICT)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + items(*args) + b"R"


def state(**entries: bytes) -> bytes:
    pairs = b"".join(text(name) + entry for name, entry in entries.items())
    metadata = b"}" + text("_metadata") + EMPTY_ORDERED_DICT + b"sb"
    return pickled(EMPTY_ORDERED_DICT + b"(" + pairs + b"u" + metadata)


def keys(*names: str) -> bytes:
    return pickled(b"](" + b"".join(map(text, names)) + b"e")


def raw(array: np.ndarray) -> bytes:
    return struct.pack("<q", array.size) + array.tobytes()


WEIGHTS = storage("1", 6)
COUNTER = storage("2", 1, "LongStorage")
SMALL = [
    MAGIC,
    VERSION,
    SYSTEM,
    state(weight=tensor(WEIGHTS, (2, 3), (1, 2)), steps=tensor(COUNTER, (), ())),
    keys("1", "2"),
    raw(WEIGHT),
    raw(STEPS),
]


def with_part(index: int, part: bytes) -> bytes:
    return b"".join([*SMALL[:index], part, *SMALL[index + 1 :]])


def one_storage(entries: dict[str, bytes], data: np.ndarray) -> bytes:
    return b"".join([MAGIC, VERSION, SYSTEM, state(**entries), keys("1"), raw(data)])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights") / "weights.pth"


def load(file: Path, data: bytes) -> dict[str, np.ndarray]:
    file.write_bytes(data)
    return load_state_dict(file)


def refusal(file: Path, data: bytes) -> str:
    with pytest.raises(WeightsError) as raised:
        load(file, data)
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert "torch.save" in message  # what to do
    return message


def test_whole_file_is_read(file: Path) -> None:
    tensors = load(file, b"".join(SMALL))
    assert list(tensors) == ["weight", "steps"]
    np.testing.assert_array_equal(tensors["weight"], WEIGHT.reshape(3, 2).T)
    assert tensors["weight"].dtype == np.float32
    assert (tensors["steps"].shape, tensors["steps"].dtype) == ((), np.int64)
    assert tensors["steps"] == 2**40
    with pytest.raises(ValueError, match="read-only"):
        tensors["weight"][0, 0] = 1


def test_tensors_may_be_windows_on_one_storage(file: Path) -> None:
    entries = {
        "row": tensor(WEIGHTS, (3,), (1,), offset=3),
        "column": tensor(WEIGHTS, (2,), (3,), offset=2),
        "nothing": tensor(WEIGHTS, (0, 3), (3, 1), offset=6),
    }
    tensors = load(file, one_storage(entries, WEIGHT))
    np.testing.assert_array_equal(tensors["row"], WEIGHT[3:])
    np.testing.assert_array_equal(tensors["column"], WEIGHT[[2, 5]])
    assert tensors["nothing"].shape == (0, 3)


@pytest.mark.parametrize(
    ("kind", "stored", "given_type"),
    [
        ("FloatStorage", "<f4", np.float32),
        ("HalfStorage", "<f2", np.float32),
        ("LongStorage", "<i8", np.int64),
        ("IntStorage", "<i4", np.int64),
    ],
)
def test_kinds_of_storage(file: Path, kind: str, stored: str, given_type: type) -> None:
    data = np.array([-3, 0, 7], dtype=stored)
    tensors = load(file, one_storage({"x": tensor(storage("1", 3, kind), (3,), (1,))}, data))
    assert tensors["x"].dtype == given_type
    np.testing.assert_array_equal(tensors["x"], data)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(WeightsError, match="no such file") as raised:
            load_state_dict(path)
        assert str(path) in str(raised.value)


def test_zip_format_is_explained(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", SMALL[3])
    assert "zip format" in refusal(file, file.read_bytes())


def test_every_truncation_is_refused(file: Path) -> None:
    whole = b"".join(SMALL)
    for length in range(len(whole)):
        refusal(file, whole[:length])
    assert "cut off" in refusal(file, whole[:-1])
    assert "1 bytes after" in refusal(file, whole + b"\0")


TENSOR_TOO_LARGE = "reaches outside a storage of 6 numbers"
PLAIN = tensor(WEIGHTS, (6,), (1,))
NO_HOOKS = b"\x89" + EMPTY_ORDERED_DICT
HOOKS = PLAIN.replace(NO_HOOKS, b"\x89}" + text("hook") + b"Ns")
SHAPE_OF_TEXT = PLAIN.replace(numbers(6), items(text("6")))
STORAGE_OF_DICTS = PLAIN.replace(b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_part(0, pickle.dumps(1, protocol=2)), "magic number"),
        (with_part(1, pickle.dumps(1002, protocol=2)), "protocol version is not 1001"),
        (with_part(2, pickle.dumps({"little_endian": False}, protocol=2)), "little-endian"),
        (with_part(2, pickle.dumps([], protocol=2)), "little-endian"),
        (with_part(3, pickled(number(5))), "no state dict"),
        (with_part(3, state(weight=number(5))), "'weight' is not a tensor"),
        (with_part(3, pickled(b"}" + number(1) + PLAIN + b"s")), "not all"),
        (with_part(4, pickled(text("1"))), "no list of its storages"),
        (with_part(4, keys("1")), "not those that its tensors use"),
        (with_part(4, keys("1", "2", "2")), "not those that its tensors use"),
        (with_part(4, keys("1", "3")), "not those that its tensors use"),
        (with_part(5, raw(WEIGHT[:5])), "length of storage '1'"),
        (with_part(5, struct.pack("<q", -1) + WEIGHT.tobytes()), "length of storage '1'"),
        (with_part(3, state(a=tensor(WEIGHTS, (7,), (1,)))), TENSOR_TOO_LARGE),
        (with_part(3, state(a=tensor(WEIGHTS, (2, 3), (4, 1)))), TENSOR_TOO_LARGE),
        (with_part(3, state(a=tensor(WEIGHTS, (6,), (1,), offset=1))), TENSOR_TOO_LARGE),
        (with_part(3, state(a=tensor(WEIGHTS, (0,), (1,), offset=7))), TENSOR_TOO_LARGE),
        (with_part(3, state(a=tensor(WEIGHTS, (2**30, 2**30), (0, 0)))), TENSOR_TOO_LARGE),
        (with_part(3, state(a=tensor(WEIGHTS, (2,), (-1,), offset=1))), "not sensible numbers"),
        (with_part(3, state(a=tensor(WEIGHTS, (2,), (1,), offset=-1))), "not sensible numbers"),
        (with_part(3, state(a=tensor(WEIGHTS, (-1, -1), (1, 1)))), "not sensible numbers"),
        (with_part(3, state(a=tensor(WEIGHTS, (2**62,), (2**62,)))), "not sensible numbers"),
        (with_part(3, state(a=tensor(WEIGHTS, (6,), (1, 1)))), "1 axes and 2 strides"),
        (with_part(3, state(a=tensor(WEIGHTS, (1,) * 9, (1,) * 9))), "9 axes"),
        (with_part(3, state(a=SHAPE_OF_TEXT)), "not sensible numbers"),
        (with_part(3, state(a=tensor(number(6), (6,), (1,)))), "calls something"),
        (with_part(3, state(a=HOOKS)), "calls something"),
        (with_part(3, pickled(EMPTY_ORDERED_DICT[:-2] + b"]\x85R")), "calls something"),
        (with_part(3, pickled(b"N}b")), "no container"),
        (with_part(3, pickled(b"N" + PLAIN)), "not end with one value"),
        (with_part(3, pickled(b"N(" + PLAIN)), "not end with one value"),
        (with_part(3, state(a=STORAGE_OF_DICTS)), "none of FloatStorage"),
        (with_part(3, state(a=tensor(storage("1", 2**40), (1,), (1,)))), "length is wrong"),
        (with_part(3, state(a=tensor(storage("1", -1), (1,), (1,)))), "length is wrong"),
        (with_part(3, state(a=tensor(storage("1", 6, "DoubleStorage"), (1,), (1,)))), "Double"),
        (
            with_part(3, state(a=tensor(WEIGHTS, (1,), (1,)), b=tensor(storage("1", 5), (), ()))),
            "described in two ways",
        ),
        (
            one_storage({"a": tensor(storage("1", 2**30), (1,), (1,))}, WEIGHT),
            "cut off: it ends inside storage '1'",
        ),
    ],
)
def test_file_that_contradicts_itself_is_refused(file: Path, data: bytes, words: str) -> None:
    assert words in refusal(file, data)


COMMAND = text("touch executed")
ATTACKS = {
    "reduce": b"cposix\nsystem\n" + COMMAND + b"\x85R",
    "eval": b"c__builtin__\neval\n" + text("open('executed', 'w')") + b"\x85R",
    "import": b"ctrap\nanything\n",
    "instance": b"(" + COMMAND + b"iposix\nsystem\n",
    "object": b"(cposix\nsystem\n" + COMMAND + b"o",
    "new object": b"ctrap\nanything\n)\x81",
    "stack global": b"\x8c\x05posix\x8c\x06system\x93" + COMMAND + b"\x85R",
    "extension": b"\x82\x01" + COMMAND + b"\x85R",
    "dotted name": b"ccollections\nOrderedDict.__init__.__globals__\n",
    "call a storage": b"ctorch\nFloatStorage\n" + COMMAND + b"\x85R",
    "call a text": text("collections OrderedDict") + b")R",
    "state for a class": b"ccollections\nOrderedDict\n(N}" + text("x") + b"Nstb",
    "arguments": b"ccollections\nOrderedDict\n](" + COMMAND + b"N\x86e\x85R",
    "hooks": HOOKS,
}


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("name", ATTACKS)
def test_code_is_never_imported_or_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, index: int
) -> None:
    (tmp_path / "trap.py").write_text("open('executed', 'w').close()\ndef anything(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    attack = ATTACKS[name]
    entry = state(weight=attack) if index == 3 else pickled(attack)
    refusal(tmp_path / "weights.pth", with_part(index, entry))
    assert not Path("executed").exists()


CLAIMS = {
    "memo index": b"Nr" + struct.pack("<I", 0xFFFFFFFF),
    "text of 4 GB": b"X" + struct.pack("<I", 0xFFFFFFF0),
    "text of 8 EB": b"\x8d" + struct.pack("<Q", 2**63 - 1),
    "bytes of 16 EB": b"\x8e" + struct.pack("<Q", 2**64 - 1),
    "byte array of 8 EB": b"\x96" + struct.pack("<Q", 2**63 - 1),
    "frame of 8 EB": b"\x95" + struct.pack("<Q", 2**63 - 1),
    "number of 2 GB": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "tensor without end": state(a=tensor(WEIGHTS, (2**30,) * 8, (0,) * 8))[2:-1],
    "empty but vast": state(a=tensor(WEIGHTS, (0,) + (2**30,) * 7, (1,) * 8))[2:-1],
    # 2**200 tuples to visit, if anyone were to hash or print it.
    "tuple of tuples": b"})" + b"q\0h\0\x86" * 200 + b"Ns",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_take_no_memory_and_no_time(file: Path, name: str) -> None:
    file.write_bytes(with_part(3, pickled(CLAIMS[name])))
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError):
            load_state_dict(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_deep_nesting_does_not_exhaust_the_stack(file: Path) -> None:
    refusal(file, with_part(3, pickled(b"})" + b"\x85" * 200_000 + b"Ns")))
    refusal(file, with_part(3, pickled(b"](" * 100_000 + b"e" * 100_000)))


def test_dict_inside_itself_is_refused(file: Path) -> None:
    refusal(file, with_part(3, pickled(b"}q\0" + text("self") + b"h\0s")))


def test_work_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_weights, "MAX_OPCODES", 200)
    assert "more than 200 opcodes" in refusal(file, with_part(3, pickled(b"N" * 300)))
    monkeypatch.setattr(torch_weights, "MAX_BYTES", 200)
    with pytest.raises(WeightsError, match="larger than 200 bytes"):
        load(file, b"".join(SMALL))


@pytest.mark.parametrize("opcode", [b"I", b"F", b"L", b"S"])
def test_message_stays_short(file: Path, opcode: bytes) -> None:
    message = refusal(file, with_part(3, pickled(opcode + b"x" * 1_000_000 + b"\n")))
    assert len(message) < 1000


def check_mutant(file: Path, data: bytes) -> None:
    """Whatever the bytes: a refusal, or arrays that are no larger than the file."""
    try:
        tensors = load(file, data)
    except WeightsError:
        return
    for name, array in tensors.items():
        assert isinstance(name, str)
        assert array.dtype in (np.float32, np.int64)
        assert array.size <= len(data)
        array.copy()  # every number can be reached


@settings(max_examples=400, deadline=None)
@given(
    cuts=st.lists(
        st.tuples(st.integers(0, sum(map(len, SMALL))), st.integers(0, 4), st.binary(max_size=4)),
        min_size=1,
        max_size=4,
    )
)
def test_mutants_are_refused_or_harmless(file: Path, cuts: list[tuple[int, int, bytes]]) -> None:
    data = b"".join(SMALL)
    for start, length, patch in cuts:
        data = data[:start] + patch + data[start + length :]
    check_mutant(file, data)


SNIPPETS = [
    *ATTACKS.values(),
    *CLAIMS.values(),
    *(bytes([opcode]) for opcode in b"()]}tuesabRQ.0210lod\x81\x85\x86\x87\x88\x89\x90\x91\x94N"),
    *(number(n) for n in (0, 6, 2**40, -1)),
    *(text(word) for word in ("weight", "storage", "cpu", "1")),
    *(b"q\0", b"q\1", b"h\0", b"h\1", EMPTY_ORDERED_DICT, WEIGHTS, PLAIN, STORAGE_OF_DICTS),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"),
]


@settings(max_examples=400, deadline=None)
@given(soup=st.lists(st.sampled_from(SNIPPETS), max_size=12), index=st.integers(1, 4))
def test_opcode_soup_is_refused_or_harmless(file: Path, soup: list[bytes], index: int) -> None:
    check_mutant(file, with_part(index, pickled(b"".join(soup))))
