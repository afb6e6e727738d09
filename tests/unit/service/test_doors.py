"""Doors: together at the start, at once later, each told once."""

from __future__ import annotations

from saccade.service.doors import Doors


def test_nobody_listens_before_all_could_answer() -> None:
    doors = Doors(2)
    assert doors.able("api-0") == []
    assert doors.able("api-0") == []
    assert doors.able("api-1") == ["api-0", "api-1"]


def test_each_is_told_once() -> None:
    doors = Doors(1)
    assert doors.able("api-0") == ["api-0"]
    assert doors.able("api-0") == []


def test_process_that_replaces_another_listens_as_soon_as_it_can() -> None:
    doors = Doors(2)
    doors.able("api-0")
    doors.able("api-1")
    doors.gone("api-1")
    assert doors.able("api-1") == ["api-1"]


def test_those_that_are_there_do_not_wait_for_ever() -> None:
    doors = Doors(3)
    doors.able("api-2")
    assert doors.wait_no_longer() == ["api-2"]
    assert doors.able("api-0") == ["api-0"]


def test_process_that_ended_before_the_others_came_is_not_told() -> None:
    doors = Doors(2)
    doors.able("api-0")
    doors.gone("api-0")
    assert doors.able("api-1") == []
    assert doors.able("api-0") == ["api-0", "api-1"]
