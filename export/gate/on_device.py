"""Settles pending checks where the device is. Promises: the published bytes are measured; nothing is written here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.artifact import file_sha256
from export.datasets import ImageSplit
from export.errors import DeviceError
from export.gate.checks.facts import GateFacts
from export.gate.decision import gate_decision
from export.gate.device_probe import DeviceProbe, OpenedPlan
from export.gate.plan_layers import plan_layers, share_in_plan
from export.qualification.accuracy import Answer, answers_of, evidence_of
from export.qualification.answer_measurements import batch_of
from export.qualification.benchmark import latency_figure, speed_ratio
from export.qualification.evidence import accuracy_of
from export.qualification.qualify import metric_drop, metric_figure
from export.qualification.qualify_report import DeviceFigures, QualifyReport, SparseGain
from export.recipe import Recipe
from export.reports.export_report import REPORT_JSON, ExportReport, VariantReport, read_report
from export.variants import TRAITS, VariantKind
from models.manifest import Manifest
from models.specs import output_tensors
from service.repository.verify import verify_version

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """What the metric of a plan is measured on."""

    split: ImageSplit
    expected: Answer  # the eager network's answers to it


@dataclass(frozen=True, slots=True)
class Settled:
    """A version's report after the device had its say; `settled_version.py` publishes it."""

    version_dir: Path
    manifest: Manifest
    report: ExportReport
    variants: tuple[str, ...]  # those that were pending
    is_recorded: bool


def settle(version_dir: Path, recipe: Recipe, data: EvaluationData, probe: DeviceProbe, note: Note) -> Settled:
    """Measures every pending variant of a version. Writes nothing.

    Raises RepositoryError for a damaged version, DeviceError when nothing is pending, the recipe is another model's, or
    a plan cannot be built.
    """
    manifest = verify_version(version_dir).manifest
    pending = [variant.name for variant in manifest.pending_variants()]
    if not pending:
        raise DeviceError(f"nothing is pending in {manifest.model}/{manifest.version}")
    report = read_report(version_dir / REPORT_JSON)
    _ensure_same_work(version_dir, manifest, report, recipe, data)
    judged: list[VariantReport] = []
    for variant in report.variants:
        if variant.qualify.variant in pending:
            note(f"{variant.qualify.variant}: building and measuring")
            figures = device_figures(version_dir, variant.qualify, recipe, data, probe)
            judged.append(_settled(variant, figures, report, recipe, version_dir))
        else:
            judged.append(variant)
    changed = report.model_copy(update={"variants": tuple(judged)})
    return Settled(version_dir, manifest, changed, tuple(pending), probe.is_recorded)


def device_figures(
    version_dir: Path, qualify: QualifyReport, recipe: Recipe, data: EvaluationData, probe: DeviceProbe
) -> DeviceFigures:
    """What the plan of one variant's published file does on this device."""
    kind = variant_kind(qualify.variant)
    traits = TRAITS[kind]
    plan = _opened(probe, version_dir, kind, recipe)
    try:
        layers = plan_layers(plan.layer_information())
        share, lost = share_in_plan(layers, qualify.layers, traits.precision)
        evidence = evidence_of(
            answers_of(plan.infer, data.split, min(recipe.qualify.evaluate_batch_size, recipe.allowed_batch_sizes[-1])),
            data.split,
            recipe.task,
            len(recipe.labels),
        )
        reference = evidence_of(data.expected, data.split, recipe.task, len(recipe.labels))
        accuracy = accuracy_of(evidence, reference, recipe.qualify.bootstrap_resamples)
        latency = tuple(
            latency_figure(_seconds(probe, (plan,), data.split.images, size, recipe)[:, 0], size)
            for size in recipe.allowed_batch_sizes
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
            sparse_gain=_gain(plan, version_dir, kind, recipe, data, probe) if is_sparse else None,
            latency=latency,
            metric=metric_figure(accuracy),
            drop=metric_drop(accuracy),
        )
    finally:
        plan.close()


def variant_kind(name: str) -> VariantKind:
    """Raises DeviceError for a name that is no variant's."""
    for kind in TRAITS:
        if kind == name:
            return kind
    raise DeviceError(f"{name!r} is no variant; there are: {', '.join(TRAITS)}")


def dense_sibling(kind: VariantKind) -> VariantKind | None:
    """The variant of the same precision and target with dense weights."""
    wanted = TRAITS[kind]
    for other, traits in TRAITS.items():
        if (traits.precision, traits.target, traits.form) == (wanted.precision, wanted.target, "dense"):
            return other
    return None


def _ensure_same_work(
    version_dir: Path, manifest: Manifest, report: ExportReport, recipe: Recipe, data: EvaluationData
) -> None:
    """A drop against another network or on other images would say nothing about this version."""
    if manifest.model != recipe.model:
        raise DeviceError(f"{version_dir} holds {manifest.model!r}, the recipe is of {recipe.model!r}")
    if (manifest.task, manifest.labels, manifest.preprocess) != (recipe.task, recipe.labels, recipe.preprocess):
        raise DeviceError(f"{version_dir} was made by another recipe: task, labels or preprocess differ")
    measured = report.splits.get("test", data.split.sha256)
    if measured != data.split.sha256:
        raise DeviceError(
            f"{version_dir} was measured on the test split {measured[:12]}, the recipe names {data.split.sha256[:12]}"
        )


def _opened(probe: DeviceProbe, version_dir: Path, kind: VariantKind, recipe: Recipe) -> OpenedPlan:
    outputs = [spec.name for spec in output_tensors(recipe.task, recipe.preprocess)]
    is_sparse = TRAITS[kind].form == "sparse24"
    return probe.open(version_dir / f"{kind}.onnx", outputs, recipe.allowed_batch_sizes[-1], is_sparse=is_sparse)


def _seconds(
    probe: DeviceProbe, plans: tuple[OpenedPlan, ...], images: NDArray[np.uint8], size: int, recipe: Recipe
) -> NDArray[np.float64]:
    spec = recipe.qualify
    return probe.seconds(plans, batch_of(images, size), spec.latency_repeats, spec.latency_budget_s * len(plans))


def _gain(
    plan: OpenedPlan, version_dir: Path, kind: VariantKind, recipe: Recipe, data: EvaluationData, probe: DeviceProbe
) -> SparseGain | None:
    """Against the dense sibling of this version, in turns; None without one."""
    sibling = dense_sibling(kind)
    if sibling is None or not (version_dir / f"{sibling}.onnx").exists():
        return None
    size = recipe.allowed_batch_sizes[-1]
    dense = _opened(probe, version_dir, sibling, recipe)
    try:
        found = speed_ratio(_seconds(probe, (plan, dense), data.split.images, size, recipe), size)
    finally:
        dense.close()
    return SparseGain(sibling=sibling, batch_size=size, ratio=found.ratio, ci_low=found.ci_low, ci_high=found.ci_high)


def _settled(
    variant: VariantReport, figures: DeviceFigures, report: ExportReport, recipe: Recipe, version_dir: Path
) -> VariantReport:
    qualify = variant.qualify.model_copy(update={"device": figures})
    beside = {name: file_sha256(version_dir / name) for name in qualify.external_sha256}
    facts = GateFacts(
        file_sha256=file_sha256(version_dir / f"{qualify.variant}.onnx"),
        external_sha256=beside,
        is_trained=report.weights != "random",
        fidelity=report.fidelity,
        agreed=recipe.gate,
    )
    return VariantReport(qualify=qualify, gate=gate_decision(qualify, report.thresholds, facts))
