"""The variants that TensorRT may run, and the keys of their plans. Promises: pure; never a denied variant."""

from __future__ import annotations

from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.plans import PlanKey, TensorRtName, plan_key
from saccade.service.ipc.messages import DeviceFacts

# What is built first, so that something fast serves soon. Which one serves in the end, measurements say.
_ORDER = ("fp16", "bf16", "int8", "fp8", "fp32")
_NAMES: dict[str, TensorRtName] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"}


def engine_candidates(manifest: Manifest, wanted: str) -> tuple[Variant, ...]:
    """Accepted and pending variants for a GPU, in the order in which their plans are built.

    A variant that runs everywhere counts only by name, or where no other is: the ones made for GPUs are faster.
    """
    allowed = [item for item in manifest.variants if item.gate.accepted or item.gate.is_pending]
    if wanted != "auto":
        return tuple(item for item in allowed if item.name == wanted and item.target != "cpu")
    made_for_gpus = [item for item in allowed if item.target in ("gpu", "trt")]
    found = made_for_gpus or [item for item in allowed if item.target == "any"]
    return tuple(sorted(found, key=lambda item: (item.sparsity != "dense", _ORDER.index(item.precision), item.name)))


def plan_key_for(manifest: Manifest, variant: Variant, facts: DeviceFacts) -> PlanKey:
    """Key of the plan that serves `variant` on the device; only for facts that name a TensorRT and a GPU."""
    return plan_key(manifest, variant, _NAMES[facts.tensorrt], facts.tensorrt_version, (facts.compute_capability,))
