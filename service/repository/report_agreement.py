"""Holds a manifest against the report it lists. Promises: no verdict, figure or label is in one of them only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from saccade.models.contract.manifest import LatencyFigure, Manifest, Variant
from saccade.service.errors import RepositoryError

REPORT_NAME = "report.json"
_GATE_STEP = "gate"  # of the lineage: an exporter that gated wrote a report


def ensure_report_agrees(version_dir: Path, manifest: Manifest) -> None:
    """Raises RepositoryError naming what differs. A version that no exporter gated has no report to hold it against."""
    if all(entry.path != REPORT_NAME for entry in manifest.files):
        if any(step.step == _GATE_STEP for step in manifest.lineage):
            raise RepositoryError(
                f"the manifest lists no {REPORT_NAME}, which its gate wrote; publish the version again"
            )
        return
    try:
        report = orjson.loads((version_dir / REPORT_NAME).read_bytes())
        differing = next(_differences(manifest, report), None)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RepositoryError(f"{REPORT_NAME} is damaged ({error!r}); publish the version again") from error
    if differing is not None:
        raise RepositoryError(f"{differing} of the manifest is not what {REPORT_NAME} holds; publish the version again")


def _differences(manifest: Manifest, report: Mapping[str, Any]) -> Iterator[str]:
    """Names of what differs, in words."""
    if tuple(report["labels"]) != manifest.labels:
        yield "labels"
    if report.get("preprocess") not in (None, manifest.preprocess.model_dump(mode="json")):
        yield "preprocess"
    if report["reference"] != manifest.reference_metric.model_dump(mode="json"):
        yield "reference_metric"
    found = {each["qualify"]["variant"]: each for each in report["variants"]}
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    for variant in manifest.variants:
        if variant.name not in found:
            yield f"variant {variant.name!r}"
            continue
        for name in _differences_of(variant, digests[variant.file], found[variant.name]):
            yield f"{name} of variant {variant.name!r}"


def _differences_of(variant: Variant, file_sha256: str, found: Mapping[str, Any]) -> Iterator[str]:
    document, qualify = variant.model_dump(mode="json"), found["qualify"]
    device = qualify.get("device")
    measured = qualify if device is None else device  # a settled version has its device's figures
    if document["gate"] != found["gate"]:
        yield "the gate"
    if qualify["file_sha256"] != file_sha256:
        yield "the file"
    if document["metric"] != measured["metric"]:
        yield "the metric"
    if variant.latency != tuple(LatencyFigure.model_validate(each) for each in measured["latency"]):
        yield "the latency"
    if document["paired_speeds"] != qualify.get("paired_speeds", []):
        yield "the paired speed"
    if document["operating_point"] != measured.get("operating_point"):
        yield "the operating point"
