"""What differs from one TensorRT to another, behind one interface.

Which one is spoken is seen from what the installed module has, never from its version's number.
The rest of the house works with a `Dialect` and does not ask which.
"""

from typing import Any, Dict, List, Optional, Tuple

from engines.engine import EngineError, TensorSpec
from engines.settings import EXPLICIT, Settings


class Dialect:
    """How TensorRT 11 does it, and RTX: what others do otherwise, they override.

    Networks are strongly typed: every tensor has the type that the graph gives it, and precision
    is chosen by choosing the graph. Inputs and outputs are addressed by name.
    """

    name = ""

    def __init__(self, trt: Any) -> None:
        self.trt = trt

    @staticmethod
    def is_spoken_by(trt: Any) -> bool:
        """Whether the installed module has what this dialect uses."""
        raise NotImplementedError

    @staticmethod
    def graph_for(precision: str, int8: str) -> str:
        """Which of the exported graphs a precision is built from, such as "int8-fp16"."""
        if precision == "int8":
            return "int8-fp16" if int8 == EXPLICIT else "fp32"
        return precision

    @property
    def newest_opset(self) -> int:
        """The newest ONNX operator set that the parser is made for.

        Newer ones are parsed too, in silence, by what the parser knows. Source: NVIDIA's table of
        operators for each version.
        """
        return 25

    def refuse(self, settings: Settings) -> Optional[str]:
        """Why some settings can't be met; None if they can."""
        if settings.int8 != EXPLICIT:
            return (
                "{} has no calibrators any more: INT8 comes from the Q/DQ pairs in the "
                "graph; leave out --int8 {}".format(self.name, settings.int8)
            )
        return None

    def create_network(self, builder: Any, calibrated: bool) -> Any:
        """An empty network.

        Args:
            calibrated: whether TensorRT shall choose the types, by flags and a calibrator.
        """
        return builder.create_network(0)

    def adapt_network(self, network: Any, target: str) -> None:
        """Replace what TensorRT can't build for a target: nothing."""

    def set_precision(self, config: Any, precision: str, calibrator: Optional[Any]) -> None:
        """Say in which precision to build: nothing to do where the graph says it."""

    def set_target(self, config: Any, target: str) -> None:
        """Say for which GPU to build: nothing to do where it is the one at hand."""

    def set_workspace(self, config: Any, size: int) -> None:
        """Limit the scratch memory of a layer to `size` bytes."""
        config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, size)

    def set_timing_cache(self, config: Any, data: bytes) -> Any:
        """Let the builder use what it measured in earlier builds.

        Args:
            data: as `serialize` of an earlier cache gave it; b"" for none.

        Returns:
            The cache, which the build adds to; None where there is no such thing.
        """
        cache = config.create_timing_cache(data)
        if cache is None or not config.set_timing_cache(cache, False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        return cache

    def tensors(self, engine: Any) -> "Tensors":
        """The engine's input and output."""
        return NamedTensors(self.trt, engine)

    def contexts(self, runtime: Any, engine: Any, plan: bytes) -> "Contexts":
        """Where execution contexts of an engine come from.

        Args:
            runtime: that the engine was loaded by.
            plan: what it was loaded from.
        """
        return Contexts(engine)


class Contexts:
    """Makes execution contexts: one for each batch that is computed at a time."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def create(self) -> Any:
        """A new execution context; None if TensorRT can't make one."""
        return self._engine.create_execution_context()

    def save(self) -> None:
        """Keep what the contexts learnt, for the next start."""


class Tensors:
    """An engine's one input and one output, and how a batch is run through them.

    input, output: batch axis None.
    batch: smallest and largest.
    """

    input: TensorSpec
    output: TensorSpec
    batch: Tuple[int, int]

    def set_shape(self, context: Any, shape: Tuple[Any, ...]) -> bool:
        """Tell a context the shape of the input that comes next; False if it does not fit."""
        raise NotImplementedError

    def bind(self, context: Any, source: int, result: int) -> Any:
        """Tell a context where on the GPU its input and output lie; what `enqueue` needs of it."""
        raise NotImplementedError

    def enqueue(self, context: Any, bound: Any, stream: int) -> bool:
        """Start a batch on a CUDA stream; False if TensorRT refuses.

        Args:
            bound: what `bind` gave.
        """
        raise NotImplementedError


class NamedTensors(Tensors):
    """By name, as from TensorRT 8.5 on."""

    def __init__(self, trt: Any, engine: Any) -> None:
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        modes = [engine.get_tensor_mode(name) for name in names]
        specs = [
            (tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name)) for name in names
        ]
        inputs = [mode == trt.TensorIOMode.INPUT for mode in modes]
        self.input, self.output = one_input_one_output(trt, names, specs, inputs)
        smallest, _, largest = engine.get_tensor_profile_shape(self.input.name, 0)
        self.batch = (smallest[0], largest[0])

    def set_shape(self, context: Any, shape: Tuple[Any, ...]) -> bool:
        """See `Tensors.set_shape`."""
        return bool(context.set_input_shape(self.input.name, shape))

    def bind(self, context: Any, source: int, result: int) -> Any:
        """See `Tensors.bind`; the context keeps them."""
        context.set_tensor_address(self.input.name, source)
        context.set_tensor_address(self.output.name, result)

    def enqueue(self, context: Any, bound: Any, stream: int) -> bool:
        """See `Tensors.enqueue`."""
        return bool(context.execute_async_v3(stream))


def one_input_one_output(
    trt: Any, names: List[str], specs: List[Tuple[Tuple[int, ...], Any]], inputs: List[bool]
) -> Tuple[TensorSpec, TensorSpec]:
    """Of an engine's tensors the pixels and the answer.

    Raises:
        EngineError: there are more or others.
    """
    found: Dict[bool, List[TensorSpec]] = {True: [], False: []}
    for name, (shape, dtype), is_input in zip(names, specs, inputs):
        if dtype != trt.DataType.FLOAT:
            raise EngineError(
                "tensor {} of the engine is {}, not float32; build it again".format(name, dtype)
            )
        found[is_input].append(TensorSpec(name, (None, *shape[1:]), "float32"))
    if [len(found[True]), len(found[False])] != [1, 1] or len(found[True][0].shape) != 4:
        raise EngineError("the engine does not take pictures and give one answer; build it again")
    return found[True][0], found[False][0]
