"""What this machine has for work on a GPU; whatever is missing is named with its reason.

`make test-gpu` skips by these reasons, and `make bench-gpu` writes them into its report as "not run".
"""

from __future__ import annotations

import importlib
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from saccade.service.settings import core_count

Import = Callable[[str], ModuleType]

GPU = "gpu"
TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt_rtx"
ONNXRUNTIME_CUDA = "onnxruntime-cuda"
TORCH_CUDA = "torch-cuda"
SERVER = "server"
NVIMGCODEC = "nvimgcodec"
EXPORTER = "exporter"
TENSORRTS = (TENSORRT, TENSORRT_RTX)  # in the order in which the product prefers them
_SERVER_MODULES = (
    "fastapi",
    "uvicorn",
    "uvloop",
    "httptools",
    "httpx",
    "python_multipart",
    "simplejpeg",
    "psutil",
    "prometheus_client",
    "structlog",
)
_EXPORTER_MODULES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxslim",
    "onnxruntime",
    "ml_dtypes",
    "safetensors",
    "yaml",
    "timm",
    "simplejpeg",
)
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that GPU work may need."""

    name: str
    version: str = ""
    missing: str = ""  # why it is not here; empty: it is


@dataclass(frozen=True, slots=True)
class GpuMachine:
    """Components by name, and the facts of the first GPU."""

    components: Mapping[str, Component]
    gpu_name: str = ""
    capability: str = ""  # "SM90"; empty without a GPU
    memory_bytes: int = 0

    def missing(self, names: Iterable[str]) -> str:
        """Everything of `names` that is not here, with the reasons; empty when all of it is."""
        lacking = [self.components[name] for name in names if self.components[name].missing]
        return "; ".join(f"{each.name}: {each.missing}" for each in lacking)

    def has(self, *names: str) -> bool:
        return not self.missing(names)

    @property
    def tensorrts(self) -> tuple[str, ...]:
        """Module names of the TensorRTs that are installed."""
        return tuple(name for name in TENSORRTS if self.has(name))

    def versions(self) -> dict[str, str]:
        return {name: each.version for name, each in self.components.items() if each.version and not each.missing}

    def absent(self) -> dict[str, str]:
        return {name: each.missing for name, each in self.components.items() if each.missing}


def reason(error: BaseException) -> str:
    """One line of whatever a library raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def imported(name: str, load: Import = importlib.import_module) -> tuple[ModuleType | None, str]:
    """The module, or why it does not import: absent, without its libraries, or broken in its own way."""
    try:
        return load(name), ""
    except ModuleNotFoundError as error:
        return None, f"the module {error.name or name} is not installed"
    except Exception as error:  # a runtime whose libraries are missing raises whatever its author chose
        return None, f"{name} does not import: {reason(error)}"


def module_component(component: str, modules: Iterable[str], load: Import = importlib.import_module) -> Component:
    """A component that is a few Python modules; the version is that of the first."""
    found = [imported(name, load) for name in modules]
    problems = [problem for _, problem in found if problem]
    first = found[0][0]
    return Component(component, str(getattr(first, "__version__", "")), "; ".join(problems))


def onnxruntime_component(load: Import = importlib.import_module) -> Component:
    module, problem = imported("onnxruntime", load)
    if module is None:
        return Component(ONNXRUNTIME_CUDA, "", problem)
    providers = module.get_available_providers()
    if "CUDAExecutionProvider" not in providers:
        text = f"this onnxruntime has {', '.join(providers)}: install onnxruntime-gpu in its place"
        return Component(ONNXRUNTIME_CUDA, module.__version__, text)
    return Component(ONNXRUNTIME_CUDA, module.__version__)


def torch_component(load: Import = importlib.import_module) -> Component:
    module, problem = imported("torch", load)
    if module is None:
        return Component(TORCH_CUDA, "", problem)
    if not module.cuda.is_available():
        text = f"torch {module.__version__} (CUDA {module.version.cuda}) sees no GPU"
        return Component(TORCH_CUDA, module.__version__, text)
    return Component(TORCH_CUDA, module.__version__)


@dataclass(frozen=True, slots=True)
class _Gpu:
    component: Component
    name: str = ""
    capability: str = ""
    memory_bytes: int = 0


def first_gpu(load: Import = importlib.import_module) -> _Gpu:
    """Asked of the driver itself, through cuda-python; no context is made."""
    driver, problem = imported("cuda.bindings.driver", load)
    if driver is None:
        return _Gpu(Component(GPU, "", problem))
    try:
        _done(driver.cuInit(0), "cuInit")
        version = _done(driver.cuDriverGetVersion(), "cuDriverGetVersion")
        if not _done(driver.cuDeviceGetCount(), "cuDeviceGetCount"):
            return _Gpu(Component(GPU, "", "the driver sees no GPU"))
        device = _done(driver.cuDeviceGet(0), "cuDeviceGet")
        attributes = driver.CUdevice_attribute
        kinds = (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
        major, minor = (_done(driver.cuDeviceGetAttribute(kind, device), "cuDeviceGetAttribute") for kind in kinds)
        raw = _done(driver.cuDeviceGetName(128, device), "cuDeviceGetName")
        total = _done(driver.cuDeviceTotalMem(device), "cuDeviceTotalMem")
    except Exception as error:  # cuda-python raises a class of its own where the driver's library is missing
        return _Gpu(Component(GPU, "", f"no usable NVIDIA driver ({reason(error)})"))
    name = raw.split(b"\0")[0].decode() if isinstance(raw, bytes) else str(raw)
    version_text = f"CUDA {int(version) // 1000}.{int(version) % 1000 // 10}"
    return _Gpu(Component(GPU, f"driver for {version_text}"), name, f"SM{major}{minor}", int(total))


def _done(result: Any, what: str) -> Any:
    """The value of a driver call. Raises RuntimeError with the driver's own name for what went wrong."""
    error, *values = result
    if int(error) != 0:
        raise RuntimeError(f"{what} gave {getattr(error, 'name', error)}")
    return values[0] if values else None


def gpu_machine(load: Import = importlib.import_module) -> GpuMachine:
    """This machine. Side effect: imports the runtimes that are installed."""
    gpu = first_gpu(load)
    found = (
        gpu.component,
        torch_component(load),  # before onnxruntime, which then finds the CUDA libraries that torch brings
        module_component(TENSORRT, (TENSORRT,), load),
        module_component(TENSORRT_RTX, (f"{TENSORRT_RTX}_bindings",), load),
        onnxruntime_component(load),
        module_component(EXPORTER, _EXPORTER_MODULES, load),
        module_component(SERVER, _SERVER_MODULES, load),
        module_component(NVIMGCODEC, ("nvidia.nvimgcodec",), load),
    )
    return GpuMachine({each.name: each for each in found}, gpu.name, gpu.capability, gpu.memory_bytes)


def provenance(machine: GpuMachine, root: Path, command: list[str], commit: str = "") -> dict[str, Any]:
    """Where figures come from, JSON-ready. `commit` is for a copy of the project without its history."""
    return {
        "device": machine.gpu_name or "none",
        "capability": machine.capability or "none",
        "device_memory_bytes": machine.memory_bytes,
        "driver": _driver(),
        "cores": core_count(),
        "cpu": platform.processor() or platform.machine(),
        "python": sys.version.split()[0],
        "versions": machine.versions(),
        "missing": machine.absent(),
        "commit": commit or _commit(root),
        "command": " ".join(command),
    }


def _driver(file: Path = _DRIVER_FILE) -> str:
    try:
        return file.read_text().splitlines()[0]
    except (OSError, IndexError):
        return "not said by the kernel"


def _commit(root: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
