"""ONNX -> engines: whatever this machine can build, and why it can't build the rest."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.orders import fulfil_aloud, orders
from benchmarks.progress import Console
from engines.boards import Board
from engines.catalogue import MODULES, PRECISIONS, backends_here, module_of
from engines.orders import Order, tidy
from engines.settings import DEFAULT, EXPLICIT, Settings
from engines.settings import check as check_settings
from engines.targets import RTX_TARGETS, refusal
from engines.tensorrt import rtx, standard
from engines.text import printable
from pipeline.errors import PipelineError, UsageError
from pipeline.machine import machine
from pipeline.quantize import calibration_pictures
from pipeline.retrain import trained_dataset
from pipeline.run import Outcome, Run, versions
from pipeline.targets import find

DEFAULT_TARGETS = ("sm86", "sm89")  # RTX 30 and 40


@dataclass(frozen=True)
class Options:
    """What `edgetrt build` is asked for; see its flags.

    Raises UsageError for a name that does not exist.
    """

    backends: tuple[str, ...] = tuple(MODULES)
    precisions: tuple[str, ...] = PRECISIONS
    targets: tuple[str, ...] = DEFAULT_TARGETS
    settings: Settings = DEFAULT

    def __post_init__(self) -> None:
        for flag, given, known in (
            ("engine", self.backends, tuple(MODULES)),
            ("precision", self.precisions, PRECISIONS),
            ("target", self.targets, RTX_TARGETS),
        ):
            unknown = [name for name in given if name not in known]
            if flag == "target" and unknown:
                self._refuse_board(unknown[0])
            if unknown or not given:
                raise UsageError(
                    f"--{flag} takes {', '.join(known)}; received "
                    f"{printable(unknown[0]) if unknown else 'nothing'}"
                )
        wrong = check_settings(self.settings)
        if wrong:
            raise UsageError(wrong)
        way = self.settings.int8
        if way != EXPLICIT and not (
            standard.BACKEND in self.backends and "int8" in self.precisions
        ):
            raise UsageError(f"--int8 {way} is for --engine {standard.BACKEND} --precision int8")

    def _refuse_board(self, name: str) -> None:
        """A board builds its own engines: say how, and what it is not made for."""
        try:
            board = find(name)
        except UsageError:
            return
        refusals = (refusal(p, board.compute_capability) for p in self.precisions)
        against = next(filter(None, refusals), None)
        if against and self.precisions != PRECISIONS and not self.settings.force:
            raise UsageError(against)
        how = "edgetrt build there"
        if isinstance(board, Board):
            how = "edgetrt device-package, then there python3 edgetrt-device.pyz build --run DIR"
        raise UsageError(f"TensorRT builds for {board.name} only on one: {how}")


def build(run: Run, options: Options, console: Console) -> dict[str, Any]:
    """Stage 4: build every engine asked for that this machine can build.

    Each gets a .json beside it, also those that can't be built: with the reason.

    Returns:
        "built" and "unavailable": how many of each.

    Raises:
        PipelineError: not one could be built.
    """
    record = run.require("quantize")
    given = list(orders(options.backends, options.precisions, _places(options), options.settings))

    def work() -> Outcome:
        sidecars = []
        with console.progress("build", len(given), "engines") as advance:
            for order in given:
                sidecars.append(_build(run, order, console))
                advance(1)
        built = [sidecar for sidecar in sidecars if sidecar["status"] == "built"]
        if not built:
            raise PipelineError(f"no engine could be built: {sidecars[0]['reason']}")
        tidy(run.engines, given)
        files = [run.engines / f"{sidecar['name']}.json" for sidecar in sidecars]
        files += [run.engines / sidecar["file"] for sidecar in built]
        return Outcome(files, {"built": len(built), "unavailable": len(sidecars) - len(built)})

    inputs = [run.onnx("fp32")] + [run.folder / f for f in record["outputs"] if f.endswith("onnx")]
    chosen = {**asdict(options), "machine": machine(), "available": backends_here()}
    return run.perform("build", inputs, chosen, work, console)


def refuse_unavailable(options: Options) -> None:
    """Say now, not after the stages before, that there is nothing to build with.

    Raises:
        PipelineError: not one of the backends that are asked for is available here.
    """
    reasons = [module_of(backend).unavailable() for backend in options.backends]
    if all(reasons):
        raise PipelineError(f"no engine could be built: {reasons[0]}")


def _places(options: Options) -> dict[str, list[str]]:
    """The targets of the backends that have some: for RTX also the GPU at hand, if it is one."""
    here, given = standard.target_here(), list(options.targets)
    if here in RTX_TARGETS and options.targets == DEFAULT_TARGETS and here not in given:
        given.append(here)
    return {rtx.BACKEND: given, standard.BACKEND: [here]}


def _build(run: Run, order: Order, console: Console) -> dict[str, Any]:
    impossible = run.stage("quantize")["results"].get("impossible", {}).get(order.graph)
    about = {"versions": versions(), "machine": machine()}
    if order.settings.int8 != EXPLICIT:
        order = order._replace(settings=_with_pictures(run, order.settings))
    return fulfil_aloud(order, run.onnx(order.graph), run.engines, about, impossible, console)


def _with_pictures(run: Run, settings: Settings) -> Settings:
    """The pictures that calibrated the INT8 graph calibrate TensorRT as well."""
    dataset = trained_dataset(run)
    count = run.stage("quantize")["results"]["calibration_images"]
    pictures = calibration_pictures(dataset, count, run.stage("retrain")["options"]["seed"])
    paths = tuple(str(Path(dataset.root) / picture.path) for picture in pictures)
    return settings._replace(calibration_pictures=paths)
