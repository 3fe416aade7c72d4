"""How TensorRT-RTX is run, held against what the installed one has: it runs on a GPU only."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from engines.tensorrt.rtx import CachedContexts

trt = pytest.importorskip("tensorrt_rtx_bindings")


def played(kind: Any) -> Any:
    """An object that has the names of a class, and takes no others."""
    return create_autospec(kind, instance=True, spec_set=True)


class Rtx:
    """An engine, with what its contexts are made of."""

    def __init__(self, compiled: bytes) -> None:
        self.engine, self.config = played(trt.ICudaEngine), played(trt.IRuntimeConfig)
        self.cache = played(trt.IRuntimeCache)
        self.engine.create_runtime_config.return_value = self.config
        self.config.create_runtime_cache.return_value = self.cache
        self.cache.serialize.return_value = compiled


def test_contexts_share_what_is_compiled_and_keep_it(tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "runtime-1.cache"
    first = Rtx(b"kernels")
    contexts = CachedContexts(trt, first.engine, kept)
    assert first.config.cuda_graph_strategy == trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert first.config.dynamic_shapes_kernel_specialization_strategy == eager
    first.config.set_runtime_cache.assert_called_once_with(first.cache)
    first.cache.deserialize.assert_not_called()
    assert contexts.create() is first.engine.create_execution_context.return_value
    first.engine.create_execution_context.assert_called_once_with(first.config)
    contexts.save()
    assert kept.read_bytes() == b"kernels"

    second = Rtx(b"kernels")
    contexts = CachedContexts(trt, second.engine, kept)
    second.cache.deserialize.assert_called_once_with(b"kernels")
    kept.unlink()
    contexts.save()  # there is nothing new to keep
    assert not kept.exists()


def test_a_folder_that_can_not_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    CachedContexts(trt, Rtx(b"kernels").engine, tmp_path / "file" / "runtime-1.cache").save()


def test_the_binding_takes_what_it_is_given() -> None:
    takes = "create_execution_context(self: tensorrt_rtx_bindings.tensorrt_rtx"
    text = str(trt.ICudaEngine.create_execution_context.__doc__)
    assert takes in text and "runtime_config: " in text
