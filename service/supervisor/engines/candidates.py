"""Lists the variants that TensorRT may run, without denied ones, and computes the keys of their plans."""

from __future__ import annotations

from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.plans import PlanKey, TensorRtName, plan_key
from saccade.service.ipc.messages import DeviceFacts

# The order in which plans are built, so that a fast one serves soon; measurements decide which one serves in the end.
_ORDER = ("fp16", "bf16", "int8", "fp8", "fp32")
_NAMES: dict[str, TensorRtName] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"}


def engine_candidates(manifest: Manifest, wanted: str) -> tuple[Variant, ...]:
    """Returns accepted and pending variants for a GPU, in the order in which their plans are built.

    A variant that runs everywhere is used only by name, or without any other, because those made for GPUs are faster.
    """
    allowed = [item for item in manifest.variants if item.gate.accepted or item.gate.is_pending]
    if wanted != "auto":
        return tuple(item for item in allowed if item.name == wanted and item.target != "cpu")
    made_for_gpus = [item for item in allowed if item.target in ("gpu", "trt")]
    found = made_for_gpus or [item for item in allowed if item.target == "any"]
    return tuple(sorted(found, key=lambda item: (item.sparsity != "dense", _ORDER.index(item.precision), item.name)))


def plan_key_for(manifest: Manifest, variant: Variant, facts: DeviceFacts) -> PlanKey:
    """Returns the key of the plan of `variant` on the device; `facts` must name a TensorRT and a GPU."""
    return plan_key(manifest, variant, _NAMES[facts.tensorrt], facts.tensorrt_version, (facts.compute_capability,))
