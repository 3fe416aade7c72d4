"""A module `tensorrt` that does what a double does, and has nothing that the real one lacks.

Its classes are made from the snapshot of one version of TensorRT, not from the double: a name that
this version lacks does not exist (AttributeError, `hasattr` is False), a call is bound against the
real signatures (TypeError), enums have the real numbers, and instances take no new attributes. Each
instance stands before one instance of the double's class of the same name, its `_double`: arguments
are unwrapped on the way in, results wrapped on the way out, also in lists, tuples and dicts. What
the real module has and the double lacks raises NotImplementedError when used.

Classes that people derive from (ILogger, IInt8EntropyCalibrator2, ...) work as pybind's do: the
subclass has to call the base's `__init__`. The double is given an instance of its own class, whose
methods call those that the subclass overrides.

Stricter than the real module, on purpose: None only where it is a default, no new attributes on
classes, no enum in place of an int, no comparison of enums but for equality.
"""

from __future__ import annotations

import enum
import functools
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from snapshot import snapshot


def guarded_module(version: str, implementation: Any) -> types.ModuleType:
    """The module of one version of TensorRT, before a double.

    Args:
        version: one that `snapshot` knows.
        implementation: module or other namespace with the double's classes (enums are
            `enum.Enum`) and functions, named as TensorRT's: the union of all versions' names.

    Returns:
        The module. Its `_used` is the set of the names that were called, read or set, such as
        "Builder.create_network", "BuilderFlag.FP16" and, called by the double, "ILogger.log".
        Looking whether an enum has a member counts as use of it.
    """
    return _Guard(snapshot(version), implementation).module


def members(version: str, name: str) -> dict[str, int]:
    """The members of an enum in one version of TensorRT, with their numbers."""
    found: dict[str, int] = snapshot(version)["classes"][name]["enum"]
    return dict(found)


class _Fixed(type):
    """Classes from a snapshot: they take no new attributes; subclasses of theirs do."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if "_api" in vars(cls):
            raise AttributeError(f"class tensorrt.{cls.__qualname__} takes no attributes: {name}")
        super().__setattr__(name, value)


class _Class(_Fixed):
    """Classes whose subclasses have to call their constructor."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        instance = super().__call__(*args, **kwargs)
        if not hasattr(instance, "_double"):
            base = next(base for base in cls.__mro__ if "_api" in vars(base))
            raise TypeError(f"tensorrt.{base.__qualname__}.__init__() must be called when "
                            "overriding __init__")  # fmt: skip
        return instance


class _Object(metaclass=_Class):
    """What all classes from a snapshot that are no enums have in common."""

    __slots__ = ("__weakref__", "_double")
    _double: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"tensorrt.{type(self).__qualname__}: No constructor defined!")


class _Enum(metaclass=_Fixed):
    """What all enums from a snapshot have in common; one instance for each number."""

    __slots__ = ("name", "value")
    _numbers: Mapping[int, _Enum]
    _double: Any
    name: str
    value: int

    def __new__(cls, value: int) -> _Enum:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{cls.__qualname__}(): incompatible constructor arguments: {value!r}")
        return cls._numbers[value]

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self} takes no attributes: {name}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class _Constant:
    """A class's attribute that is a member of an enum."""

    def __init__(self, guard: _Guard, name: str, value: _Enum) -> None:
        self._guard, self._name, self._value = guard, name, value

    def __get__(self, instance: Any, owner: type) -> _Enum:
        self._guard.used.add(self._name)
        return self._value


class _Property:
    """A property; `access` is "r", "w" or "rw"."""

    def __init__(self, guard: _Guard, owner: str, name: str, access: str) -> None:
        self._guard, self._owner, self._name, self._access = guard, owner, name, access

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        if "r" not in self._access:
            raise AttributeError(f"unreadable attribute {self._owner}.{self._name}")
        self._guard.used.add(f"{self._owner}.{self._name}")
        if not hasattr(type(instance._double), self._name) and self._name not in vars(
            instance._double
        ):
            raise NotImplementedError(f"the double lacks {self._owner}.{self._name}")
        return self._guard.wrap(getattr(instance._double, self._name))

    def __set__(self, instance: Any, value: Any) -> None:
        if "w" not in self._access:
            raise AttributeError(f"can't set attribute {self._owner}.{self._name}")
        self._guard.used.add(f"{self._owner}.{self._name}")
        own = getattr(type(instance._double), self._name, None)
        if (
            own.fset is None
            if isinstance(own, property)
            else self._name not in vars(instance._double)
        ):
            raise NotImplementedError(f"the double can't set {self._owner}.{self._name}")
        setattr(instance._double, self._name, self._guard.unwrap(value))


class _Method:
    """A method."""

    def __init__(self, guard: _Guard, owner: str, name: str, overloads: Any) -> None:
        self._guard, self._owner, self._name = guard, owner, name
        self._signatures = _Signatures(guard, f"{owner}.{name}", overloads)

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(instance, self._guard.classes[self._owner]):
            raise TypeError(f"{self._owner}.{self._name}(): self is {instance!r}")
        self._signatures.check(args, kwargs)
        self._guard.used.add(f"{self._owner}.{self._name}")
        double = instance._double
        if self._name == "__enter__":
            return instance  # what they do in the real module, too
        if self._name == "__exit__":
            return None
        # Asked for by a subclass, its own method is not meant, but the one that it overrides.
        source = super(type(double), double) if hasattr(double, "_forwards") else double
        return self._guard.call(source, f"{self._owner}.{self._name}", args, kwargs)


class _Guard:
    """One version's snapshot before one double."""

    def __init__(self, api: dict[str, Any], implementation: Any) -> None:
        self._api, self._implementation = api, implementation
        self.used: set[str] = set()
        self.classes: dict[str, Any] = {}
        self._doubles: dict[str, Any] = {}  # name -> the double's class
        self._names: dict[Any, str] = {}  # the double's class -> name
        for name in api["classes"]:
            double = functools.reduce(
                lambda owner, part: getattr(owner, part, None), name.split("."), implementation
            )
            if double is not None:
                self._doubles[name] = double
                self._names.setdefault(double, name)
        self._foreign = {
            double for double in vars(implementation).values()
            if isinstance(double, type) and double.__module__ != "builtins"
        } - self._names.keys()  # fmt: skip
        for name, parts in api["classes"].items():
            if "enum" in parts:
                self.classes[name] = self._enum(name, parts)
        for name in api["classes"]:
            self._class(name)
        self.module = self._module()

    def wrap(self, value: Any) -> Any:
        """A value of the double's, as people see it."""
        kind = type(value)
        if kind in (list, tuple):
            return kind(self.wrap(item) for item in value)
        if kind is dict:
            return {key: self.wrap(item) for key, item in value.items()}
        name = next((self._names[base] for base in kind.__mro__ if base in self._names), None)
        if name is None:
            foreign = self._foreign & set(kind.__mro__)
            assert not foreign, f"TensorRT {self._api['version']} has no {kind.__qualname__}"
            return value
        if isinstance(value, enum.Enum):
            return self._member(name, value.name)
        person = getattr(value, "_guarded", lambda: None)()
        if person is None:
            person = self.classes[name].__new__(self.classes[name])
            person._double = value
            value._guarded = weakref.ref(person)
        return person

    def unwrap(self, value: Any) -> Any:
        """A value of people's, as the double sees it."""
        if isinstance(value, (_Object, _Enum)):
            return value._double
        if type(value) in (list, tuple):
            return type(value)(self.unwrap(item) for item in value)
        if type(value) is dict:
            return {key: self.unwrap(item) for key, item in value.items()}
        return value

    def call(self, source: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Call the double's function of a name such as "Builder.reset"."""
        function = getattr(source, name.rpartition(".")[2], None)
        if function is None:
            raise NotImplementedError(f"the double lacks {name}")
        return self.wrap(
            function(*self.unwrap(args), **{key: self.unwrap(kwargs[key]) for key in kwargs})
        )

    def _member(self, owner: str, name: str) -> _Enum:
        numbers = self._api["classes"][owner]["enum"]
        assert name in numbers, f"TensorRT {self._api['version']} has no {owner}.{name}"
        member: _Enum = self.classes[owner]._numbers[numbers[name]]
        return member

    def _enum(self, name: str, parts: dict[str, Any]) -> Any:
        numbers: dict[int, _Enum] = {}
        content: dict[str, Any] = {
            "__slots__": (), "__qualname__": name, "__module__": "tensorrt", "_api": parts,
            "_numbers": numbers, "__members__": {},
            "_double": property(lambda member: self._double_of(name, member)),
        }  # fmt: skip
        for property_name, access in parts.get("properties", {}).items():
            content[property_name] = _Property(self, name, property_name, access)
        # Descriptors know their values before the class that they are members of is made.
        for member_name, number in parts["enum"].items():
            member = numbers.setdefault(number, object.__new__(_Enum))
            content["__members__"][member_name] = member
            content[member_name] = _Constant(self, f"{name}.{member_name}", member)
        made = _Fixed(name.rpartition(".")[2], (_Enum,), content)
        for member_name, number in reversed(parts["enum"].items()):
            object.__setattr__(numbers[number], "name", member_name)
            object.__setattr__(numbers[number], "value", number)
        for member in numbers.values():
            object.__setattr__(member, "__class__", made)
        return made

    def _double_of(self, owner: str, member: _Enum) -> Any:
        for name, number in self._api["classes"][owner]["enum"].items():
            if number == member.value and hasattr(self._doubles.get(owner), name):
                return getattr(self._doubles[owner], name)
        raise NotImplementedError(f"the double lacks {owner}.{member.name}")

    def _class(self, name: str) -> Any:
        if name in self.classes:
            return self.classes[name]
        parts = self._api["classes"][name]
        content: dict[str, Any] = {
            "__slots__": (), "__qualname__": name, "__module__": "tensorrt", "_api": parts,
        }  # fmt: skip
        for method, overloads in parts.get("methods", {}).items():
            content[method] = _Method(self, name, method, overloads)
        if "__init__" in content:
            content["__init__"] = self._constructor(name, parts["methods"]["__init__"])
        for method, overloads in parts.get("static", {}).items():
            content[method] = staticmethod(self._function(f"{name}.{method}", overloads))
        for property_name, access in parts.get("properties", {}).items():
            content[property_name] = _Property(self, name, property_name, access)
        for constant, member in parts.get("constants", {}).items():
            owner, _, member_name = member.rpartition(".")
            content[constant] = _Constant(
                self, f"{name}.{constant}", self._member(owner, member_name)
            )
        for nested, class_name in parts.get("nested", {}).items():
            content[nested] = self._class(class_name)
        if hasattr(self._doubles.get(name), "__bytes__"):  # the real one is a buffer
            content["__bytes__"] = lambda instance: bytes(instance._double)
            content["__buffer__"] = lambda instance, flags: memoryview(bytes(instance._double))
        bases = tuple(self._class(base) for base in parts.get("bases", ())) or (_Object,)
        self.classes[name] = _Class(name.rpartition(".")[2], bases, content)
        return self.classes[name]

    def _constructor(self, name: str, overloads: Any) -> Callable[..., None]:
        signatures = _Signatures(self, name, overloads)

        def __init__(instance: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            signatures.check(args, kwargs)
            self.used.add(name)
            double_class = self._doubles.get(name)
            if double_class is None:
                raise NotImplementedError(f"the double lacks {name}")
            derived = "_api" not in vars(type(instance))
            if derived:
                double_class = self._forwarding(name, double_class, type(instance))
            double = double_class.__new__(double_class)
            # The double may be all that keeps a person's logger alive, as in the real module.
            double._guarded = (lambda: instance) if derived else weakref.ref(instance)
            instance._double = double
            double.__init__(*self.unwrap(args), **{key: self.unwrap(kwargs[key]) for key in kwargs})

        return __init__

    def _forwarding(self, name: str, double_class: Any, derived: type) -> Any:
        """The double's class whose methods call those that a class of people's overrides."""
        content: dict[str, Any] = {"_forwards": True}
        methods = {method for base in derived.__mro__ if "_api" in vars(base)
                   for method in vars(base)["_api"].get("methods", {})}  # fmt: skip
        for method in {*methods, *vars(double_class)}:
            own = getattr(derived, method, None)
            if not method.startswith("_") and callable(own) and not isinstance(own, _Method):
                overloads = self._overloads(derived, method)
                content[method] = self._forward(f"{name}.{method}", overloads)
        return type(double_class.__name__, (double_class,), content)

    @staticmethod
    def _overloads(derived: type, method: str) -> Any:
        for base in derived.__mro__:
            found = vars(base).get("_api", {}).get("methods", {}).get(method)
            if found is not None:
                return found
        return None

    def _forward(self, name: str, overloads: Any) -> Callable[..., Any]:
        signatures = _Signatures(self, name, overloads)

        def forward(double: Any, /, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = self.wrap(args), self.wrap(kwargs)
            if None not in args:  # a progress monitor's first phase has no parent
                signatures.check(args, kwargs)
            self.used.add(name)
            return self.unwrap(getattr(double._guarded(), name.rpartition(".")[2])(*args, **kwargs))

        return forward

    def _function(self, name: str, overloads: Any) -> Callable[..., Any]:
        signatures = _Signatures(self, name, overloads)
        owner, _, function = name.rpartition(".")

        def call(*args: Any, **kwargs: Any) -> Any:
            signatures.check(args, kwargs)
            self.used.add(name)
            source = self._doubles.get(owner) if owner else self._implementation
            return self.call(source, name, args, kwargs)

        call.__name__ = function
        return call

    def _module(self) -> types.ModuleType:
        module = _Module("tensorrt")
        content: dict[str, Any] = {
            "__version__": self._api["version"].removeprefix("rtx-"),
            "_used": self.used,
        }
        for name, made in self.classes.items():
            if "." not in name:
                content[name] = made
        for name, value in self._api["module"].items():
            if isinstance(value, str):
                owner, _, member = value.rpartition(".")
                content[name] = self._member(owner, member)
            else:
                content[name] = self._function(name, value)
        vars(module).update(content)
        return module


class _Module(types.ModuleType):
    """Notes which of its names are used."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_"):
            self._used.add(name)
        return value


class _Signatures:
    """The overloads of one function; null, in a snapshot, stands for any arguments."""

    def __init__(self, guard: _Guard, name: str, overloads: Any) -> None:
        self._guard, self._name, self._overloads = guard, name, overloads or [None]

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError, in pybind's words, if no overload takes these arguments."""
        if any(self._fit(overload, args, kwargs) for overload in self._overloads):
            return
        supported = "".join(
            f"\n    {number}. {self._name}({', '.join(overload)})"
            for number, overload in enumerate(self._overloads, 1)
        )
        raise TypeError(
            f"{self._name}(): incompatible function arguments. The following argument types are "
            f"supported:{supported}\n\nInvoked with: {args} {kwargs}"
        )

    def _fit(self, overload: list[str] | None, args: Any, kwargs: Any) -> bool:
        if overload is None:
            return True
        kinds: dict[str, str] = {}
        defaults = set()
        for parameter in overload:
            declared, _, default = parameter.partition(" = ")
            name, _, kinds[name] = declared.partition(": ")
            if default:
                defaults.add(name)
        given = dict(zip(kinds, args, strict=False))
        by_name = {name for name in kinds if not name.removeprefix("arg").isdigit()}
        if len(args) > len(kinds) or not kwargs.keys() <= by_name - given.keys():
            return False
        given.update(kwargs)
        return kinds.keys() - defaults <= given.keys() and all(
            (value is None and name in defaults) or self._is(kinds[name], value)
            for name, value in given.items()
        )

    def _is(self, kind: str, value: Any) -> bool:
        """Whether pybind converts a value to a type; True for types that are not looked into."""
        kind = kind.partition("::")[2].replace("::", ".") or kind
        if kind.startswith("Dims"):
            return isinstance(value, self._guard.classes["Dims"]) or self._is("List[int]", value)
        if kind.startswith("List["):
            return (
                hasattr(value, "__getitem__") and hasattr(value, "__len__")
                and not isinstance(value, (str, bytes))
                and all(self._is(kind[5:-1], item) for item in value)
            )  # fmt: skip
        if kind == "Weights":
            return True  # numpy arrays are converted
        if kind in self._guard.classes:
            return isinstance(value, self._guard.classes[kind])
        if isinstance(value, _Enum):
            return kind in ("", "object", "handle")
        return kind not in _BUILT_IN or _BUILT_IN[kind](value)


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return hasattr(value, "__bytes__")
    return True


_BUILT_IN: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: hasattr(value, "__index__"),
    "float": lambda value: hasattr(value, "__float__"),
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "tuple": lambda value: isinstance(value, tuple),
    "list": lambda value: isinstance(value, list),
    "slice": lambda value: isinstance(value, slice),
    "buffer": _is_buffer,
}
