"""Lists the variants that a runtime may run on a GPU, without denied ones, and computes the keys of their plans."""

from __future__ import annotations

from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.plans import PlanKey, PlanRuntime, plan_key
from saccade.service.ipc.messages import DeviceFacts

# The order in which plans are built, so that a fast one serves soon; measurements decide which one serves in the end.
_ORDER = ("fp16", "bf16", "int8", "fp8", "fp32")
_TENSORRT: dict[str, PlanRuntime] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"}


def runtime_of(facts: DeviceFacts, why_no_tensorrt: str) -> PlanRuntime | None:
    """Returns what makes plans on this device: TensorRT, else ONNX Runtime, or None where neither can."""
    if not why_no_tensorrt:
        return _TENSORRT[facts.tensorrt]
    return "onnxruntime" if facts.onnxruntime_version and facts.compute_capability else None


def engine_candidates(manifest: Manifest, wanted: str, runtime: PlanRuntime) -> tuple[Variant, ...]:
    """Returns accepted and pending variants for a GPU, in the order in which their plans are built.

    TensorRT gets a variant that runs everywhere only by name, or without any other, because those made for GPUs are
    faster. ONNX Runtime gets it as well, to be compared with; it would run what is made for TensorRT as float, and 2:4
    as dense.
    """
    allowed = [item for item in manifest.variants if item.gate.accepted or item.gate.is_pending]
    if runtime == "onnxruntime":
        allowed = [item for item in allowed if item.target in ("gpu", "any") and item.sparsity == "dense"]
    if wanted != "auto":
        return tuple(item for item in allowed if item.name == wanted and item.target not in ("cpu", "openvino"))
    found = allowed
    if runtime != "onnxruntime":
        made_for_gpus = [item for item in allowed if item.target in ("gpu", "trt")]
        found = made_for_gpus or [item for item in allowed if item.target == "any"]
    return tuple(sorted(found, key=lambda item: (item.sparsity != "dense", _ORDER.index(item.precision), item.name)))


def plan_key_for(manifest: Manifest, variant: Variant, runtime: PlanRuntime, facts: DeviceFacts) -> PlanKey:
    """Returns the key of the plan of `variant` on the device; `facts` must name the runtime's version and a GPU."""
    version = facts.onnxruntime_version if runtime == "onnxruntime" else facts.tensorrt_version
    return plan_key(manifest, variant, runtime, version, (facts.compute_capability,))
