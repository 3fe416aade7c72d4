"""The boards and GPUs that engines are for: a table, with the source of each fact beside it.

What no source states for certain is left out here, not guessed.
"""

from typing import NamedTuple, Optional, Tuple


class JetPack(NamedTuple):
    """Releases of NVIDIA's system for Jetson that bring the same CUDA and TensorRT.

    versions, l4t: the releases, and those of Jetson Linux in them.
    image: container that TensorRT works in; "" where none is known.
    """

    versions: str
    l4t: str
    cuda: str
    tensorrt: str
    python: str
    image: str


class Rails(NamedTuple):
    """Where the power of a board's supplies is read.

    path: pattern of the sensor's folder; numbers of iio and hwmon devices change from boot to boot.
        Under iio: rail_name_K and in_powerK_input (mW). Under hwmon: inK_label, inK_input (mV)
        and currK_input (mA); on AGX Thor power1_input (uW).
    """

    path: str
    names: Tuple[str, ...]


class Board(NamedTuple):
    """A Jetson.

    marks: what in its device tree tells it from others with the same chip, in lower case.
    jetpacks: the newest for it, oldest first.
    dla_cores: how many deep learning accelerators it has; several numbers: by module.
    workspace_mib: what the builder may use by default for a layer's scratch space.
    rails: None where there is no sensor, or none is known.
    power_modes: (number, name) as `nvpmodel` knows them; empty: /etc/nvpmodel.conf tells.
    note: what else there is to know; "" for nothing.
    """

    name: str
    chip: str
    compute_capability: Tuple[int, int]
    marks: Tuple[str, ...]
    jetpacks: Tuple[JetPack, ...]
    dla_cores: Tuple[int, ...]
    workspace_mib: int
    rails: Optional[Rails]
    power_modes: Tuple[Tuple[int, str], ...]
    note: str


class GpuFamily(NamedTuple):
    """Desktop and server GPUs of one compute capability.

    tensorrt: the releases that serve them, such as "10", "11" and "RTX".
    """

    name: str
    compute_capability: Tuple[int, int]
    architecture: str
    examples: str
    tensorrt: Tuple[str, ...]
    note: str


# NVIDIA's container for servers; also works on AGX Thor (OE4T/meta-tegra#2120).
NGC_IMAGE = "nvcr.io/nvidia/tensorrt:25.08-py3"

# Sources: NVIDIA's release notes for each JetPack; TensorRT, CUDA and Python by what users of
# the boards report (dusty-nv/jetson-containers#1677, NVIDIA/TensorRT#2737, pytorch/TensorRT#3453,
# rbonghi/jetson_stats#820, roboflow/inference#2531). There is no l4t-base newer than r32.7.1
# (dusty-nv/jetson-containers#177): it serves all of 32.7.
JETPACK_4 = JetPack(
    "4.6.1 to 4.6.6", "32.7.1 to 32.7.6", "10.2", "8.2.1", "3.6", "nvcr.io/nvidia/l4t-base:r32.7.1"
)
JETPACK_5 = JetPack(
    "5.1 to 5.1.6", "35.2.1 to 35.6.4", "11.4", "8.5.2", "3.8",
    "nvcr.io/nvidia/l4t-jetpack:r35.4.1",
)  # fmt: skip
JETPACK_6 = JetPack(
    "6.1 to 6.2.3", "36.4.0 to 36.5.2", "12.6", "10.3", "3.10",
    "nvcr.io/nvidia/l4t-jetpack:r36.4.0",
)  # fmt: skip
JETPACK_7 = JetPack("7.0 to 7.1", "38.2.0 to 38.4.0", "13.0", "10.13.3", "3.12", NGC_IMAGE)
JETPACK_7_2 = JetPack("7.2", "39.2.0", "13.2", "10.16.2", "3.12", "")

# L4T (Jetson Linux) -> JetPack. Sources: NVIDIA's JetPack archive, jetson_stats.
RELEASES = {
    "32.4.3": "4.4", "32.4.4": "4.4.1", "32.5.0": "4.5", "32.5.1": "4.5.1", "32.5.2": "4.5.1",
    "32.6.1": "4.6", "32.7.1": "4.6.1", "32.7.2": "4.6.2", "32.7.3": "4.6.3", "32.7.4": "4.6.4",
    "32.7.5": "4.6.5", "32.7.6": "4.6.6",
    "35.1.0": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1", "35.4.1": "5.1.2", "35.5.0": "5.1.3",
    "35.6.0": "5.1.4", "35.6.1": "5.1.5", "35.6.4": "5.1.6",
    "36.3.0": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.5.0": "6.2.2",
    "36.5.2": "6.2.3",
    "38.2.0": "7.0", "38.2.1": "7.0", "38.4.0": "7.1", "39.2.0": "7.2", "39.2.1": "7.2.1",
}  # fmt: skip

# Names of rails: device trees of L4T 32.6.1 as energymon lists them (JetsonPowerRails.md);
# Orin: lines of tegrastats and the hwmon labels. JetPack 4 has the driver ina3221x under iio,
# later ones ina3221 under hwmon.
_IIO = "/sys/bus/i2c/drivers/ina3221x/*-004{}/iio:device*"
_HWMON = "/sys/bus/i2c/drivers/ina3221/*-004{}/hwmon/hwmon*"
_TX1_RAILS = Rails(_IIO.format("0"), ("VDD_IN", "VDD_GPU", "VDD_CPU"))
_NANO_RAILS = Rails(_IIO.format("0"), ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"))
_TX2I_RAILS = Rails(
    _IIO.format("[01]"), ("VDD_IN", "VDD_SYS_GPU", "VDD_SYS_CPU", "VDD_SYS_SOC", "VDD_SYS_DDR")
)
_TX2_RAILS = _TX2I_RAILS._replace(names=(*_TX2I_RAILS.names, "VDD_4V0_WIFI"))
_TX2_NX_RAILS = Rails(_IIO.format("0"), ("VDD_IN", "VDD_CPU_GPU", "VDD_SOC"))
_AGX_XAVIER_RAILS = Rails(_HWMON.format("[01]"), ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"))
_NX_RAILS = Rails(_HWMON.format("0"), ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"))
_AGX_ORIN_RAILS = Rails(
    _HWMON.format("[01]"), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
)
# On the carrier: the whole kit (jetson_stats#900).
_THOR_RAILS = Rails("/sys/bus/i2c/drivers/ina238/*/hwmon/hwmon*", ("VIN",))

# Source: /etc/nvpmodel.conf of each board. Those of later boards differ from JetPack to JetPack.
_NANO_MODES = ((0, "MAXN"), (1, "5W"))
_TX2_MODES = (
    (0, "MAXN"), (1, "MAXQ"), (2, "MAXP_CORE_ALL"), (3, "MAXP_CORE_ARM"), (4, "MAXP_CORE_DENVER"),
)  # fmt: skip

# No INT8: NVIDIA's staff (dusty-nv/jetson-inference#111) and platform_has_fast_int8 on the board
# (wang-xinyu/tensorrtx#831).
_NO_INT8 = "no INT8 instructions: FP16 is its fastest precision"
# Source: TensorRT 11.4.1's migration guide for Jetson.
_TENSORRT_11 = "TensorRT 11.4.1 (its SBSA package) supports JetPack 7.2.2 and later on it"

# Chips, compute capabilities: jetson_stats. Modules' numbers (p3310 and so on): jetson_stats and
# NVIDIA's Jetson.GPIO. DLA cores: NVIDIA's TensorRT documentation, "Working with DLA".
BOARDS = (
    Board("TX1", "tegra210", (5, 3), ("p2180", "p2371-2180", "jetson-cv"), (JETPACK_4,),
          (0,), 256, _TX1_RAILS, (), _NO_INT8),
    Board("Nano", "tegra210", (5, 3), ("p3448", "p3450", "jetson-nano", "jetson nano"),
          (JETPACK_4,), (0,), 256, _NANO_RAILS, _NANO_MODES,
          _NO_INT8 + "; the 2 GB kit has no power sensor"),
    Board("TX2", "tegra186", (6, 2), ("p3310", "p2771-0000", "quill"), (JETPACK_4,),
          (0,), 512, _TX2_RAILS, _TX2_MODES, _NO_INT8),
    Board("TX2 NX", "tegra186", (6, 2), ("p3636", "lanai", "tx2 nx"), (JETPACK_4,),
          (0,), 512, _TX2_NX_RAILS, (), _NO_INT8),
    Board("TX2 4GB", "tegra186", (6, 2), ("p3489-0888",), (JETPACK_4,),
          (0,), 512, _TX2_RAILS, (), _NO_INT8),
    Board("TX2i", "tegra186", (6, 2), ("p3489-0000",), (JETPACK_4,),
          (0,), 512, _TX2I_RAILS, (), _NO_INT8),
    Board("Xavier NX", "tegra194", (7, 2), ("p3668", "xavier nx"), (JETPACK_5,),
          (2,), 1024, _NX_RAILS, (), ""),
    Board("AGX Xavier", "tegra194", (7, 2), ("p2888", "p2972", "agx xavier"), (JETPACK_5,),
          (2,), 1024, _AGX_XAVIER_RAILS, (), ""),
    Board("Orin Nano", "tegra234", (8, 7), ("p3767-0003", "p3767-0004", "p3767-0005", "orin nano"),
          (JETPACK_6, JETPACK_7_2), (0,), 1024, _NX_RAILS, (), ""),
    Board("Orin NX", "tegra234", (8, 7), ("p3767-0000", "p3767-0001", "orin nx"),
          (JETPACK_6, JETPACK_7_2), (1, 2), 1024, _NX_RAILS, (), ""),
    Board("AGX Orin", "tegra234", (8, 7), ("p3701", "agx orin"),
          (JETPACK_6, JETPACK_7_2), (2,), 1024, _AGX_ORIN_RAILS, (), _TENSORRT_11),
    Board("AGX Thor", "tegra264", (11, 0), ("p3834", "agx thor"),
          (JETPACK_7, JETPACK_7_2), (0,), 1024, _THOR_RAILS, (), _TENSORRT_11),
)  # fmt: skip

# Architectures, examples: CUDA's list of GPUs. TensorRT 10 and 11: the kernels they come with are
# for sm75, 80, 86, 89, 90, 100 and 120 (files libnvinfer_builder_resource_smNN); Blackwell since
# 10.8, DGX Spark since 10.14.1 (their release notes). RTX: the members of
# tensorrt_rtx.ComputeCapability, 1.7.1.
_BLACKWELL = "TensorRT 10: from 10.8 on"
GPU_FAMILIES = (
    GpuFamily("sm75", (7, 5), "Turing", "RTX 20, T4", ("10", "11", "RTX"), ""),
    GpuFamily("sm80", (8, 0), "Ampere", "A100, A30", ("10", "11", "RTX"), ""),
    GpuFamily("sm86", (8, 6), "Ampere", "RTX 30, A10, A40", ("10", "11", "RTX"), ""),
    GpuFamily("sm89", (8, 9), "Ada", "RTX 40, L4, L40", ("10", "11", "RTX"), ""),
    GpuFamily("sm90", (9, 0), "Hopper", "H100, H200", ("10", "11"), ""),
    GpuFamily("sm100", (10, 0), "Blackwell", "B200", ("10", "11"), _BLACKWELL),
    GpuFamily("sm120", (12, 0), "Blackwell", "RTX 50", ("10", "11", "RTX"), _BLACKWELL),
    GpuFamily("sm121", (12, 1), "Blackwell", "GB10 (DGX Spark)", ("10", "11", "RTX"),
              "TensorRT 10: from 10.14.1 on"),
)  # fmt: skip
