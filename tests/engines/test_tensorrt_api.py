"""The snapshots are those of the real bindings, and the guard refuses what these lack."""

from __future__ import annotations

import enum
import gc
import importlib
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
import types
import weakref
from pathlib import Path
from typing import Any

import pycuda_api
import pytest
from guard import guarded_module, members
from play import play
from snapshot import HERE, STORED, read, snapshot, write
from stubs import WHEELS, describe_installed, describe_wheel

WITH_WHEELS = [version for version in STORED if not version.startswith("rtx-")]
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"


@pytest.mark.parametrize("version", WITH_WHEELS)
def test_snapshot_is_that_of_the_real_bindings(version: str, tmp_path: Path) -> None:
    wheels = list(WHEELS.glob(f"tensorrt*bindings-{version}-{PYTHON}-*.whl"))
    if not wheels:
        if version == "8.6.1" and sys.version_info >= (3, 12):
            pytest.skip("there are no bindings of TensorRT 8.6.1 for Python 3.12 and newer")
        if (os.uname().sysname, os.uname().machine) != ("Linux", "x86_64"):
            pytest.skip("tests/bindings.lock holds the bindings for Linux on x86_64")
        pytest.fail(f"no bindings of TensorRT {version} in {WHEELS}: `make test` fetches them")
    if not all(map(shutil.which, ("gcc", "nm", "readelf"))):
        pytest.skip("stub libraries need gcc and binutils")
    (wheel,) = wheels
    assert describe_wheel(wheel, tmp_path) == read(version)


def test_snapshot_is_that_of_the_installed_rtx() -> None:
    found = importlib.util.find_spec("tensorrt_rtx_bindings")
    if found is None or found.origin is None:
        pytest.skip("tensorrt_rtx is not installed")
    described = describe_installed(Path(found.origin).parent)
    assert described == read(described["version"])


@pytest.mark.parametrize("version", [*STORED, *pycuda_api.STORED])
def test_snapshots_are_stored_as_they_are_written(version: str, tmp_path: Path) -> None:
    write(read(version), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (HERE / f"{version}.json").read_bytes()


def test_bindings_have_what_dialects_are_told_apart_by() -> None:
    """The facts on which the choice of a dialect rests, version by version."""

    def has(version: str, owner: str, name: str) -> bool:
        parts = snapshot(version)["classes"].get(owner, {})
        return any(name in part for part in parts.values())

    versions = ["8.2.1", "8.4.1", "8.5.2", "8.6.1", "10.3.0", "10.13.3.9", "11.4.0.106",
                "rtx-1.7.1.116"]  # fmt: skip

    def where(owner: str, name: str) -> list[str]:
        return [version for version in versions if has(version, owner, name)]

    assert where("IBuilderConfig", "max_workspace_size") == versions[:4]
    assert where("IBuilderConfig", "set_memory_pool_limit") == versions[1:]
    assert where("ICudaEngine", "num_bindings") == versions[:4]
    assert where("ICudaEngine", "num_io_tensors") == versions[2:]
    assert where("IExecutionContext", "execute_async_v2") == versions[:4]
    assert where("IExecutionContext", "execute_async_v3") == versions[2:]
    assert where("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH") == versions[:6]
    assert where("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") == versions[4:]
    assert where("BuilderFlag", "FP16") == versions[:6]
    assert where("IInt8EntropyCalibrator2", "get_batch") == versions[:6]
    assert where("IProgressMonitor", "step_complete") == versions[4:]
    assert where("IBuilderConfig", "set_compute_capability") == versions[7:]
    assert members("8.6.1", "BuilderFlag")["REFIT"] == 5
    assert members("10.13.3.9", "BuilderFlag")["REFIT"] == 4


class ILogger:
    class Severity(enum.Enum):
        ERROR = enum.auto()
        INFO = enum.auto()

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


class Logger(ILogger):
    def __init__(self, min_severity: ILogger.Severity = ILogger.Severity.INFO) -> None:
        self.min_severity = min_severity

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        pass


class Flag(enum.Enum):
    FP16 = enum.auto()
    TF32 = enum.auto()
    STRIP_PLAN = enum.auto()


class Network:
    num_inputs = 1

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._tensors = [Tensor()]

    def get_input(self, index: int) -> Tensor:
        return self._tensors[index]


class Tensor:
    name = "input"
    location = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (-1, 4)


class Config:
    def __init__(self) -> None:
        self._flags: set[Flag] = set()
        self._limit = 0
        self.int8_calibrator: Any = None
        self.max_workspace_size = 0

    def set_flag(self, flag: Flag) -> None:
        self._flags.add(flag)

    def get_flag(self, flag: Flag) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limit = pool_size


class Calibrator:
    """IInt8EntropyCalibrator2."""

    def get_batch_size(self) -> int:
        raise NotImplementedError

    def get_batch(self, names: list[str]) -> list[int] | None:
        raise NotImplementedError

    def read_calibration_cache(self) -> bytes | None:
        return b"nothing"


class Memory:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.nbytes = len(data)

    def __bytes__(self) -> bytes:
        return self._data


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger
        logger.log(ILogger.Severity.INFO, "hello")

    def create_network(self, flags: int = 0) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config()

    def build_serialized_network(self, network: Network, config: Config) -> Memory | None:
        if type(network) is not Network or type(config) is not Config:
            raise AssertionError("the double was given a guarded object")
        calibrator = config.int8_calibrator
        batches = []
        while calibrator and (batch := calibrator.get_batch(["input"])):
            batches.append(batch)
        return Memory(repr(batches).encode()) if network._flags == 1 else None

    def reset(self) -> None:
        raise RuntimeError("from within")


def tiny() -> types.SimpleNamespace:
    """The least that a double can be."""
    return types.SimpleNamespace(
        ILogger=ILogger, Logger=Logger, Builder=Builder, BuilderFlag=Flag, IBuilderConfig=Config,
        INetworkDefinition=Network, ITensor=Tensor, IHostMemory=Memory,
        IInt8EntropyCalibrator2=Calibrator,
        MemoryPoolType=enum.Enum("MemoryPoolType", ["WORKSPACE"]),
        volume=lambda iterable: sum(iterable),
    )  # fmt: skip


def made(version: str) -> tuple[Any, Any, Any]:
    """The guarded module, a builder and a configuration of its."""
    trt: Any = guarded_module(version, tiny())
    builder = trt.Builder(trt.Logger())
    return trt, builder, builder.create_builder_config()


def test_what_a_version_lacks_is_not_there() -> None:
    trt, builder, config = made("10.13.3.9")
    assert not hasattr(config, "max_workspace_size")
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1
    with pytest.raises(AttributeError, match="UffParser"):
        trt.UffParser()
    old, _, config = made("8.2.1")
    assert not hasattr(config, "set_memory_pool_limit")
    assert not hasattr(old, "MemoryPoolType")
    config.max_workspace_size = 1 << 28
    assert config.max_workspace_size == 1 << 28
    new = made("11.4.0.106")[0]
    assert not hasattr(new.BuilderFlag, "FP16")
    assert not hasattr(new, "IInt8EntropyCalibrator2")
    with pytest.raises(AttributeError, match="FP16"):
        new.BuilderFlag.FP16  # noqa: B018


def test_what_the_double_lacks_is_there_but_says_so() -> None:
    trt, builder, config = made("10.13.3.9")
    assert hasattr(trt, "Runtime")
    assert hasattr(config, "set_device_type")
    assert hasattr(trt.ICudaEngine, "num_io_tensors")
    with pytest.raises(NotImplementedError, match="the double lacks Runtime"):
        trt.Runtime(builder.logger)
    with pytest.raises(NotImplementedError, match="the double lacks IBuilderConfig.reset"):
        config.reset()
    with pytest.raises(NotImplementedError, match="the double lacks Builder.max_threads"):
        builder.max_threads  # noqa: B018
    with pytest.raises(NotImplementedError, match="the double can't set Builder.max_threads"):
        builder.max_threads = 1
    with pytest.raises(NotImplementedError, match="the double lacks BuilderFlag.REFIT"):
        config.set_flag(trt.BuilderFlag.REFIT)
    with pytest.raises(NotImplementedError, match="the double lacks nptype"):
        trt.nptype(trt.float32)


def test_attributes_are_those_of_the_real_classes() -> None:
    trt, builder, config = made("8.6.1")
    network = builder.create_network(1)
    with pytest.raises(AttributeError, match="num_inputs"):
        network.num_inputs = 2
    for name in ("workspace", "_flags", "set_flag"):
        with pytest.raises(AttributeError):
            setattr(config, name, 1)
    with pytest.raises(AttributeError):
        trt.Builder.more = 1
    with pytest.raises(AttributeError, match="unreadable"):
        builder.gpu_allocator  # noqa: B018


@pytest.mark.parametrize(
    "call",
    [
        "builder.create_network(1, 2)",
        "builder.create_network(flag=1)",
        "builder.create_network('1')",
        "builder.create_network(trt.BuilderFlag.FP16)",
        "builder.create_network(1, flags=1)",
        "builder.build_serialized_network(builder.create_network(1))",
        "builder.build_serialized_network(builder.create_network(1), None)",
        "builder.build_serialized_network(config, builder.create_network(1))",
        "builder.create_builder_config(1)",
        "config.set_flag(0)",
        "config.set_flag(trt.MemoryPoolType.WORKSPACE)",
        "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1.5)",
        "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size=1)",
        "trt.Builder.create_network(config)",
        "trt.Builder()",
        "trt.Builder(None)",
        "trt.IBuilderConfig()",
        "trt.BuilderFlag('FP16')",
        "1 << trt.BuilderFlag.FP16",
        "trt.volume()",
    ],
)
def test_calls_are_bound_as_the_real_ones(call: str) -> None:
    trt, builder, config = made("10.13.3.9")
    said = r"incompatible|No constructor|unsupported operand|create_network\(\): self is"
    with pytest.raises(TypeError, match=said):
        eval(call, {"trt": trt, "builder": builder, "config": config})


def test_calls_reach_the_double() -> None:
    trt, builder, config = made("10.13.3.9")
    network = builder.create_network(flags=1 << 0)
    assert type(network) is trt.INetworkDefinition
    tensor = network.get_input(0)
    assert type(tensor) is trt.ITensor
    assert network.get_input(0) is tensor
    assert (tensor.name, tensor.shape) == ("input", (-1, 4))
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, pool_size=1)
    config.set_flag(trt.BuilderFlag.FP16)
    assert config.get_flag(trt.BuilderFlag.FP16)
    assert not config.get_flag(trt.BuilderFlag.TF32)
    memory = builder.build_serialized_network(network, config)
    assert bytes(memory) == b"[]"
    assert memory.nbytes == 2
    assert builder.build_serialized_network(builder.create_network(), config) is None
    assert trt.volume([1, 2]) == 3
    with pytest.raises(RuntimeError, match="from within"):
        builder.reset()
    with builder as same:
        assert same is builder


def test_enums_are_the_real_ones() -> None:
    trt = made("10.13.3.9")[0]
    flag = trt.BuilderFlag.REFIT
    assert (int(flag), flag.value, flag.name, 1 << int(flag)) == (4, 4, "REFIT", 16)
    assert trt.BuilderFlag(4) == flag == trt.BuilderFlag.__members__["REFIT"] != 4
    assert {flag: 1}[trt.BuilderFlag.REFIT] == 1
    assert repr(flag) == "<BuilderFlag.REFIT: 4>"
    assert str(flag) == "BuilderFlag.REFIT"
    assert isinstance(flag, trt.BuilderFlag)
    assert trt.float32 is trt.DataType.FLOAT
    assert trt.ILogger.INFO is trt.Logger.Severity.INFO is trt.ILogger.Severity.INFO
    # Two names of one number, of which the double has the second.
    assert trt.BuilderFlag.WEIGHTLESS is trt.BuilderFlag.STRIP_PLAN
    config = made("10.13.3.9")[2]
    with pytest.raises(TypeError):  # an enum of another module
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    assert int(made("11.4.0.106")[0].BuilderFlag.STRIP_PLAN) == 18


def test_people_derive_from_the_classes() -> None:
    trt: Any = guarded_module("8.2.1", tiny())
    heard = []

    class Ear(trt.ILogger):
        def __init__(self) -> None:
            self.name = "own attributes are allowed"
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            heard.append((severity, msg, self.name))

    ear = Ear()
    ear.more = 1
    builder = trt.Builder(ear)
    assert heard == [(trt.ILogger.Severity.INFO, "hello", ear.name)]
    assert builder.logger is ear
    assert "ILogger.log" in trt._used

    class Batches(trt.IInt8EntropyCalibrator2):
        def __init__(self) -> None:
            super().__init__()
            self.left = 2

        def get_batch(self, names: list[str]) -> list[int] | None:
            self.left -= 1
            return [self.left, *map(len, names)] if self.left >= 0 else None

        def read_calibration_cache(self) -> bytes:
            return b"more than " + super().read_calibration_cache()

    config = builder.create_builder_config()
    config.int8_calibrator = calibrator = Batches()
    assert config.int8_calibrator is calibrator
    plan = builder.build_serialized_network(builder.create_network(1), config)
    assert bytes(plan) == b"[[1, 5], [0, 5]]"
    assert calibrator.read_calibration_cache() == b"more than nothing"


def test_a_subclass_has_to_call_the_constructor() -> None:
    trt: Any = guarded_module("10.13.3.9", tiny())

    class Silent(trt.ILogger):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"ILogger\.__init__\(\) must be called"):
        Silent()


def test_the_double_keeps_what_it_is_given_and_nothing_else() -> None:
    trt: Any = guarded_module("8.6.1", tiny())

    class Ear(trt.ILogger):
        def log(self, severity: Any, msg: str) -> None:
            pass

    builder = trt.Builder(Ear())
    gc.collect()
    assert type(builder.logger) is Ear
    network = weakref.ref(builder.create_network(1))
    assert network() is None


def test_use_is_recorded() -> None:
    trt, builder, config = made("10.13.3.9")
    trt._used.clear()
    config.set_flag(trt.BuilderFlag.TF32)
    builder.create_network(0).num_inputs  # noqa: B018
    assert trt._used == {"IBuilderConfig.set_flag", "BuilderFlag", "BuilderFlag.TF32",
                         "Builder.create_network", "INetworkDefinition.num_inputs"}  # fmt: skip


def test_the_double_gives_nothing_that_the_version_lacks() -> None:
    double = tiny()

    class IProgressMonitor:
        pass

    class Odd(Builder):
        def create_network(self, flags: int = 0) -> Any:
            return IProgressMonitor()

    double.Builder, double.IProgressMonitor = Odd, IProgressMonitor
    trt: Any = guarded_module("8.6.1", double)
    with pytest.raises(AssertionError, match="8.6.1 has no .*IProgressMonitor"):
        trt.Builder(trt.Logger()).create_network()


def test_a_child_process_can_have_it(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text(
        "import sys, types\nfrom guard import guarded_module\n"
        "sys.modules[__name__] = guarded_module('8.2.1', types.SimpleNamespace())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import tensorrt; print(tensorrt.__version__)"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("8.2.1\n", "")


@pytest.mark.parametrize("version", pycuda_api.STORED)
def test_the_double_of_pycuda_has_nothing_of_its_own(version: str) -> None:
    with play("8.2.1"):
        driver = importlib.import_module("pycuda.driver")
        real = offered(read(version))
        for name, own in offered_by_double(driver).items():
            assert name in real, name
            assert own == real[name] or own in real[name], f"{name}: {own}, not {real[name]}"


def offered(api: dict[str, Any]) -> dict[str, Any]:
    """What a snapshot has: "Class.member" -> number, or the overloads' parameters.

    A parameter that can be given by position only is called arg.
    """
    found: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, list):
            value = [
                [re.sub(r"^arg\d+$", "arg", re.split("[: ]", declared)[0]) for declared in overload]
                for overload in value
            ]
        found[name] = value

    for name, overloads in api["module"].items():
        add(name, overloads)
    for name, parts in api["classes"].items():
        found[name] = name
        for owner in (name, *parts.get("bases", ())):
            for part, content in api["classes"][owner].items():
                for member in content if part != "bases" else ():
                    add(f"{name}.{member}", content[member])
    return found


def offered_by_double(module: types.ModuleType) -> dict[str, Any]:
    """What a double written in Python has, in the same form, with one overload each."""
    found: dict[str, Any] = {}

    def add(name: str, value: Any, skip: int) -> None:
        if isinstance(value, int):
            found[name] = value
        elif isinstance(value, property):
            found[name] = "r" * bool(value.fget) + "w" * bool(value.fset)
        else:
            parameters = list(inspect.signature(value).parameters.values())[skip:]
            found[name] = ["arg" if p.kind is p.POSITIONAL_ONLY else p.name for p in parameters]

    for name in module.__all__:
        value = getattr(module, name)
        if not isinstance(value, type):
            add(name, value, 0)
            continue
        found[name] = name
        for member, content in vars(value).items():
            if isinstance(content, staticmethod):
                add(f"{name}.{member}", content.__func__, 0)
            elif not member.startswith("_"):
                add(f"{name}.{member}", content, 1)
    return found
