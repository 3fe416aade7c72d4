"""Read a PyTorch state dict without PyTorch, from the format before torch 1.6 (no zip).

Such a file is five pickles (magic number, protocol version, system, state dict, storage keys),
then each storage as its length (int64) and its numbers, little endian, in the order of the keys.
Source of the format: `_legacy_save` and `_legacy_load` in PyTorch's torch/serialization.py.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

ZIP_START = b"PK\x03\x04"
MAGIC_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # 0x1950a86a20f9469cfc6c, pickled
PROTOCOL_VERSION = 1001

# Far above any network here, low enough that a hostile file can't tie up the machine:
# EfficientNet-Lite2 takes 25 MB and 14,800 opcodes.
MAX_BYTES = 1 << 30
MAX_OPCODES = 1_000_000
MAX_AXES = 8

# Storage class -> (element type in the file, element type given); every widening is exact.
STORAGES = {
    "torch FloatStorage": ("<f4", np.float32),
    "torch HalfStorage": ("<f2", np.float32),
    "torch LongStorage": ("<i8", np.int64),
    "torch IntStorage": ("<i4", np.int64),
}
KINDS = ", ".join(kind.split()[1] for kind in STORAGES)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
ORDERED_DICT = "collections OrderedDict"
REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"

ADVICE = (
    "Fetch the file again from its source; if it is right, load it with a torch you trust and save "
    "it with torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)."
)


class WeightsError(Exception):
    """A file of weights can't be read or doesn't fit the network; the message says what to do."""


def load_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict. Nothing in the file is ever imported or called.

    Args:
        path: a file that torch.save wrote before 1.6, or later in its old format.

    Returns:
        Tensor name -> read-only array, float32 or int64, in the file's order. Arrays may be
        strided, and those that share a storage in the file share it here.

    Raises:
        WeightsError: there is no such file, or it is anything but a whole, plain state dict.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise WeightsError(f"{path}: no such file. Give the path of a .pth file.")
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_BYTES} bytes. Give a smaller network.")
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}. Make the file readable.") from error
    try:
        return _parse(data)
    except ValueError as error:
        # pickletools quotes what it could not read, however long that is.
        raise WeightsError(f"{path}: {str(error)[:300]}. {ADVICE}") from error


@dataclass(frozen=True)
class Storage:
    """A run of `length` numbers of the file; `kind` is a key of STORAGES."""

    key: str
    kind: str
    length: int


@dataclass(frozen=True)
class Tensor:
    """A window on a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """The name of an allowed class or function; it stands for itself and is never looked up."""

    name: str


def _parse(data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(ZIP_START):
        raise ValueError("this is the zip format of torch 1.6 and later, not the old format")
    if not data.startswith(MAGIC_START):
        raise ValueError("not a PyTorch file (its magic number is missing)")
    file = io.BytesIO(data)
    unpickler = _Unpickler(file)
    _, version, system = (unpickler.load() for _ in range(3))
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise ValueError(f"its protocol version is not {PROTOCOL_VERSION}")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was not written on a little-endian machine")
    state = unpickler.load()
    keys = unpickler.load()
    if not isinstance(state, dict):
        raise ValueError("it holds no state dict")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"its entry {_show(name)} is not a tensor")
    arrays = _read_storages(data, file.tell(), unpickler.storages, keys)
    return {name: _view(arrays[tensor.storage.key], tensor) for name, tensor in state.items()}


class _Unpickler:
    """Runs the few pickle opcodes that a state dict needs, on a stack of plain values.

    A restricted `pickle.Unpickler` would not do: even with nothing to find in `find_class`,
    a few bytes make it reserve gigabytes (a large memo index), overflow the C stack or hash
    for years (nested tuples as dict keys), or set attributes on what it was allowed to find.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.storages: dict[str, Storage] = {}
        self.opcodes_left = MAX_OPCODES

    def load(self) -> Any:
        """The value of the next pickle; ValueError if it is damaged or wants anything else."""
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []  # one for each open mark
        self.memo: dict[int, Any] = {}
        try:
            for opcode, arg, _ in pickletools.genops(self.file):
                self.opcodes_left -= 1
                if self.opcodes_left < 0:
                    raise ValueError(f"its pickles have more than {MAX_OPCODES} opcodes")
                self._step(opcode.name, arg)
        except (IndexError, KeyError) as error:
            raise ValueError("its pickle is damaged (empty stack or memo)") from error
        if self.outer_stacks or len(self.stack) != 1:
            raise ValueError("its pickle is damaged (it does not end with one value)")
        return self.stack.pop()

    def _step(self, name: str, arg: Any) -> None:
        stack = self.stack
        match name:
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(arg)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(CONSTANTS[name])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "BINPUT" | "LONG_BINPUT":
                self.memo[arg] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[arg])
            case "MARK":
                self.outer_stacks.append(stack)
                self.stack = []
            case "TUPLE":
                items = self._pop_mark()
                self.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND":
                item = stack.pop()
                self._top(list).append(item)
            case "APPENDS":
                items = self._pop_mark()
                self._top(list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._set_items([key, value])
            case "SETITEMS":
                self._set_items(self._pop_mark())
            case "GLOBAL":
                stack.append(_find_class(arg))
            case "BINPERSID":
                stack.append(self._persistent_load(stack.pop()))
            case "REDUCE":
                args, function = stack.pop(), stack.pop()
                stack.append(_call(function, args))
            case "BUILD":  # the version numbers that torch hangs on the dict (`_metadata`)
                stack.pop()
                self._top(dict)
            case "PROTO" | "STOP":
                pass
            case _:
                raise ValueError(f"its pickle uses {name}, which a state dict never needs")

    def _pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer_stacks.pop()
        return items

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError("its pickle is damaged (an item for something that is no container)")
        return self.stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        if len(keys) != len(values) or not all(isinstance(key, str) for key in keys):
            raise ValueError("its pickle has a dict whose keys are not all text")
        self._top(dict).update(zip(keys, values, strict=True))

    def _persistent_load(self, identity: Any) -> Storage:
        match identity:
            case ("storage", _Global(kind), str(key), str(), length, None):
                storage = Storage(key, kind, length)
            case _:
                raise ValueError("its pickle describes a storage in an unknown way")
        if kind not in STORAGES or not _is_count(length):
            raise ValueError(f"its storage {_show(key)} is none of {KINDS}, or its length is wrong")
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"its storage {_show(key)} is described in two ways")
        return storage


def _find_class(name: str) -> _Global:
    if name not in (ORDERED_DICT, REBUILD_TENSOR, *STORAGES):
        raise ValueError(
            f"its pickle asks for {_show(name)}; allowed are OrderedDict, tensors and {KINDS}"
        )
    return _Global(name)


def _call(function: Any, args: Any) -> dict[str, Any] | Tensor:
    match function, args:
        case _Global(name), () if name == ORDERED_DICT:
            return {}
        # The last two are requires_grad and the backward hooks; a state dict has none of these.
        case (
            _Global(name),
            (Storage() as storage, offset, tuple(shape), tuple(strides), bool(), {**hooks}),
        ) if name == REBUILD_TENSOR and not hooks:
            return _rebuild_tensor(storage, offset, shape, strides)
    raise ValueError("its pickle calls something in a way that a state dict never needs")


def _rebuild_tensor(
    storage: Storage, offset: Any, shape: tuple[Any, ...], strides: tuple[Any, ...]
) -> Tensor:
    if not all(_is_count(number) for number in (offset, *shape, *strides)):
        raise ValueError("its pickle has a tensor whose shape or strides are not sensible numbers")
    if len(shape) != len(strides) or len(shape) > MAX_AXES:
        raise ValueError(f"it has a tensor with {len(shape)} axes and {len(strides)} strides")
    count = math.prod(shape)
    steps = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    last = offset + steps if count else offset - 1
    # The count too: strides of 0 would make a huge tensor of one number.
    if count > storage.length or last >= storage.length:
        raise ValueError(
            f"its tensor of shape {shape} reaches outside a storage of {storage.length} numbers"
        )
    return Tensor(storage, offset, shape, strides)


def _read_storages(
    data: bytes, start: int, storages: dict[str, Storage], keys: Any
) -> dict[str, np.ndarray]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("it has no list of its storages")
    if sorted(keys) != sorted(storages):
        raise ValueError("the storages it lists are not those that its tensors use")
    arrays = {}
    for storage in (storages[key] for key in keys):
        stored, given = STORAGES[storage.kind]
        first = start + 8
        end = first + storage.length * np.dtype(stored).itemsize
        if end > len(data):
            raise ValueError(f"it was cut off: it ends inside storage {_show(storage.key)}")
        if struct.unpack_from("<q", data, start) != (storage.length,):
            raise ValueError(f"the length of storage {_show(storage.key)} differs from its tensors")
        arrays[storage.key] = np.frombuffer(data, stored, storage.length, first).astype(given)
        start = end
    if start != len(data):
        raise ValueError(f"it goes on for {len(data) - start} bytes after its last storage")
    return arrays


def _view(storage: np.ndarray, tensor: Tensor) -> np.ndarray:
    strides = tuple(stride * storage.itemsize for stride in tensor.strides)
    window = storage[tensor.offset :]
    return np.lib.stride_tricks.as_strided(window, tensor.shape, strides, writeable=False)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_BYTES


def _show(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
