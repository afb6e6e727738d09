"""Settles pending checks by measuring the published files on a device; nothing is written here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saccade.export.artifact import file_sha256
from saccade.export.errors import DeviceError
from saccade.export.gate.checks.facts import GateFacts
from saccade.export.gate.decision import gate_decision
from saccade.export.gate.device_figures import DeviceTerms, EvaluationData, device_figures
from saccade.export.gate.device_seam import DeviceProbe
from saccade.export.qualification.qualify_report import DeviceFigures
from saccade.export.recipe import Recipe
from saccade.export.reports.export_report import REPORT_JSON, ExportReport, VariantReport, read_report
from saccade.models.contract.manifest import Manifest
from saccade.service.repository.verify import verify_version

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settled:
    """A version's report after the device measured it; `settled_version.py` publishes it."""

    version_dir: Path
    manifest: Manifest
    report: ExportReport
    variants: tuple[str, ...]  # variants that were pending
    is_recorded: bool


def settle(version_dir: Path, recipe: Recipe, data: EvaluationData, probe: DeviceProbe, note: Note) -> Settled:
    """Measures every pending variant of a version and writes nothing.

    Raises RepositoryError for a damaged version, and DeviceError when nothing is pending, the recipe belongs to another
    model, or a plan cannot be built.
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
            figures = device_figures(version_dir, variant.qualify, terms_of_recipe(recipe), data, probe)
            judged.append(_settled(variant, figures, report, recipe, version_dir))
        else:
            judged.append(variant)
    changed = report.model_copy(update={"variants": tuple(judged)})
    return Settled(version_dir, manifest, changed, tuple(pending), probe.is_recorded)


def terms_of_recipe(recipe: Recipe) -> DeviceTerms:
    spec = recipe.qualify
    return DeviceTerms(
        recipe.task,
        len(recipe.labels),
        recipe.preprocess,
        recipe.allowed_batch_sizes,
        spec.evaluate_batch_size,
        spec.bootstrap_resamples,
        spec.latency_repeats,
        spec.latency_budget_s,
    )


def _ensure_same_work(
    version_dir: Path, manifest: Manifest, report: ExportReport, recipe: Recipe, data: EvaluationData
) -> None:
    """Raises DeviceError when network or images differ, because a drop would then say nothing about this version."""
    if manifest.model != recipe.model:
        raise DeviceError(f"{version_dir} holds {manifest.model!r}, the recipe is of {recipe.model!r}")
    if (manifest.task, manifest.labels, manifest.preprocess) != (recipe.task, recipe.labels, recipe.preprocess):
        raise DeviceError(f"{version_dir} was made by another recipe: task, labels or preprocess differ")
    measured = report.splits.get("test", data.split.sha256)
    if measured != data.split.sha256:
        raise DeviceError(
            f"{version_dir} was measured on the test split {measured[:12]}, the recipe names {data.split.sha256[:12]}"
        )


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
        library=report.library,
        agreed=recipe.gate,
    )
    return VariantReport(qualify=qualify, gate=gate_decision(qualify, report.thresholds, facts))
