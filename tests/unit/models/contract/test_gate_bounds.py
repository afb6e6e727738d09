"""Bounds. Promises: a check that says it passed beyond its limit is no check at all."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from saccade.models.contract.gate_bounds import is_beyond_limit
from saccade.models.contract.manifest import GateCheck, GateDecision


@pytest.mark.parametrize(
    ("name", "value", "limit", "is_beyond"),
    [
        ("metric_drop", 0.006, 0.005, True),
        ("metric_drop", 0.005, 0.005, False),
        ("metric_floor", 0.4, 0.5, True),
        ("metric_floor", 0.5, 0.5, False),
        ("determinism", False, True, True),
        ("file_hash", "aaaa", "bbbb", True),
        ("thresholds", "2 LOOSE", 0, False),
        ("parity", 0.3, None, False),
        ("of_a_newer_gate", 9, 1, False),
    ],
)
def test_each_check_has_its_direction(name: str, value: float | str | bool, limit: object, is_beyond: bool) -> None:
    assert is_beyond_limit(name, value, limit) == is_beyond  # type: ignore[arg-type]  # an object in the table


def test_a_passed_check_beyond_its_limit_is_invalid() -> None:
    with pytest.raises(ValidationError, match=r"metric_drop cannot have passed with 0\.3 and the limit 0\.005"):
        GateCheck(name="metric_drop", passed=True, value=0.3, limit=0.005, detail="")
    assert not GateCheck(name="metric_drop", passed=False, value=0.3, limit=0.005, detail="").passed


@pytest.mark.parametrize("accepted", [True, False])
def test_a_gate_that_asked_nothing_is_invalid(accepted: bool) -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        GateDecision(accepted=accepted, checks=())
