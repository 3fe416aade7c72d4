"""Which peers there are, what each is, and which engine of ours it is held against."""

from typing import Callable, List, NamedTuple

from benchmarks.peers import keras_model
from benchmarks.peers.bare import BareOnnxRuntime, BareOpenVINO, computes_in
from benchmarks.peers.polygraphy_runner import PolygraphyEngine
from benchmarks.peers.run_folder import RunFolder
from benchmarks.peers.tflite import TFLiteEngine, convert
from engines.engine import Engine, EngineError
from engines.settings import DEFAULT
from engines.tensorrt import standard

TRAINING = "training"  # the name of the comparison of training times
APP_PREFIX = "benchmark_app-"


class Peer(NamedTuple):
    """A way to run a run's model.

    what: how its users come to it.
    beside: the engine of ours that it is held against.
    open: makes it of a run; raises EngineError, or whatever it fails with.
    """

    name: str
    what: str
    beside: str
    open: Callable[[RunFolder], Engine]


def peers() -> List[Peer]:
    """Those that are measured as engines, in turns with ours."""
    return [
        Peer("keras-predict", "model.predict of the Keras model", "tensorflow-fp32",
             lambda run: keras_model.Predict(_keras(run))),
        Peer("tf.function", "tf.function(model)", "tensorflow-fp32",
             lambda run: keras_model.Function(_keras(run), xla=False)),
        Peer("tf.function-xla", "tf.function(model, jit_compile=True)", "tensorflow-fp32",
             lambda run: keras_model.Function(_keras(run), xla=True)),
        Peer("tflite-fp32", "tf.lite, XNNPACK", "openvino-fp32", _tflite),
        Peer("tflite-int8", "tf.lite, DEFAULT optimization, calibrated", "openvino-int8",
             _tflite_int8),
        *(_bare_onnx_runtime(precision) for precision in ("fp32", "int8")),
        *(_bare_openvino(precision) for precision in ("fp32", "int8")),
        *(_bare_openvino_f32(precision) for precision in ("fp32", "int8")),
        *(_polygraphy(precision) for precision in ("fp32", "fp16", "int8")),
    ]  # fmt: skip


class App(NamedTuple):
    """OpenVINO's benchmark_app on the graph of a precision: a program that measures itself."""

    name: str
    what: str
    beside: str
    precision: str


def apps() -> List[App]:
    """Those that measure themselves, after the others."""
    return [
        App(
            APP_PREFIX + precision,
            "benchmark_app -hint latency, alone",
            "openvino-" + precision,
            precision,
        )
        for precision in ("fp32", "int8")
    ]


def _keras(run: RunFolder) -> object:
    return keras_model.load(run.model("retrained.keras"))


def _tflite(run: RunFolder) -> Engine:
    return TFLiteEngine(convert(run.model("frozen.pb")), "fp32")


def _tflite_int8(run: RunFolder) -> Engine:
    files = [picture.file for picture in run.calibration()]
    if not files:
        raise EngineError("the run has no calibration pictures; run: edgetrt quantize")
    return TFLiteEngine(convert(run.model("frozen.pb"), files), "int8")


def _bare_onnx_runtime(precision: str) -> Peer:
    return Peer(
        "bare-onnxruntime-" + precision,
        "InferenceSession as it comes",
        "onnxruntime-" + precision,
        lambda run: BareOnnxRuntime(run.graph(precision), precision),
    )


def _bare_openvino(precision: str) -> Peer:
    return Peer(
        "bare-openvino-" + precision,
        "compile_model as it comes",
        "openvino-" + precision,
        lambda run: BareOpenVINO(run.graph(precision), precision, {}),
    )


def _bare_openvino_f32(precision: str) -> Peer:
    """The one that computes in the same type as ours, where OpenVINO would not by itself."""

    def load(run: RunFolder) -> Engine:
        if computes_in() == "f32":
            raise EngineError("bare-openvino-{} computes in f32 here".format(precision))
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        return BareOpenVINO(run.graph(precision), precision, config)

    return Peer(
        "bare-openvino-{}-f32".format(precision),
        "compile_model, in f32 and not in bf16",
        "openvino-" + precision,
        load,
    )


def _polygraphy(precision: str) -> Peer:
    def load(run: RunFolder) -> Engine:
        return PolygraphyEngine(run.graph(standard.graph_for(precision, DEFAULT)), precision)

    return Peer("polygraphy-" + precision, "TrtRunner", "tensorrt-" + precision, load)
