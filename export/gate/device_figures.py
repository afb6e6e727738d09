"""Measures the plan of one published file on a device: its metric, precision, time and memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit, batch_of
from saccade.export.errors import DeviceError
from saccade.export.gate.device_seam import DeviceProbe, OpenedPlan
from saccade.export.gate.plan_layers import plan_layers, share_in_file, share_in_plan
from saccade.export.qualification.accuracy import Answer, answers_of, evidence_of
from saccade.export.qualification.benchmark import latency_figure, speed_ratio
from saccade.export.qualification.evidence import accuracy_of
from saccade.export.qualification.metric_figures import metric_drop, metric_figure
from saccade.export.qualification.operating_point import operating_accuracy
from saccade.export.qualification.qualify_report import DeviceFigures, QualifyReport, SparseGain
from saccade.export.variants import TRAITS, VariantKind
from saccade.models.contract.manifest import Manifest
from saccade.models.contract.specs import PreprocessSpec, TaskSpec, output_tensors


@dataclass(frozen=True, slots=True)
class DeviceTerms:
    """What is measured of a plan and how often; the defaults are those of a recipe."""

    task: TaskSpec
    classes: int
    preprocess: PreprocessSpec
    allowed_batch_sizes: tuple[int, ...]
    evaluate_batch_size: int = 16
    bootstrap_resamples: int = 200
    latency_repeats: int = 40
    latency_budget_s: float = 0.5  # for each batch size


def terms_of(manifest: Manifest) -> DeviceTerms:
    """Returns the terms of a published version, for callers without its recipe."""
    return DeviceTerms(manifest.task, len(manifest.labels), manifest.preprocess, manifest.allowed_batch_sizes)


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """The images that a plan's metric is measured on."""

    split: ImageSplit
    expected: Answer  # the eager network's answers to these images


def device_figures(
    version_dir: Path, qualify: QualifyReport, terms: DeviceTerms, data: EvaluationData, probe: DeviceProbe
) -> DeviceFigures:
    """Measures what the plan of one variant's published file does on this device."""
    kind = variant_kind(qualify.variant)
    traits = TRAITS[kind]
    plan = _opened(probe, version_dir, kind, terms)
    try:
        information = plan.layer_information()
        layers = plan_layers(information) if information else ()
        if information:
            share, lost = share_in_plan(layers, qualify.layers, traits.precision)
        else:
            share, lost = share_in_file(qualify.layers, traits.precision), ()
        evidence = evidence_of(
            answers_of(
                plan.infer, data.split, terms.task, min(terms.evaluate_batch_size, terms.allowed_batch_sizes[-1])
            ),
            data.split,
            terms.task,
            terms.classes,
        )
        reference = evidence_of(data.expected, data.split, terms.task, terms.classes)
        accuracy = accuracy_of(evidence, reference, terms.bootstrap_resamples)
        operating = operating_accuracy(evidence, reference, terms.task.score_threshold, terms.bootstrap_resamples)
        latency = tuple(
            latency_figure(_seconds(probe, (plan,), data.split.images, size, terms), size)
            for size in terms.allowed_batch_sizes
        )
        is_sparse = traits.form == "sparse24"
        return DeviceFigures(
            device=probe.device,
            runtime=probe.runtime,
            is_recorded=probe.is_recorded,
            plan_bytes=plan.plan_bytes,
            precision_share=share,
            unaccounted=lost,
            sparse_layers=sum(layer.is_sparse for layer in layers) if is_sparse else None,
            sparse_gain=_gain(plan, version_dir, kind, terms, data, probe) if is_sparse else None,
            latency=latency,
            metric=metric_figure(accuracy),
            drop=metric_drop(accuracy),
            memory_mb=round(plan.memory_bytes / 1e6, 1) or None,
            operating_point=None if operating is None else operating[0],
            operating_drop=None if operating is None else metric_drop(operating[1]),
        )
    finally:
        plan.close()


def variant_kind(name: str) -> VariantKind:
    """Returns the name as a variant kind. Raises DeviceError when no variant has this name."""
    for kind in TRAITS:
        if kind == name:
            return kind
    raise DeviceError(f"{name!r} is no variant; there are: {', '.join(TRAITS)}")


def dense_sibling(kind: VariantKind) -> VariantKind | None:
    """Returns the variant of the same precision and target with dense weights, or None."""
    wanted = TRAITS[kind]
    for other, traits in TRAITS.items():
        if (traits.precision, traits.target, traits.form) == (wanted.precision, wanted.target, "dense"):
            return other
    return None


def _opened(probe: DeviceProbe, version_dir: Path, kind: VariantKind, terms: DeviceTerms) -> OpenedPlan:
    outputs = [spec.name for spec in output_tensors(terms.task, terms.preprocess)]
    is_sparse = TRAITS[kind].form == "sparse24"
    return probe.open(version_dir / f"{kind}.onnx", outputs, terms.allowed_batch_sizes[-1], is_sparse=is_sparse)


def _seconds(
    probe: DeviceProbe, plans: tuple[OpenedPlan, ...], images: NDArray[np.uint8], size: int, terms: DeviceTerms
) -> NDArray[np.float64]:
    return probe.seconds(plans, batch_of(images, size), terms.latency_repeats, terms.latency_budget_s * len(plans))


def _gain(
    plan: OpenedPlan, version_dir: Path, kind: VariantKind, terms: DeviceTerms, data: EvaluationData, probe: DeviceProbe
) -> SparseGain | None:
    """Times the sparse plan against its dense sibling in this version, in turns; None when there is no sibling."""
    sibling = dense_sibling(kind)
    if sibling is None or not (version_dir / f"{sibling}.onnx").exists():
        return None
    size = terms.allowed_batch_sizes[-1]
    dense = _opened(probe, version_dir, sibling, terms)
    try:
        found = speed_ratio(_seconds(probe, (plan, dense), data.split.images, size, terms), size)
    finally:
        dense.close()
    return SparseGain(sibling=sibling, batch_size=size, ratio=found.ratio, ci_low=found.ci_low, ci_high=found.ci_high)
