"""One answer per image on every path: a prediction with its times, or a named error; and no slot is lost."""

from __future__ import annotations

import time

import msgspec
import pytest

from saccade.service.errors import (
    BadImage,
    ClientLeft,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    SaccadeError,
    WorkerLost,
)
from saccade.service.ipc import messages
from saccade.service.ipc.messages import DONE_OK, Done
from tests.unit.service.api.predictor_story import FAR_S, Story, image, running_story


async def test_answer_is_rendered_with_its_times_and_the_slot_comes_back(story: Story) -> None:
    answering = story.start(image())
    request_id = await story.worker.submitted.get()
    assert story.slots.in_use == 1
    await story.worker.answer(request_id)

    (answer,) = await answering

    assert answer.error is None
    assert answer.variant == "fp32"
    assert answer.prediction is not None
    assert (answer.prediction["width"], answer.prediction["height"]) == (8, 6)
    assert len(answer.prediction["classes"]) == 5
    assert (answer.times.queue_s, answer.times.infer_s) == (0.25, 0.5)
    assert answer.times.decode_s > 0
    assert story.slots.in_use == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (messages.DONE_EXPIRED, DeadlineExceeded),
        (messages.DONE_CANCELLED, ClientLeft),
        (messages.DONE_FAILED, InferenceFailed),
        (messages.DONE_DEVICE_LOST, WorkerLost),
        (messages.DONE_UNKNOWN_INSTANCE, NotReady),
        (99, WorkerLost),
    ],
)
async def test_every_status_of_the_worker_is_a_named_error(
    story: Story, status: int, error: type[SaccadeError]
) -> None:
    answering = story.start(image())
    await story.worker.answer(await story.worker.submitted.get(), status)

    (answer,) = await answering

    assert type(answer.error) is error
    assert story.slots.in_use == 0


async def test_bad_image_never_reaches_the_worker_and_gives_its_slot_back(story: Story) -> None:
    (answer,) = await story.start(b"no image")

    assert isinstance(answer.error, BadImage)
    assert story.worker.submitted.empty()
    assert story.slots.in_use == 0


async def test_worker_that_cannot_take_it_is_an_answer_too(story: Story) -> None:
    story.worker.refusal = NotReady("restarting")

    (answer,) = await story.start(image())

    assert answer.error is story.worker.refusal
    assert story.slots.in_use == 0


async def test_unforeseen_failure_stays_with_its_image(story: Story) -> None:
    story.worker.refusal = ZeroDivisionError("secret")

    (answer,) = await story.start(image())

    assert type(answer.error) is SaccadeError
    assert "secret" not in str(answer.error)
    assert story.slots.in_use == 0


async def test_request_whose_wait_would_take_its_time_is_refused_before_any_work(story: Story) -> None:
    # given a worker that said it is busy for ten seconds, and one idle again
    told = story.estimates
    told.answered(7, Done(1, DONE_OK, 0.0, 0.02, 1, wait_s=10.0, image_s=0.01), time.monotonic())

    with pytest.raises(Overloaded, match="would wait about") as caught:
        await story.start(image(), deadline_s=time.monotonic() + 2.0)
    assert caught.value.what == "wait"
    assert 8.0 < caught.value.retry_after_s < 9.0
    assert story.slots.in_use == 0
    told.answered(7, Done(2, DONE_OK, 0.0, 0.02, 1, image_s=0.01), time.monotonic())
    answering = story.start(image(), deadline_s=time.monotonic() + 2.0)
    await story.worker.answer(await story.worker.submitted.get())
    assert (await answering)[0].error is None


async def test_answers_that_came_late_leave_less_time_to_wait(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a worker that expects to be free in 140 of 200 ms, of which 152 may be waited
    clock, later_s = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock() + later_s)
    busy = Done(1, DONE_OK, 0.0, 0.002, 1, wait_s=0.14)

    for _ in range(60):  # when answers come 100 ms later than expected
        story.estimates.answered(7, busy, time.monotonic())
        answering = story.start(image())
        number = await story.worker.submitted.get()
        later_s += 0.222
        await story.worker.answer(number)
        await answering

    # then whoever would wait nearly as long as it may is refused, and most of that is still allowed
    story.estimates.answered(7, busy, time.monotonic())
    with pytest.raises(Overloaded):
        await story.start(image(), deadline_s=time.monotonic() + 0.2)
    story.estimates.answered(7, msgspec.structs.replace(busy, wait_s=0.1), time.monotonic())
    answering = story.start(image(), deadline_s=time.monotonic() + 0.2)
    await story.worker.answer(await story.worker.submitted.get())
    assert (await answering)[0].error is None


async def test_worker_gets_a_little_less_time_than_there_is(story: Story) -> None:
    until_s = time.monotonic() + FAR_S
    answering = story.start(image(), deadline_s=until_s)
    await story.worker.answer(await story.worker.submitted.get())
    await answering

    (told_s,) = story.worker.deadlines_s
    assert told_s == pytest.approx(until_s - 0.05, abs=0.01)  # a twentieth of the second that its parameters allow


@pytest.mark.parametrize(("has_ladder", "level"), [(True, 0), (False, None)])
async def test_answer_says_its_level_only_where_there_is_a_ladder(has_ladder: bool, level: int | None) -> None:
    with running_story(has_ladder=has_ladder) as story:
        answering = story.start(image(), b"no image")
        await story.worker.answer(await story.worker.submitted.get())

        assert [answer.ladder_level for answer in await answering] == [level, level]
