"""Decides what may be published. Promises: a pure function of report and thresholds, one named check per line."""

from __future__ import annotations

from export.fidelity import FidelityReport
from export.gate_thresholds import GateThresholds
from export.qualify_report import QualifyReport
from models.manifest import GateCheck, GateDecision, MetricFigure


def gate_decision(
    report: QualifyReport,
    thresholds: GateThresholds,
    file_sha256: str,
    previous: MetricFigure | None = None,
    *,
    is_trained: bool = True,
    fidelity: FidelityReport | None = None,
) -> GateDecision:
    """The verdict on one variant.

    `file_sha256` is the digest of the file about to be published, `previous` the metric of the newest published
    version of the same variant, `fidelity` how the server's pixels compare with the library's where it has a transform.
    """
    checks = (
        _file_hash(report, file_sha256),
        *_trained_weights(is_trained, thresholds),
        *_preprocess(fidelity, thresholds),
        _parity(report, thresholds),
        _metric_floor(report, thresholds),
        _metric_drop(report, thresholds),
        _batch_invariance(report, thresholds),
        _hostile_inputs(report),
        _determinism(report),
        _speed_ratio(report, thresholds),
        *_metric_regression(report, thresholds, previous),
    )
    return GateDecision(accepted=all(check.passed for check in checks), checks=checks)


def denial_text(variant: str, decision: GateDecision) -> str:
    """Why a variant was denied, in one line."""
    failed = [f"{check.name} ({check.detail})" for check in decision.checks if not check.passed]
    return f"{variant} denied: {'; '.join(failed)}"


def _file_hash(report: QualifyReport, file_sha256: str) -> GateCheck:
    is_same = report.file_sha256 == file_sha256
    detail = "the measured file is the published one" if is_same else "the file changed after it was measured"
    return GateCheck(
        name="file_hash", passed=is_same, value=file_sha256[:12], limit=report.file_sha256[:12], detail=detail
    )


def _trained_weights(is_trained: bool, thresholds: GateThresholds) -> tuple[GateCheck, ...]:
    """Nothing to say about trained weights; random ones pass only where the recipe insists."""
    if is_trained:
        return ()
    return (
        GateCheck(
            name="trained_weights",
            passed=thresholds.allow_random_weights,
            value="random",
            limit=None,
            detail="the network has random weights: its answers mean nothing. Name `weights` in the recipe, or set "
            "gate.allow_random_weights to publish it anyway",
        ),
    )


def _preprocess(fidelity: FidelityReport | None, thresholds: GateThresholds) -> tuple[GateCheck, ...]:
    """A network that is fed other pixels than it was trained on is another network."""
    if fidelity is None:
        return ()
    worst = f"worst image {fidelity.worst_image} {fidelity.worst_image_share:.5f}"
    larger = f"; {len(fidelity.beyond_canvas)} would be larger than the input" if fidelity.beyond_canvas else ""
    missed = f"; not comparable: {fidelity.failures[0]}" if fidelity.failures else ""
    return (
        GateCheck(
            name="preprocess",
            passed=fidelity.reaches(thresholds.min_preprocess_agreement),
            value=fidelity.share_within_one_level,
            limit=thresholds.min_preprocess_agreement,
            detail=f"pixels within one level of {fidelity.transform} on {fidelity.images} images; {worst}, at most "
            f"{fidelity.max_difference:.1f} levels{larger}{missed}",
        ),
    )


def _parity(report: QualifyReport, thresholds: GateThresholds) -> GateCheck:
    """fp32 must repeat the eager network; int8 differs by design, so there the task metric decides."""
    errors = [figure.relative_l2 for figure in report.parity]
    disagreement = max((1.0 - figure.class_agreement for figure in report.parity), default=0.0)
    finite = [error for error in errors if error is not None]
    worst = max(finite, default=0.0) if len(finite) == len(errors) else None
    is_close = worst is not None and worst <= thresholds.max_parity_error
    is_close = is_close and disagreement <= thresholds.max_mask_disagreement
    sizes = ", ".join(str(figure.batch_size) for figure in report.parity)
    text = f"against eager at batch {sizes}: relative L2 {_figure(worst)}, ids that differ {disagreement:.2e}"
    if report.variant.startswith("int8"):
        return GateCheck(
            name="parity",
            passed=worst is not None,
            value=worst,
            limit=None,
            detail=f"{text}; informs, the task metric decides for int8",
        )
    return GateCheck(name="parity", passed=is_close, value=worst, limit=thresholds.max_parity_error, detail=text)


def _metric_floor(report: QualifyReport, thresholds: GateThresholds) -> GateCheck:
    """A variant may be as good as its reference and still be useless: untrained weights are."""
    metric = report.metric
    return GateCheck(
        name="metric_floor",
        passed=metric.ci_low >= thresholds.min_metric,
        value=metric.ci_low,
        limit=thresholds.min_metric,
        detail=f"{metric.name} {metric.value:.4f}, interval [{metric.ci_low:.4f}, {metric.ci_high:.4f}]",
    )


def _metric_drop(report: QualifyReport, thresholds: GateThresholds) -> GateCheck:
    drop = report.drop
    return GateCheck(
        name="metric_drop",
        passed=drop.ci_high <= thresholds.max_metric_drop,
        value=drop.ci_high,
        limit=thresholds.max_metric_drop,
        detail=f"{report.metric.name} {report.metric.value:.4f}, {drop.value:+.4f} below eager, "
        f"paired interval [{drop.ci_low:+.4f}, {drop.ci_high:+.4f}] over {report.metric.images} images",
    )


def _batch_invariance(report: QualifyReport, thresholds: GateThresholds) -> GateCheck:
    found = report.batch_invariance
    is_equal = found.relative_l2 is not None and found.relative_l2 <= thresholds.max_batch_error
    return GateCheck(
        name="batch_invariance",
        passed=is_equal and found.id_disagreement <= thresholds.max_mask_disagreement,
        value=found.relative_l2,
        limit=thresholds.max_batch_error,
        detail=f"alone against in a batch: relative L2 {_figure(found.relative_l2)}, "
        f"ids that differ {found.id_disagreement:.2e}",
    )


def _hostile_inputs(report: QualifyReport) -> GateCheck:
    bad = [figure.name for figure in report.hostile if not (figure.is_finite and figure.is_in_range)]
    names = ", ".join(figure.name for figure in report.hostile)
    return GateCheck(
        name="hostile_inputs",
        passed=not bad,
        value=len(bad),
        limit=0,
        detail=f"not finite or out of range on: {', '.join(bad)}" if bad else f"finite and in range on: {names}",
    )


def _determinism(report: QualifyReport) -> GateCheck:
    return GateCheck(
        name="determinism",
        passed=report.is_deterministic,
        value=report.is_deterministic,
        limit=True,
        detail="the same batch twice gives equal bits" if report.is_deterministic else "two runs gave different bits",
    )


def _speed_ratio(report: QualifyReport, thresholds: GateThresholds) -> GateCheck:
    slowest = min(report.speed, key=lambda figure: figure.ratio, default=None)
    ratio = None if slowest is None else slowest.ratio
    is_fast = ratio is None or ratio >= thresholds.min_speed_ratio
    text = "not measured" if slowest is None else f"deploy / bare at batch {slowest.batch_size}: {slowest.ratio:.3f}"
    return GateCheck(
        name="speed_ratio",
        passed=is_fast or not thresholds.speed_ratio_gates,
        value=ratio,
        limit=thresholds.min_speed_ratio,
        detail=text if thresholds.speed_ratio_gates else f"{text}; informs",
    )


def _metric_regression(
    report: QualifyReport, thresholds: GateThresholds, previous: MetricFigure | None
) -> tuple[GateCheck, ...]:
    """Only where the recipe asks for it and there is a version on the same split to compare with."""
    limit = thresholds.max_metric_regression
    if limit is None or previous is None or previous.images != report.metric.images:
        return ()
    loss = previous.value - report.metric.value
    return (
        GateCheck(
            name="metric_regression",
            passed=loss <= limit,
            value=loss,
            limit=limit,
            detail=f"newest published version has {previous.value:.4f}, this one {report.metric.value:.4f}",
        ),
    )


def _figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"
