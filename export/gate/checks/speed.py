"""Checks time and memory against the recipe's objectives and the version before."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.gate.checks.facts import Judged
from saccade.export.gate.checks.structure import pending
from saccade.models.contract.manifest import GateCheck, LatencyFigure, MeasuredDevice


def speed_checks(judged: Judged) -> Iterator[GateCheck]:
    if not judged.traits.needs_gpu:
        yield _speed_ratio(judged)
        yield from _paired_speed(judged)
    else:
        yield _device_latency(judged)
    figures, device = measured_latency(judged)
    yield from _latency(judged, figures)
    yield from _throughput(judged, figures)
    yield from _memory(judged)
    yield from _latency_regression(judged, figures, device)


def measured_latency(judged: Judged) -> tuple[tuple[LatencyFigure, ...], MeasuredDevice]:
    """Returns a variant's latencies and device; a GPU variant has only those of its plan."""
    report = judged.report
    if not judged.traits.needs_gpu:
        return report.latency, report.measured_on
    return ((), report.measured_on) if report.device is None else (report.device.latency, report.device.device)


def _speed_ratio(judged: Judged) -> GateCheck:
    report, thresholds = judged.report, judged.thresholds
    slowest = min(report.speed, key=lambda figure: figure.ratio, default=None)
    ratio = None if slowest is None else slowest.ratio
    is_fast = ratio is None or ratio >= thresholds.min_speed_ratio
    text = "not measured" if slowest is None else f"deploy / bare at batch {slowest.batch_size}: {slowest.ratio:.3f}"
    return GateCheck(
        name="speed_ratio",
        passed=is_fast or not thresholds.speed_ratio_gates,
        value=ratio,
        limit=thresholds.min_speed_ratio if thresholds.speed_ratio_gates else None,
        detail=text if thresholds.speed_ratio_gates else f"{text}; informs",
    )


def _paired_speed(judged: Judged) -> Iterator[GateCheck]:
    """States the speed over the most exact variant, measured in turns; denies what could not be timed."""
    report = judged.report
    if report.timing_failure:
        detail = f"it could not be timed: {report.timing_failure}"
        yield GateCheck(name="paired_speed", passed=False, value=None, limit=None, detail=detail)
    elif report.paired_speeds:
        pair = report.paired_speeds[0]
        yield GateCheck(name="paired_speed", passed=True, value=pair.ratio, limit=None, detail=f"{pair.text}; informs")


def _device_latency(judged: Judged) -> GateCheck:
    """Requires that every variant for GPUs was timed on one before it is served."""
    device = judged.report.device
    if device is None:
        return pending("device_latency", None, "latency")
    best = max((figure.images_per_s for figure in device.latency), default=None)
    return GateCheck(
        name="device_latency",
        passed=best is not None,
        value=best,
        limit=None,
        detail=f"images/s at the best batch size, {device.runtime} on {device.device.name}",
    )


def _latency(judged: Judged, figures: tuple[LatencyFigure, ...]) -> Iterator[GateCheck]:
    limit = judged.thresholds.max_p99_ms_batch_1
    if limit is None:
        return
    if not figures and judged.traits.needs_gpu:
        yield pending("latency", limit, "latency")
        return
    value = next((figure.p99_ms for figure in figures if figure.batch_size == 1), None)
    passed = value is not None and value <= limit
    yield GateCheck(name="latency", passed=passed, value=value, limit=limit, detail="p99 at batch 1, ms")


def _throughput(judged: Judged, figures: tuple[LatencyFigure, ...]) -> Iterator[GateCheck]:
    limit = judged.thresholds.min_images_per_s
    if limit is None:
        return
    if not figures and judged.traits.needs_gpu:
        yield pending("throughput", limit, "throughput")
        return
    value = max((figure.images_per_s for figure in figures), default=None)
    passed = value is not None and value >= limit
    yield GateCheck(name="throughput", passed=passed, value=value, limit=limit, detail="images/s, best batch size")


def _memory(judged: Judged) -> Iterator[GateCheck]:
    limit, device = judged.thresholds.max_memory_mb, judged.report.device
    if limit is None:
        return
    on_device = device is not None and device.memory_mb is not None
    value = device.memory_mb if device is not None and on_device else judged.report.memory_mb
    if value is None and judged.traits.needs_gpu:
        yield pending("memory", limit, "memory")
        return
    yield GateCheck(
        name="memory",
        passed=value is not None and value <= limit,
        value=value,
        limit=limit,
        detail="MB of the device that the opened plan and its buffers take"
        if on_device
        else "MB that a process grew by when it opened the file and ran the largest batch",
    )


def _latency_regression(
    judged: Judged, figures: tuple[LatencyFigure, ...], device: MeasuredDevice
) -> Iterator[GateCheck]:
    """Compares with the version before, when the recipe asks for it and that version was timed on the same device."""
    limit, previous = judged.thresholds.max_latency_regression, judged.facts.previous
    if limit is None or previous is None or previous.measured_on != device:
        return
    before = next((figure.p50_ms for figure in previous.latency if figure.batch_size == 1), None)
    now = next((figure.p50_ms for figure in figures if figure.batch_size == 1), None)
    if before is None or now is None:
        return
    growth = now / before - 1.0
    yield GateCheck(
        name="latency_regression",
        passed=growth <= limit,
        value=growth,
        limit=limit,
        detail=f"p50 at batch 1: newest published version {before:.3f} ms, this one {now:.3f} ms",
    )
