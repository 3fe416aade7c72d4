"""Wrong, broken and hostile input: one line says what to do, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.progress import Console
from benchmarks.scenarios import DEFAULT
from pipeline import backbones, cli
from pipeline import classify as classify_module
from pipeline.dataset import scan
from pipeline.run import STAGES, Run

if TYPE_CHECKING:
    from tests.conftest import Finished

REPOSITORY = Path(__file__).parents[1]
NOBODY = 65534
HOSTILE = "sp ace 'q\" $(x) new\nline \u00e9\u5b57"
NO_UTF8 = os.fsdecode(b"caf\xe9 \xff")


BUSY = "warning: other programs were at work: "


class Said(NamedTuple):
    """What a command ended with: exit code, stdout, and on stderr warnings and other lines."""

    code: int
    out: str
    warnings: list[str]
    err: list[str]

    @property
    def error(self) -> str:
        """The error: one line, with nothing beside it but warnings."""
        assert len(self.err) == 1, self.err
        assert self.err[0].startswith("edgetrt: ")
        assert not self.out
        return self.err[0].removeprefix("edgetrt: ")


Edgetrt = Callable[..., Said]


@pytest.fixture
def edgetrt(capfd: pytest.CaptureFixture[str]) -> Edgetrt:
    """Run a command in this process (TensorFlow is imported but once); quiet by default."""

    def call(command: str, *arguments: object, flags: list[str] | None = None) -> Said:
        capfd.readouterr()
        given = [command, *map(str, arguments), *(["--quiet"] if flags is None else flags)]
        try:
            code = cli.main(given)
        except SystemExit as left:  # argparse
            code = int(left.code or 0)
        out, err = capfd.readouterr()
        # True of a machine that is busy, and the fault of no command.
        lines = [line for line in err.splitlines() if not line.startswith(BUSY)]
        warnings = [line for line in lines if line.startswith("warning: ")]
        return Said(code, out, warnings, [line for line in lines if line not in warnings])

    return call


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """A finished run that a test may harm."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


@pytest.fixture
def retrain(finished: Finished) -> list[str]:
    """The flags of `retrain`, without --image-dir and --run."""
    return finished.flags[2:8]


def forget(folder: Path, *stages: str) -> None:
    """Make as if `stages` never ended."""
    document = json.loads((folder / "run.json").read_text())
    for stage in stages:
        document["stages"].pop(stage)
    (folder / "run.json").write_text(json.dumps(document))


def assert_whole(folder: Path) -> None:
    """What is recorded is there, and nothing half-written."""
    for record in json.loads((folder / "run.json").read_text())["stages"].values():
        for file, digest in record["outputs"].items():
            assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest, file
    assert not list(folder.rglob(".tmp-*"))


def flags_of(stage: str, finished: Finished) -> list[str]:
    ours = {"retrain": slice(0, 8), "quantize": slice(8, 10), "build": slice(10, 14),
            "compare": slice(14, None)}  # fmt: skip
    return finished.briefly[ours[stage]] if stage in ours else []


# A healthy command


OURS = re.compile(
    r"[\w-]+: \d+/\d+ \w+, [\d.]+ \w+/s$|"  # progress
    rf"(retrain|export|quantize|build|compare): |  misclassified: |{BUSY}"
)


def test_healthy_run_says_nothing_but_its_own(finished: Finished) -> None:
    assert [line for line in finished.stderr.splitlines() if not OURS.match(line)] == []
    report = json.loads(finished.stdout)
    assert report == json.loads((finished.folder / "report" / "report.json").read_text())
    assert finished.stdout.count("\n") == 1
    assert {frozenset(e["scenarios"]) for e in report["engines"]} == {frozenset(DEFAULT)}


def test_no_library_keeps_a_diary(finished: Finished) -> None:
    """Keras leaves its settings in the home folder, Matplotlib a list of fonts; no more."""
    known = ((".keras", "keras.json"), (".cache", "matplotlib"))
    files = [path for path in finished.home.rglob("*") if path.is_file()]
    left = [path.relative_to(finished.home).parts[:2] for path in files]
    assert [parts for parts in left if parts not in known] == []


@pytest.mark.parametrize("stage", list(STAGES))
def test_each_stage_quiet_and_as_json(
    edgetrt: Edgetrt, finished: Finished, run: Path, stage: str
) -> None:
    forget(run, stage)
    said = edgetrt(stage, *flags_of(stage, finished), "--run", run, "--json", "--quiet", flags=[])
    assert said.code == 0
    assert (said.warnings, said.err) == ([], [])
    assert isinstance(json.loads(said.out), dict)
    assert said.out.count("\n") == 1
    again = edgetrt(stage, *flags_of(stage, finished), "--run", run, "--json")
    assert json.loads(again.out) == json.loads(said.out)
    assert not edgetrt(stage, *flags_of(stage, finished), "--run", run).out or stage == "compare"


# Wrong use


def no_such_folder(folder: Path) -> Path:
    return folder / "nowhere"


def a_file(folder: Path) -> Path:
    return next(folder.glob("*/*.png"))


def empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def one_class(folder: Path) -> Path:
    shutil.rmtree(folder / "defective")
    return folder


def empty_class(folder: Path) -> Path:
    (folder / "other").mkdir()
    return folder


def broken_class(folder: Path) -> Path:
    (folder / "other").mkdir()
    (folder / "other" / "text.jpg").write_text("no picture")
    return folder


def linked_class(folder: Path) -> Path:
    (folder / "other").symlink_to(folder / "defective")
    return folder


def class_of_two_lines(folder: Path) -> Path:
    (folder / "new\nline").mkdir()
    return folder


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (no_such_folder, "--image-dir .*/nowhere does not exist"),
        (a_file, "--image-dir .* is not a folder"),
        (empty_folder, "holds 0 class folder.*one folder for each class"),
        (one_class, "holds 1 class folder.*at least two"),
        (empty_class, "class 'other' .* no usable picture; add some or remove the folder"),
        (broken_class, r"class 'other' .* \(other/text.jpg: not a JPEG.*; add some"),
        (linked_class, "class 'defective' .* the same picture stands in another class"),
        (class_of_two_lines, r"'new\\nline' has a line break in its name; rename it"),
    ],
)
def test_wrong_image_dir_makes_no_run_folder(
    edgetrt: Edgetrt, own_pictures: Path, tmp_path: Path,
    harm: Callable[[Path], Path], words: str,
) -> None:  # fmt: skip
    said = edgetrt("retrain", "--image-dir", harm(own_pictures), "--run", tmp_path / "runs" / "new")
    assert said.code == 2
    assert re.search(words, said.error)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--learning-rate", "0"], "--learning-rate must be a number above 0; received 0"),
        (["--learning-rate", "nan"], "above 0; received nan"),
        (["--learning-rate", "-1"], "above 0; received -1"),
        (["--learning-rate", "inf"], "above 0; received inf"),
        (["--learning-rate", "fast"], "--learning-rate: invalid float value: 'fast'"),
        (["--how-many-training-steps", "0"], "must be from 1 to 2147483647; received 0"),
        (["--how-many-training-steps", "9" * 20], "must be from 1 to .*; received 9999"),
        (["--train-batch-size", "-5"], "must be from 1 to 2147483647; received -5"),
        (["--testing-percentage", "0"], "must be above 0"),
        (["--testing-percentage", "nan"], "must be above 0"),
        (["--testing-percentage", "60", "--validation-percentage", "40"], "together below 100"),
        (["--seed", "-1"], "--seed must be from 0 to 4294967295; received -1"),
        (["--seed", "4294967296"], "--seed must be from 0"),
        (["--architecture", "resnet\n"], r"resnet\\n is unknown; choose one of efficientnet"),
        (["--architecture", "nowhere.keras"], "nowhere.keras: no such file"),
        (["--weights", "nowhere.h5"], "nowhere.h5: no such file"),
        (["--run", ""], "--run: a path is expected; received nothing"),
        (["--image-dir", ""], "--image-dir: a path is expected; received nothing"),
        (["--no\nsuch\x1b[2Jflag"], r"unrecognized arguments: --no\\nsuch\\x1b\[2Jflag"),
    ],
)
def test_wrong_value(
    edgetrt: Edgetrt, pictures: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    run = tmp_path / "run"
    said = edgetrt("retrain", "--image-dir", pictures, "--run", run, *flags)
    assert said.code == 2
    assert re.search(words, said.error)
    assert not run.exists()


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("quantize", ["--calibration-images", "0"], "at least 1; received 0"),
        ("quantize", ["--method", "guess"], "invalid choice: 'guess'"),
        ("quantize", ["--max-accuracy-drop", "-1"], "points, 0 or above; received -1"),
        ("quantize", ["--max-accuracy-drop", "nan"], "points, 0 or above; received nan"),
        ("quantize", ["--calibration-cache", "11.4.0"], "TensorRT 8 and 10, .* '11.4.0'"),
        ("build", ["--engine", "tensorflux"], "--engine takes onnxruntime, .* received tensorflux"),
        ("build", ["--precision", ","], "--precision takes fp32, fp16, int8; received"),
        ("build", ["--target", "sm62"], "--target takes sm75"),
        ("classify", ["--engine", "warp", "a.png"], "no engine 'warp' .* there are: tensorflow"),
        ("classify", ["--engine", "", "a.png"], "no engine '' .* there are: tensorflow"),
        ("classify", [], "required: PICTURE"),
    ],
)
def test_wrong_value_of_a_later_stage(
    edgetrt: Edgetrt, finished: Finished, command: str, flags: list[str], words: str
) -> None:
    said = edgetrt(command, "--run", finished.folder, *flags)
    assert said.code == 2
    assert re.search(words, said.error)
    assert_whole(finished.folder)


def test_run_inside_the_pictures(edgetrt: Edgetrt, own_pictures: Path) -> None:
    said = edgetrt("retrain", "--image-dir", own_pictures, "--run", own_pictures / "run")
    assert said.code == 2
    assert "lies inside --image-dir" in said.error
    assert len(list(own_pictures.iterdir())) == 2


@pytest.mark.parametrize("command", [*list(STAGES)[1:], "classify"])
def test_stage_before_the_one_it_needs(
    edgetrt: Edgetrt, finished: Finished, run: Path, tmp_path: Path, command: str
) -> None:
    picture = [next(run.parent.glob("*"))] if command == "classify" else []
    said = edgetrt(command, "--run", tmp_path / "no run", *picture)
    assert said.code == 2
    assert f"edgetrt retrain --image-dir DIR --run '{tmp_path}/no run'" in said.error
    assert not (tmp_path / "no run").exists()
    before = "retrain" if command == "classify" else STAGES[command]
    assert before is not None
    forget(run, *list(STAGES)[list(STAGES).index(before) :])
    said = edgetrt(command, "--run", run, *picture)
    assert said.code == 2
    assert f"no finished stage '{before}' yet; run: edgetrt {before}" in said.error
    assert_whole(run)


def test_run_of_other_pictures(
    edgetrt: Edgetrt, finished: Finished, run: Path, own_pictures: Path, retrain: list[str]
) -> None:
    for path in own_pictures.glob("*/*.png"):
        pixels: Any = cv2.imread(str(path))
        cv2.imwrite(str(path), 255 - pixels)
    said = edgetrt("retrain", "--image-dir", own_pictures, "--run", run, *retrain)
    assert said.code == 2
    assert "was made from other pictures" in said.error
    assert "choose a new --run" in said.error
    for file in ("dataset.json", "run.json"):
        assert (run / file).read_bytes() == (finished.folder / file).read_bytes()


def test_two_commands_in_one_run(edgetrt: Edgetrt, run: Path) -> None:
    with Run(run):
        said = edgetrt("export", "--run", run)
    assert said.code == 2
    assert "another edgetrt command is at work" in said.error


def test_several_may_classify_at_the_same_time(edgetrt: Edgetrt, run: Path, pictures: Path) -> None:
    picture = next(pictures.glob("*/*"))
    with Run(run, read_only=True):
        assert edgetrt("classify", "--run", run, picture).code == 0
        assert edgetrt("export", "--run", run).code == 2
    with Run(run):
        assert edgetrt("classify", "--run", run, picture).code == 2


def test_run_folder_that_is_no_utf8(edgetrt: Edgetrt, pictures: Path, tmp_path: Path) -> None:
    said = edgetrt("retrain", "--image-dir", pictures, "--run", tmp_path / NO_UTF8)
    assert said.code == 2
    assert r"caf\udce9 \udcff is no UTF-8" in said.error
    assert not (tmp_path / NO_UTF8).exists()


# Models


@pytest.mark.parametrize("name", ["text.keras", "text.h5"])
def test_architecture_that_is_no_model(
    edgetrt: Edgetrt, pictures: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("no model")
    arguments = ["--image-dir", pictures, "--run", tmp_path / "run"]
    said = edgetrt("retrain", *arguments, "--architecture", tmp_path / name)
    assert said.code == 2
    assert re.search(rf"--architecture .*{name} can't be loaded: \S", said.error)


@pytest.mark.parametrize("architecture", ["efficientnet_lite0", "mobilenet_v2"])
def test_weights_that_are_none(
    edgetrt: Edgetrt, pictures: Path, tmp_path: Path, architecture: str
) -> None:
    (tmp_path / "text.h5").write_text("no weights")
    said = edgetrt("retrain", "--image-dir", pictures, "--run", tmp_path / "run",
                   "--architecture", architecture, "--weights", tmp_path / "text.h5")  # fmt: skip
    assert said.code in (1, 2)
    assert "text.h5" in said.error


@pytest.mark.parametrize(
    ("file", "command", "words"),
    [
        ("model/frozen.pb", "export", "frozen.pb has changed .* run: edgetrt retrain"),
        ("onnx/model.fp32.onnx", "quantize", "fp32.onnx has changed .* run: edgetrt export"),
        ("onnx/model.int8.onnx", "build", "int8.onnx has changed .* run: edgetrt quantize"),
        ("engines/openvino-fp32.blob", "compare", "blob has changed .* run: edgetrt build"),
        ("dataset.json", "export", "dataset.json is damaged"),
        ("run.json", "export", "run.json is damaged .*; remove it"),
    ],
)
def test_file_of_the_run_that_is_none(
    edgetrt: Edgetrt, finished: Finished, run: Path, file: str, command: str, words: str
) -> None:
    if command == "export":
        forget(run, "export")
    (run / file).write_text("garbage")
    said = edgetrt(command, *flags_of(command, finished), "--run", run)
    assert said.code == (1 if file.endswith("json") else 2)
    assert re.search(words, said.error)
    assert not list(run.rglob(".tmp-*"))


# The cache


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "harm", "computed"),
    [
        ("bottlenecks/*/features.f32", lambda f: flip(f, 100), 1),
        ("bottlenecks/*/features.f32", lambda f: os.truncate(f, 64 * 10 + 7), 70),
        ("bottlenecks/*/features.f32", lambda f: f.unlink(), 80),
        ("bottlenecks/*/index.bin", lambda f: flip(f, 36 * 5), 1),
        ("bottlenecks/*/index.bin", lambda f: os.truncate(f, 36 * 79 + 35), 1),
        ("bottlenecks/*/index.bin", lambda f: f.write_bytes(b"\xff" * 100), 80),
        ("bottlenecks/backbone.onnx", lambda f: flip(f, 3000), 0),
        ("bottlenecks/backbone.onnx", lambda f: f.write_bytes(b""), 0),
        ("bottlenecks/backbone.json", lambda f: f.write_bytes(b"\xff{"), 0),
        ("bottlenecks/backbone.json", lambda f: f.unlink(), 0),
    ],
)
def test_damaged_cache_heals(
    edgetrt: Edgetrt, finished: Finished, run: Path,
    file: str, harm: Callable[[Path], None], computed: int,
) -> None:  # fmt: skip
    caches = [path for path in run.glob("bottlenecks/*/") if path.is_dir()]
    assert len(caches) == 2  # FP32 and INT8
    for path in run.glob(file):
        harm(path)
    forget(run, "retrain")
    flags = [*flags_of("retrain", finished), "--run", run, "--json"]
    said = edgetrt("retrain", *flags)
    assert said.code == 0, said.err
    results = json.loads(said.out)
    assert results["computed"] == computed
    test = "model/test.json"
    assert (run / test).read_bytes() == (finished.folder / test).read_bytes()


def test_advice_on_a_damaged_dataset_helps(edgetrt: Edgetrt, finished: Finished, run: Path) -> None:
    (run / "dataset.json").write_text("{")
    arguments = [*flags_of("retrain", finished), "--run", run]
    assert re.search("dataset.json is damaged.*remove it", edgetrt("retrain", *arguments).error)
    (run / "dataset.json").unlink()
    assert edgetrt("retrain", *arguments).code == 0
    assert edgetrt("export", "--run", run).code == 0


# Full and read-only disks


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes; as on a full disk, writing more is an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("stage", "size"),
    [
        ("retrain", 5000),  # the cache
        ("retrain", 30_000),  # the Keras model
        ("export", 7000),
        ("quantize", 7000),
        ("build", 7000),
        ("compare", 7000),  # report.json
        ("compare", 40_000),  # index.html
    ],
)
def test_full_disk(edgetrt: Edgetrt, finished: Finished, run: Path, stage: str, size: int) -> None:
    forget(run, *list(STAGES)[list(STAGES).index(stage) :])
    if size == 5000:
        shutil.rmtree(run / "bottlenecks")
    if stage == "build":
        shutil.rmtree(run / "engines")
    arguments = [*flags_of(stage, finished), "--run", run]
    with full_disk(size):
        said = edgetrt(stage, *arguments)
    assert said.code == 1
    assert str(run) in said.error
    assert re.search("File too large; mend that|no engine could be built", said.error)
    assert_whole(run)
    said = edgetrt(stage, *arguments)
    assert said.code == 0, said.err
    assert not said.warnings
    assert_whole(run)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write in `folder`; not root either, who becomes somebody else meanwhile."""
    paths = [folder, *folder.rglob("*")]
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("stage", list(STAGES))
def test_read_only_run(edgetrt: Edgetrt, finished: Finished, public: Path, stage: str) -> None:
    run = Path(shutil.copytree(finished.folder, public / "run"))
    forget(run, *list(STAGES)[list(STAGES).index(stage) :])
    with read_only(run):
        said = edgetrt(stage, *flags_of(stage, finished), "--run", run)
    assert said.code == 1
    assert re.search(f"{run}.*: Permission denied; mend that and run the same again", said.error)
    assert_whole(run)


def test_run_folder_that_cannot_be_made(edgetrt: Edgetrt, public: Path) -> None:
    (public / "runs").mkdir()
    with read_only(public / "runs"):
        said = edgetrt("retrain", "--image-dir", public, "--run", public / "runs" / "new")
    assert said.code == 1
    assert "runs/new: Permission denied" in said.error


# Pictures of every kind


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG of one bit a pixel, whatever its header says of its size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def add_good(folder: Path) -> set[str]:
    """Put unusual but good pictures into `folder`."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    picture = Image.fromarray(noise[..., :3])
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    made: dict[str, Any] = {
        "one pixel.png": Image.fromarray(noise[:1, :1, :3]),
        "cmyk.jpg": picture.convert("CMYK"),
        "grey.png": picture.convert("L"),
        "rgba.png": Image.fromarray(noise),
        "sixteen.png": Image.fromarray(noise[..., 0].astype(np.uint16) * 257),
        "palette.png": picture.convert("P"),
        "a 'quoted\" $(name).webp": picture.rotate(90),
        "new\nline.bmp": picture.rotate(180),
        "schl\u00f6ssle \u5b57 \U0001f600.PNG": picture.rotate(270),
        os.fsdecode(b"caf\xe9 \xff.png"): picture.transpose(Image.Transpose.TRANSPOSE),
    }
    for name, image in made.items():
        image.save(folder / name)
    picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(folder / "turned.jpg", exif=exif)
    deep = folder.joinpath(*["deeper"] * 200)
    deep.mkdir(parents=True)
    picture.crop((1, 1, 20, 20)).save(deep / "deep.png")
    return {*made, "turned.jpg", str((deep / "deep.png").relative_to(folder))}


def add_bad(folder: Path) -> set[str]:
    """Put files that are no usable picture into `folder`."""
    good = next(folder.glob("*.png")).read_bytes()
    Image.fromarray(np.zeros((90, 90, 3), np.uint8)).save(folder / "truncated.jpg")
    os.truncate(folder / "truncated.jpg", 700)
    for name, data in {
        "empty.jpg": b"",
        "text.jpg": b"This is no picture.\n" * 50,
        "truncated.png": good[:-100],
        "huge.png": png(50_000, 50_000, bytes(1 << 20)),
        "html.png": b"<!DOCTYPE html><title>404</title>",
        "script.php": b"<?php",
    }.items():
        (folder / name).write_bytes(data)
    (folder / "sparse.jpg").touch()
    os.truncate(folder / "sparse.jpg", 10 << 30)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "loop").symlink_to(".")
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inner.jpg").write_bytes(b"\xff\xd8")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may have but 107 bytes
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(here)
    deep = "a" + 250 * "/a"
    folder.joinpath(*"a" * 400).mkdir(parents=True)
    return {
        deep, "empty.jpg", "text.jpg", "truncated.jpg", "truncated.png", "huge.png", "html.png",
        "script.php", "sparse.jpg", "pipe.jpg", "device.jpg", "gone.jpg", "loop",
        "folder.jpg/inner.jpg", "socket.jpg",
    }  # fmt: skip


def test_whole_way_with_every_kind_of_picture_name_and_path(
    edgetrt: Edgetrt, finished: Finished, own_pictures: Path, tmp_path: Path
) -> None:
    labels = ["defective", "sch\u00f6n \u5b57", os.fsdecode(b"caf\xe9 'q\"")]
    shutil.copytree(own_pictures / "functional", own_pictures / labels[1])
    for file in (own_pictures / labels[1]).iterdir():
        pixels: Any = cv2.imread(str(file))
        cv2.imwrite(str(file), 255 - pixels)
    folder = (own_pictures / "functional").rename(own_pictures / labels[2])
    good, bad = add_good(folder), add_bad(folder)
    root = own_pictures.rename(tmp_path / (HOSTILE + NO_UTF8))
    run = tmp_path / "runs" / HOSTILE
    said = edgetrt("run", "--image-dir", root, "--run", run, *finished.briefly[2:], "--json")
    assert said.code == 0, said.err
    assert said.err == []
    assert len(said.warnings) == 1
    assert f"{len(bad)} file(s) left out" in said.warnings[0]
    json.loads(said.out)
    document = json.loads((run / "dataset.json").read_text())
    inside = {p["path"] for p in document["pictures"] if p["label"] == labels[2]}
    assert inside >= {f"{labels[2]}/{name}" for name in good}
    assert {r["path"] for r in document["rejected"]} == {f"{labels[2]}/{name}" for name in bad}
    assert_whole(run)
    # Again, from the results of before; and with each kind of engine.
    picture = root / labels[2] / "new\nline.bmp"
    for engine in ("tensorflow", "onnxruntime", "openvino"):
        said = edgetrt("classify", "--run", run, "--engine", engine, "--json", picture)
        assert said.code == 0, said.err
        assert {top["label"] for top in json.loads(said.out)[0]["top"]} == set(labels)
        said = edgetrt("classify", "--run", run, "--engine", engine, picture)
        assert said.code == 0
        assert len(said.out.splitlines()) == 1 + len(labels)
    said = edgetrt("run", "--image-dir", root, "--run", run, *finished.briefly[2:], flags=[])
    assert [line for line in said.err if line.endswith("skipped")] == [
        f"{stage}: nothing changed since last time, skipped" for stage in STAGES
    ]


def test_files_and_folders_that_must_not_be_read(
    edgetrt: Edgetrt, pictures: Path, public: Path, retrain: list[str]
) -> None:
    root = Path(shutil.copytree(pictures, public / "pictures"))
    for folder in (public, root, *root.iterdir()):
        folder.chmod(0o777)
    forbidden = [next((root / "functional").iterdir()), root / "functional" / "closed"]
    forbidden[1].mkdir()
    for path in forbidden:
        path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        said = edgetrt("retrain", "--image-dir", root, "--run", public / "run",
                       "--weights", "nowhere")  # fmt: skip
        assert said.code == 2  # nothing was read yet
        said = edgetrt("retrain", "--image-dir", root / "functional" / "closed", "--run",
                       public / "run")  # fmt: skip
        assert said.code == 1
        assert "closed: Permission denied" in said.error
        dataset = scan(root, 10, 10, 0, Console(quiet=True))
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        forbidden[1].chmod(0o700)
    reasons = {rejected.path: rejected.reason for rejected in dataset.rejected}
    assert reasons.keys() == {str(path.relative_to(root)) for path in forbidden}
    assert "Permission denied" in reasons[str(forbidden[0].relative_to(root))]


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_picture_that_is_harmed_between_scan_and_bottlenecks(
    edgetrt: Edgetrt, own_pictures: Path, tmp_path: Path, retrain: list[str],
    monkeypatch: pytest.MonkeyPatch, harm: str,
) -> None:  # fmt: skip
    picture = sorted(own_pictures.glob("functional/*"))[7]
    other = sorted(own_pictures.glob("defective/*"))[7].read_bytes()
    build = backbones.build

    def build_and_harm(*arguments: Any) -> Any:
        if harm == "gone":
            picture.unlink()
        else:
            picture.write_bytes(other)
        return build(*arguments)

    arguments = ["--image-dir", own_pictures, "--run", tmp_path / "run", *retrain]
    with monkeypatch.context() as patched:
        patched.setattr(backbones, "build", build_and_harm)
        said = edgetrt("retrain", *arguments)
    assert said.code == 1
    assert picture.name in said.error
    assert "run edgetrt retrain again" in said.error
    assert not list(tmp_path.rglob(".tmp-*"))
    again = edgetrt("retrain", *arguments, "--json")
    assert again.code == 0
    assert 0 < json.loads(again.out)["computed"] <= 80


def test_picture_changed_behind_the_back_of_its_time_is_noticed(
    edgetrt: Edgetrt, own_pictures: Path, tmp_path: Path, retrain: list[str]
) -> None:
    picture = next((own_pictures / "functional").iterdir())
    pixels: Any = cv2.imread(str(picture))
    picture = picture.with_suffix(".bmp")
    cv2.imwrite(str(picture), pixels)
    arguments = ["--image-dir", own_pictures, "--run", tmp_path / "run", *retrain]
    assert edgetrt("retrain", *arguments).code == 0
    before = picture.stat()
    cv2.imwrite(str(picture), 255 - pixels)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert picture.stat().st_size == before.st_size
    said = edgetrt("retrain", *arguments, "--json")
    assert json.loads(said.out)["computed"] == 1


def test_few_pictures_in_a_class_are_warned_of(
    edgetrt: Edgetrt, own_pictures: Path, tmp_path: Path, retrain: list[str]
) -> None:
    for path in sorted((own_pictures / "functional").iterdir())[15:]:
        path.unlink()
    said = edgetrt("retrain", "--image-dir", own_pictures, "--run", tmp_path / "run", *retrain)
    assert said.code == 0
    assert said.warnings == [
        "warning: class 'functional' has 15 picture(s): with fewer than 20 little can be learnt or "
        "measured; add some"
    ]


def test_relative_run_from_another_folder(
    edgetrt: Edgetrt, finished: Finished, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, name in ((run.parent, "run"), (run, "."), (run / "model", "..")):
        monkeypatch.chdir(folder)
        forget(run, "export")
        assert edgetrt("export", "--run", name).code == 0
    assert_whole(run)


# classify


def test_classify_takes_the_engine_that_the_report_speaks_for(
    edgetrt: Edgetrt, run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = classify_module._open

    def watched(run: Run, name: str) -> Any:
        opened.append(name)
        return real(run, name)

    monkeypatch.setattr(classify_module, "_open", watched)
    picture = next(pictures.glob("*/*.png"))
    assert edgetrt("classify", "--run", run, picture).code == 0
    shutil.rmtree(run / "report")
    assert edgetrt("classify", "--run", run, picture).code == 0
    for folder in ("engines", "onnx"):
        shutil.rmtree(run / folder)
    forget(run, *list(STAGES)[1:])
    said = edgetrt("classify", "--run", run, "--json", picture)  # after retrain alone
    assert said.code == 0
    assert opened[0] in ("onnxruntime-fp32", "openvino-fp32")
    assert opened[1:] == ["tensorflow", "tensorflow"]
    assert sum(top["probability"] for top in json.loads(said.out)[0]["top"]) == pytest.approx(1)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_classify_goes_on_after_a_bad_picture(
    edgetrt: Edgetrt, finished: Finished, own_pictures: Path, as_json: list[str]
) -> None:
    good = sorted(own_pictures.glob("functional/*"))[:2]
    bad = sorted(add_bad(own_pictures / "functional"))
    bad_paths = [own_pictures / "functional" / name for name in bad]
    said = edgetrt("classify", "--run", finished.folder, good[0], *bad_paths, good[1], *as_json)
    assert said.code == 1
    assert len(said.warnings) == len(bad)
    for path, line in zip(bad_paths, said.warnings, strict=True):
        assert line.startswith(f"warning: {path}: ")
    assert said.err == [
        f"edgetrt: {len(bad)} of {len(bad) + 2} picture(s) could not be used; see the warnings"
    ]
    if as_json:
        answers = json.loads(said.out)
        assert ["error" in answer for answer in answers] == [False, *[True] * len(bad), False]
    else:
        assert [line for line in said.out.splitlines() if line[0] != " "] == list(map(str, good))


def test_classify_refuses_an_engine_of_an_older_model(
    edgetrt: Edgetrt, finished: Finished, run: Path, pictures: Path
) -> None:
    flags = [*flags_of("retrain", finished), "--seed", "5", "--run", run]
    for stage, given in (("retrain", flags), ("export", ["--run", run])):
        assert edgetrt(stage, *given).code == 0
    picture = next(pictures.glob("*/*.png"))
    said = edgetrt("classify", "--run", run, "--engine", "openvino", picture)
    assert said.code == 2
    assert "edgetrt quantize" in said.error
    assert edgetrt("quantize", "--run", run, *flags_of("quantize", finished)).code == 0
    said = edgetrt("classify", "--run", run, "--engine", "openvino", picture)
    assert said.code == 2
    assert "openvino-fp32 was built from an older model; run: edgetrt build" in said.error


# Streams


def process(*arguments: str, shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with its streams as `shell` sets them up: "$@" stands for the command."""
    return subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-m", "pipeline.cli", *arguments],
        capture_output=True, text=True, errors="surrogateescape", cwd=REPOSITORY, timeout=120,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
    )  # fmt: skip


@pytest.mark.parametrize("command", ["doctor", "--help"])
def test_reader_that_goes_away(command: str) -> None:
    done = process(command, shell='"$@" | true; echo ${PIPESTATUS[0]}')
    assert done.stdout in ("141\n", "0\n")  # 0: all was written before `true` went
    assert done.stderr == ""
    done = process(command, shell='exec 3> >(exec sleep 0); sleep 0.2; "$@" >&3')
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


def test_streams_that_are_closed(finished: Finished, run: Path) -> None:
    for shell in ('"$@" >&-', '"$@" 2>&-', '"$@" <&- >&- 2>&-'):
        done = process("export", "--run", str(run), "--json", shell=shell)
        assert (done.returncode, done.stderr) == (0, done.stderr if "2>" not in shell else "")
        assert "rror" not in done.stderr
    done = process("export", "--run", "nowhere", shell='"$@" >&- 2>&-')
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    assert_whole(run)
    assert (run / "run.lock").read_bytes() == b""


def test_output_that_cannot_be_written() -> None:
    done = process("doctor", shell='"$@" >/dev/full')
    assert done.returncode == 1
    assert done.stderr == (
        "edgetrt: standard output: No space left on device; mend that and run the same again\n"
    )


def test_locale_that_knows_only_ascii(run: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    picture = "caf\u00e9\udcff.png"
    done = process("classify", "--run", str(run), picture, shell='"$@"', **ascii_only)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "warning: caf\\udcc3\\udca9\\udcff.png: No such file or directory\n"
        "edgetrt: 1 of 1 picture(s) could not be used; see the warnings\n"
    )
    moved = run.rename(run.parent / "sch\u00f6n")
    done = process("export", "--run", str(moved), shell='"$@"', **ascii_only)
    assert (done.returncode, done.stdout) == (2, "")
    assert "sch\\udcc3\\udcb6n is no UTF-8" in done.stderr


def test_dataset_as_json(edgetrt: Edgetrt, tmp_path: Path) -> None:
    said = edgetrt("dataset", "elpv", "--out", tmp_path / "cells", "--json")
    assert json.loads(said.out) == {
        "folder": str(tmp_path / "cells"), "pictures": 2624, "written": 2624,
    }  # fmt: skip
    assert (said.code, said.warnings, said.err) == (0, [], [])
    said = edgetrt("dataset", "elpv", "--out", tmp_path)
    assert said.code == 2
    assert "holds something else ('cells'); choose another --out" in said.error


def test_doctor_as_json(edgetrt: Edgetrt) -> None:
    said = edgetrt("doctor", "--json")
    assert (said.code, said.err) == (0, [])
    assert said.out.count("\n") == 1
    assert "backends" in json.loads(said.out)
