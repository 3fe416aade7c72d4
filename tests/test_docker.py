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


def faults(instructions: list[Instruction]) -> Iterator[str]:
    """What hadolint would complain of, by its numbers."""
    stages: list[str] = []
    for name, value in instructions:
        words = value.split()
        if name == "FROM":
            image = words[0]
            if image not in stages and not re.fullmatch(r"[\w./-]+:(?!latest$)[\w.-]+", image):
                yield f"DL3006, DL3007 no fixed tag: {image}"
            stages.append(words[2] if len(words) == 3 else str(len(stages)))
        elif name == "COPY" and words[0].startswith("--from="):
            if words[0].removeprefix("--from=") not in stages[:-1]:
                yield f"DL3022 no such stage: {value}"
        elif name == "ADD" and not value.startswith("https://"):
            yield f"DL3020 COPY does it: {value}"
        elif name == "WORKDIR" and not value.startswith("/"):
            yield f"DL3000 relative: {value}"
        elif name in ("ENTRYPOINT", "CMD") and not value.startswith("["):
            yield f"DL3025 not JSON: {value}"
        elif name == "RUN":
            yield from shell_faults(value)
    names = [instruction.name for instruction in last_stage(instructions)]
    if names.count("ENTRYPOINT") + names.count("CMD") != 1:
        yield "DL3012, DL4003 not one ENTRYPOINT or CMD"
    users = [instruction.value for instruction in instructions if instruction.name == "USER"]
    if not users or re.match(r"(root|0)(:|$)", users[-1]):
        yield "DL3002 runs as root"


def shell_faults(script: str) -> Iterator[str]:
    """The faults of a RUN."""
    if re.search(r"(?<!\|)\|(?!\|)", script):
        yield f"DL4006 a pipe hides failures: {script}"
    if "apt-get update" in script and not script.endswith("&& rm -rf /var/lib/apt/lists/*"):
        yield f"DL3009 leaves apt's lists: {script}"
    for command in (part.split() for part in script.split("&&")):
        if "sudo" in command:
            yield f"DL3004 sudo: {script}"
        if command[0] == "apt":
            yield f"DL3027 apt is for people: {script}"
        if command[:2] == ["apt-get", "install"]:
            if "-y" not in command:
                yield f"DL3014 asks: {script}"
            if "--no-install-recommends" not in command:
                yield f"DL3015 installs more than it names: {script}"
        if "pip" in command and "install" in command:
            if "--no-cache-dir" not in command:
                yield f"DL3042 keeps pip's cache: {script}"
            named = command[command.index("install") + 1 :]
            packages = [word for word in named if word[0] not in "-./"]
            if "--require-hashes" not in named and not all("==" in name for name in packages):
                yield f"DL3013 not pinned: {script}"


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


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_rules(dockerfile: str) -> None:
    assert list(faults(read(dockerfile))) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("FROM ubuntu:18.04", "FROM ubuntu", "DL3006"),
        ("FROM ubuntu:18.04", "FROM ubuntu:latest", "DL3006"),
        ("COPY --from=packages /opt", "COPY --from=package /opt", "DL3022"),
        ("ADD https://repo", "ADD repo", "DL3020"),
        ("WORKDIR /opt", "WORKDIR opt", "DL3000"),
        ('["python3", "-m", "benchmarks.device"]', "python3 -m benchmarks.device", "DL3025"),
        ("USER 1000:44", "CMD []", "DL3012"),
        ("USER 1000:44", "USER root", "DL3002"),
        ("USER 1000:44\n", "", "DL3002"),
        (" && apt-get update", " | apt-get update", "DL4006"),
        (" && rm -rf /var/lib/apt/lists/*", "", "DL3009"),
        ("RUN apt-get update", "RUN sudo apt-get update", "DL3004"),
        ("RUN apt-get update", "RUN apt update", "DL3027"),
        ("install -y", "install", "DL3014"),
        ("--no-install-recommends", "", "DL3015"),
        ("--no-cache-dir", "", "DL3042"),
        ("pycuda==2020.1", "pycuda", "DL3013"),
    ],
)
def test_each_rule_is_looked_at(old: str, new: str, rule: str) -> None:
    text = (DOCKER / "jetpack4.Dockerfile").read_text().replace("\\\n    ", "")
    assert old in text
    assert any(fault.startswith(rule) for fault in faults(parse(text.replace(old, new))))


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
