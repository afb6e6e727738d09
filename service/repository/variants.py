"""Chooses the variant that ONNX Runtime serves on a device: pure, by measured figures, among accepted variants."""

from __future__ import annotations

from saccade.models.contract.manifest import Manifest, Variant
from saccade.service.errors import RepositoryError

# ONNX Runtime would run a variant made for TensorRT as float, slower than the float variant and never measured.
_TARGETS_BY_DEVICE_KIND = {"cpu": ("any", "cpu"), "cuda": ("any", "gpu")}


def choose_variant(manifest: Manifest, device: str, wanted: str) -> Variant:
    """The variant named by `wanted`, or for "auto" the one with the most measured images per second.

    Figures count only when measured on the same kind of device; a variant without them comes last.
    Raises RepositoryError when nothing fits, saying what there is.
    """
    runnable = runnable_variants(manifest, device)
    if wanted != "auto":
        runnable = [item for item in runnable if item.name == wanted]
    if not runnable:
        known = ", ".join(f"{item.name} ({item.target}, gate {gate_state(item)})" for item in manifest.variants)
        raise RepositoryError(f"no variant for device {device!r} and variant setting {wanted!r}; there are: {known}")
    return max(runnable, key=lambda item: images_per_s(item, kind_of(device)))


def kind_of(device: str) -> str:
    """The manifests' name for the kind of a device."""
    return "cpu" if device.partition(":")[0] == "cpu" else "cuda"  # a GPU may have another name, such as MIG-…


def runnable_variants(manifest: Manifest, device: str) -> list[Variant]:
    """The accepted variants that run on a device without TensorRT."""
    targets = _TARGETS_BY_DEVICE_KIND[kind_of(device)]
    return [item for item in manifest.accepted_variants() if item.target in targets]


def gate_state(variant: Variant) -> str:
    """The gate's state for tables and errors. A pending variant is never served: its last checks were not made."""
    if variant.gate.accepted:
        return "passed"
    return "pending: waits for a device" if variant.gate.is_pending else "denied"


def images_per_s(variant: Variant, device_kind: str) -> float:
    """The best measured throughput on this kind of device; 0 when none was measured."""
    if variant.measured_on.kind != device_kind:
        return 0.0
    return max((figure.images_per_s for figure in variant.latency), default=0.0)
