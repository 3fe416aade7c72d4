"""What TensorRT's Python bindings offer, version by version, as data.

A snapshot holds names and signatures only. Those of `STORED` were written from the real bindings:

    python tests/tensorrt_api/snapshot.py FOLDER_OF_THE_BINDINGS

writes VERSION.json here; `differences` says what older versions lack. The form:

    {"version": "8.6.1",
     "module": {"float32": "DataType.FLOAT",         a member of an enum
                "volume": [["iterable"]]},           a function: its overloads
     "classes": {
       "BuilderFlag": {"enum": {"FP16": 0, ...}, ...},
       "Builder": {
         "bases": [],
         "methods": {"create_network": [["flags: int = ..."]]},
         "static": {},                               static methods, in the same form
         "properties": {"max_threads": "rw"},        "r" and "w": only read, only written
         "constants": {},                            members of enums
         "nested": {}}}}                             name -> class
    empty parts are left out

An overload is the list of its parameters without `self`, each "name: type = ...", as the binding's
own help shows them; it is null where that help is not in pybind's form. Parameters that the binding
gives no name are called arg0, arg1, ... there. Sequence types are written List, numbers int and
float, whatever the version of pybind calls them.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

from differences import OLDER

HERE = Path(__file__).parent
STORED = ("8.6.1", "10.13.3.9", "11.4.0.106", "rtx-1.7.1.116")

Overloads = list["list[str] | None"]

# pybind's own names for one type have changed; ours stay.
_SPELLINGS = (
    (r"\b\w+\.tensorrt(_rtx)?\.", ""),
    (r"\bcollections\.abc\.(Sequence|Iterable|Callable)\b", r"\1"),
    (r"\btyping\.Supports(Int|Float)\b", lambda match: match[1].lower()),
    (r"\b(typing_extensions|collections\.abc)\.Buffer\b", "buffer"),
    (r"\b(typing_extensions|types)\.CapsuleType\b", "capsule"),
    (r"\bSequence\[", "List["),
)
# Every Python class has these, or they are pybind's own business.
_ORDINARY = re.compile(
    r"__(del|dict|doc|entries|module|new|weakref|pybind11_module_local.*|[gs]etstate)__"
    r"|__entries|_pybind11_.*"
)
_ENUM_OWN = {"name", "value"}


@functools.cache
def snapshot(version: str) -> dict[str, Any]:
    """The snapshot of one version; nobody may change it.

    Raises:
        KeyError: there is none of that version.
    """
    if version in OLDER:
        older = OLDER[version]
        return older.of(snapshot(older.base), version)
    if version not in STORED:
        raise KeyError(f"no snapshot of TensorRT {version}; there are {[*OLDER, *STORED]}")
    return read(version)


def read(version: str) -> dict[str, Any]:
    """The stored snapshot of one version."""
    stored: dict[str, Any] = json.loads((HERE / f"{version}.json").read_text())
    return stored


def write(described: dict[str, Any], file: Path) -> None:
    """Store a snapshot with one class a line."""

    def lines(part: dict[str, Any]) -> str:
        short = {name: json.dumps(part[name], separators=(",", ":")) for name in part}
        return ",\n".join(f' "{name}": {text}' for name, text in short.items())

    file.write_text(
        f'{{"version": {json.dumps(described["version"])},\n'
        f'"module": {{\n{lines(described["module"])}\n}},\n'
        f'"classes": {{\n{lines(described["classes"])}\n}}}}\n'
    )


def describe(module: types.ModuleType) -> dict[str, Any]:
    """The snapshot of an imported binding."""
    classes: dict[type, str] = {}

    def collect(owner: Any, outer: str) -> None:
        for name, value in vars(owner).items():
            if isinstance(value, type) and not name.startswith("__") and value not in classes:
                classes[value] = outer + name
                collect(value, outer + name + ".")

    collect(module, "")
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, (type, types.ModuleType, str)):
            continue  # strings and ILogger.Severity members are left over from a loop
        if type(value) in classes:
            if "." not in classes[type(value)]:
                found[name] = f"{classes[type(value)]}.{value.name}"
        elif not name.startswith("common_"):
            found[name] = _overloads(value, name)
    prefix = "rtx-" if "rtx" in module.__name__ else ""
    return {
        "version": prefix + module.__version__,
        "module": dict(sorted(found.items())),
        "classes": {
            name: _describe_class(cls, classes)
            for cls, name in sorted(classes.items(), key=lambda item: item[1])
        },
    }


def _describe_class(cls: Any, classes: dict[type, str]) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "bases": [classes[base] for base in cls.__bases__ if base in classes],
        "enum": {},
        "methods": {},
        "static": {},
        "properties": {},
        "constants": {},
        "nested": {},
    }
    own = dict(vars(cls))
    if "__members__" in own:
        parts["enum"] = {name: int(value) for name, value in cls.__members__.items()}
        own = {
            name: value
            for name, value in own.items()
            if not name.startswith("__") and name not in _ENUM_OWN | set(parts["enum"])
        }
    for name, value in sorted(own.items()):
        if _ORDINARY.fullmatch(name) or value is None:
            continue
        if isinstance(value, type):
            parts["nested"][name] = classes[value]
        elif type(value) in classes:
            parts["constants"][name] = f"{classes[type(value)]}.{value.name}"
        elif isinstance(value, property):
            parts["properties"][name] = "r" * bool(value.fget) + "w" * bool(value.fset)
        elif isinstance(value, staticmethod):
            parts["static"][name] = _overloads(value.__func__, name)
        elif isinstance(value, types.WrapperDescriptorType):
            pass  # Python's own slot behind a method that is listed
        elif callable(value):
            parts["methods"][name] = _overloads(value, name, bound=True)
    return {part: value for part, value in parts.items() if value}


def _overloads(function: Any, name: str, bound: bool = False) -> Overloads | None:
    """The overloads of a function, without their first parameter where it is bound to that."""
    if isinstance(function, types.FunctionType):  # added to the binding in Python
        return [[
            parameter.name + ("" if parameter.default is parameter.empty else " = ...")
            for parameter in list(inspect.signature(function).parameters.values())[bound:]
        ]]  # fmt: skip
    pattern = re.compile(rf"^(?:\d+\. )?{re.escape(name)}(\(.*\))(?: -> .*)?$", re.MULTILINE)
    signatures = pattern.findall(function.__doc__ or "")
    if signatures[:1] == ["(*args, **kwargs)"]:  # precedes a numbered list of overloads
        signatures = signatures[1:]
    if not signatures:
        return None
    return [_parameters(signature)[bound:] for signature in signatures]


def _parameters(signature: str) -> list[str]:
    """The parameters in "(self: Dims, shape: List[int] = <a, b>)"."""
    for pattern, replacement in _SPELLINGS:
        signature = re.sub(pattern, replacement, signature)
    found, depth, start = [], 0, 1
    for position, letter in enumerate(signature):
        depth += (letter in "([{<") - (letter in ")]}>")
        if (letter == "," and depth == 1) or (letter == ")" and depth == 0):
            found.append(re.sub(r" = .*", " = ...", signature[start:position].strip()))
            start = position + 1
            if depth == 0:
                break
    return [parameter for parameter in found if parameter]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder.parent))
    described = describe(importlib.import_module(folder.name))
    if sys.argv[2:] == ["--print"]:
        json.dump(described, sys.stdout)
    else:
        write(described, HERE / f"{described['version']}.json")
