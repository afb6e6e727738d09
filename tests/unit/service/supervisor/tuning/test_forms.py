"""Forms: what is open to be chosen, and the choice."""

from __future__ import annotations

from saccade.service.settings import Settings, resolved
from saccade.service.supervisor.tuning.forms import (
    ProcessForm,
    ProcessFormSpeed,
    applied,
    chosen,
    forms_for,
    in_reach,
    is_soon_enough,
)

WHOLE, SPINNING = ProcessForm(1, 2, False, 2), ProcessForm(1, 2, True, 2)
TWO, HALF = ProcessForm(2, 1, False, 2), ProcessForm(1, 1, False, 2)


def with_one_api(form: ProcessForm) -> ProcessForm:
    return ProcessForm(form.workers, form.threads, form.allow_spinning, 1)


def speed(form: ProcessForm, images_per_s: float, rounds: int = 3) -> ProcessFormSpeed:
    return ProcessFormSpeed(form, images_per_s, 2.0, rounds)


def test_two_cores_are_used_by_workers_and_http_processes_in_eight_ways() -> None:
    workers = [WHOLE, SPINNING, TWO, HALF]
    assert forms_for(Settings(), 2) == [*workers, *map(with_one_api, workers)]


def test_cores_are_divided_without_a_rest_and_among_few() -> None:
    forms = forms_for(Settings(api_processes=3), 12)
    splits = [(form.workers, form.threads) for form in forms if form.threads < 12]
    assert splits == [(2, 6), (1, 6), (3, 4), (1, 4), (4, 3), (2, 3)]


def test_http_processes_are_as_many_as_usual_or_half_or_twice_that() -> None:
    assert [{form.api_processes for form in forms_for(Settings(), cores)} for cores in (2, 4, 16)] == [
        {1, 2},
        {1, 2, 4},
        {2, 4, 8},
    ]


def test_one_core_leaves_no_choice() -> None:
    assert forms_for(Settings(), 1) == [ProcessForm(1, 1, False, 1)]


def test_what_a_setting_names_is_not_chosen() -> None:
    whole = [WHOLE, SPINNING]
    assert forms_for(Settings(device="cpu", api_processes=2), 2) == whole
    assert forms_for(Settings(device_threads=2, api_processes=2), 8) == whole
    assert forms_for(Settings(device="cpu:0,cpu:1"), 2) == [TWO, with_one_api(TWO)]
    assert {form.allow_spinning for form in forms_for(Settings(allow_spinning=True), 2)} == {True}


def test_most_workers_are_chosen_unless_another_form_is_clearly_faster() -> None:
    two_with_one_api = speed(with_one_api(TWO), 109.0)
    assert chosen([speed(WHOLE, 108.0), speed(TWO, 100.0), two_with_one_api]).form == TWO
    assert chosen([speed(WHOLE, 111.0), speed(SPINNING, 90.0), speed(TWO, 100.0)]).form == WHOLE
    assert chosen([speed(WHOLE, 100.0)]).form == WHOLE


def test_first_form_is_chosen_where_none_was_tried_under_load() -> None:
    assert chosen([speed(WHOLE, 0.0, rounds=0), speed(TWO, 0.0, rounds=0)]).form == WHOLE


def test_form_that_left_early_is_not_chosen_for_a_quiet_moment() -> None:
    assert chosen([speed(WHOLE, 300.0, rounds=1), speed(TWO, 200.0), speed(HALF, 221.0)]).form == HALF


def test_form_far_below_the_best_of_a_round_is_out_of_reach() -> None:
    assert in_reach([100.0, 86.0, 84.0]) == [True, True, False]


def test_form_that_keeps_a_lone_request_waiting_is_left_out() -> None:
    assert is_soon_enough(lone_ms=22.9, first_lone_ms=13.0)
    assert not is_soon_enough(lone_ms=23.1, first_lone_ms=13.0)
    assert is_soon_enough(lone_ms=219.0, first_lone_ms=200.0)


def test_choice_becomes_settings_that_the_rest_is_resolved_from() -> None:
    two = resolved(applied(Settings(), with_one_api(TWO)), 2)
    assert (two.devices, two.device_threads, two.allow_spinning) == (("cpu:0", "cpu:1"), 1, False)
    assert (two.api_processes, two.decode_threads) == (1, 2)
    one = resolved(applied(Settings(), SPINNING), 2)
    assert (one.devices, one.device_threads, one.allow_spinning) == (("cpu",), 2, True)
