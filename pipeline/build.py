"""ONNX -> engines: whatever this machine can build, and why it can't build the rest."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from engines.catalogue import (
    MODULES,
    ONNX_VARIANTS,
    PRECISIONS,
    SCHEMA,
    module_of,
    read_sidecar,
)
from engines.engine import EngineError
from engines.files import replacing, sha256_of, write_json
from engines.targets import RTX_TARGETS
from pipeline.errors import PipelineError, UsageError, printable
from pipeline.machine import machine
from pipeline.progress import Console
from pipeline.run import Outcome, Run, versions

DEFAULT_TARGETS = ("sm86", "sm89")  # RTX 30 and 40
# How TensorRT's own tool builds the same on a device; its networks are weakly typed up to 10.
TRTEXEC = {"fp32": "", "fp16": " --fp16", "int8": " --int8 --fp16"}


@dataclass(frozen=True)
class Options:
    """What `edgetrt build` is asked for; see its flags.

    Raises UsageError for a name that does not exist.
    """

    backends: tuple[str, ...] = tuple(MODULES)
    precisions: tuple[str, ...] = PRECISIONS
    targets: tuple[str, ...] = DEFAULT_TARGETS

    def __post_init__(self) -> None:
        for flag, given, known in (
            ("engine", self.backends, tuple(MODULES)),
            ("precision", self.precisions, PRECISIONS),
            ("target", self.targets, RTX_TARGETS),
        ):
            unknown = [name for name in given if name not in known]
            if unknown or not given:
                raise UsageError(
                    f"--{flag} takes {', '.join(known)}; received "
                    f"{printable(unknown[0]) if unknown else 'nothing'}"
                )


class Order(NamedTuple):
    """One engine to build."""

    backend: str
    precision: str
    target: str

    @property
    def name(self) -> str:
        """As it stands in the report and on the disk."""
        place = f"-{self.target}" if self.target.startswith("sm") else ""
        return f"{self.backend}-{self.precision}{place}"


def build(run: Run, options: Options, console: Console) -> dict[str, Any]:
    """Stage 4: build every engine asked for that this machine can build.

    Each gets a .json beside it, also those that can't be built: with the reason.

    Returns:
        "built" and "unavailable": how many of each.

    Raises:
        PipelineError: not one could be built.
    """
    record = run.require("quantize")
    orders = list(_orders(options))

    def work() -> Outcome:
        sidecars = []
        with console.progress("build", len(orders), "engines") as advance:
            for order in orders:
                sidecars.append(_build(run, order, console))
                advance(1)
        built = [sidecar for sidecar in sidecars if sidecar["status"] == "built"]
        if not built:
            raise PipelineError(f"no engine could be built: {sidecars[0]['reason']}")
        files = [run.engines / f"{sidecar['name']}.json" for sidecar in sidecars]
        files += [run.engines / sidecar["file"] for sidecar in built]
        return Outcome(files, {"built": len(built), "unavailable": len(sidecars) - len(built)})

    inputs = [run.onnx("fp32")] + [run.folder / f for f in record["outputs"] if f.endswith("onnx")]
    return run.perform("build", inputs, {**asdict(options), "machine": machine()}, work, console)


def _orders(options: Options) -> Iterator[Order]:
    places = {"tensorrt-rtx": options.targets, "tensorrt": ("gpu",)}
    for backend in MODULES:
        for precision in PRECISIONS:
            for target in places.get(backend, ("cpu",)):
                if backend in options.backends and precision in options.precisions:
                    yield Order(backend, precision, target)


def _build(run: Run, order: Order, console: Console) -> dict[str, Any]:
    module = module_of(order.backend)
    variant = ONNX_VARIANTS[order.backend][order.precision]
    graph_file = run.onnx(variant)
    impossible = run.stage("quantize")["results"].get("impossible", {}).get(variant)
    sidecar: dict[str, Any] = {
        "schema": SCHEMA,
        "name": order.name,
        "backend": order.backend,
        "precision": order.precision,
        "target": order.target,
        "onnx": graph_file.name,
        "onnx_sha256": "" if impossible else sha256_of(graph_file),
        "versions": versions(),
        "machine": machine(),
    }
    path = run.engines / f"{order.name}.json"
    before = _sidecar_before(path)
    if before and {**before, **sidecar} == before and before["status"] == "built":
        console.say(f"build: {order.name} is up to date")
        return before
    reason = impossible or module.unavailable()
    if reason is None:
        try:
            sidecar.update(_make(run.engines / f"{order.name}{module.SUFFIX}", graph_file, order))
            console.say(
                f"build: {order.name}: {sidecar['size_bytes'] / 1e6:.1f} MB in "
                f"{sidecar['build_seconds']:.1f} s"
            )
        except EngineError as error:
            reason = printable(error)
            console.warn(f"{order.name} could not be built: {reason}")
    if reason is not None:
        if order.backend == "tensorrt" and not impossible:
            reason += f"; on the device: {_trtexec(order)}"
        sidecar.update(status="unavailable", reason=reason)
        (run.engines / f"{order.name}{module.SUFFIX}").unlink(missing_ok=True)  # of an older model
    write_json(path, sidecar)
    return sidecar


def _make(file: Path, graph_file: Path, order: Order) -> dict[str, Any]:
    start = time.monotonic()
    with replacing(file) as temporary:
        options = module_of(order.backend).build(
            str(graph_file), str(temporary), order.precision, order.target
        )
    return {
        "status": "built",
        "reason": "",
        "file": file.name,
        "sha256": sha256_of(file),
        "size_bytes": file.stat().st_size,
        "build_seconds": round(time.monotonic() - start, 3),
        "options": options,
    }


def _sidecar_before(path: Path) -> dict[str, Any] | None:
    """What an earlier build left, if its engine is still the one that was built."""
    try:
        sidecar = read_sidecar(path)
        whole = sha256_of(path.with_name(sidecar["file"])) == sidecar["sha256"]
    except (EngineError, OSError, KeyError):
        return None
    return sidecar if whole else None


def _trtexec(order: Order) -> str:
    # TensorRT up to 10 takes the graph whose unquantized rest is FP32, and chooses types itself.
    variant = "int8" if order.precision == "int8" else "fp32"
    return (
        f"trtexec --onnx=model.{variant}.onnx{TRTEXEC[order.precision]} "
        f"--saveEngine={order.name}.plan"
    )
