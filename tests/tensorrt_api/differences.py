"""What TensorRT versions without a wheel lack, against the nearest newer one that has a snapshot.

Sources, by the mark at each entry:
    S   the bindings' C++ source (python/src/infer, python/src/parsers) of that version
    S+  the source of a version between the two lacks it, so the older does too
    R   NVIDIA's release notes and API reference, as this project's table of versions records them
    ?   not verified for this very version; left out, so that nobody relies on it

Covered are the classes with which an engine is built, calibrated, loaded and run, the parser, and
the types of data. The classes of single layers and of plugins, and signatures, are those of the
newer version: nothing here says that the older has them.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple


class Older(NamedTuple):
    """An older version: the version it is described by, and the names that it lacks.

    A name is "Class", "Class.member" (method, property or member of an enum), or "module.name".
    """

    base: str
    lacks: tuple[str, ...]

    def of(self, newer: dict[str, Any], version: str) -> dict[str, Any]:
        """The snapshot of the older version, from that of the newer.

        Raises:
            KeyError: a name is not in the newer version.
        """
        older = copy.deepcopy(newer)
        older["version"] = version
        for name in self.lacks:
            owner, _, member = name.partition(".")
            if not member:
                del older["classes"][owner]
            elif owner == "module":
                del older["module"][member]
            else:
                (part,) = (
                    part for part in older["classes"][owner].values() if member in part
                )  # a class has a name once
                del part[member]
        return older


def _members(owner: str, *members: str) -> tuple[str, ...]:
    return tuple(f"{owner}.{member}" for member in members)


OLDER = {
    "8.5.2": Older(
        "8.6.1",
        (
            *_members("BuilderFlag", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "FP8"),  # S
            *_members("DataType", "FP8"),  # S
            *_members("module", "fp8"),  # S
            *_members("MemoryPoolType", "TACTIC_DRAM"),  # S
            *_members("PreviewFeature", "PROFILE_SHARING_0806"),  # S
            *_members("Builder", "get_plugin_registry"),  # S
            *_members("IBuilderConfig", "builder_optimization_level", "max_aux_streams",
                      "hardware_compatibility_level", "plugins_to_serialize"),  # S
            *_members("ICudaEngine", "hardware_compatibility_level", "num_aux_streams"),  # S
            *_members("IExecutionContext", "set_aux_streams"),  # S
            *_members("Runtime", "engine_host_code_allowed", "get_plugin_registry", "load_runtime",
                      "tempfile_control_flags", "temporary_directory"),  # S
            *_members("OnnxParser", "flags", "clear_flag", "get_flag", "set_flag",
                      "get_used_vc_plugin_libraries"),  # S
            "HardwareCompatibilityLevel", "OnnxParserFlag", "TempfileControlFlag",  # S
        ),
    ),
    "8.4.1": Older(
        "8.5.2",
        (
            *_members("BuilderFlag", "ENABLE_TACTIC_HEURISTIC"),  # R
            *_members("DataType", "UINT8"),  # R
            *_members("module", "uint8"),  # R
            *_members("TacticSource", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"),  # ?
            *_members("IBuilderConfig", "get_preview_feature", "set_preview_feature"),  # R
            *_members("ICudaEngine", "num_io_tensors", "get_tensor_name", "get_tensor_mode",
                      "get_tensor_shape", "get_tensor_dtype", "get_tensor_location",
                      "get_tensor_bytes_per_component", "get_tensor_components_per_element",
                      "get_tensor_format", "get_tensor_format_desc", "get_tensor_vectorized_dim",
                      "get_tensor_profile_shape", "is_shape_inference_io"),  # R
            *_members("IExecutionContext", "execute_async_v3", "set_input_shape",
                      "get_tensor_shape", "get_tensor_strides", "set_tensor_address",
                      "get_tensor_address", "set_input_consumed_event", "get_input_consumed_event",
                      "set_output_allocator", "get_output_allocator", "get_max_output_size",
                      "temporary_allocator", "infer_shapes"),  # R
            *_members("IExecutionContext", "nvtx_verbosity", "persistent_cache_limit"),  # ?
            *_members("ITensor", "get_dimension_name", "set_dimension_name"),  # R
            "IOutputAllocator", "PreviewFeature", "TensorIOMode",  # R
        ),
    ),
    "8.2.1": Older(
        "8.4.1",
        (
            *_members("BuilderFlag", "REJECT_EMPTY_ALGORITHMS"),  # ?
            *_members("IBuilderConfig", "get_memory_pool_limit", "set_memory_pool_limit"),  # S
            *_members("Builder", "max_threads"),  # S
            *_members("Runtime", "max_threads"),  # S
            *_members("Refitter", "max_threads"),  # S
            *_members("OnnxParser", "parse_with_weight_descriptors"),  # ?
            "MemoryPoolType",  # S
        ),
    ),
    "10.3.0": Older(
        "10.13.3.9",
        (
            *_members("BuilderFlag", "DISTRIBUTIVE_INDEPENDENCE"),  # S+
            *_members("BuilderFlag", "EDITABLE_TIMING_CACHE", "FP4", "MONITOR_MEMORY"),  # R
            *_members("BuilderFlag", "STRICT_NANS"),  # ?
            *_members("DataType", "FP4", "E8M0"),  # R
            *_members("module", "fp4", "e8m0"),  # R
            *_members("HardwareCompatibilityLevel", "SAME_COMPUTE_CAPABILITY"),  # R
            *_members("NetworkDefinitionCreationFlag", "PREFER_AOT_PYTHON_PLUGINS",
                      "PREFER_JIT_PYTHON_PLUGINS"),  # R
            *_members("PreviewFeature", "RUNTIME_ACTIVATION_RESIZE_10_10"),  # R
            *_members("Builder", "build_serialized_network_to_stream"),  # S+
            *_members("Builder", "build_engine_with_config"),  # R
            *_members("IBuilderConfig", "remote_auto_tuning_config"),  # S+
            *_members("IBuilderConfig", "l2_limit_for_tiling", "max_num_tactics",
                      "tiling_optimization_level"),  # R
            *_members("ICudaEngine", "create_runtime_config"),  # S+
            *_members("IExecutionContext", "get_runtime_config",
                      "unfused_tensors_debug_state"),  # S+
            *_members("ITimingCache", "query", "queryKeys", "update"),  # R
            *_members("OnnxParser", "load_initializer", "load_model_proto",
                      "parse_model_proto"),  # ?
            "IRuntimeConfig", "IStreamWriter",  # S+
            "IStreamReaderV2", "SeekPosition", "TilingOptimizationLevel",  # R
            "TimingCacheKey", "TimingCacheValue",  # R
        ),
    ),
}  # fmt: skip
