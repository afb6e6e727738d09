"""Accuracy control. Promises: layers go back worst first in doubling steps, and only while the budget is missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from saccade.export.graph.onnx_graph import WEIGHTED_OPS, weighted_part
from saccade.export.precision.quantization.accuracy_control import (
    ControlTerms,
    controlled,
    head_layers,
    layers_taken_out,
    told,
)
from saccade.export.precision.quantization.candidates import Attempt, Candidate
from saccade.export.precision.quantization.schemes import QuantizationPlan
from tests.support.residual_network import residual_network

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


def below(candidate: Candidate) -> float:
    """The float network reaches 0.9."""
    return 0.9 - candidate.metric


def attempts(
    metric_of: Callable[[int], float],
    max_drop: float,
    most: int = 16,
    heads: Sequence[str] = (),
    tries: int = 99,
) -> list[Attempt]:
    """metric_of: how many layers are float; the float network reaches 0.9. `tries` fit into the time."""
    clock = iter(range(99))
    terms = ControlTerms(below, max_drop, most, lambda: next(clock) < tries)
    return controlled(
        attempt_with({}, metric_of(0)), heads, LAYERS, terms, lambda taken: attempt_with(taken, metric_of(len(taken)))
    )


def test_nothing_goes_back_within_the_budget() -> None:
    assert len(attempts(lambda count: 0.896, max_drop=0.005)) == 1


def test_the_worst_layers_go_back_until_the_drop_is_within_budget() -> None:
    found = attempts(lambda count: 0.88 + 0.005 * count, max_drop=0.005)

    assert [len(each.plan.reasons) for each in found] == [0, 1, 2, 4]
    assert tuple(found[-1].plan.reasons) == LAYERS[:4]
    assert all("0.005" in reason for reason in found[-1].plan.reasons.values())


def test_the_heads_go_back_before_the_worst_layer() -> None:
    found = attempts(lambda count: 0.1, max_drop=0.005, heads=("layer7", "layer8"), most=5)

    assert [tuple(each.plan.reasons) for each in found if each.plan.reasons] == [
        ("layer7", "layer8"),
        ("layer7", "layer8", "layer0"),
        ("layer7", "layer8", "layer0", "layer1"),
        ("layer7", "layer8", "layer0", "layer1", "layer2"),
    ]


def test_the_best_attempt_is_taken_when_the_budget_cannot_be_met() -> None:
    metrics = {0: 0.5, 1: 0.6, 2: 0.8, 4: 0.7, 5: 0.7}

    found = attempts(lambda count: metrics[count], max_drop=0.005, most=5)

    assert [len(each.plan.reasons) for each in found] == [0, 1, 4, 5, 2]


def test_no_attempt_begins_when_the_time_has_ended() -> None:
    assert [len(each.plan.reasons) for each in attempts(lambda count: 0.1 * count, max_drop=0.005, tries=2)] == [
        0,
        1,
        2,
    ]


def test_what_was_done_is_told_with_layers_and_figures() -> None:
    terms = ControlTerms(below, 0.005, 16, lambda: True)
    within = attempts(lambda count: 0.88 + 0.005 * count, max_drop=0.005)
    never = attempts(lambda count: 0.5 + 0.001 * count, max_drop=0.005)

    assert told(within[:1], ControlTerms(lambda each: 0.0, 0.005, 16, lambda: True)) == ""
    assert told(within, terms).startswith("4 layers stay float (layer0, layer1, layer2, layer3): ")
    assert "went from 0.0200 to 0.0000" in told(within, terms)
    assert "more calibration images" in told(never, terms)


def test_steps_double_and_end_at_the_limit_or_with_the_last_layer() -> None:
    assert [len(step) for step in layers_taken_out((), LAYERS, 6)] == [1, 2, 4, 6]
    assert [len(step) for step in layers_taken_out((), LAYERS, 99)] == [1, 2, 4, 8, 10]
    assert [len(step) for step in layers_taken_out(("head",), LAYERS, 4)] == [1, 2, 3, 4]
    assert list(layers_taken_out((), (), 4)) == []


def test_heads_are_the_layers_that_nothing_weighted_follows() -> None:
    model = residual_network()

    heads = head_layers(model)

    assert heads == [[node.name for node in weighted_part(model) if node.op_type in WEIGHTED_OPS][-1]]
