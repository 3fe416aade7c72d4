"""CUDA's driver by ctypes: against a library of cuda.h's prototypes, and on the double's GPU."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from play import play

from engines.engine import EngineError
from engines.tensorrt import driver, memory

TESTS = Path(__file__).parents[1]

# As cuda.h has them, in CUDA 10.2 as in 13.0; there a macro adds the _v2.
PROTOTYPES = """
cuInit(unsigned int Flags)
cuDeviceGet(CUdevice *device, int ordinal)
cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
cuCtxPushCurrent_v2(CUcontext ctx)
cuCtxPopCurrent_v2(CUcontext *pctx)
cuCtxGetCurrent(CUcontext *pctx)
cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
cuMemFree_v2(CUdeviceptr dptr)
cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned int Flags)
cuMemFreeHost(void *p)
cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream)
cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
cuStreamCreate(CUstream *phStream, unsigned int Flags)
cuStreamSynchronize(CUstream hStream)
cuStreamDestroy_v2(CUstream hStream)
cuEventCreate(CUevent *phEvent, unsigned int Flags)
cuEventRecord(CUevent hEvent, CUstream hStream)
cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
cuEventDestroy_v2(CUevent hEvent)
cuGetErrorString(CUresult error, const char **pStr)
"""
PARAMETERS = {
    name: [re.sub(r" *\w+$", "", one) for one in parameters.split(", ")]
    for name, parameters in re.findall(r"(\w+)\((.*)\)", PROTOTYPES)
}

# A driver that notes each call, as `name@current context: arguments`, and answers made-up things.
# `quiet`: it only notes, and does not touch what pointers point to.
LIBRARY = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
typedef int CUresult;
typedef int CUdevice;
typedef int CUdevice_attribute;
typedef unsigned long long CUdeviceptr;
typedef void *CUcontext;
typedef void *CUstream;
typedef void *CUevent;
typedef unsigned long long word;

int quiet, result;
const char *failing = "", *words = "it is broken";
static _Thread_local CUcontext stack[16];
static _Thread_local int depth;
static word made = 0x700000000;

static int same(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}
static void note(const char *name, const word *given, int count) {
    char line[300];
    int length = sprintf(line, "%s@%llx:", name, depth ? (word)stack[depth - 1] : 0);
    for (int i = 0; i < count; i++) length += sprintf(line + length, " %llx", given[i]);
    line[length++] = '\n';
    int file = open(getenv("NOTES"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0 || write(file, line, length) != length) abort();
    close(file);
}
static word handle(void) { return made += 0x10; }
#define CALL(name, parameters, answer, ...) \
    CUresult name parameters { \
        word given[] = {__VA_ARGS__}; \
        note(#name, given, sizeof given / sizeof *given); \
        if (same(#name, failing)) return result; \
        if (!quiet) { answer; } \
        return 0; \
    }
"""
ANSWERS = {
    "cuDeviceGet": "*device = ordinal",
    "cuDeviceGetAttribute": "*pi = 1",
    "cuDevicePrimaryCtxRetain": "*pctx = (CUcontext)handle()",
    "cuCtxPushCurrent_v2": "stack[depth++] = ctx",
    "cuCtxPopCurrent_v2": "*pctx = stack[--depth]",
    "cuCtxGetCurrent": "*pctx = depth ? stack[depth - 1] : NULL",
    "cuMemAlloc_v2": "*dptr = handle()",
    "cuMemHostAlloc": "*pp = calloc(1, bytesize)",
    "cuMemHostGetDevicePointer_v2": "*pdptr = (CUdeviceptr)p + 0x900000000",
    "cuMemFreeHost": "free(p)",
    "cuStreamCreate": "*phStream = (CUstream)handle()",
    "cuEventCreate": "*phEvent = (CUevent)handle()",
    "cuEventElapsedTime": "*pMilliseconds = 0.1f",
    "cuGetErrorString": "*pStr = words; return words ? 0 : 1",
}
GIVES_BACK = ("cuMemFree_v2", "cuMemFreeHost", "cuStreamDestroy_v2", "cuEventDestroy_v2")


def library_of(prototypes: str) -> str:
    """The C code of a library with some of the functions."""
    calls = []
    for name, parameters in re.findall(r"(\w+)\((.*)\)", prototypes):
        given = [f"(word){re.findall(r'[a-zA-Z]+', one)[-1]}" for one in parameters.split(", ")]
        calls.append(f"CALL({name}, ({parameters}), {ANSWERS.get(name, '')}, {', '.join(given)})")
    return LIBRARY + "\n".join(calls)


def compile_library(code: str, path: Path) -> Path:
    command = ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=code, text=True, check=True)
    return path


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(library_of(PROTOTYPES), tmp_path_factory.mktemp("cuda") / "libcuda.so.1")


class Recorder:
    """The library as it was loaded, and what it was asked."""

    def __init__(self, library: ctypes.CDLL, notes: Path) -> None:
        self._library, self._notes = library, notes
        self._kept: list[bytes] = []

    def quiet(self) -> None:
        ctypes.c_int.in_dll(self._library, "quiet").value = 1

    def fail(self, function: str, result: int, words: str | None) -> None:
        """Let a function fail from now on."""
        self._kept = [function.encode(), (words or "").encode()]
        ctypes.c_int.in_dll(self._library, "result").value = result
        ctypes.c_char_p.in_dll(self._library, "failing").value = self._kept[0]
        ctypes.c_char_p.in_dll(self._library, "words").value = self._kept[1] if words else None

    def asked(self, *names: str) -> list[tuple[str, int, list[int]]]:
        """Calls since the last time: the function, the current context, the arguments."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        self._notes.write_text("")
        calls = []
        for line in lines:
            head, _, arguments = line.partition(":")
            name, _, context = head.partition("@")
            if not names or name in names:
                calls.append((name, int(context, 16), [int(one, 16) for one in arguments.split()]))
        return calls


@pytest.fixture
def recorder(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """The driver on a library that was just loaded; `init` was called."""
    copy = Path(shutil.copy(compiled, tmp_path / "libcuda.so.1"))  # its variables are its own
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr(driver, "LIBRARY", str(copy))
    monkeypatch.setattr(driver, "_drivers", [])
    driver.init()
    yield Recorder(ctypes.CDLL(str(copy)), tmp_path / "notes")


@pytest.fixture
def context(recorder: Recorder) -> Iterator[int]:
    """A context that is current; its address."""
    context = driver.Device(0).retain_primary_context()
    context.push()
    yield recorder.asked("cuCtxPushCurrent_v2")[0][2][0]
    context.pop()


def in_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# What arrives, and what comes back


@pytest.mark.parametrize("name", PARAMETERS)
def test_arguments_arrive_whole(recorder: Recorder, name: str) -> None:
    """Nothing is cut at 32 bits that cuda.h does not cut."""
    recorder.quiet()
    recorder.asked()
    short = dict.fromkeys(("int", "CUdevice", "CUdevice_attribute", "CUresult"), -5)
    short["unsigned int"] = 0xFEDCBA98
    given = [short.get(kind, 0xFEDCBA9876543210 - i) for i, kind in enumerate(PARAMETERS[name])]
    getattr(driver._cuda(), name)(*given)
    assert recorder.asked() == [(name, 0, [value % (1 << 64) for value in given])]


def test_no_other_function_is_called(recorder: Recorder) -> None:
    assert set(driver._FUNCTIONS) == set(PARAMETERS)
    assert recorder.asked() == [("cuInit", 0, [0])]
    driver.init()
    assert recorder.asked() == []


def test_what_the_driver_tells_is_whole(recorder: Recorder, context: int) -> None:
    there, stream = driver.mem_alloc(5 << 32), driver.Stream()
    assert min(context, int(there), stream.handle) > 1 << 32
    assert recorder.asked("cuMemAlloc_v2")[0][2][1] == 5 << 32
    assert driver.Device(0).get_attribute(driver.device_attribute.INTEGRATED) == 1
    assert recorder.asked("cuDeviceGetAttribute")[0][2][1:] == [18, 0]
    start, end = driver.Event().record(stream), driver.Event()
    assert start.time_till(end) == np.float32(0.1)
    [[event, recorded]] = [given for *_, given in recorder.asked("cuEventRecord")]
    assert event > 1 << 32 and recorded == stream.handle


def test_pinned_array(recorder: Recorder, context: int) -> None:
    array: Any = driver.pagelocked_empty(
        (3, 4, 5), np.float32, "C", driver.host_alloc_flags.DEVICEMAP
    )
    assert (array.shape, array.dtype, array.strides) == ((3, 4, 5), np.float32, (80, 20, 4))
    array[:] = 7
    [(_, _, [_, size, flags])] = recorder.asked("cuMemHostAlloc")
    assert (size, flags) == (240, 2)
    assert array.base.get_device_pointer() == array.ctypes.data + 0x900000000
    assert recorder.asked("cuMemHostGetDevicePointer_v2")[0][2][1:] == [array.ctypes.data, 0]


def test_buffer_copies_what_it_is_told_to(recorder: Recorder, context: int) -> None:
    buffer, stream = memory.Buffer(driver, (4, 5), unified=False), driver.Stream()
    host, there = buffer.host.ctypes.data, buffer.pointer
    recorder.asked()
    for rows in (4, 2):
        buffer.copy_only(rows)
        buffer.upload(stream)
        buffer.download(stream)
        assert recorder.asked() == [
            ("cuMemcpyHtoDAsync_v2", context, [there, host, rows * 20, stream.handle]),
            ("cuMemcpyDtoHAsync_v2", context, [host, there, rows * 20, stream.handle]),
        ]
    buffer.free()
    assert recorder.asked(*GIVES_BACK) == [
        ("cuMemFree_v2", context, [there]), ("cuMemFreeHost", context, [host]),
    ]  # fmt: skip


# What is given back

MADE: dict[str, Callable[[], Any]] = {
    "cuMemFree_v2": lambda: driver.mem_alloc(8),
    "cuMemFreeHost": lambda: driver.pagelocked_empty((8,), np.uint8).base,
    "cuStreamDestroy_v2": driver.Stream,
    "cuEventDestroy_v2": driver.Event,
}


@pytest.mark.parametrize("name", MADE)
def test_everything_is_given_back_once_and_in_its_context(
    recorder: Recorder, context: int, name: str
) -> None:
    made = MADE[name]()
    handle = recorder.asked()[0][2][0]
    made.free()
    made.free()
    del made
    [(_, where, [what])] = recorder.asked(name)
    assert where == context
    assert what != handle  # which is where the driver wrote the handle to


@pytest.mark.parametrize("name", MADE)
def test_given_back_in_another_thread(recorder: Recorder, context: int, name: str) -> None:
    """Where no context is current, and none is afterwards."""
    kept = [MADE[name]()]
    recorder.asked()

    def work() -> None:
        kept.clear()
        current = ctypes.c_void_p()
        driver._cuda().cuCtxGetCurrent(ctypes.byref(current))
        assert current.value is None
        kept.append("done")

    in_thread(work)
    assert kept == ["done"]
    calls = [(called, where) for called, where, _ in recorder.asked()]
    assert calls == [
        ("cuCtxPushCurrent_v2", 0), (name, context), ("cuCtxPopCurrent_v2", context),
        ("cuCtxGetCurrent", 0),
    ]  # fmt: skip


def test_given_back_while_another_context_is_current(recorder: Recorder, context: int) -> None:
    there = driver.mem_alloc(8)
    other = driver.Device(0).retain_primary_context()  # of this library's, each is another
    other.push()
    there.free()
    elsewhere = driver.mem_alloc(8)
    other.pop()
    del elsewhere
    wheres = [where for _, where, _ in recorder.asked("cuMemFree_v2")]
    assert wheres[0] == context and wheres[1] not in (0, context)
    assert driver.Stream() and recorder.asked("cuStreamCreate")[0][1] == context


def test_pinned_memory_lives_as_long_as_any_view_of_it(recorder: Recorder, context: int) -> None:
    array = driver.pagelocked_empty((4, 4), np.float32)
    room = memory.as_bytes(array[1:3])
    del array
    assert recorder.asked(*GIVES_BACK) == []
    del room
    assert len(recorder.asked("cuMemFreeHost")) == 1


def test_what_was_not_made_is_not_given_back(recorder: Recorder, context: int) -> None:
    for made, function in (
        (lambda: driver.mem_alloc(8), "cuMemAlloc_v2"),
        (lambda: driver.pagelocked_empty((8,), np.uint8), "cuMemHostAlloc"),
        (driver.Stream, "cuStreamCreate"),
        (driver.Event, "cuEventCreate"),
    ):
        recorder.fail(function, 1, "bad")
        with pytest.raises(driver.Error, match=f"^{function.partition('_')[0]} failed: bad$"):
            made()
    assert recorder.asked(*GIVES_BACK) == []


def test_contexts_are_a_stack(recorder: Recorder, context: int) -> None:
    second = driver.Device(0).retain_primary_context()
    second.push()
    there = driver.mem_alloc(8)
    second.pop()
    first = driver.mem_alloc(8)
    where = [where for _, where, _ in recorder.asked("cuMemAlloc_v2")]
    assert where[0] != context and where[1] == context
    del there, first


def test_nothing_is_called_when_the_program_ends(compiled: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['pycuda'] = None\n"
        "from engines.tensorrt import driver, memory\n"
        "driver.LIBRARY = sys.argv[1]\n"
        "device = memory.Device()\n"
        "with device:\n"
        "    kept = [device.stream(), device.event(), device.buffer((2, 3))]\n"
        "    gone = device.stream()\n"
        "    del gone\n"
        "kept.append(kept)\n"
        "device.__enter__()\n"
    )
    notes = tmp_path / "notes"
    done = subprocess.run(
        [sys.executable, "-c", script, compiled], env={**os.environ, "NOTES": str(notes)},
        cwd=TESTS.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.partition("@")[0] for line in notes.read_text().splitlines()]
    assert names.count("cuStreamCreate") == 2
    assert [name for name in names if name in GIVES_BACK] == ["cuStreamDestroy_v2"]
    assert names[-1] == "cuCtxPushCurrent_v2"


# Errors


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "cuGetErrorString"])
def test_errors_have_the_call_and_the_drivers_words(recorder: Recorder, name: str) -> None:
    recorder.quiet()
    call, given = getattr(driver._cuda(), name), [0] * len(PARAMETERS[name])
    words = name.partition("_")[0] + " failed: "
    for result, said, kind in (
        (1, None, driver.Error), (700, None, driver.Error), (2, None, driver.MemoryError),
    ):  # fmt: skip
        recorder.fail(name, result, said)
        with pytest.raises(driver.Error, match=f"^{words}error {result}$") as caught:
            call(*given)
        assert type(caught.value) is kind
    recorder.fail("", 0, None)
    call(*given)


def test_words_of_the_driver_are_passed_on(recorder: Recorder, context: int) -> None:
    recorder.fail("cuMemAlloc_v2", 2, "out of memory")
    with pytest.raises(driver.MemoryError, match="^cuMemAlloc failed: out of memory$"):
        driver.mem_alloc(8)
    recorder.fail("cuStreamSynchronize", 719, "unspecified launch failure")
    stream = driver.Stream()
    with pytest.raises(driver.Error, match="^cuStreamSynchronize failed: unspecified launch"):
        stream.synchronize()


@pytest.fixture
def no_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)


@pytest.mark.usefixtures("no_pycuda")
def test_errors_of_the_driver_are_those_of_an_engine(recorder: Recorder) -> None:
    device = memory.Device()
    assert device.unified
    recorder.fail("cuMemHostAlloc", 2, "out of memory")
    with pytest.raises(EngineError, match=r"memory is full \(cuMemHostAlloc failed"), device:
        device.buffer((2, 3))
    recorder.fail("cuStreamCreate", 999, "unknown error")
    with pytest.raises(EngineError, match="CUDA failed: cuStreamCreate failed: unknown"), device:
        device.stream()
    assert recorder.asked()[-1][0] == "cuCtxPopCurrent_v2"


@pytest.mark.usefixtures("no_pycuda")
def test_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_drivers", [])
    monkeypatch.setattr(driver, "LIBRARY", str(tmp_path / "libcuda.so.1"))
    for _ in range(2):
        with pytest.raises(driver.Error, match="driver can't be used: .*libcuda.so.1: cannot open"):
            driver.init()
    with pytest.raises(EngineError, match="CUDA failed: NVIDIA's driver can't be used"):
        memory.Device()


def test_driver_that_lacks_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = library_of(PROTOTYPES.replace("cuMemHostGetDevicePointer_v2", "cuSomethingElse"))
    path = compile_library(code, tmp_path / "libcuda.so.1")
    monkeypatch.setattr(driver, "_drivers", [])
    monkeypatch.setattr(driver, "LIBRARY", str(path))
    with pytest.raises(driver.Error, match="can't be used: .*cuMemHostGetDevicePointer_v2"):
        driver.init()


def test_driver_that_has_no_gpu_is_asked_again(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_drivers", [])
    recorder.fail("cuInit", 100, "no CUDA-capable device is detected")
    for _ in range(2):
        with pytest.raises(driver.Error, match="^cuInit failed: no CUDA-capable device"):
            driver.init()
    recorder.fail("", 0, None)
    driver.init()
    assert driver.Device(0)


# On the double's GPU: right numbers, wrong use fails


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The double of the driver, as one that this process has not used yet."""
    code = (TESTS / "doubles" / "libcuda.c").read_text()
    monkeypatch.setattr(driver, "_drivers", [])
    monkeypatch.setattr(driver, "LIBRARY", str(tmp_path / "libcuda.so.1"))
    return compile_library(code, tmp_path / "libcuda.so.1")


@pytest.fixture(params=["6.2", "8.9"])
def gpu(double: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The double's GPU with its context current; once a Jetson's, once one with its own memory."""
    with play("8.6.1", EDGETRT_DOUBLE_CC=request.param):
        sys.modules["cuda_double._driver"].register(str(double))
        driver.init()
        context = driver.Device(0).retain_primary_context()
        context.push()
        yield sys.modules["cuda_double._gpu"].gpu
        context.pop()


def integrated() -> bool:
    return bool(driver.Device(0).get_attribute(driver.device_attribute.INTEGRATED))


def test_copies_there_and_back(gpu: Any) -> None:
    for unified in {integrated(), False}:
        source, result = (memory.Buffer(driver, (4, 5), unified) for _ in range(2))
        stream = driver.Stream()
        source.host[:] = np.arange(20).reshape(4, 5)
        result.host[:] = 0
        result.pointer, pointer = source.pointer, result.pointer  # it reads what the other wrote
        source.upload(stream)
        result.copy_only(3)
        result.download(stream)
        assert not result.host.any()  # nobody has waited
        stream.synchronize()
        copied = 0 if unified else 3
        assert (result.host[:copied] == source.host[:copied]).all()
        assert not result.host[copied:].any()
        assert pointer != source.pointer
        source.free()
        result.free()
    assert gpu.used == 0 and not gpu.pins


def test_memory_is_one_where_it_is_unified(gpu: Any) -> None:
    if integrated():
        buffer = memory.Buffer(driver, (2, 2), unified=True)
        buffer.host[:] = 3
        context = gpu.current("a test")
        there = gpu.bytes_at(buffer.pointer, 16, context)
        assert (there.view(np.float32) == 3).all()
        assert gpu.used == 16


def test_times_on_the_gpu(gpu: Any) -> None:
    stream, start, end = driver.Stream(), driver.Event(), driver.Event()
    with pytest.raises(driver.Error, match="invalid resource handle"):
        start.time_till(end)
    start.record(stream)
    end.record(stream)
    with pytest.raises(driver.Error, match="device not ready"):
        start.time_till(end)
    stream.synchronize()
    assert 0 <= start.time_till(end) < 1000


def test_memory_ends(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETRT_DOUBLE_MEMORY", "1000")
    kept = driver.mem_alloc(600)
    with pytest.raises(driver.MemoryError, match="^cuMemAlloc failed: out of memory$"):
        driver.mem_alloc(401)
    if integrated():
        with pytest.raises(driver.MemoryError, match="^cuMemHostAlloc failed: out of memory$"):
            driver.pagelocked_empty((401,), np.uint8)
    del kept
    assert driver.mem_alloc(1000)


NEEDS_CONTEXT: dict[str, Callable[[], Any]] = {
    **MADE,
    "pop": driver.Context.pop,
}


@pytest.mark.parametrize("name", NEEDS_CONTEXT)
def test_without_a_current_context_nothing_works(gpu: Any, name: str) -> None:
    caught: list[driver.Error] = []

    def work() -> None:
        with pytest.raises(driver.Error, match="invalid device context") as error:
            NEEDS_CONTEXT[name]()
        caught.append(error.value)

    in_thread(work)
    assert caught


def test_before_init_nothing_works(double: Path) -> None:
    with play("8.6.1", EDGETRT_DOUBLE_CC="8.9"):
        driver._drivers.append(driver._Driver())
        for registered in (False, True):
            if registered:
                sys.modules["cuda_double._driver"].register(str(double))
            with pytest.raises(
                driver.Error, match="initialization error" if registered else "error 3"
            ):
                driver.Device(0).retain_primary_context()


def _copy(there: int, size: int, room: Any = None, stream: driver.Stream | None = None) -> None:
    host = memory.as_bytes(driver.pagelocked_empty((size,), np.uint8)) if room is None else room
    stream = stream or driver.Stream()
    driver.memcpy_htod_async(there, host, stream)
    stream.synchronize()


WRONG: dict[str, tuple[Callable[[int], Any], str]] = {
    "past the end": (lambda there: _copy(there, 17), "illegal memory access"),
    "made-up address": (lambda there: _copy(12345, 8), "illegal memory access"),
    "not pinned": (
        lambda there: _copy(there, 8, memory.as_bytes(np.zeros(8, np.uint8))), "not pinned"),
    "no stream": (lambda there: driver._cuda().cuStreamSynchronize(77), "resource handle"),
    "no event": (lambda there: driver._cuda().cuEventDestroy_v2(77), "resource handle"),
    "no context": (lambda there: driver._cuda().cuCtxPushCurrent_v2(77), "device context"),
    "no bytes": (lambda there: driver.mem_alloc(0), "0 bytes"),
    "no pinned bytes": (lambda there: driver.pagelocked_empty((0,), np.uint8), "0 bytes"),
    "not mapped": (
        lambda there: MADE["cuMemFreeHost"]().get_device_pointer(),
        "DEVICEMAP"),
    "not allocated": (lambda there: driver._cuda().cuMemFree_v2(there + 8), "allocated"),
    "not pinned there": (lambda there: driver._cuda().cuMemFreeHost(there), "pinned"),
    "default stream": (lambda there: driver._cuda().cuStreamDestroy_v2(0), "resource handle"),
    "second GPU": (lambda there: driver.Device(1), "cuDeviceGet failed: invalid device ordinal"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_fails(gpu: Any, name: str) -> None:
    work, words = WRONG[name]
    there = driver.mem_alloc(16)
    with pytest.raises(driver.Error, match=words):
        work(int(there))
    _copy(int(there), 16)


def test_freed_memory_is_gone(gpu: Any) -> None:
    there = driver.mem_alloc(8)
    address = int(there)
    there.free()
    with pytest.raises(driver.Error, match="illegal memory access"):
        _copy(address, 8)
    with pytest.raises(driver.Error, match="cuMemFree failed: invalid argument"):
        driver._cuda().cuMemFree_v2(address)


def test_mapped_memory_is_freed_as_the_processors(gpu: Any) -> None:
    flags = driver.host_alloc_flags.DEVICEMAP
    array: Any = driver.pagelocked_empty((8,), np.uint8, "C", flags)
    with pytest.raises(driver.Error, match="cuMemFreeHost"):
        driver._cuda().cuMemFree_v2(array.base.get_device_pointer())
    del array
    assert gpu.used == 0


def test_memory_freed_before_its_copy_is_an_error_when_waited_for(gpu: Any) -> None:
    stream, there = driver.Stream(), driver.mem_alloc(8)
    room = memory.as_bytes(driver.pagelocked_empty((8,), np.uint8))
    driver.memcpy_htod_async(int(there), room, stream)
    del room
    with pytest.raises(driver.Error, match="freed before the copy"):
        stream.synchronize()


def test_things_belong_to_their_context(gpu: Any) -> None:
    kept, stream, event = [driver.mem_alloc(8)], driver.Stream(), driver.Event()
    there, pinned = int(kept[0]), driver.pagelocked_empty((8,), np.uint8)
    import pycuda.driver

    other = pycuda.driver.Device(0).make_context()
    raw = driver._cuda()
    for wrong, words in (
        (lambda: _copy(there, 8), "another context"),
        (lambda: _copy(there, 8, memory.as_bytes(pinned), stream), "resource handle"),
        (stream.synchronize, "resource handle"),
        (lambda: event.record(driver.Stream()), "another context"),
        (lambda: raw.cuMemFree_v2(there), "another context"),
        (lambda: raw.cuMemFreeHost(pinned.ctypes.data), "another context"),
    ):
        with pytest.raises(driver.Error, match=words):
            wrong()
    used = gpu.used
    kept.clear()  # while the other is current
    assert gpu.used == used - 8
    other.pop()
    stream.synchronize()


def test_memory_freed_in_a_thread_without_the_context_is_given_back(gpu: Any) -> None:
    there = driver.mem_alloc(512)
    in_thread(there.free)
    assert gpu.used == 0
