"""Holds a manifest and its files against the report that it lists.

Promises: no verdict, figure or label is in one of them only, checks have the limits of the report's thresholds, and
every layer with weights multiplies in the file as the report says. The precision of layers is read from the graph
without its weights, in milliseconds, so that servers ask for it before every load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from saccade.models.contract.manifest import LatencyFigure, Manifest, Variant
from saccade.models.contract.specs import Frozen
from saccade.service.errors import RepositoryError
from saccade.service.repository.gate_agreement import gate_faults
from saccade.service.repository.layer_precision import weighted_precisions
from saccade.service.repository.onnx_graph import read_graph
from saccade.service.repository.two_four import mask_violations

REPORT_NAME = "report.json"
_LABELS_NAME = "labels.txt"
_GATE_STEP = "gate"  # of the lineage: an exporter that gated wrote a report
_PRECISION_CHECK = "effective_precision"
_SHARE_TOLERANCE = 1e-6
_OPENVINO = "openvino "  # how a report names the runtime that an openvino variant was measured through


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
        claims = [] if differing else _layer_claims(manifest, report)
        fault = None if differing else next(_gate_faults(manifest, report), None)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RepositoryError(f"{REPORT_NAME} is damaged ({error!r}); publish the version again") from error
    if differing is not None:
        raise RepositoryError(f"{differing} of the manifest is not what {REPORT_NAME} holds; publish the version again")
    _ensure_label_lines(version_dir, manifest)
    for claim in claims:
        _ensure_layers(version_dir, claim)
    if fault is not None:
        raise RepositoryError(f"{fault}; publish the version again")


def _ensure_label_lines(version_dir: Path, manifest: Manifest) -> None:
    """Raises RepositoryError for a file of labels, one a line as they are, that names others than the manifest."""
    if all(entry.path != _LABELS_NAME for entry in manifest.files):
        return
    try:
        found = (version_dir / _LABELS_NAME).read_bytes()
    except OSError as error:
        raise RepositoryError(f"cannot read {_LABELS_NAME}: {error.strerror}") from error
    if found != "".join(f"{label}\n" for label in manifest.labels).encode():
        raise RepositoryError(f"the lines of {_LABELS_NAME} are not the manifest's labels; publish the version again")


def _gate_faults(manifest: Manifest, report: Mapping[str, Any]) -> Iterator[str]:
    thresholds = report.get("thresholds", {})
    mode = thresholds.get("mode")
    if mode is not None and manifest.judged != (mode == "metric"):
        yield f"the manifest says judged: {manifest.judged}, the gate of {REPORT_NAME} had mode {mode}"
    found = {each["qualify"]["variant"]: each["qualify"] for each in report["variants"]}
    for variant in manifest.variants:
        for fault in gate_faults(variant, found[variant.name], thresholds):
            yield f"variant {variant.name!r}: {fault}"
        through = str(found[variant.name].get("measured_through") or "")
        if through and through.startswith(_OPENVINO) != (variant.target == "openvino"):
            yield f"variant {variant.name!r} is for {variant.target}, its figures were measured through {through}"


def ensure_masks(version_dir: Path, manifest: Manifest) -> None:
    """Raises RepositoryError for a 2:4 variant whose weights are not, in a version that `ensure_report_agrees` passed.

    Every weight is read, so that it takes as long as the digests do. Servers do not ask for it before a load: weights
    off the pattern are answered rightly, only not faster, and TensorRT looks for itself.
    """
    sparse = [variant for variant in manifest.variants if variant.sparsity == "two_four"]
    if not sparse or all(entry.path != REPORT_NAME for entry in manifest.files):
        return
    try:
        report = orjson.loads((version_dir / REPORT_NAME).read_bytes())
        found = {each["qualify"]["variant"]: each["qualify"] for each in report["variants"]}
        for variant in sparse:
            claimed = (found[variant.name].get("mask") or {}).get("claimed", [])
            violations = mask_violations(read_graph(version_dir / variant.file), claimed)
            if violations or not claimed:
                reason = f"{violations[0].layer}: {violations[0].reason}" if violations else "no layer is said to be"
                raise RepositoryError(f"{variant.file} is not 2:4: {reason}; publish the version again")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RepositoryError(f"cannot read the masks ({error}); publish the version again") from error


@dataclass(frozen=True, slots=True)
class _LayerClaim:
    """What a report says of the layers of one variant's file."""

    variant: Variant
    precisions: Mapping[str, str]  # of layers with weights, by node
    share: float | None  # of the multiply-adds that are in the variant's precision; None: no layers are listed


def _layer_claims(manifest: Manifest, report: Mapping[str, Any]) -> list[_LayerClaim]:
    found = {each["qualify"]["variant"]: each["qualify"] for each in report["variants"]}
    claims = []
    for variant in manifest.variants:
        layers = found[variant.name].get("layers", [])
        total = sum(each["flops"] for each in layers)
        share = sum(each["flops"] for each in layers if each["precision"] == variant.precision) / max(total, 1)
        weighted = {each["node"]: each["precision"] for each in layers if each["weights"]}
        claims.append(_LayerClaim(variant, weighted, share if layers else None))
    return claims


def _ensure_layers(version_dir: Path, claim: _LayerClaim) -> None:
    """Raises RepositoryError for a file that multiplies otherwise than its name, its gate or its report say."""
    variant = claim.variant
    try:
        found = weighted_precisions(read_graph(version_dir / variant.file))
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise RepositoryError(f"cannot read {variant.file} ({error}); publish the version again") from error
    for node, precision in claim.precisions.items():
        if found.get(node) not in _in_file(variant, precision):
            raise RepositoryError(
                f"{variant.file} multiplies layer {node!r} in {found.get(node, 'no precision: it has no such layer')}, "
                f"{REPORT_NAME} says {precision}: it is not the file that was measured; publish the version again"
            )
    stated = next((check.value for check in variant.gate.checks if check.name == _PRECISION_CHECK), None)
    is_stated = isinstance(stated, float | int)
    if is_stated and claim.share is not None and abs(float(stated or 0.0) - claim.share) > _SHARE_TOLERANCE:
        raise RepositoryError(
            f"check {_PRECISION_CHECK} of variant {variant.name!r} says {stated:g}, the layers in {REPORT_NAME} "
            f"{claim.share:g}; publish the version again"
        )
    if (
        stated != 0
        and found
        and variant.precision != "fp32"
        and not {*_in_file(variant, variant.precision)} & {*found.values()}
    ):
        raise RepositoryError(
            f"no layer of {variant.file} multiplies in {variant.precision}, the precision of variant "
            f"{variant.name!r}; publish the version again"
        )


def _in_file(variant: Variant, precision: str) -> tuple[str, ...]:
    """The precisions that a layer may have in the file; OpenVINO is told what to compute a float file in.

    It may compute a layer in float that is int8 in the file, never the other way round.
    """
    if variant.target != "openvino":
        return (precision,)
    if variant.precision != "int8":
        return ("fp32",)
    return ("int8",) if precision == "int8" else ("int8", "fp32")


def _differences(manifest: Manifest, report: Mapping[str, Any]) -> Iterator[str]:
    """Names of what differs, in words."""
    if tuple(report["labels"]) != manifest.labels:
        yield "labels"
    preprocess, normalisation = report.get("preprocess"), report.get("normalisation")
    if preprocess is not None and not _is_same(manifest.preprocess, preprocess):
        yield "preprocess"
    if normalisation is not None and not _is_same(manifest.normalisation, normalisation):
        yield "normalisation"
    quality = report.get("quality")
    if quality is not None and not _is_same(manifest.quality, quality):
        yield "quality"
    if not _is_same(manifest.reference_metric, report["reference"]):
        yield "reference_metric"
    points = [variant.operating_point for variant in manifest.variants]
    if any(point is not None and point.score_threshold != manifest.task.score_threshold for point in points):
        yield "score_threshold"
    found = {each["qualify"]["variant"]: each for each in report["variants"]}
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    for variant in manifest.variants:
        if variant.name not in found:
            yield f"variant {variant.name!r}"
            continue
        for name in _differences_of(variant, digests[variant.file], found[variant.name]):
            yield f"{name} of variant {variant.name!r}"


def _differences_of(variant: Variant, file_sha256: str, found: Mapping[str, Any]) -> Iterator[str]:
    qualify = found["qualify"]
    device = qualify.get("device")
    measured = qualify if device is None else device  # a settled version has its device's figures
    if not _is_same(variant.gate, found["gate"]):
        yield "the gate"
    if qualify["file_sha256"] != file_sha256:
        yield "the file"
    if not _is_same(variant.metric, measured["metric"]):
        yield "the metric"
    if variant.latency != tuple(LatencyFigure.model_validate(each) for each in measured["latency"]):
        yield "the latency"
    if not _are_same(variant.paired_speeds, qualify.get("paired_speeds", [])):
        yield "the paired speed"
    if not _is_same(variant.operating_point, measured.get("operating_point")):
        yield "the operating point"
    extras = qualify.get("extras")
    if extras is not None and not _are_same(variant.extras, extras):
        yield "the extra outputs"


def _are_same(told: Sequence[Frozen], reported: Sequence[object]) -> bool:
    return len(told) == len(reported) and all(map(_is_same, told, reported))


def _is_same(told: Frozen | None, reported: object) -> bool:
    """Whether a report says what the manifest tells; what an older one does not say has its default."""
    if told is None:
        return reported is None
    try:
        return type(told).model_validate(reported) == told
    except ValidationError:
        return False
