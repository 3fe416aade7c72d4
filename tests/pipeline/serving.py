"""Release folders with tiny networks whose answers are known, and a server that serves them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from engines import __version__
from engines.bundle.manifest import release_id
from engines.orders import Order, fulfil
from engines.preprocess import RECIPE, load
from engines.serve.options import ServeOptions

REPOSITORY = Path(__file__).parents[2]
HEIGHT, WIDTH = 8, 6
CLASSES = ["red", "green", "blue"]
START = """
import json, sys
from pathlib import Path
from engines.serve.options import ServeOptions
from engines.serve.supervisor import serve
def say(text):
    print(text, flush=True)
sys.exit(serve(Path(sys.argv[1]), ServeOptions(**json.loads(sys.stdin.readline())), say))
"""


def network(scale: float, height: int = HEIGHT, width: int = WIDTH, work: int = 0) -> bytes:
    """Softmax of each picture's mean red, green and blue, times `scale`.

    Args:
        work: how much is computed besides, which changes nothing but the time.
    """
    model = onnx.parser.parse_model(
        f"""<ir_version: 7, opset_import: ["": 13]>
        means (float[batch, {height}, {width}, 3] pixels) => (float[batch, 3] probabilities)
        <float scale = {{{scale}}}, float nothing = {{0}}> {{
            sums = ReduceMean <axes = [1, 2], keepdims = 0> (pixels)
            busy = MatMul (weights, weights)
            one = ReduceMax <keepdims = 0> (busy)
            zero = Mul (one, nothing)
            scaled = Mul (sums, scale)
            logits = Add (scaled, zero)
            probabilities = Softmax <axis = -1> (logits)
        }}"""
    )
    # Of random size, or the optimizer would compute it beforehand.
    side = max(1, work)
    weights = onnx.helper.make_node(
        "RandomUniformLike", ["shape"], ["weights"], low=0.0, high=1.0, dtype=1
    )
    shape = onnx.numpy_helper.from_array(np.zeros((side, side), np.float32), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, weights)
    data: bytes = model.SerializeToString()
    return data


def expected(pixels: np.ndarray, scale: float) -> np.ndarray:
    powers = np.exp(scale * pixels.astype(np.float64).mean((1, 2)))
    found: np.ndarray = powers / powers.sum(1, keepdims=True)
    return found


def pictures(count: int, seed: int = 0) -> np.ndarray:
    found: np.ndarray = np.random.default_rng(seed).integers(0, 256, (count, HEIGHT, WIDTH, 3))
    return found.astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    good, data = cv2.imencode(".png", pixels[:, :, ::-1])
    assert good
    return bytes(data)


def add_release(
    root: Path,
    scale: float = 0.01,
    wrong: bool = False,
    program: bytes | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    graph: bytes | None = None,
) -> str:
    """A finished release of a network; returns its ID.

    Args:
        wrong: its golden cases expect something else.
        program: its program.pyz; None for none: it is served by the checkout's code.
        graph: its network, with the answers of `network(scale)`.
    """
    staging = root / "releases" / ".tmp-staging"
    height, width = size
    picture = np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)
    files = {
        "golden/0.png": png(picture),
        "model/labels.txt": "\n".join(CLASSES).encode(),
        "onnx/model.fp32.onnx": graph or network(scale, height, width),
    }
    for name, data in files.items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_bytes(data)
    pixels = load(staging / "golden/0.png", height, width)[np.newaxis]
    answers = expected(pixels, -5 * scale if wrong else scale)[0]
    manifest = json.dumps(manifest_of(files, answers.tolist(), size)).encode()
    folder = root / "releases" / release_id(manifest)
    staging.rename(folder)
    (folder / "manifest.json").write_bytes(manifest)
    order = Order("onnxruntime", "fp32", "cpu")
    built, _ = fulfil(order, folder / "onnx/model.fp32.onnx", folder / "engines", {})
    assert built["status"] == "built", built
    if program is not None:
        (folder / "program.pyz").write_bytes(program)
    about = {"schema": 1, "id": folder.name, "engine": order.name, "complete": True, "engines": {}}
    (folder / "release.json").write_text(json.dumps(about))
    return folder.name


def manifest_of(
    files: dict[str, bytes], answers: list[float], size: tuple[int, int]
) -> dict[str, Any]:
    return {
        "schema": 1, "name": "demo", "edgetrt": __version__, "classes": CLASSES,
        "made_from": {"created": "2024-01-01T00:00:00Z", "architecture": "means", "seed": 0,
                      "pictures": 1, "dataset_sha256": "0" * 64},
        "input": {"name": "pixels", "height": size[0], "width": size[1], "channels": 3,
                  "layout": "NHWC", "color": "RGB", "dtype": "uint8", "minimum": 0,
                  "maximum": 255},
        "preprocessing": {"recipe": RECIPE, "orientation": "as EXIF says", "resize": "squash",
                          "scaling": "in the graph"},
        "precisions": ["fp32"], "targets": [], "accuracy": {},
        "golden": {"tolerance": {"fp32": 0.005},
                   "cases": [{"picture": "golden/0.png", "probabilities": {"fp32": answers}}]},
        "licences": [],
        "files": [{"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                  for path, data in sorted(files.items())],
    }  # fmt: skip


def point(root: Path, release: str) -> None:
    """Make a release the current one, as a deployment does."""
    link = root / ".tmp-current"
    link.symlink_to(f"releases/{release}")
    link.replace(root / "current")


def program(version: str, first: str = "") -> bytes:
    """The device program, calling itself by another version.

    Args:
        first: what it does before anything else.
    """
    from pipeline.device_package import program as real

    source, changed = io.BytesIO(real()), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "engines/__init__.py":
                data = data.replace(__version__.encode(), version.encode())
            if name == "__main__.py":
                data = first.encode() + data
            new.writestr(name, data)
    return changed.getvalue()


class Served:
    """`serve` in a process of its own, on a free port; for use in a `with`."""

    def __init__(self, root: Path, token: str | None = None, **options: Any) -> None:
        self.root, self.token = root, token
        self.log = (root / "serve.log").open("w+b")
        asked = ServeOptions(**{"port": 0, "token": token, **options})._asdict()
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(root)],
            stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, cwd=REPOSITORY,
        )  # fmt: skip
        assert self.process.stdin
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        self.process.stdin.flush()
        self.port = 0

    def __enter__(self) -> Served:
        self.until(lambda state: state["state"] in ("serving", "failed") and state["release"])
        self.port = self.state()["port"]
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(40)
        finally:
            self.process.kill()
            self.process.wait()

    def said(self) -> str:
        return (self.root / "serve.log").read_text("utf-8", "replace")

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "serve.json").read_text())
        return found

    def until(self, holds: Any, seconds: float = 30.0) -> dict[str, Any]:
        """Wait until what serve.json says is as it should be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.said()
            with contextlib.suppress(FileNotFoundError):
                state = self.state()
                if state["pid"] == self.process.pid and holds(state):
                    return state
            time.sleep(0.02)
        raise AssertionError(f"{self.said()}\n{(self.root / 'serve.json').read_text()}")

    def end(self) -> int:
        """Stop it gracefully; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Any = None
    ) -> tuple[int, bytes, Any]:
        """Status, body and headers of an answer, on a connection of its own."""
        headers = dict(headers or {})
        if self.token and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(), response.headers

    def raw(self, data: bytes, more: bool = False) -> bytes:
        """Whatever comes back for some bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            if not more:
                connection.shutdown(socket.SHUT_WR)
            found = b""
            while piece := connection.recv(1 << 16):
                found += piece
            return found


def infer_body(pixels: np.ndarray, binary: bool = True) -> tuple[bytes, dict[str, str]]:
    """A request for inference, and its headers."""
    tensor: dict[str, Any] = {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8"}
    if not binary:
        return json.dumps({"inputs": [{**tensor, "data": pixels.tolist()}]}).encode(), {}
    tensor["parameters"] = {"binary_data_size": pixels.nbytes}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + pixels.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
