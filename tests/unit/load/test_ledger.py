"""Outcomes of requests, and what chaos and soak make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.load import chaos, ledger, soak
from tests.load.chaos_faults import OTHER, TARGET, Fault
from tests.load.ledger import Entry, Outcome, Plan, counts, is_same, outcome_of, right_again_s

ANSWER = {"classes": [{"label": "7", "score": 0.5}]}


@pytest.mark.parametrize(
    ("found", "is_equal"),
    [
        (ANSWER, True),
        ({"classes": [{"label": "7", "score": 0.5001}]}, True),  # rounding
        ({"classes": [{"label": "7", "score": 0.6}]}, False),
        ({"classes": [{"label": "1", "score": 0.5}]}, False),
        ({"classes": []}, False),
        ({"classes": None}, False),
        ({"error": {"status": 500}}, False),
    ],
)
def test_answers_are_compared_but_for_rounding(found: Any, is_equal: bool) -> None:
    assert is_same(found, ANSWER) is is_equal


@pytest.mark.parametrize(
    ("status", "is_bad", "outcome"),
    [
        (200, False, "right"),
        (200, True, "wrong"),
        (400, True, "rejected"),
        (400, False, "failed"),
        (500, True, "failed"),
        (503, False, "refused"),
        (429, True, "refused"),
    ],
)
def test_outcome_of_a_status(status: int, is_bad: bool, outcome: Outcome) -> None:
    assert outcome_of(status, {"predictions": [ANSWER]}, ANSWER, is_bad=is_bad) == outcome


def test_plan_survives_its_file() -> None:
    plan = Plan("http://127.0.0.1:1", {"a": [(b"\x00\xff", ANSWER)]}, 4, 0.01, 0.02, 3)

    assert Plan.from_json(plan.to_json()) == plan


def test_entries_of_a_client_that_was_ended_are_read_up_to_the_line_it_was_at(tmp_path: Path) -> None:
    (tmp_path / "out").write_text('[1.0, 2.0, "a", "right"]\n[2.0, 3.5, "a", "left"]\n[4.0, 5.')

    assert ledger._read(tmp_path / "out") == [Entry(1.0, 2.0, "a", "right"), Entry(2.0, 3.5, "a", "left")]


def entries(*outcomes: Outcome, model: str = TARGET) -> list[Entry]:
    """One a second, each answered half a second later."""
    return [Entry(float(at), at + 0.5, model, outcome) for at, outcome in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("outcomes", "seconds"),
    [
        (("right", "right", "right", "left"), 0.0),
        (("right", "broken", "refused", "right"), 2.5),  # sent at 3, answered at 3.5, the fault was at 1
        (("right", "wrong", "right", "refused"), None),
        (("right",), None),
    ],
)
def test_right_again_from_the_first_answer_behind_the_last_bad_one(
    outcomes: tuple[Outcome, ...], seconds: float | None
) -> None:
    assert right_again_s(entries(*outcomes), TARGET, 1.0) == seconds


def test_fault_is_told_what_it_may_not_cost() -> None:
    fine = entries("right", "refused", "right", "right")
    other = entries("right", "right", "right", "right", model=OTHER)
    killed = Fault("killed", lambda server, repository: None, 3.0)
    trial = chaos.Trial([*fine, *other], 1.0)

    assert chaos.complaints(killed, trial) == []
    assert chaos.complaints(replace(killed, right_again_s=1.0), trial) == ["right again after 1.5 s, asked 1"]
    assert chaos.complaints(killed, replace(trial, left=["saccade-1-x"], exit_code=1)) == [
        "left in shared memory: saccade-1-x",
        "the server ended with 1",
    ]
    broken = chaos.Trial([*entries("right", "broken", "wrong", "right"), *other], 1.0)
    assert chaos.complaints(killed, broken) == ["1 wrong answers", "1 connections ended without an answer"]
    assert chaos.complaints(replace(killed, breaks=True), broken) == ["1 wrong answers"]


def test_fault_that_costs_no_process_may_not_be_felt() -> None:
    first = Entry(0.0, 3.0, TARGET, "right")  # as long as connections are made and code runs for the first time
    slow = [first, *entries(*["right"] * 4)[2:], Entry(4.0, 6.0, TARGET, "right")]
    trial = chaos.Trial([*slow, *entries(*["right"] * 5, model=OTHER)], 3.7)
    unfelt = Fault("unfelt", lambda server, repository: None)

    assert chaos.complaints(unfelt, trial) == ["p99 4.00 times that before, asked 1.5"]


def samples(*mib: float, descriptors: int = 40, pids: tuple[int, ...] = (1, 2)) -> list[soak.Sample]:
    """One every ten minutes."""
    return [soak.Sample(600.0 * number, {"HTTP": each}, descriptors, pids) for number, each in enumerate(mib)]


@pytest.mark.parametrize(
    ("mib", "complaint"),
    [
        ((90, 99, 100, 100, 100, 100, 100, 100, 100), []),
        (
            (90, 98, 100, 102, 104, 106, 108, 110, 112),
            ["memory rises by +12.00 (+12.00 to +12.00) MiB an hour, asked 1.0"],
        ),
        (
            (90, 99, 100, 101, 100, 103, 100, 102, 100),
            ["memory is not settled: +0.75 (-18.00 to +18.00) MiB an hour, asked 1.0"],
        ),
        ((90, 99, 100), ["memory is not settled: +nan (-inf to +inf) MiB an hour, asked 1.0"]),
    ],
)
def test_memory_is_judged_after_its_warm_up(mib: tuple[float, ...], complaint: list[str]) -> None:
    asked = entries("right", "rejected", "left", "refused")
    counted = {"ok": 1.0, "bad_request": 1.0, "refused": 1.0}

    assert counts(asked) == dict.fromkeys(("right", "rejected", "left", "refused"), 1)
    assert soak.complaints(soak.Soaked(samples(*mib), asked, counted, 0.0, 1, 0)) == complaint


def test_memory_of_a_process_that_was_replaced_is_no_memory_of_the_others() -> None:
    seen = [*samples(*[100.0] * 9), *samples(*[90.0] * 9, pids=(1, 3))]
    ordered = [replace(each, at_s=600.0 * number) for number, each in enumerate(seen)]

    (told,) = soak.complaints(soak.Soaked(ordered, (), {}, 0.0, 1, 0))
    assert "a process was replaced" in told


def test_slope_is_that_of_whole_periods() -> None:
    """Memory that rises for eight versions and falls again rises no further."""
    at_s = [5.0 * number for number in range(260)]
    teeth = [100 + (each % 160) / 100 for each in at_s]
    rising = [tooth + each / 3600 for tooth, each in zip(teeth, at_s, strict=True)]

    assert soak.slope_of(at_s, teeth).high < 1e-9
    assert soak.slope_of(at_s, rising).mib_h == pytest.approx(1.0)
    assert soak.slope_of(at_s, rising).low == pytest.approx(1.0)


def test_counters_must_say_what_the_client_saw() -> None:
    asked, counted = entries("right", "right", "left"), {"ok": 4.0}
    found = soak.complaints(soak.Soaked(samples(1, 1, 1), asked, counted, 2.0, 1, 0, ["saccade-1-a"]))

    assert found[1:3] == ["2 slots in use at the end", "left in shared memory: saccade-1-a"]
    assert found[3:] == ["the server counted 4 ok, the client 2"]
