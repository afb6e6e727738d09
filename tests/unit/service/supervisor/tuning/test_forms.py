"""Forms: what is open to be chosen, and the choice."""

from __future__ import annotations

from saccade.service.settings import Settings, resolved
from saccade.service.supervisor.tuning.forms import (
    ProcessForm,
    ProcessFormSpeed,
    applied,
    chosen,
    forms_for,
    is_soon_enough,
)

ONE, SPINNING, TWO = ProcessForm(1, 2, False), ProcessForm(1, 2, True), ProcessForm(2, 1, False)


def test_two_cores_may_be_one_worker_or_two() -> None:
    assert forms_for(Settings(), 2) == [ONE, SPINNING, TWO]


def test_cores_are_divided_without_a_rest_and_among_few() -> None:
    splits = [form for form in forms_for(Settings(), 12) if form.workers > 1]
    assert splits == [ProcessForm(2, 6, False), ProcessForm(3, 4, False), ProcessForm(4, 3, False)]


def test_one_core_leaves_no_choice() -> None:
    assert forms_for(Settings(), 1) == [ProcessForm(1, 1, False)]


def test_what_a_setting_names_is_not_chosen() -> None:
    assert forms_for(Settings(device="cpu"), 2) == [ONE, SPINNING]
    assert forms_for(Settings(device_threads=2), 8) == [ONE, SPINNING]
    assert forms_for(Settings(allow_spinning=True), 2) == [SPINNING, ProcessForm(2, 1, True)]
    assert forms_for(Settings(device="cpu:0,cpu:1"), 2) == [TWO]


def test_another_form_must_do_clearly_more() -> None:
    first = ProcessFormSpeed(ONE, 100.0, 2.0)
    assert chosen([first, ProcessFormSpeed(TWO, 104.0, 3.0)]) is first
    assert chosen([first, ProcessFormSpeed(SPINNING, 90.0, 1.0), ProcessFormSpeed(TWO, 106.0, 3.0)]).form == TWO
    assert chosen([first]) is first


def test_form_that_keeps_a_lone_request_waiting_is_left_out() -> None:
    assert is_soon_enough(lone_ms=17.9, first_lone_ms=13.0)
    assert not is_soon_enough(lone_ms=22.3, first_lone_ms=13.0)


def test_choice_becomes_settings_that_the_rest_is_resolved_from() -> None:
    two = resolved(applied(Settings(), TWO), 2)
    assert (two.devices, two.device_threads, two.allow_spinning) == (("cpu:0", "cpu:1"), 1, False)
    one = resolved(applied(Settings(), SPINNING), 2)
    assert (one.devices, one.device_threads, one.allow_spinning) == (("cpu",), 2, True)
