"""Checks answers: agreement with the eager network, the task's metric, and the class that lost most."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.gate.checks.facts import Judged
from saccade.export.gate.limits import fewer_test_images
from saccade.export.qualification.qualify_report import MetricDrop
from saccade.models.contract.manifest import UNJUDGED, GateCheck, MetricFigure, OperatingPoint

PARITY_IMAGES = 10  # fewer agree by chance, where no metric is measured


def answer_checks(judged: Judged) -> Iterator[GateCheck]:
    yield _agreement(judged)
    yield _plausible_answers(judged)
    if judged.thresholds.mode == "parity":
        yield _test_images(judged, judged.thresholds.min_test_images or PARITY_IMAGES)
        yield _unjudged(judged)
        return
    yield _test_images(judged, judged.thresholds.test_images_limit(judged.report.metric.name))
    yield _better_than_guessing(judged)
    yield _metric_floor(judged)
    yield _metric_drop(judged)
    yield from _operating_drop(judged)
    yield _class_drop(judged)
    yield from _device_metric(judged)
    yield from _metric_regression(judged)


def _agreement(judged: Judged) -> GateCheck:
    """Compares agreement with its limits; the line shows the figure that lies lowest against its limit."""
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


def _plausible_answers(judged: Judged) -> GateCheck:
    """Denies answers whose form alone shows that they cannot be true; untrained networks are exempt."""
    reference = judged.report.reference
    faults = (reference.faults if reference else ()) or judged.report.faults  # a variant repeats its reference's faults
    is_excused = judged.thresholds.allow_random_weights
    text = ". ".join(faults) or "in the form that the task promises, on every test image"
    return GateCheck(
        name="plausible_answers",
        passed=not faults or is_excused,
        value=f"{len(faults)} excused" if faults and is_excused else len(faults),
        limit=0,
        detail=f"random weights are allowed, so this informs: {text}" if faults and is_excused else text,
    )


def _unjudged(judged: Judged) -> GateCheck:
    """Passes, and marks the version as unjudged because nobody measured its metric."""
    return GateCheck(
        name=UNJUDGED,
        passed=True,
        value="parity",
        limit=None,
        detail="gate: {mode: parity}: whether answers are right was not measured, only that they are the network's",
    )


def _test_images(judged: Judged, limit: int) -> GateCheck:
    metric, reference = judged.report.metric, judged.report.reference
    different = reference.different_images if reference is not None else None
    images = metric.images if different is None else min(metric.images, different)
    if metric.name == "recall_at_1" and not judged.thresholds.needs_labels and different is not None:
        images = different  # its pictures without another of their label are no queries, and are compared all the same
    copies = f" ({metric.images - images} of {metric.images} are copies)" if images < metric.images else ""
    interval = f": the interval of {metric.name} reaches from {metric.ci_low:.4f} to {metric.ci_high:.4f}"
    told = interval if judged.thresholds.needs_labels else " whose answers are compared"
    if images < limit:
        told += f". At least {limit} are asked for: {fewer_test_images(images)}"
    return GateCheck(
        name="test_images",
        passed=images >= limit,
        value=images,
        limit=limit,
        detail=f"{images} test images{copies}{told}",
    )


def _better_than_guessing(judged: Judged) -> GateCheck:
    """Requires more than the best guess, because wrong labels make variant and reference equally bad."""
    report, reference = judged.report, judged.report.reference
    limit = judged.thresholds.skill_limit(report.metric.name)
    if reference is None:
        return GateCheck(name="better_than_guessing", passed=False, value=None, limit=limit, detail="not measured")
    lowest = min(reference.metric, report.metric, key=lambda figure: figure.ci_low)
    skill = (lowest.ci_low - reference.chance) / (1.0 - reference.chance) if reference.chance < 1.0 else 0.0
    passed = skill >= limit and lowest.ci_low > reference.chance
    text = (
        f"{lowest.name} {lowest.value:.4f}, interval from {lowest.ci_low:.4f}; {reference.guess} reaches "
        f"{reference.chance:.4f}"
    )
    truth = "targets" if lowest.name in ("ssim", "depth_accuracy") else "labels"
    lacking = f", and an interval from {reference.chance + limit * (1.0 - reference.chance):.4f} is asked for"
    return GateCheck(
        name="better_than_guessing",
        passed=passed,
        value=skill,
        limit=limit,
        detail=text if passed else f"no better than guessing: {text}{lacking}. Look at {truth}, weights, preprocessing",
    )


def _metric_floor(judged: Judged) -> GateCheck:
    metric, limit = judged.report.metric, judged.thresholds.min_metric
    return GateCheck(
        name="metric_floor",
        passed=metric.ci_low >= limit,
        value=metric.ci_low,
        limit=limit,
        detail=f"{metric.name} {metric.value:.4f}, interval [{metric.ci_low:.4f}, {metric.ci_high:.4f}]",
    )


def _metric_drop(judged: Judged) -> GateCheck:
    return _drop_check(judged, "metric_drop", judged.report.metric, judged.report.drop, "")


def _operating_drop(judged: Judged) -> Iterator[GateCheck]:
    """Applies the drop limit at the score threshold that requests use; detections below it are never seen."""
    report, device = judged.report, judged.report.device
    if report.operating_point is not None and report.operating_drop is not None:
        point = report.operating_point
        yield _drop_check(judged, "operating_drop", point.metric, report.operating_drop, _where(point))
    if device is not None and device.operating_point is not None and device.operating_drop is not None:
        where = f" on {device.device.name}{_where(device.operating_point)}"
        yield _drop_check(judged, "device_operating_drop", device.operating_point.metric, device.operating_drop, where)


def _where(point: OperatingPoint) -> str:
    return (
        f" at score threshold {point.score_threshold:g} (precision {point.precision:.3f}, recall {point.recall:.3f}, "
        f"F1 {point.f1:.3f})"
    )


def _drop_check(judged: Judged, name: str, metric: MetricFigure, drop: MetricDrop, where: str) -> GateCheck:
    """Compares the interval's upper end; if no selection of the images shows a drop, the measured drop counts."""
    limit = judged.thresholds.metric_drop_limit(judged.report.variant)
    unseen = "; no selection of them shows a drop" if drop.is_never_worse else ""
    interval = f"{beside_eager(drop.ci_low)} to {beside_eager(drop.ci_high)}"
    return GateCheck(
        name=name,
        passed=drop.judged <= limit,
        value=drop.judged,
        limit=limit,
        detail=f"{metric.name} {metric.value:.4f}{where}, {beside_eager(drop.value)}; by {metric.images} images "
        f"it may be {interval}, and at most {limit:g} below is allowed{unseen}",
    )


def _class_drop(judged: Judged) -> GateCheck:
    """Limits the drop of each class, because the mean over many classes hides the loss of one."""
    worst, limit = judged.report.worst_class, judged.thresholds.max_class_drop
    if worst is None:
        return GateCheck(name="class_drop", passed=False, value=None, limit=limit, detail="not measured")
    value = worst.value if worst.is_never_worse else worst.ci_high
    unseen = "; no selection of the images shows a drop" if worst.is_never_worse else ""
    return GateCheck(
        name="class_drop",
        passed=value <= limit,
        value=value,
        limit=limit,
        detail=f"class {repr(worst.label) if worst.label else worst.class_id} may have lost most: "
        f"{beside_eager(worst.value)}; it may be {beside_eager(worst.ci_low)} to {beside_eager(worst.ci_high)}, "
        f"and at most {limit:g} below is allowed{unseen}",
    )


def beside_eager(drop: float) -> str:
    """A drop in words: what was lost against the eager network, or won."""
    return f"{abs(drop):.4f} {'above' if drop < 0 else 'below'} eager"


def _device_metric(judged: Judged) -> Iterator[GateCheck]:
    """Limits the plan's own drop as well, because the plan computes differently from the file."""
    device = judged.report.device
    if device is not None:
        yield _drop_check(judged, "device_metric", device.metric, device.drop, f" on {device.device.name}")


def _metric_regression(judged: Judged) -> Iterator[GateCheck]:
    """Compares with the published version on the same split, when there is one and the recipe asks for it."""
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
