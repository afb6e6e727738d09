"""Finds the installed TensorRT and the GPU at hand, without making a CUDA context.

`tensorrt` builds for the GPU at hand; `tensorrt_rtx` builds for other GPUs and needs none. Their Python API is the same
where this package uses it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, get_args

from saccade.export.errors import DeviceError, DeviceMissing, GraphError, RecipeError
from saccade.models.contract.plans import TensorRtName
from saccade.service.backends.tensorrt.module import first_installed, known_capabilities

DEFAULT_CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")  # A100, consumer Ampere, Ada, Blackwell
CURRENT = "CURRENT"  # the GPU at hand, as TensorRT itself finds it
_CAPABILITY = re.compile(r"SM\d{2,3}")
_DRIVER_MISSING = "no NVIDIA driver or GPU answers"


@dataclass(frozen=True, slots=True)
class PresentGpu:
    """The first GPU that this process sees."""

    name: str
    capability: str  # such as SM90


def find_tensorrt(name: str | None = None) -> ModuleType | None:
    """Returns the named runtime and no other, or the first one installed; None when there is none."""
    return first_installed(get_args(TensorRtName) if name is None else (name,))


def required_tensorrt(name: str | None = None) -> ModuleType:
    """Returns the runtime. Raises GraphError when it is not installed."""
    tensorrt = find_tensorrt(name)
    if tensorrt is None:
        which = "no TensorRT is installed" if name is None else f"{name} is not installed"
        raise GraphError(f"{which}: install the `rtx` extra, or `tensorrt` on a machine with a GPU")
    return tensorrt


def present_gpu() -> PresentGpu | None:
    """Asks the driver for its GPU; None without a driver, a GPU, or cuda-python to ask with."""
    try:
        from cuda.bindings import driver  # imported here because it is optional
    except ImportError:
        return None
    try:
        _asked(driver.cuInit(0))
        device = _asked(driver.cuDeviceGet(0))
        attributes = driver.CUdevice_attribute
        major, minor = (
            _asked(driver.cuDeviceGetAttribute(attribute, device))
            for attribute in (
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        name = bytes(_asked(driver.cuDeviceGetName(128, device))).rstrip(b"\0").decode()
    except (RuntimeError, DeviceMissing):  # the binding raises RuntimeError when libcuda cannot be loaded
        return None
    return PresentGpu(name, f"SM{major}{minor}")


def builds_ahead(tensorrt: ModuleType) -> bool:
    """Returns whether the runtime builds for GPUs that are not there."""
    return hasattr(getattr(tensorrt, "IBuilderConfig", None), "num_compute_capabilities")


def target_capabilities(tensorrt: ModuleType, asked: Sequence[str], gpu: PresentGpu | None) -> tuple[str, ...]:
    """Chooses what to build for: what was asked, else the GPU present, else DEFAULT_CAPABILITIES where possible.

    Raises RecipeError for a malformed capability or one that the runtime does not know, DeviceMissing where a GPU is
    needed, DeviceError where it is another one than asked.
    """
    name = tensorrt.__name__
    strange = [each for each in asked if not _CAPABILITY.fullmatch(each)]
    if strange:
        raise RecipeError(f"{strange[0]!r} is no compute capability; they are written as SM90")
    if not builds_ahead(tensorrt):
        if gpu is None:
            raise DeviceMissing(
                f"{name} builds for the GPU at hand, and {_DRIVER_MISSING}; tensorrt_rtx builds ahead of time"
            )
        if any(each != gpu.capability for each in asked):
            raise DeviceError(
                f"{name} builds for the GPU at hand, {gpu.name} ({gpu.capability}), not for {', '.join(asked)}; "
                "build there, or with `--runtime tensorrt_rtx`"
            )
        return (gpu.capability,)
    wanted = tuple(dict.fromkeys(asked)) or ((gpu.capability,) if gpu is not None else DEFAULT_CAPABILITIES)
    known = known_capabilities(tensorrt)
    unknown = [each for each in wanted if each not in known]
    if unknown:
        raise RecipeError(_unknown(name, unknown[0], known))
    return wanted


def choose_capabilities(config: Any, tensorrt: ModuleType, capabilities: Sequence[str]) -> None:
    """Writes the capabilities into `config`, unless the runtime builds for the GPU at hand. Raises GraphError."""
    if not builds_ahead(tensorrt):
        return
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        capability = getattr(tensorrt.ComputeCapability, name, None)
        if capability is None:
            raise GraphError(_unknown(tensorrt.__name__, name, known_capabilities(tensorrt)))
        config.set_compute_capability(capability, index)


def _unknown(runtime: str, name: str, known: Sequence[str]) -> str:
    return f"{runtime} does not build for {name!r}; it knows {', '.join(known)}"


def _asked(answer: tuple[Any, ...]) -> Any:
    """Returns the driver's answer without its status. Raises DeviceMissing for any status but success."""
    if int(answer[0]) != 0:
        raise DeviceMissing(f"{_DRIVER_MISSING}: {answer[0]}")
    return answer[1] if len(answer) > 1 else None
