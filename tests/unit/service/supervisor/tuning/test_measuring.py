"""Trying forms: by turns, without those that are far behind or make a single request wait, and within the time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from saccade.service.supervisor.tuning import measuring
from saccade.service.supervisor.tuning.forms import ProcessForm, ProcessFormSpeed, chosen
from saccade.service.supervisor.tuning.measuring import tried
from saccade.service.vision.image_decoder import ImageLimits, decode_image

WHOLE, TWO, HALF = ProcessForm(1, 2, False, 2), ProcessForm(2, 1, False, 2), ProcessForm(1, 1, False, 2)
ONE_API = ProcessForm(2, 1, False, 1)
FOREVER_S = 1e9


@dataclass
class Machine:
    """Answers as many images per second as is said of each form; every trial takes a second."""

    rates: dict[ProcessForm, list[float]]  # by round; the last one stays
    lone: dict[int, float] = field(default_factory=dict)  # by threads
    tries: list[ProcessForm] = field(default_factory=list)
    clock_s: float = 0.0
    form: ProcessForm = WHOLE

    async def load_for(self, form: ProcessForm) -> Machine:
        self.form = form
        return self

    async def lone_ms(self) -> float:
        return self.lone.get(self.form.threads, 5.0)

    async def images_per_s(self, warm_up_s: float, seconds: float) -> float:
        self.tries.append(self.form)
        self.clock_s += 1.0
        rates = self.rates[self.form]
        return rates.pop(0) if len(rates) > 1 else rates[0]

    def try_all(self, forms: Sequence[ProcessForm], end_s: float = FOREVER_S) -> list[ProcessFormSpeed]:
        return asyncio.run(tried(forms, self.load_for, end_s, lambda: self.clock_s))


def test_forms_take_turns_and_the_order_turns_around() -> None:
    machine = Machine({WHOLE: [100.0], TWO: [100.0]})
    measured = machine.try_all([WHOLE, TWO])
    assert machine.tries[:4] == [WHOLE, TWO, TWO, WHOLE]
    assert [each.rounds for each in measured] == [len(machine.tries) // 2] * 2


def test_form_far_behind_is_not_tried_again_and_not_chosen() -> None:
    machine = Machine({WHOLE: [380.0, 200.0], TWO: [460.0, 230.0], HALF: [300.0], ONE_API: [450.0, 228.0]})
    measured = machine.try_all([WHOLE, TWO, HALF, ONE_API])
    assert machine.tries.count(HALF) == machine.tries.count(WHOLE) == 1  # the machine got slower for the others
    assert chosen(measured).form == TWO


def test_form_that_keeps_a_lone_request_waiting_is_not_tried_under_load() -> None:
    machine = Machine({WHOLE: [40.0], TWO: [50.0], HALF: [20.0]}, lone={2: 25.0, 1: 43.0})
    measured = machine.try_all([WHOLE, TWO, HALF])
    assert machine.tries == []
    assert chosen(measured) == ProcessFormSpeed(WHOLE, 0.0, 25.0, 0)


def test_no_round_begins_that_would_end_too_late() -> None:
    machine = Machine({WHOLE: [100.0], TWO: [100.0]})
    machine.try_all([WHOLE, TWO], end_s=5.0)
    assert len(machine.tries) == 4


def test_first_round_is_cut_short_on_a_machine_that_does_much_else() -> None:
    machine = Machine({WHOLE: [100.0], TWO: [120.0], HALF: [200.0]})
    measured = machine.try_all([WHOLE, TWO, HALF], end_s=1.5)
    assert [each.rounds for each in measured] == [1, 1, 0]
    assert chosen(measured).form == TWO


def test_picture_costs_what_a_photograph_does() -> None:
    data = measuring.picture()
    assert 25_000 < len(data) < 50_000
    assert decode_image(data, ImageLimits()).shape == (375, 500, 3)
