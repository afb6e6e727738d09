"""Checks of answers: agreement with the eager network, the task's metric, its worst class. Promises: pure."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.gate.checks.facts import Judged
from saccade.models.contract.manifest import GateCheck


def answer_checks(judged: Judged) -> Iterator[GateCheck]:
    yield _agreement(judged)
    yield _metric_floor(judged)
    yield _metric_drop(judged)
    yield _class_drop(judged)
    yield from _device_metric(judged)
    yield from _metric_regression(judged)


def _agreement(judged: Judged) -> GateCheck:
    """The line shows the figure that lies lowest against its limit."""
    found, limits = judged.report.agreement, judged.thresholds.agreement_limits()
    if not found:
        return GateCheck(name="agreement", passed=False, value=None, limit=None, detail="not measured")
    tightest = min(found, key=lambda name: found[name] - limits[name])
    texts = [f"{name} {value:.4f} (at least {limits[name]:g})" for name, value in found.items()]
    return GateCheck(
        name="agreement",
        passed=all(value >= limits[name] for name, value in found.items()),
        value=found[tightest],
        limit=limits[tightest],
        detail=f"with the eager network's answers: {', '.join(texts)}",
    )


def _metric_floor(judged: Judged) -> GateCheck:
    """A variant may be as good as its reference and still be useless: untrained weights are."""
    metric, limit = judged.report.metric, judged.thresholds.min_metric
    return GateCheck(
        name="metric_floor",
        passed=metric.ci_low >= limit,
        value=metric.ci_low,
        limit=limit,
        detail=f"{metric.name} {metric.value:.4f}, interval [{metric.ci_low:.4f}, {metric.ci_high:.4f}]",
    )


def _metric_drop(judged: Judged) -> GateCheck:
    report, drop = judged.report, judged.report.drop
    limit = judged.thresholds.metric_drop_limit(report.variant)
    return GateCheck(
        name="metric_drop",
        passed=drop.ci_high <= limit,
        value=drop.ci_high,
        limit=limit,
        detail=f"{report.metric.name} {report.metric.value:.4f}, {drop.value:+.4f} below eager, "
        f"paired interval [{drop.ci_low:+.4f}, {drop.ci_high:+.4f}] over {report.metric.images} images",
    )


def _class_drop(judged: Judged) -> GateCheck:
    """The mean of many classes hides the loss of one."""
    worst, limit = judged.report.worst_class, judged.thresholds.max_class_drop
    if worst is None:
        return GateCheck(name="class_drop", passed=False, value=None, limit=limit, detail="not measured")
    return GateCheck(
        name="class_drop",
        passed=worst.ci_high <= limit,
        value=worst.ci_high,
        limit=limit,
        detail=f"class {worst.class_id} may have lost most: {worst.value:+.4f} below eager, "
        f"paired interval [{worst.ci_low:+.4f}, {worst.ci_high:+.4f}]",
    )


def _device_metric(judged: Judged) -> Iterator[GateCheck]:
    """The plan is another program than the file that was measured here, so its own drop counts too."""
    device = judged.report.device
    if device is None:
        return
    limit = judged.thresholds.metric_drop_limit(judged.report.variant)
    yield GateCheck(
        name="device_metric",
        passed=device.drop.ci_high <= limit,
        value=device.drop.ci_high,
        limit=limit,
        detail=f"{device.metric.name} {device.metric.value:.4f} on {device.device.name}, {device.drop.value:+.4f} "
        f"below eager, paired interval [{device.drop.ci_low:+.4f}, {device.drop.ci_high:+.4f}]",
    )


def _metric_regression(judged: Judged) -> Iterator[GateCheck]:
    """Only where the recipe asks for it and there is a version on the same split to compare with."""
    limit, previous, metric = judged.thresholds.max_metric_regression, judged.facts.previous, judged.report.metric
    if limit is None or previous is None or previous.metric.images != metric.images:
        return
    loss = previous.metric.value - metric.value
    yield GateCheck(
        name="metric_regression",
        passed=loss <= limit,
        value=loss,
        limit=limit,
        detail=f"newest published version has {previous.metric.value:.4f}, this one {metric.value:.4f}",
    )
