"""Chooses the variants that no other one beats, among those measured on the device that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saccade.export.reports.export_report import VariantReport
from saccade.export.variants import TRAITS, VariantTraits
from saccade.models.contract.manifest import MeasuredDevice


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One variant's position in the plot of accuracy against speed."""

    variant: str
    metric: float
    p50_ms_batch_1: float
    images_per_s: float  # at the batch size where it is highest
    best_batch: int
    is_denied: bool


def comparable(variants: Sequence[VariantReport]) -> tuple[tuple[ParetoPoint, ...], tuple[str, ...]]:
    """Returns variants measured on the first variant's device, and the names of the others."""
    device = next((each.qualify.measured_on for each in variants if _runs_there(each)), None)
    measured = tuple(_measured(each) for each in variants if _runs_there(each) and each.qualify.measured_on == device)
    names = {each.variant for each in measured}
    return measured, tuple(each.qualify.variant for each in variants if each.qualify.variant not in names)


def pareto_set(points: Sequence[ParetoPoint]) -> frozenset[str]:
    """Returns variants that no other one equals in metric, latency and throughput and beats in one of them.

    Denied variants neither belong to the set nor displace others, because nobody can have them.
    """
    candidates = [point for point in points if not point.is_denied]
    return frozenset(point.variant for point in candidates if not any(_is_better(other, point) for other in candidates))


def _is_better(first: ParetoPoint, second: ParetoPoint) -> bool:
    left, right = ((each.metric, -each.p50_ms_batch_1, each.images_per_s) for each in (first, second))
    return left != right and all(mine >= theirs for mine, theirs in zip(left, right, strict=True))


def _runs_there(variant: VariantReport) -> bool:
    """A processor can open files made for a GPU, but its times say nothing about them."""
    traits: VariantTraits | None = next(
        (traits for name, traits in TRAITS.items() if name == variant.qualify.variant), None
    )
    device: MeasuredDevice = variant.qualify.measured_on
    return bool(variant.qualify.latency) and not (traits is not None and traits.needs_gpu and device.kind == "cpu")


def _measured(variant: VariantReport) -> ParetoPoint:
    figures = variant.qualify.latency
    best = max(figures, key=lambda each: each.images_per_s)
    return ParetoPoint(
        variant=variant.qualify.variant,
        metric=variant.qualify.metric.value,
        p50_ms_batch_1=next((each.p50_ms for each in figures if each.batch_size == 1), figures[0].p50_ms),
        images_per_s=best.images_per_s,
        best_batch=best.batch_size,
        is_denied=not variant.gate.accepted and not variant.gate.is_pending,
    )
