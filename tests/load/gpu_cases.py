"""Which networks, variants and runtimes `make bench-gpu` puts together. Promises: pure; what cannot run says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.load.gpu_networks import NETWORKS, BenchNetwork
from tests.load.gpu_prepare import VARIANTS
from tests.support.gpu_machine import (
    EXPORTER,
    GPU,
    ONNXRUNTIME_CUDA,
    SERVER,
    TENSORRT,
    TENSORRT_RTX,
    TORCH_CUDA,
    GpuMachine,
)

Device = Literal["cuda", "cpu"]
Stage = Literal["plans", "bare", "graphs", "paired", "reference", "limits", "served"]
# In this order, each with its share of a call's time; a share is of the stages that were asked for.
STAGE_SHARES: Mapping[Stage, float] = {
    "plans": 4.0,
    "bare": 4.0,
    "graphs": 1.0,
    "paired": 2.0,
    "reference": 2.0,
    "limits": 1.0,
    "served": 4.0,
}
STAGES: tuple[Stage, ...] = tuple(STAGE_SHARES)
DIRECT, BACKEND = "direct", "backend"
CPU_RUNTIME = "onnxruntime-cpu"
TORCH_RUNTIME = "torch-compile"
CPU_VARIANTS = ("fp32", "int8-trt", "int8-trt-sparse24")  # of the self-check: a CPU runs their Q/DQ pairs
_PLAIN = ("fp32", "fp16")  # what ONNX Runtime CUDA and torch stand beside TensorRT with


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs a variant; `how` is the server's own backend, or the plan on tensors that stay on the device."""

    module: str
    how: Literal["direct", "backend"] = "backend"

    @property
    def name(self) -> str:
        return f"{self.module} {self.how}" if self.is_tensorrt else self.module

    @property
    def is_tensorrt(self) -> bool:
        return self.module in (TENSORRT, TENSORRT_RTX)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two plans that take turns; the figure is how much faster the first is."""

    name: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What a call was limited to; empty: nothing."""

    runtimes: tuple[str, ...] = ()  # beginnings of their names
    variants: tuple[str, ...] = ()

    def leaves_out(self, *, runtime: str = "", variant: str = "") -> str:
        """Why a row is not of this call; empty: it is. What has no runtime or no variant is never left out by it."""
        if runtime and self.runtimes and not runtime.startswith(self.runtimes):
            return f"this call was limited to the runtimes {', '.join(self.runtimes)}"
        if variant and self.variants and variant not in self.variants:
            return f"this call was limited to the variants {', '.join(self.variants)}"
        return ""


EVERYTHING = Selection()
PAIRS = (
    Pair("int8 against fp16", "int8-trt", "fp16"),
    Pair("fp8 against fp16", "fp8-trt", "fp16"),
    Pair("fp16 against fp32", "fp16", "fp32"),
    Pair("2:4 against dense, fp16", "fp16-sparse24", "fp16"),
    Pair("2:4 against dense, int8", "int8-trt-sparse24", "int8-trt"),
)
CPU_PAIRS = (Pair("int8 against fp32", "int8-trt", "fp32"), Pair("2:4 against dense, int8", *CPU_VARIANTS[:0:-1]))


def networks_for(device: Device, names: Sequence[str] = ()) -> tuple[BenchNetwork, ...]:
    """The networks of a kind of device, or those named. Raises KeyError for an unknown name."""
    chosen = [NETWORKS[name] for name in names] if names else list(NETWORKS.values())
    return tuple(network for network in chosen if network.is_self_check == (device == "cpu"))


def variants_for(device: Device) -> tuple[str, ...]:
    return CPU_VARIANTS if device == "cpu" else VARIANTS


def stage_seconds(stage: Stage, stages: Sequence[Stage], total_s: float, left_s: float) -> float:
    """How long a stage may begin new cases: its share of the whole call, or of what is left where that is more.

    Its share of the whole is kept for it even where a case of an earlier stage took longer than that stage had.
    """
    to_come = stages[stages.index(stage) :]
    share = STAGE_SHARES[stage]
    own_s = total_s * share / sum(STAGE_SHARES[each] for each in stages)
    return max(own_s, left_s * share / sum(STAGE_SHARES[each] for each in to_come))


def tensorrt_modules() -> tuple[str, ...]:
    return (TENSORRT, TENSORRT_RTX)


def runtimes_for(variant: str, device: Device) -> tuple[Runtime, ...]:
    """Everything a variant is timed with, whether it is installed or not."""
    if device == "cpu":
        return (Runtime(CPU_RUNTIME),)
    found = [Runtime(module, how) for module in tensorrt_modules() for how in (DIRECT, BACKEND)]
    if variant in _PLAIN:
        found += [Runtime(ONNXRUNTIME_CUDA), Runtime(TORCH_RUNTIME)]
    return tuple(found)


def missing_for(runtime: Runtime, machine: GpuMachine) -> str:
    """Why this machine cannot run it; empty when it can."""
    if runtime.module == CPU_RUNTIME:
        return ""
    if runtime.module == TORCH_RUNTIME:
        return machine.missing((GPU, TORCH_CUDA, EXPORTER))
    needed = (GPU, runtime.module, TORCH_CUDA) if runtime.how == DIRECT else (GPU, runtime.module)
    return machine.missing(needed)


def missing_for_serving(runtime: Runtime, machine: GpuMachine) -> str:
    needed = (SERVER,) if runtime.module == CPU_RUNTIME else (GPU, runtime.module, SERVER)
    return machine.missing(needed)


def served_variants(device: Device) -> tuple[tuple[str, Runtime], ...]:
    """What is served, each with the runtime behind the server."""
    if device == "cpu":
        return (("fp32", Runtime(CPU_RUNTIME)),)
    found = [(variant, Runtime(module)) for module in tensorrt_modules() for variant in ("fp16", "int8-trt")]
    return (*found, ("fp16", Runtime(ONNXRUNTIME_CUDA)))
