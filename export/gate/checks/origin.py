"""Checks where a variant comes from: bytes, limits, weights, pixels."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.gate.checks.facts import Judged
from saccade.export.gate.limits import changed_limits, loose_limits
from saccade.export.qualification.qualify_report import LibraryFigure
from saccade.models.contract.manifest import GateCheck


def origin_checks(judged: Judged) -> Iterator[GateCheck]:
    yield _file_hash(judged)
    yield from _weights_hash(judged)
    yield from _report_hash(judged)
    yield _thresholds(judged)
    yield from _trained_weights(judged)
    yield from _preprocess(judged)
    yield from _library_agreement(judged)


def _file_hash(judged: Judged) -> GateCheck:
    measured, found = judged.report.file_sha256, judged.facts.file_sha256
    is_same = measured == found
    detail = "the measured file is the published one" if is_same else "the file changed after it was measured"
    return GateCheck(name="file_hash", passed=is_same, value=found[:12], limit=measured[:12], detail=detail)


def _weights_hash(judged: Judged) -> Iterator[GateCheck]:
    """Compares hashes of weight files beside the graph, because the graph's own hash does not cover them."""
    measured, found = judged.report.external_sha256, judged.facts.external_sha256
    if found is None or not (measured or found):
        return
    changed = [name for name in sorted({*measured, *found}) if measured.get(name) != found.get(name)]
    yield GateCheck(
        name="weights_hash",
        passed=not changed,
        value=len(changed),
        limit=0,
        detail=f"changed after they were measured: {', '.join(changed)}" if changed else "measured files: all the same",
    )


def _report_hash(judged: Judged) -> Iterator[GateCheck]:
    """Compares the report's hash with the manifest beside it, so that figures and limits are as published."""
    if judged.facts.report_sha256 is None:
        return
    found, listed = judged.facts.report_sha256
    is_same = found == listed
    yield GateCheck(
        name="report_hash",
        passed=is_same,
        value=found[:12],
        limit=listed[:12],
        detail="the report is the published one" if is_same else "the report changed after it was published",
    )


def _thresholds(judged: Judged) -> GateCheck:
    """Requires the recipe's limits, none looser than allowed, so that nobody moves the gate to let a file pass."""
    thresholds, agreed = judged.thresholds, judged.facts.agreed
    changed = [] if agreed is None else changed_limits(thresholds, agreed)
    loose = loose_limits(thresholds)
    parts = [f"not the recipe's: {', '.join(changed)}"] if changed else []
    if loose and thresholds.allow_loose_thresholds:
        parts.append(f"LOOSE, which the recipe allows itself: {', '.join(loose)}")
    elif loose:
        parts.append(
            f"so loose that they say nothing: {', '.join(loose)}; tighten them, or set gate.allow_loose_thresholds"
        )
    return GateCheck(
        name="thresholds",
        passed=not changed and (not loose or thresholds.allow_loose_thresholds),
        value=f"{len(loose)} LOOSE" if loose and thresholds.allow_loose_thresholds else len(changed) + len(loose),
        limit=0,
        detail="; ".join(parts) or "as the recipe sets them, none beyond what still says something",
    )


def _trained_weights(judged: Judged) -> Iterator[GateCheck]:
    """Denies random weights unless the recipe allows them; gives no check for trained weights."""
    if judged.facts.is_trained:
        return
    yield GateCheck(
        name="trained_weights",
        passed=judged.thresholds.allow_random_weights,
        value="random",
        limit=None,
        detail="the network has random weights: its answers mean nothing. Name `weights` in the recipe, or set "
        "gate.allow_random_weights to publish it anyway",
    )


def _preprocess(judged: Judged) -> Iterator[GateCheck]:
    """Compares the server's pixels with the library's, because a network answers worse to other pixels."""
    fidelity, limit = judged.facts.fidelity, judged.thresholds.min_preprocess_agreement
    if fidelity is None:
        return
    worst = f"worst image {fidelity.worst_image} {fidelity.worst_image_share:.5f}"
    larger = f"; {len(fidelity.beyond_canvas)} would be larger than the input" if fidelity.beyond_canvas else ""
    missed = f"; not comparable: {fidelity.failures[0]}" if fidelity.failures else ""
    yield GateCheck(
        name="preprocess",
        passed=fidelity.reaches(limit),
        value=fidelity.share_within_one_level,
        limit=limit,
        detail=f"pixels within one level of {fidelity.transform} on {fidelity.images} images; {worst}, at most "
        f"{fidelity.max_difference:.1f} levels{larger}{missed}",
    )


def _library_agreement(judged: Judged) -> Iterator[GateCheck]:
    """Requires the answers of the program that the recipe names, from the float network of all variants."""
    asked, found = judged.thresholds.library_agreement, judged.facts.library
    if asked is None:
        return
    yield GateCheck(
        name="library_agreement",
        passed=found is not None and found.share >= asked.min_share,
        value=None if found is None else found.share,
        limit=asked.min_share,
        detail="not measured" if found is None else _library_text(found),
    )


def _library_text(found: LibraryFigure) -> str:
    worst = f"; worst: {', '.join(found.worst)}" if found.worst else ""
    return (
        f"the float network gives {found.same} of the {found.theirs} answers of {found.program} on {found.pictures} "
        f"pictures, and {found.surplus} besides{worst}"
    )
