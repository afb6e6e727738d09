"""Chooses the variant that serves on a device without TensorRT: pure, by paired speeds, among accepted variants.

A variant answers in place of a more exact one only where it was measured faster in turns with it, on this kind of
device, and the interval of that ratio excludes 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.paired_speed import PairedSpeed
from saccade.service.errors import RepositoryError

# ONNX Runtime would run a variant made for TensorRT as float, slower than the float variant and never measured.
_TARGETS_BY_DEVICE_KIND = {"cpu": ("any", "cpu", "openvino"), "cuda": ("any", "gpu")}
ROUNDING: Mapping[str, int] = {"fp32": 0, "bf16": 1, "fp16": 1, "fp8": 2, "int8": 2}
Absent = Mapping[str, str]
"""What cannot run here, each with the reason: kinds of variants, "target/precision", and variants by their names."""
NOTHING_ABSENT: Absent = MappingProxyType({})


def choose_variant(manifest: Manifest, device: str, wanted: str, absent: Absent = NOTHING_ABSENT) -> Variant:
    """The variant named by `wanted`, or for "auto" the preferred one of those that run on the device.

    Raises RepositoryError when nothing fits, saying what there is.
    """
    runnable = runnable_variants(manifest, device, absent)
    if wanted != "auto":
        runnable = [item for item in runnable if item.name == wanted]
    if not runnable:
        for item, reason in absent_variants(manifest, device, absent):
            if wanted in ("auto", item.name):
                raise RepositoryError(f"variant {item.name} of {manifest.model} cannot serve here: {reason}")
        known = ", ".join(f"{item.name} ({item.target}, gate {gate_state(item)})" for item in manifest.variants)
        raise RepositoryError(f"no variant for device {device!r} and variant setting {wanted!r}; there are: {known}")
    return preferred(runnable, kind_of(device))


def preferred(variants: Sequence[Variant], device_kind: str) -> Variant:
    """The most exact variant, unless a less exact one is faster beyond doubt.

    A variant that was never measured on this kind of device gives way to one that was.
    """
    measured = [item for item in variants if is_measured(item, device_kind)]
    first, *others = by_exactness(measured or variants)
    for item in others:
        pair = pair_of(item, first, device_kind)
        if pair is not None and pair.is_faster:
            first = item
    return first


def comparisons(manifest: Manifest, device: str, chosen: Variant, absent: Absent = NOTHING_ABSENT) -> str:
    """Says in words how fast `chosen` is beside each other variant for the device, or why that one cannot run.

    Empty without others.
    """
    others = [item for item in by_exactness(runnable_variants(manifest, device, absent)) if item.name != chosen.name]
    told = [_compared(chosen, item, kind_of(device)) for item in others]
    told += [f"{item.name} cannot serve here: {reason}" for item, reason in absent_variants(manifest, device, absent)]
    return "; ".join(told)


def pair_of(item: Variant, other: Variant, device_kind: str) -> PairedSpeed | None:
    """How many times as fast `item` is as `other` on this kind of device; None where they took no turns there."""
    for pair in item.paired_speeds:
        if (pair.against, pair.device_kind) == (other.name, device_kind):
            return pair
    for pair in other.paired_speeds:
        if (pair.against, pair.device_kind) == (item.name, device_kind):
            return pair.inverted(other.name)
    return None


def by_exactness(variants: Iterable[Variant]) -> list[Variant]:
    """Dense before sparse, less rounding before more, a higher metric before a lower one, then ONNX Runtime's first."""
    found = tuple(variants)
    return sorted(
        found,
        key=lambda item: (
            item.sparsity != "dense",
            ROUNDING[item.precision],
            -ranked_metric(item, found),
            item.target == "openvino",
        ),
    )


def ranked_metric(item: Variant, among: Iterable[Variant]) -> float:
    """The metric that gives a variant its place.

    Of fp32 in OpenVINO it is that of the same file in ONNX Runtime: what differs is the order of sums, which makes it
    neither more nor less exact.
    """
    if (item.target, item.precision) == ("openvino", "fp32"):
        for other in among:
            if (other.target, other.precision, other.file) == ("any", "fp32", item.file):
                return other.metric.value
    return item.metric.value


def with_pairs(manifest: Manifest, pairs: Mapping[str, tuple[PairedSpeed, ...]]) -> Manifest:
    """The manifest with these comparisons in place of its own."""
    variants = tuple(item.model_copy(update={"paired_speeds": pairs.get(item.name, ())}) for item in manifest.variants)
    return manifest.model_copy(update={"variants": variants})


def kind_of(device: str) -> str:
    """The manifests' name for the kind of a device."""
    return "cpu" if device.partition(":")[0] == "cpu" else "cuda"  # a GPU may have another name, such as MIG-…


def runnable_variants(manifest: Manifest, device: str, absent: Absent = NOTHING_ABSENT) -> list[Variant]:
    """The accepted variants that run on a device without TensorRT."""
    targets = _TARGETS_BY_DEVICE_KIND[kind_of(device)]
    accepted = (item for item in manifest.accepted_variants() if item.target in targets)
    return [item for item in accepted if _why_absent(item, absent) is None]


def absent_variants(manifest: Manifest, device: str, absent: Absent) -> list[tuple[Variant, str]]:
    """The accepted variants that would run on this kind of device, but not here, each with the reason."""
    targets = _TARGETS_BY_DEVICE_KIND[kind_of(device)]
    accepted = (item for item in manifest.accepted_variants() if item.target in targets)
    return [(item, reason) for item in accepted if (reason := _why_absent(item, absent)) is not None]


def _why_absent(item: Variant, absent: Absent) -> str | None:
    return absent[item.name] if item.name in absent else absent.get(f"{item.target}/{item.precision}")


def gate_state(variant: Variant) -> str:
    """The gate's state for tables and errors. A pending variant is never served: its last checks were not made."""
    if variant.gate.accepted:
        return "passed"
    return "pending: waits for a device" if variant.gate.is_pending else "denied"


def is_measured(variant: Variant, device_kind: str) -> bool:
    return images_per_s(variant, device_kind) > 0.0


def images_per_s(variant: Variant, device_kind: str) -> float:
    """The best measured throughput on this kind of device; 0 when none was measured."""
    if variant.measured_on.kind != device_kind:
        return 0.0
    return max((figure.images_per_s for figure in variant.latency), default=0.0)


def _compared(variant: Variant, other: Variant, device_kind: str) -> str:
    pair = pair_of(variant, other, device_kind)
    if pair is None:
        return f"{other.name} was not measured in turns with it on this kind of device"
    if pair.is_faster:
        return pair.text
    return f"{other.name} is {pair.inverted(variant.name).text}"
