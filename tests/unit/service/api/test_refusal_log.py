"""Every refusal and failure can be searched for by its id, and a flood of one kind hides no other."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from saccade.service.api.refusal_log import RefusalLog
from saccade.service.errors import BadImage, DeadlineExceeded, Overloaded


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_line_has_what_a_person_searches_for(clock: Clock) -> None:
    with capture_logs() as lines:
        RefusalLog(clock).error(DeadlineExceeded("not within 100 ms"), "id-7", "detector", "3")

    assert lines == [
        {
            "event": "request_failed",
            "log_level": "warning",
            "status": 504,
            "kind": "DeadlineExceeded",
            "request_id": "id-7",
            "detail": "not within 100 ms",
            "model": "detector",
            "version": "3",
        }
    ]


def test_what_the_client_did_is_no_warning_and_writes_no_line_of_its_own(clock: Clock) -> None:
    with capture_logs() as lines:
        RefusalLog(clock).error(BadImage("named\n{} fake line\r" + "x" * 1000), "id-7")

    assert (lines[0]["event"], lines[0]["log_level"]) == ("request_refused", "info")
    assert lines[0]["detail"].startswith("named {} fake line x")
    assert len(lines[0]["detail"]) == 300


def test_flood_of_one_kind_is_sampled_counted_and_hides_no_other(clock: Clock) -> None:
    refusals = RefusalLog(clock)
    with capture_logs() as lines:
        for number in range(1000):
            refusals.error(Overloaded("no slot", 1.0, "slots"), f"id-{number}")
        refusals.error(DeadlineExceeded("late"), "the-late-one")
        clock.now_s += 60.0
        refusals.error(Overloaded("no slot", 1.0, "slots"), "id-1000")

    assert [line["request_id"] for line in lines] == [
        *(f"id-{number}" for number in range(10)),
        "the-late-one",
        "id-1000",
    ]
    assert lines[-1]["more"] == "990"
