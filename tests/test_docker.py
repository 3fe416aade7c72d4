"""What can be known of docker/ without a Docker daemon: rules, paths, entry points, commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]
DOCKER = REPOSITORY / "docker"
DOCKERFILES = sorted(path.name for path in DOCKER.glob("*.Dockerfile"))
DEVICE_PROGRAM = ["python3", "-m", "benchmarks.device"]
OPTIONS = {  # of `docker build` and `docker run`, and whether a value follows
    "build": {"-f": True, "-t": True},
    "run": {"--rm": False, "--runtime": True, "--gpus": True, "--user": True, "-v": True,
            "--security-opt": True},
}  # fmt: skip


class Instruction(NamedTuple):
    name: str
    value: str


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile; a line that is continued is one."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def read(dockerfile: str) -> list[Instruction]:
    return parse((DOCKER / dockerfile).read_text())


def last_stage(instructions: list[Instruction]) -> list[Instruction]:
    start = max(i for i, instruction in enumerate(instructions) if instruction.name == "FROM")
    return instructions[start:]


def value_of(name: str, instructions: list[Instruction]) -> str:
    """The value of an instruction that is there once."""
    (value,) = (instruction.value for instruction in instructions if instruction.name == name)
    return value


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the build; the last line that fits decides."""
    parts = path.split("/")
    parents = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    result = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        if pattern.startswith("**/"):
            fits = any(fnmatch(part, pattern.removeprefix("**/")) for part in parts)
        else:
            fits = any(
                fnmatch(parent, pattern) and parent.count("/") == pattern.count("/")
                for parent in parents
            )
        if fits:
            result = not line.startswith("!")
    return result


def copied(instructions: list[Instruction]) -> Iterator[tuple[str, str]]:
    """Source and destination of everything that COPY takes from the checkout."""
    for name, value in instructions:
        if name == "COPY" and not value.startswith("--from="):
            *sources, destination = value.split()
            yield from ((source, destination) for source in sources)


def assemble(instructions: list[Instruction], folder: Path) -> Path:
    """Do what COPY does with files of the checkout, with `folder` as WORKDIR."""
    for source, destination in copied(instructions):
        origin, target = REPOSITORY / source, folder / destination
        files = [p for p in origin.rglob("*") if p.is_file()] if origin.is_dir() else [origin]
        for file in files:
            if not ignored(file.relative_to(REPOSITORY).as_posix()):
                inside = file.relative_to(origin) if origin.is_dir() else Path(file.name)
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / inside)
    return folder


def services() -> dict[str, dict[str, str]]:
    """The services of compose.yaml: each key at any depth, with the value on its line.

    Reads the little of YAML that the file uses, and fails on anything else.
    """
    found: dict[str, dict[str, str]] = {}
    for line in (DOCKER / "compose.yaml").read_text().splitlines():
        if not line or line.startswith("#") or line == "services:":
            continue
        if match := re.fullmatch(r"  (\w+):", line):
            found[match[1]] = service = {}
        elif match := re.fullmatch(r"(?:    |      )(\w+):(?: (\S+))?", line):
            assert match[1] not in service, f"twice: {line}"
            service[match[1]] = match[2] or ""
        else:
            match = re.fullmatch(r"      - (\S+)", line)
            assert match, f"not understood: {line}"
            service["volumes"] += match[1]
    return found


def documented(command: str) -> list[list[str]]:
    """The `docker COMMAND` lines in the README's shell blocks, as words after COMMAND."""
    blocks = re.findall(r"```sh\n(.*?)```", (DOCKER / "README.md").read_text(), re.S)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert all(line[0] == "docker" and line[1] in OPTIONS for line in lines)
    return [line[2:] for line in lines if line[1] == command]


def split_options(command: str, words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and what follows them; an unknown option is an error."""
    options: dict[str, str] = {}
    words = list(words)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        options[option] = words.pop(0) if OPTIONS[command][option] else ""
    return options, words


def help_of(code: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in a folder, with nothing of the checkout that isn't in that folder."""
    absent = {"pipeline", "benchmarks", "engines"} - {path.name for path in folder.iterdir()}
    script = f"import sys; sys.modules.update(dict.fromkeys({absent})); {code}"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments, "--help"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's wheel unpacked, built from what host.Dockerfile copies."""
    root = tmp_path_factory.mktemp("host")
    source = assemble(read("host.Dockerfile"), root / "source")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--wheel-dir", root, source], check=True,
    )  # fmt: skip
    (file,) = root.glob("*.whl")
    zipfile.ZipFile(file).extractall(root / "installed")
    return root / "installed"


def hadolint(text: str) -> str:
    """What hadolint says of a Dockerfile."""
    program = Path(sys.prefix) / "bin" / "hadolint"
    command = [str(program), "--no-color", "--config", str(DOCKER / "hadolint.yaml"), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True).stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_has_no_complaint(dockerfile: str) -> None:
    text = (DOCKER / dockerfile).read_text()
    assert hadolint(text) == ""
    assert "DL3006" in hadolint(text + "FROM ubuntu\n")  # it did read the file


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_copied_is_there_and_not_ignored(dockerfile: str) -> None:
    sources = [source.rstrip("/") for source, _ in copied(read(dockerfile))]
    assert sources
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert not ignored(source), source


@pytest.mark.parametrize(
    "path",
    [".git/config", ".venv/bin/python", "runs/demo/run.json", "engines/__pycache__/engine.pyc"],
)
def test_nothing_else_is_sent_to_docker(path: str) -> None:
    assert ignored(path)


@pytest.mark.parametrize("dockerfile", [name for name in DOCKERFILES if name != "host.Dockerfile"])
def test_the_device_program_starts_from_what_is_copied(dockerfile: str, tmp_path: Path) -> None:
    stage = last_stage(read(dockerfile))
    assert json.loads(value_of("ENTRYPOINT", stage)) == DEVICE_PROGRAM
    code = "import runpy; runpy.run_module('benchmarks.device', run_name='__main__')"
    done = help_of(code, [], assemble(stage, tmp_path))
    assert done.returncode == 0, done.stderr


def test_the_pipeline_starts_from_what_is_copied(wheel: Path) -> None:
    assert json.loads(value_of("ENTRYPOINT", last_stage(read("host.Dockerfile")))) == ["edgetrt"]
    (scripts,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "edgetrt = pipeline.cli:main" in scripts.read_text()
    done = help_of("from pipeline.cli import main; sys.exit(main())", [], wheel)
    assert done.returncode == 0, done.stderr
    for file in (REPOSITORY / "pipeline").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert (wheel / file.relative_to(REPOSITORY)).is_file(), file


def test_compose_has_one_service_for_each_dockerfile() -> None:
    found = services()
    assert {f"{name}.Dockerfile" for name in found} == set(DOCKERFILES)
    for name, service in found.items():
        host = name == "host"
        assert service.pop("runtime", None) == (None if host else "nvidia")
        assert service == {
            "profiles": f"[{name}]",
            "image": f"edgetrt:{name}",
            "build": "",
            "context": "..",
            "dockerfile": f"docker/{name}.Dockerfile",
            "volumes": "..:/work" if host else "../${RUN:-runs/demo}:/data",
        }


def test_every_image_is_built_as_documented() -> None:
    built = {}
    for words in documented("build"):
        options, context = split_options("build", words)
        assert context == ["."]
        built[options["-t"]] = options["-f"]
    assert built == {s["image"]: s["dockerfile"] for s in services().values()}


def test_every_image_is_run_as_documented(wheel: Path, tmp_path: Path) -> None:
    device = assemble(last_stage(read("jetpack4.Dockerfile")), tmp_path)
    seen = set()
    for words in documented("run"):
        options, (image, command, *arguments) = split_options("run", words)
        seen.add(image)
        if image == "edgetrt:host":
            assert "--runtime" not in options
            code, folder = "from pipeline.cli import main; sys.exit(main())", wheel
        else:
            assert options.get("--runtime") == "nvidia" or options.get("--gpus") == "all"
            code = "import runpy; runpy.run_module('benchmarks.device', run_name='__main__')"
            folder = device
        if "--run" in arguments:
            mounted = options["-v"].split(":")[1]
            assert mounted == ("/work" if image == "edgetrt:host" else "/data")
        done = help_of(code, [command, *arguments], folder)
        assert done.returncode == 0, (words, done.stderr)
        assert all(a in done.stdout for a in arguments if a.startswith("--")), words
    assert seen == {service["image"] for service in services().values()}
