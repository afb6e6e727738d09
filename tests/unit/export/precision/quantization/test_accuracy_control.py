"""Accuracy control. Promises: layers go back worst first in doubling steps, and only while the budget is missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx

from saccade.export.precision.quantization.accuracy_control import controlled, layers_taken_out
from saccade.export.precision.quantization.candidates import Attempt, Candidate
from saccade.export.precision.quantization.schemes import QuantizationPlan
from saccade.export.recipe import AccuracyControlSpec

LAYERS = tuple(f"layer{index}" for index in range(10))  # the worst first


def attempt_with(taken_out: Mapping[str, str], metric: float) -> Attempt:
    plan = QuantizationPlan(
        tuple(name for name in LAYERS if name not in taken_out),
        (),
        frozenset(),
        dict(taken_out),
        lambda ranges: onnx.ModelProto(),
    )
    return Attempt(plan, Candidate(f"minmax, {len(taken_out)} layers float", metric, Path("none")))


def attempts(metric_of: Callable[[int], float], max_drop: float | None, most: int = 16) -> list[Attempt]:
    """metric_of: how many layers are float; the float network reaches 0.9."""
    first = attempt_with({}, metric_of(0))
    spec = AccuracyControlSpec(max_drop=max_drop, max_float_layers=most)
    return controlled(first, 0.9, LAYERS, spec, lambda taken: attempt_with(taken, metric_of(len(taken))))


def test_nothing_goes_back_without_a_budget_or_within_it() -> None:
    assert len(attempts(lambda count: 0.1, max_drop=None)) == 1
    assert len(attempts(lambda count: 0.896, max_drop=0.005)) == 1


def test_the_worst_layers_go_back_until_the_drop_is_within_budget() -> None:
    found = attempts(lambda count: 0.88 + 0.005 * count, max_drop=0.005)

    assert [len(each.plan.reasons) for each in found] == [0, 1, 2, 4]
    assert tuple(found[-1].plan.reasons) == LAYERS[:4]
    assert all("0.005" in reason for reason in found[-1].plan.reasons.values())


def test_the_best_attempt_is_taken_when_the_budget_cannot_be_met() -> None:
    metrics = {0: 0.5, 1: 0.6, 2: 0.8, 4: 0.7, 5: 0.7}

    found = attempts(lambda count: metrics[count], max_drop=0.005, most=5)

    assert [len(each.plan.reasons) for each in found] == [0, 1, 4, 5, 2]


def test_steps_double_and_end_at_the_limit_or_with_the_last_layer() -> None:
    assert [len(step) for step in layers_taken_out(LAYERS, 6)] == [1, 2, 4, 6]
    assert [len(step) for step in layers_taken_out(LAYERS, 99)] == [1, 2, 4, 8, 10]
    assert list(layers_taken_out((), 4)) == []
