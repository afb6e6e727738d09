"""A deadline, a client that left and a cancelled task each end the request; the slot waits for the worker."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from saccade.service.api.cancellation import Cancellation
from saccade.service.errors import ClientLeft, DeadlineExceeded
from saccade.service.ipc import messages
from tests.unit.service.api.predictor_story import Story, image


async def test_image_of_a_client_that_left_is_not_decoded(story: Story) -> None:
    # given both pixel threads at work
    release = threading.Event()
    busy = [story.pool.submit(release.wait) for _ in range(2)]
    answering = story.start(image())

    await story.client.leave()
    (answer,) = await answering
    release.set()
    for job in busy:
        job.result()

    assert isinstance(answer.error, ClientLeft)
    assert story.worker.submitted.empty()
    assert story.slots.in_use == 0


async def test_deadline_ends_the_request_but_not_the_slot(story: Story) -> None:
    # given a worker that does not answer
    answering = story.start(image(), deadline_s=time.monotonic() + 0.3)
    request_id = await story.worker.submitted.get()

    (answer,) = await answering

    assert isinstance(answer.error, DeadlineExceeded)
    assert story.worker.cancelled == [request_id]
    assert story.slots.in_use == 1  # the worker may still be reading it
    await story.worker.answer(request_id, messages.DONE_CANCELLED)
    assert story.slots.in_use == 0


async def test_request_that_failed_holds_nothing_of_itself(story: Story) -> None:
    def alive() -> list[Cancellation]:
        return [each for each in gc.get_objects() if type(each) is Cancellation]

    gc.collect()
    others = alive()
    gc.disable()
    try:
        (late,) = await story.start(image(), deadline_s=time.monotonic() + 0.3)
        leaving = story.start(image())
        await story.worker.submitted.get()
        await story.worker.submitted.get()
        await story.client.leave()
        (left,) = await leaving
        del leaving
        assert [each for each in alive() if each not in others] == []
    finally:
        gc.enable()

    assert (type(late.error), type(left.error)) == (DeadlineExceeded, ClientLeft)


async def test_deadline_that_has_passed_costs_the_worker_nothing(story: Story) -> None:
    (answer,) = await story.start(image(), deadline_s=0.0)

    assert isinstance(answer.error, DeadlineExceeded)
    assert story.worker.submitted.empty()


async def test_client_that_leaves_cancels_its_request_but_keeps_the_slot_taken(story: Story) -> None:
    answering = story.start(image())
    request_id = await story.worker.submitted.get()

    await story.client.leave()
    (answer,) = await answering

    assert isinstance(answer.error, ClientLeft)
    assert story.worker.cancelled == [request_id]
    assert story.slots.in_use == 1
    await story.worker.answer(request_id)
    assert story.slots.in_use == 0


async def test_client_that_leaves_after_the_answer_changes_nothing(story: Story) -> None:
    answering = story.start(image())
    request_id = await story.worker.submitted.get()
    (leave,) = await story.client.asked()
    await story.worker.answer(request_id)
    leave()

    (answer,) = await answering

    assert answer.error is None
    assert story.worker.cancelled == []


async def test_cancelled_task_tells_the_worker(story: Story) -> None:
    answering = story.start(image())
    request_id = await story.worker.submitted.get()

    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering

    assert story.worker.cancelled == [request_id]
    assert story.slots.in_use == 1
    await story.worker.answer(request_id)
    assert story.slots.in_use == 0
