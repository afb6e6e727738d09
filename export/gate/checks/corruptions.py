"""Checks corrupted pictures: what a variant loses there against the eager network, and against itself on clean ones."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.gate.checks.facts import Judged
from saccade.export.qualification.qualify_report import MetricDrop
from saccade.models.contract.manifest import GateCheck


def corruption_checks(judged: Judged) -> Iterator[GateCheck]:
    limits, found = judged.thresholds.corruptions, judged.report.corruptions
    if limits is None:
        return
    if found is None:
        yield GateCheck(
            name="corruption_drop", passed=False, value=None, limit=limits.max_mean_drop, detail="not measured"
        )
        return
    worst, count = found.kinds[0], len(found.kinds) * len(found.strengths)
    named = ", ".join(f"{value:.4f}" for value in worst.by_strength)
    of = f"of the clean metric, by {found.images} images"
    yield _check("corruption_drop", found.eager_drop, limits.max_mean_drop, f"mean of {count} corruptions, {of}")
    yield _check(
        "corruption_worst",
        worst.eager_drop,
        limits.max_worst_drop,
        f"{worst.kind} may have lost most ({judged.report.metric.name} {named} from weak to strong), {of}",
    )
    if limits.max_clean_drop is not None:
        own = f"mean of {count} corruptions against the variant on clean images, {of}"
        yield _check("corruption_clean", found.clean_drop, limits.max_clean_drop, own, "below clean images")


def _check(name: str, drop: MetricDrop, limit: float, what: str, below: str = "below eager on the same") -> GateCheck:
    """Compares the interval's upper end; if no selection of the images shows a drop, the measured drop counts."""
    return GateCheck(
        name=name,
        passed=drop.judged <= limit,
        value=drop.judged,
        limit=limit,
        detail=f"{what}: {drop.value:.1%} {below}; it may be {drop.ci_low:.1%} to {drop.ci_high:.1%}, and at most "
        f"{limit:.1%} is allowed",
    )
