"""StartBarrier: together at the start, at once later, each told once."""

from __future__ import annotations

from saccade.service.supervisor.start_barrier import StartBarrier


def test_nobody_listens_before_all_could_answer() -> None:
    barrier = StartBarrier(2)
    assert barrier.able("api-0") == []
    assert barrier.able("api-0") == []
    assert barrier.able("api-1") == ["api-0", "api-1"]


def test_each_is_told_once() -> None:
    barrier = StartBarrier(1)
    assert barrier.able("api-0") == ["api-0"]
    assert barrier.able("api-0") == []


def test_process_that_replaces_another_listens_as_soon_as_it_can() -> None:
    barrier = StartBarrier(2)
    barrier.able("api-0")
    barrier.able("api-1")
    barrier.gone("api-1")
    assert barrier.able("api-1") == ["api-1"]


def test_those_that_are_there_do_not_wait_for_ever() -> None:
    barrier = StartBarrier(3)
    barrier.able("api-2")
    assert barrier.wait_no_longer() == ["api-2"]
    assert barrier.able("api-0") == ["api-0"]


def test_process_that_ended_before_the_others_came_is_not_told() -> None:
    barrier = StartBarrier(2)
    barrier.able("api-0")
    barrier.gone("api-0")
    assert barrier.able("api-1") == []
    assert barrier.able("api-0") == ["api-0", "api-1"]
