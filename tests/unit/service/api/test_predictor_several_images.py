"""Several images in one request: order is kept, each has its own outcome, and images wait for slots."""

from __future__ import annotations

import asyncio
import time

import pytest

from saccade.service.errors import BadRequest, ClientLeft, DeadlineExceeded, Overloaded
from tests.unit.service.api.predictor_story import Story, image, running_story


async def test_bad_image_among_several_fails_alone_and_order_is_kept(story: Story) -> None:
    answering = story.start(BadRequest("images[0] has no b64"), image(width=9))
    await story.worker.answer(await story.worker.submitted.get())

    bad, good = await answering

    assert str(bad.error) == "images[0] has no b64"
    assert good.prediction is not None
    assert good.prediction["width"] == 9
    assert story.slots.in_use == 0


async def test_more_images_than_slots_take_turns_and_are_rejoined_in_order(story: Story) -> None:
    # given two slots and five images, the answers of which come last first
    answering = story.start(*(image(width=8 + index) for index in range(5)))
    for _ in range(2):
        first, second = await story.worker.submitted.get(), await story.worker.submitted.get()
        assert story.slots.in_use == 2
        await story.worker.answer(second)
        await story.worker.answer(first)
    await story.worker.answer(await story.worker.submitted.get())

    answers = await answering

    assert [answer.prediction and answer.prediction["width"] for answer in answers] == [8, 9, 10, 11, 12]
    assert story.slots.in_use == 0


async def test_two_requests_with_more_images_than_slots_do_not_block_each_other(story: Story) -> None:
    # given two slots: the first request holds one for its last image, the second one for the first of its five
    first = story.start(*[image()] * 3)
    for _ in range(2):
        await story.worker.answer(await story.worker.submitted.get())
    last_of_first = await story.worker.submitted.get()
    second = story.start(*[image()] * 5)
    with pytest.raises(Overloaded):
        await story.start(*[image()] * 5)

    for _ in range(4):
        await story.worker.answer(await story.worker.submitted.get())
    await story.worker.answer(last_of_first)
    await story.worker.answer(await story.worker.submitted.get())

    assert [answer.error for answer in (*await first, *await second)] == [None] * 8
    assert story.slots.in_use == 0


async def test_images_of_requests_that_leave_room_take_half_of_the_slots_and_one_more_each() -> None:
    with running_story(slots=8) as story:
        many = [story.start(*[image()] * 20, leaves_room=True) for _ in range(2)]
        begun = [await story.worker.submitted.get() for _ in range(4 + 2)]

        other = story.start(image())  # a slot is free for whoever comes
        await story.worker.answer(await story.worker.submitted.get())

        assert (await other)[0].error is None
        assert story.slots.in_use == 6
        for request_id in begun:
            await story.worker.answer(request_id)
        for _ in range(40 - 6):
            await story.worker.answer(await story.worker.submitted.get())
        assert [answer.error for answers in [await each for each in many] for answer in answers] == [None] * 40
        assert story.slots.in_use == 0


async def test_image_that_gets_no_turn_before_the_deadline_says_so(story: Story) -> None:
    # given a worker that is busy with somebody else's image, and one slot
    other = story.start(image())
    held = await story.worker.submitted.get()
    answering = story.start(image(), BadRequest("no b64"), image(), deadline_s=time.monotonic() + 0.3)
    mine = await story.worker.submitted.get()

    answers = await answering

    assert [type(answer.error) for answer in answers] == [DeadlineExceeded, BadRequest, DeadlineExceeded]
    for request_id in (held, mine):
        await story.worker.answer(request_id)
    assert (await other)[0].error is None
    assert story.slots.in_use == 0


async def test_slot_that_comes_as_the_request_is_cancelled_is_not_lost(story: Story) -> None:
    # given one image in work, and one that waits for the slot of somebody else
    (held,) = story.slots.take(1, 7)
    answering = story.start(image(), image())
    mine = await story.worker.submitted.get()

    held.release()  # the image has its slot, and does not know it yet
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    await story.worker.answer(mine)

    await asyncio.to_thread(story.pool.shutdown)  # one of its threads may still decode into the slot
    assert story.slots.in_use == 0


async def test_client_that_leaves_takes_the_images_that_wait_for_a_slot_with_it(story: Story) -> None:
    answering = story.start(*[image()] * 4)
    held = [await story.worker.submitted.get() for _ in range(2)]

    await story.client.leave()
    answers = await answering

    assert {type(answer.error) for answer in answers} == {ClientLeft}
    for request_id in held:
        await story.worker.answer(request_id)
    assert story.slots.in_use == 0
    assert story.worker.submitted.empty()
