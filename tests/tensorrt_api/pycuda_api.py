"""What pycuda.driver offers, in the form of TensorRT's snapshots.

pycuda comes as source only. The snapshots were written where it had been built, 2025.1 with the
headers of CUDA 12.9, 2020.1 for CUDA 10.2, and a libcuda.so.1 whose functions only fail:

    LD_PRELOAD=./libcuda.so.1 python tests/tensorrt_api/pycuda_api.py

(2020.1 needs Python 3.8, so the annotations of snapshot.py were made fit for that.) 2019.1 has what
2020.1 has but for Device.retain_primary_context, by its source. Parameters to which the binding
gives no name are called arg1, arg2, ... there: positional only.
"""

from __future__ import annotations

import inspect
import re
import types
from typing import Any

from snapshot import HERE, write

STORED = ("pycuda-2020.1", "pycuda-2025.1")
_SPECIAL = ("__init__", "__int__", "__index__")


def describe(driver: types.ModuleType, version: str) -> dict[str, Any]:
    """The snapshot of the module pycuda.driver."""
    classes = {
        name: value
        for name, value in sorted(vars(driver).items())
        if isinstance(value, type) and value.__module__ == "pycuda._driver"
    }
    return {
        "version": f"pycuda-{version}",
        "module": {
            name: _overloads(value)
            for name, value in sorted(vars(driver).items())
            if _is_function(value)
            or (inspect.isfunction(value) and value.__module__ == driver.__name__)
            if not name.startswith("_")
        },
        "classes": {name: _describe_class(value) for name, value in classes.items()},
    }


def _describe_class(cls: Any) -> dict[str, Any]:
    if issubclass(cls, int):
        return {"enum": {name: int(value) for name, value in cls.names.items()}}
    parts: dict[str, Any] = {
        "bases": [base.__name__ for base in cls.__bases__ if base.__module__ == "pycuda._driver"],
        "methods": {},
        "static": {},
        "properties": {},
        "constants": {},
    }
    for name, value in sorted(vars(cls).items()):
        if name.startswith("_") and name not in _SPECIAL:
            continue
        if isinstance(value, int):
            parts["constants"][name] = value
        elif isinstance(value, property):
            parts["properties"][name] = "r" * bool(value.fget) + "w" * bool(value.fset)
        elif isinstance(value, staticmethod):
            parts["static"][name] = _overloads(value.__func__)
        elif _is_function(value):
            parts["methods"][name] = _overloads(value, bound=True)
    return {part: value for part, value in parts.items() if value}


def _is_function(value: Any) -> bool:
    return (type(value).__module__, type(value).__name__) == ("Boost.Python", "function")


def _overloads(function: Any, bound: bool = False) -> list[list[str]]:
    """From lines like "record( (Event)arg1 [, (object)stream=None]) -> Event :"."""
    if inspect.isfunction(function):
        parameters = inspect.signature(function).parameters.values()
        return [[p.name + " = ..." * (p.default is not p.empty) for p in parameters]]
    signatures = re.findall(r"^\w+\((.*)\) -> \w+ :$", function.__doc__, re.MULTILINE)
    return [
        [
            f"{name}: {kind}" + (" = ..." if optional else "")
            for optional, kind, name in re.findall(r"(\[,? *)?\((\w+)\)(\w+)", signature)
        ][bound:]
        for signature in signatures
    ]


if __name__ == "__main__":
    import pycuda
    import pycuda.driver

    described = describe(pycuda.driver, pycuda.VERSION_TEXT)
    write(described, HERE / f"{described['version']}.json")
