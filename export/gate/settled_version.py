"""Publishes what a device settled as a new version with the same files; the old version never changes.

A variant that the device denies is left out of the new version, and stays in its report.
"""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

from saccade.export.errors import PublishError
from saccade.export.gate.decision import verdict
from saccade.export.gate.on_device import Settled
from saccade.export.publish.publish import file_entries, write_manifest
from saccade.export.publish.repository import add_version, next_version
from saccade.export.publish.signing import Signer
from saccade.export.reports.export_report import VariantReport
from saccade.export.reports.report_files import pictures_beside, write_report
from saccade.models.contract.manifest import FileEntry, Lineage, Manifest, Variant
from saccade.service import __version__
from saccade.service.repository.signature import SIGNATURE_NAME


def publish_settled(settled: Settled, signer: Signer | None) -> Path:
    """Adds the next version and returns its directory. Raises PublishError when figures come from a recording."""
    if settled.is_recorded:
        raise PublishError("these figures were replayed from a recording: they settle nothing, and are not published")
    model_dir = settled.version_dir.parent
    with next_version(model_dir) as scratch:
        _fill(scratch, settled)
        files = file_entries(scratch)
        number = add_version(
            model_dir, scratch, lambda number: write_manifest(scratch, settled_manifest(settled, files, number), signer)
        )
    return model_dir / str(number)


def settled_manifest(settled: Settled, files: tuple[FileEntry, ...], number: int) -> Manifest:
    """Returns the old manifest with the device's figures and verdicts, without denied variants."""
    reports = {each.qualify.variant: each for each in settled.report.variants}
    variants = [_variant(variant, reports[variant.name]) for variant in settled.manifest.variants]
    figures = [
        Lineage(step=f"on_device.{name}", digest=_digest_of(reports[name]), tool=f"saccade {__version__}")
        for name in settled.variants
    ]
    changes = {
        "version": number,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "variants": tuple(variant for variant in variants if verdict(variant.gate) != "denied"),
        "files": files,
        "lineage": (*settled.manifest.lineage, *figures),
    }
    return Manifest.model_validate({**settled.manifest.model_dump(), **changes})


def _fill(scratch: Path, settled: Settled) -> None:
    """Copies what the new version keeps, then writes the new report over the old one."""
    denied = {each.qualify.variant for each in settled.report.variants if verdict(each.gate) == "denied"}
    kept = [variant for variant in settled.manifest.variants if variant.name not in denied]
    dropped = {file for variant in settled.manifest.variants for file in (variant.file, *variant.external_data)}
    dropped -= {file for variant in kept for file in (variant.file, *variant.external_data)}
    for entry in settled.manifest.files:
        if entry.path not in (*dropped, SIGNATURE_NAME):
            target = scratch / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(settled.version_dir / entry.path, target)
    write_report(settled.report, scratch, pictures_beside(settled.report, settled.version_dir))


def _variant(variant: Variant, report: VariantReport) -> Variant:
    device = report.qualify.device
    if device is None:
        return variant
    changes = {
        "latency": device.latency,
        "measured_on": device.device,
        "metric": device.metric,
        "operating_point": device.operating_point,
        "gate": report.gate,
    }
    return variant.model_copy(update=changes)


def _digest_of(report: VariantReport) -> str:
    assert report.qualify.device is not None
    return hashlib.sha256(report.qualify.device.model_dump_json().encode()).hexdigest()
