"""Judges one plan on the device that will serve it, by the version's own thresholds and images.

The version's report holds what was measured at export; the device adds its figures, and the gate judges both together.
Neither the recipe nor torch is needed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from saccade.export.artifact import file_sha256
from saccade.export.errors import DataRefused, DeviceError
from saccade.export.gate.checks.facts import GateFacts
from saccade.export.gate.decision import gate_decision
from saccade.export.gate.device_figures import EvaluationData, device_figures, terms_of
from saccade.export.gate.device_seam import DeviceProbe
from saccade.export.publish.evidence_pack import EVIDENCE_FILE, read_evidence
from saccade.export.qualification.qualify_report import DeviceFigures
from saccade.export.reports.export_report import REPORT_JSON, ExportReport, VariantReport, read_report
from saccade.models.contract.manifest import GateDecision, Manifest
from saccade.models.contract.plans import PlanRecord


def plan_verdict(
    version_dir: Path, manifest: Manifest, variant: str, probe: DeviceProbe
) -> tuple[DeviceFigures, GateDecision]:
    """Measures the plan that `probe` opens for a variant's published file, and judges it.

    Raises DeviceError when the plan cannot be built or opened or the report belongs to another version, and DataRefused
    when the version carries no images to measure on.
    """
    report = _published_report(version_dir, manifest)
    found = next((each for each in report.variants if each.qualify.variant == variant), None)
    if found is None:
        raise DeviceError(f"the report of {manifest.model}/{manifest.version} has no variant {variant!r}")
    data = published_evidence(version_dir, manifest)
    figures = device_figures(version_dir, found.qualify, terms_of(manifest), data, probe)
    return figures, gate_decision(
        found.qualify.model_copy(update={"device": figures}), report.thresholds, _facts(version_dir, found, report)
    )


def settled_record(record: PlanRecord, figures: DeviceFigures, gate: GateDecision) -> PlanRecord:
    """Returns the record with the device's figures and verdict."""
    changes = {
        "gate": gate,
        "measured_on": figures.device,
        "latency": figures.latency,
        "device_memory_bytes": round((figures.memory_mb or 0.0) * 1e6),
    }
    return record.model_copy(update=changes)


def published_evidence(version_dir: Path, manifest: Manifest) -> EvaluationData:
    """Loads the images that are published with the version. Raises DataRefused when there are none."""
    if not any(entry.path == EVIDENCE_FILE for entry in manifest.files):
        raise DataRefused(
            f"{manifest.model}/{manifest.version} carries no test images (qualify.evidence_mib of its recipe): "
            "`saccade-export qualify --on-this-device` settles it with the recipe's own"
        )
    return read_evidence(version_dir / EVIDENCE_FILE, manifest.task.task, manifest.preprocess)


def _published_report(version_dir: Path, manifest: Manifest) -> ExportReport:
    """Reads the report and checks its hash against the manifest, because the thresholds come from it."""
    path = version_dir / REPORT_JSON
    listed = next((entry.sha256 for entry in manifest.files if entry.path == REPORT_JSON), None)
    if listed is None or hashlib.sha256(path.read_bytes()).hexdigest() != listed:
        raise DeviceError(f"{path} is not the report that the manifest lists; publish the version again")
    return read_report(path)


def _facts(version_dir: Path, found: VariantReport, report: ExportReport) -> GateFacts:
    qualify = found.qualify
    return GateFacts(
        file_sha256=file_sha256(version_dir / f"{qualify.variant}.onnx"),
        external_sha256={name: file_sha256(version_dir / name) for name in qualify.external_sha256},
        is_trained=report.weights != "random",
        fidelity=report.fidelity,
        library=report.library,
    )
