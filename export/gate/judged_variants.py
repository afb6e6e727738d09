"""Judges measured variants by the figures of `qualify` and `speed`, and by hashes of the files as they are on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from saccade.export.artifact import file_sha256
from saccade.export.data.preprocess_check import read_fidelity
from saccade.export.errors import PublishError
from saccade.export.gate.checks.facts import GateFacts
from saccade.export.gate.decision import gate_decision
from saccade.export.gate.limits import GateThresholds, changed_limits
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.publish.repository import newest_manifest
from saccade.export.qualification.corruption_step import read_corruptions
from saccade.export.qualification.library_agreement import read_library_figure
from saccade.export.qualification.qualify import REPORT_FILE
from saccade.export.qualification.qualify_report import QualifyReport
from saccade.export.qualification.speed_step import SpeedFigures, read_speed
from saccade.export.reports.export_report import REPORT_JSON, ExportReport, VariantReport
from saccade.export.steps import StepContext, qualified_name
from saccade.models.contract.manifest import MANIFEST_NAME, GateDecision, Manifest, read_manifest


def judged_variants(context: StepContext) -> tuple[VariantReport, ...]:
    """Returns every variant of the recipe with the gate's verdict, in the recipe's order."""
    recipe = context.recipe
    previous = newest_manifest(context.repository, recipe.model)
    fidelity = read_fidelity(context.inputs["preprocess"])
    speeds = read_speed(context.inputs["speed"])
    library = read_library_figure(context.inputs)
    corruptions = read_corruptions(context.inputs)
    variants: list[VariantReport] = []
    for name in recipe.variants:
        measured = context.inputs[qualified_name("qualify", name)].file(REPORT_FILE)
        file = context.inputs[qualified_name("precision", name)].file(MODEL_FILE)
        qualify = with_speed(QualifyReport.model_validate_json(measured.read_bytes()), speeds[name])
        qualify = qualify.model_copy(update={"corruptions": corruptions.get(name)})
        facts = GateFacts(
            file_sha256=file_sha256(file),
            external_sha256=_hashes_of(file.parent, qualify),
            is_trained=recipe.weights is not None,
            fidelity=fidelity,
            library=library,
            previous=previous.variant(name) if previous else None,
            agreed=recipe.gate,
        )
        variants.append(VariantReport(qualify=qualify, gate=gate_decision(qualify, recipe.gate, facts)))
    return tuple(variants)


def with_speed(qualify: QualifyReport, found: SpeedFigures) -> QualifyReport:
    """The figures of step `qualify` with those of step `speed`."""
    changes = {
        "latency": found.latency,
        "paired_speeds": found.paired_speeds,
        "timing_failure": found.failure,
        "efficiency": found.efficiency,
    }
    return qualify.model_copy(update=changes)


def ensure_judged_by_recipe(context: StepContext, report: ExportReport) -> None:
    """Judges the report by this recipe before it is published. Raises PublishError naming the check that differs."""
    changed = changed_limits(report.thresholds, context.recipe.gate)
    if changed:
        raise PublishError(f"thresholds: the gate used {', '.join(changed)} in the recipe; run gate again")
    for found, again in zip(report.variants, judged_variants(context), strict=True):
        name = found.qualify.variant
        if found.qualify != again.qualify:
            raise PublishError(f"{name}: the report's figures are not those that qualify measured; run gate again")
        if found.gate != again.gate:
            raise PublishError(
                f"{name}: the report's verdict is not the gate's: {_first_difference(found.gate, again.gate)}; "
                "run gate again"
            )


def judged_again(
    report: ExportReport, variant: VariantReport, directory: Path, agreed: GateThresholds | None
) -> VariantReport:
    """Judges a variant of a written report again, by the report's thresholds, and hashes the files beside it again.

    agreed: the recipe's thresholds, which the report's must equal. A manifest beside the report holds the report's
    hash.
    """
    file = directory / _file_of(directory, variant.qualify.variant)
    facts = GateFacts(
        file_sha256=file_sha256(file) if file.exists() else variant.qualify.file_sha256,
        external_sha256=_hashes_of(directory, variant.qualify) if file.exists() else None,
        is_trained=report.weights != "random",
        fidelity=report.fidelity,
        library=report.library,
        agreed=agreed,
        report_sha256=_report_hashes(directory),
    )
    return VariantReport(qualify=variant.qualify, gate=gate_decision(variant.qualify, report.thresholds, facts))


def _file_of(directory: Path, name: str) -> str:
    """The variant's file beside a report; variants of a published version may share one."""
    if (directory / MANIFEST_NAME).exists():
        published = read_manifest(directory)[0].variant(name)
        if published is not None:
            return published.file
    return f"{name}.onnx"


def _hashes_of(directory: Path, qualify: QualifyReport) -> Mapping[str, str]:
    """Hashes the weight files that the graph named when it was measured; a missing file has no entry."""
    paths = [directory / name for name in qualify.external_sha256]
    return {path.name: file_sha256(path) if path.exists() else "missing" for path in paths}


def _report_hashes(directory: Path) -> tuple[str, str] | None:
    """Returns the report's hash as computed now and as the manifest lists it; None outside of version directories."""
    if not (directory / MANIFEST_NAME).exists():
        return None
    manifest, _ = read_manifest(directory)
    return file_sha256(directory / REPORT_JSON), _listed(manifest, REPORT_JSON)


def _listed(manifest: Manifest, path: str) -> str:
    return next((entry.sha256 for entry in manifest.files if entry.path == path), "not listed")


def _first_difference(found: GateDecision, again: GateDecision) -> str:
    for left, right in zip(found.checks, again.checks, strict=False):
        if left != right:
            return f"{left.name} says {left.value} (limit {left.limit}), the gate {right.value} (limit {right.limit})"
    return "it has other checks"
