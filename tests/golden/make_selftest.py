"""Write benchmarks/device/known/, by which a device checks itself.

    python tests/golden/make_selftest.py

A small network like MobileNet V2 in every variant that a run has, pictures, and what ONNX Runtime
answers. The files are kept, as a device has nothing to make them with.
"""

import sys
from pathlib import Path

import cv2
import keras
import numpy as np

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "pipeline"))

from networks import SIZE, batches, export, mobile, pixels, randomise_statistics, run  # noqa: E402

from engines.preprocess import load  # noqa: E402
from pipeline import calibration  # noqa: E402
from pipeline.half import to_fp16  # noqa: E402
from pipeline.qdq import insert_qdq, quantized_inputs  # noqa: E402

KNOWN = REPOSITORY / "benchmarks" / "device" / "known"
PICTURES = 8


def _spread(model: keras.Model, pictures: np.ndarray) -> None:
    """Give the last layer weights by which its answers differ from picture to picture."""
    bottlenecks = keras.Model(model.input, model.layers[-2].input)(pictures.astype(np.float32))
    features = np.array(bottlenecks)
    axis = np.linalg.svd(features - features.mean(0), full_matrices=False)[2][0]
    axis /= (features @ axis).std()
    kernel = np.stack([axis, -axis, 0 * axis], axis=1)
    model.layers[-1].set_weights([kernel, -features.mean(0) @ kernel])


def main() -> None:
    keras.utils.set_random_seed(1)
    model = mobile()
    randomise_statistics(model)
    pictures = pixels(PICTURES)
    pictures[::2] //= 3  # some dark ones
    _spread(model, pictures)
    onnx = export(model).onnx
    amax = calibration.largest_values(onnx, batches(pictures))
    int8 = insert_qdq(onnx, {tensor: amax[tensor] for tensor in quantized_inputs(onnx)})
    variants = {"fp32": onnx, "int8": int8, "fp16": to_fp16(onnx), "int8-fp16": to_fp16(int8)}
    KNOWN.mkdir(exist_ok=True)
    for name, variant in variants.items():
        (KNOWN / f"model.{name}.onnx").write_bytes(variant.SerializeToString())
    odd = np.ascontiguousarray(pixels(1, 2 * SIZE, seed=1)[0][: SIZE + 7])
    cv2.imwrite(str(KNOWN / "picture.png"), odd[..., ::-1])
    np.savez_compressed(
        KNOWN / "answers.npz",
        pictures=pictures,
        decoded=load(str(KNOWN / "picture.png"), SIZE, SIZE),
        **{name: run(variant, pictures)[-1] for name, variant in variants.items()},  # type: ignore[arg-type]
    )
    with np.load(KNOWN / "answers.npz") as answers:
        for name in variants:
            print(name, np.round(answers[name][:3], 3).tolist())


if __name__ == "__main__":
    main()
