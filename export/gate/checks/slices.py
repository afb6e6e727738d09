"""Checks slices: none may lose much against the eager network, and none may lie below the recipe's floor.

A slice of fewer pictures than the gate asks of a test split is named and not judged, since one picture decides its
interval; but one that is below the floor even with the upper end of its interval fails it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from saccade.export.gate.checks.answers import beside_eager
from saccade.export.gate.checks.facts import Judged
from saccade.export.qualification.qualify_report import SliceFigure
from saccade.models.contract.manifest import GateCheck

_NAMED = 5  # slices
_SURELY = 20  # pictures, from which an interval that lies below the floor with all of it is believed


def slice_checks(judged: Judged) -> Iterator[GateCheck]:
    slices, thresholds = judged.report.slices, judged.thresholds
    if not slices and thresholds.min_slice_metric is None:
        return
    least = thresholds.test_images_limit(judged.report.metric.name)
    large = [each for each in slices if each.images >= least]
    small = _small(slices, least)
    yield _slice_drop(large, thresholds.max_slice_drop, small)
    floor = thresholds.min_slice_metric
    if floor is not None:
        below = [each for each in slices if _SURELY <= each.images < least and each.ci_high < floor]
        unjudged = _small([each for each in slices if each not in below], least)
        yield _slice_floor([*large, *below], floor, judged.report.metric.name, unjudged)


def _slice_drop(slices: Sequence[SliceFigure], limit: float, small: str) -> GateCheck:
    """Limits the drop of each slice as that of each class: a mean over all pictures hides the loss of one camera."""
    if not slices:
        return GateCheck(name="slice_drop", passed=False, value=None, limit=limit, detail=f"no slice is judged{small}")
    worst = max(slices, key=lambda each: (each.drop.judged, each.drop.ci_high))
    drop = worst.drop
    unseen = "; no selection of the images shows a drop" if drop.is_never_worse else ""
    return GateCheck(
        name="slice_drop",
        passed=drop.judged <= limit,
        value=drop.judged,
        limit=limit,
        detail=f"of {len(slices)} slices {worst.name!r} ({worst.images} images) may have lost most: "
        f"{beside_eager(drop.value)}; it may be {beside_eager(drop.ci_low)} to {beside_eager(drop.ci_high)}, and at "
        f"most {limit:g} below is allowed{unseen}{small}",
    )


def _slice_floor(slices: Sequence[SliceFigure], limit: float, metric: str, small: str) -> GateCheck:
    if not slices:
        return GateCheck(name="slice_floor", passed=False, value=None, limit=limit, detail=f"no slice is judged{small}")
    worst = min(slices, key=lambda each: each.ci_low)
    below = [each.name for each in slices if each.ci_low < limit]
    told = f"; below are {len(below)} of {len(slices)}: {_listed(below)}" if len(below) > 1 else ""
    return GateCheck(
        name="slice_floor",
        passed=not below,
        value=worst.ci_low,
        limit=limit,
        detail=f"{metric} of slice {worst.name!r} ({worst.images} images) is {worst.value:.4f}, interval "
        f"[{worst.ci_low:.4f}, {worst.ci_high:.4f}], eager {worst.reference:.4f}{told}{small}",
    )


def _small(slices: Sequence[SliceFigure], least: int) -> str:
    names = [f"{each.name} ({each.images})" for each in slices if each.images < least]
    return f"; not judged, with fewer than {least} images: {_listed(names)}" if names else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
