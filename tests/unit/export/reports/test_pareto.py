"""The Pareto set. Promises: only comparable, obtainable variants belong to it."""

from __future__ import annotations

from saccade.export.reports.export_report import VariantReport
from saccade.export.reports.pareto import ParetoPoint, comparable, pareto_set
from saccade.models.contract.manifest import MeasuredDevice
from tests.support.reports import check, decision, qualified

ACCEPTED = decision(check("a"))


def point(name: str, metric: float, ms: float, rate: float, *, is_denied: bool = False) -> ParetoPoint:
    return ParetoPoint(name, metric, ms, rate, 1, is_denied)


def test_variant_that_another_beats_everywhere_is_left_out() -> None:
    points = (point("slow", 0.9, 2.0, 100), point("fast", 0.9, 1.0, 200), point("exact", 0.95, 3.0, 90))

    assert pareto_set(points) == {"fast", "exact"}


def test_better_throughput_alone_keeps_a_variant_in() -> None:
    assert pareto_set((point("quick", 0.9, 1.0, 100), point("wide", 0.9, 2.0, 300))) == {"quick", "wide"}


def test_equal_variants_are_both_in() -> None:
    assert pareto_set((point("a", 0.9, 1.0, 100), point("b", 0.9, 1.0, 100))) == {"a", "b"}


def test_denied_variant_is_out_and_pushes_nobody_out() -> None:
    points = (point("good", 0.9, 2.0, 100), point("denied", 0.99, 1.0, 300, is_denied=True))

    assert pareto_set(points) == {"good"}


def test_gpu_files_timed_on_a_processor_are_not_compared() -> None:
    variants = tuple(VariantReport(qualify=qualified(name), gate=ACCEPTED) for name in ("fp32", "fp16", "int8-cpu"))

    points, others = comparable(variants)

    assert [each.variant for each in points] == ["fp32", "int8-cpu"]
    assert others == ("fp16",)


def test_figures_of_another_device_are_not_compared() -> None:
    gpu = MeasuredDevice(kind="cuda", name="a GPU", threads=1)
    variants = (
        VariantReport(qualify=qualified("fp32"), gate=ACCEPTED),
        VariantReport(qualify=qualified("int8-trt", measured_on=gpu), gate=ACCEPTED),
    )

    points, others = comparable(variants)

    assert ([each.variant for each in points], others) == (["fp32"], ("int8-trt",))


def test_throughput_is_of_the_best_batch_size() -> None:
    points, _ = comparable((VariantReport(qualify=qualified("fp32", ms=1.0), gate=ACCEPTED),))

    assert (points[0].p50_ms_batch_1, points[0].best_batch, points[0].images_per_s) == (1.0, 4, 904)
