"""A plan carries its rate with room to spare, and what a request costs does not grow with the rate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saccade.service.bench.plan import plan_for
from saccade.service.bench.report import PlanFigures
from saccade.service.bench.text_report import text_of
from tests.unit.service.bench.rows import Row, report_from


def test_replicas_carry_the_rate_at_four_fifths_with_one_to_spare() -> None:
    plan = plan_for(1000.0, 100.0, devices=2, price_per_hour=3.0)

    assert (plan.replicas, plan.spare, plan.devices) == (14, 1, 28)  # 12.5 at 80 per second
    assert plan.price_per_hour == 42.0
    assert plan.price_per_million == pytest.approx(42.0 / 3.6)


def test_small_rate_has_one_replica_and_the_spare_one() -> None:
    assert plan_for(0.1, 100.0, devices=1, price_per_hour=None).replicas == 2


def test_cost_of_a_request_is_flat_to_a_thousand_replicas() -> None:
    costs = [plan_for(rate, 100.0, 1, 1.0).price_per_million or 0.0 for rate in (8_000.0, 80_000.0)]

    assert plan_for(80_000.0, 100.0, 1, 1.0).replicas == 1001
    assert costs[1] == pytest.approx(costs[0], rel=0.01)


def test_server_that_keeps_the_objective_at_no_rate_has_no_plan() -> None:
    assert plan_for(10.0, None, 1, 1.0) == PlanFigures(10.0, None, 0.8, 0, 0, 0, None, None)


@pytest.mark.parametrize(
    ("carried_rps", "price", "line"),
    [
        (
            100.0,
            3.0,
            "1000/s within 200 ms: 14 replicas with 14 devices (13 at 80% of 100.0/s, and 1 spare); "
            "42.00 an hour, 11.67 a million requests",
        ),
        (100.0, None, "1000/s within 200 ms: 14 replicas with 14 devices (13 at 80% of 100.0/s, and 1 spare)"),
        (None, 3.0, "1000/s within 200 ms: no number of replicas, since one keeps the objective at no rate"),
    ],
)
def test_plan_is_told_in_a_line(carried_rps: float | None, price: float | None, line: str) -> None:
    report = replace(report_from([Row(0.1, 0.02)]), objective_ms=200.0, plan=plan_for(1000.0, carried_rps, 1, price))

    assert text_of(report).splitlines()[-1] == f"plan         {line}"
