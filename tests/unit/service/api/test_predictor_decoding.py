"""Where an image is decoded: by the worker, by a thread, or by the event loop itself."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from saccade.service.api.event_loop_lag import EventLoopLag
from saccade.service.errors import BadImage, WorkerLost
from saccade.service.ipc import messages
from saccade.service.vision.parameters import GivenParameters
from tests.support.images import red_png, scene_jpeg
from tests.unit.service.api.predictor_story import Story, image, running_story


@pytest.fixture
async def decoding_story() -> AsyncIterator[Story]:
    """The worker decodes JPEGs."""
    with running_story(decodes_jpegs=True) as made:
        yield made


async def test_jpeg_goes_to_a_decoding_worker_as_it_is(decoding_story: Story) -> None:
    sent = image(width=16, image_format="JPEG")
    answering = decoding_story.start(sent)
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get(), decode_s=0.125)

    (answer,) = await answering

    assert decoding_story.worker.received == [sent]
    assert answer.prediction is not None
    assert (answer.prediction["width"], answer.prediction["height"]) == (16, 6)
    assert answer.times.decode_s > 0.125
    assert decoding_story.slots.in_use == 0


@pytest.mark.parametrize(("shares", "reaches_as_it_is"), [(True, False), (False, True)])
async def test_jpeg_is_decoded_here_while_the_device_is_behind_and_both_share(
    shares: bool, reaches_as_it_is: bool
) -> None:
    sent = image(width=16, image_format="JPEG")
    with running_story(decodes_jpegs=True, shares_decoding=shares) as story:
        decoding = story.estimates.decoding
        for _ in range(2):
            decoding.sent(is_jpeg=True)
        decoding.answered(messages.Done(1, messages.DONE_OK, 0.0, 0.001, 1, 0.5))  # half a second for a JPEG
        answering = story.start(sent)
        await story.worker.answer(await story.worker.submitted.get())
        (answer,) = await answering

    assert answer.error is None
    assert story.worker.received == [sent if reaches_as_it_is else b""]


async def test_jpeg_whose_quality_is_asked_for_is_decoded_here() -> None:
    with running_story(decodes_jpegs=True, given=GivenParameters(quality=True)) as story:
        answering = story.start(image(width=16, image_format="JPEG"))
        await story.worker.answer(await story.worker.submitted.get())
        (answer,) = await answering

    assert story.worker.received == [b""]
    assert answer.quality is not None
    assert [reason.partition(":")[0] for reason in answer.quality.reasons] == ["blurred", "small"]


async def test_jpeg_reaches_another_worker_as_pixels(story: Story) -> None:
    answering = story.start(image(image_format="JPEG"))
    await story.worker.answer(await story.worker.submitted.get())
    await answering

    assert story.worker.received == [b""]


@pytest.mark.parametrize("sent", [image(), image(image_format="JPEG") + b"no end"], ids=["PNG", "no end"])
async def test_what_is_not_for_a_device_reaches_a_decoding_worker_as_pixels(decoding_story: Story, sent: bytes) -> None:
    answering = decoding_story.start(sent)
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get())
    await answering

    assert decoding_story.worker.received == [b""]


async def test_jpeg_that_does_not_fit_into_a_slot_is_decoded_here(decoding_story: Story) -> None:
    sent = image(image_format="JPEG")
    comment = b"\xff\xfe" + (20_002).to_bytes(2, "big") + bytes(20_000)
    answering = decoding_story.start(sent[:2] + comment + sent[2:])
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get())
    (answer,) = await answering

    assert answer.error is None
    assert decoding_story.worker.received == [b""]


async def test_what_the_worker_cannot_decode_is_decoded_here_and_sent_again(decoding_story: Story) -> None:
    sent = image(image_format="JPEG")
    answering = decoding_story.start(sent)
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get(), messages.DONE_UNDECODED)
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get())

    (answer,) = await answering

    assert answer.error is None
    assert decoding_story.worker.received == [sent, b""]
    assert decoding_story.slots.in_use == 0


async def test_what_neither_can_decode_is_a_bad_image(decoding_story: Story) -> None:
    whole = image(width=400, image_format="JPEG")
    without_tables = whole.replace(b"\xff\xda\x00\x0c\x03\x01\x00", b"\xff\xda\x00\x0c\x03\x01\x33")
    assert without_tables != whole
    answering = decoding_story.start(without_tables)
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get(), messages.DONE_UNDECODED)

    (answer,) = await answering

    assert isinstance(answer.error, BadImage)
    assert decoding_story.slots.in_use == 0


async def test_picture_of_which_parts_are_lost_is_answered_with_a_warning(decoding_story: Story) -> None:
    answering = decoding_story.start(image(width=400, image_format="JPEG")[:-30] + b"\xff\xd9")
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get(), messages.DONE_UNDECODED)
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get())

    (answer,) = await answering

    assert answer.prediction is not None
    assert "parts of the picture may be lost" in answer.warning


async def test_jpeg_with_too_many_pixels_never_reaches_a_decoding_worker(decoding_story: Story) -> None:
    (answer,) = await decoding_story.start(image(width=2000, image_format="JPEG"))

    assert isinstance(answer.error, BadImage)
    assert decoding_story.worker.submitted.empty()


async def test_worker_may_not_send_pixels_back(decoding_story: Story) -> None:
    answering = decoding_story.start(image())
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get(), messages.DONE_UNDECODED)

    (answer,) = await answering

    assert isinstance(answer.error, WorkerLost)


class CountingPool(ThreadPoolExecutor):
    """Counts what it is given."""

    count = 0

    def submit(self, *arguments: Any, **named: Any) -> Any:
        self.count += 1
        return super().submit(*arguments, **named)


@pytest.mark.parametrize(
    ("image", "count"),
    [
        (scene_jpeg(32, 24), 0),
        (scene_jpeg(64, 48), 1),  # larger than what is decoded inline
        (red_png(7), 1),  # a PNG's size says nothing of what decoding it takes
    ],
    ids=["small JPEG", "large JPEG", "PNG"],
)
async def test_small_jpegs_need_no_thread(image: bytes, count: int) -> None:
    pool = CountingPool(1)
    with running_story(pool, inline_pixels=32 * 24) as story:
        running = story.start(image)
        await story.worker.answer(await story.worker.submitted.get())
        (answer,) = await running

        assert answer.prediction is not None
        assert pool.count == count


async def test_damaged_small_jpeg_is_refused_like_any_other() -> None:
    pool = CountingPool(1)
    with running_story(pool, inline_pixels=100_000) as story:
        (answer,) = await story.start(scene_jpeg(32, 24)[:-200])

        assert isinstance(answer.error, BadImage)
        assert story.slots.in_use == 0


class LateLoop(EventLoopLag):
    """The lag of a loop whose iteration has taken a second when it is first asked for."""

    is_late = True

    def age_s(self) -> float:
        age_s = float(self.is_late)
        self.is_late = False
        return age_s


async def test_small_jpegs_wait_for_the_next_iteration_while_the_loop_is_behind() -> None:
    pool = CountingPool(1)
    with running_story(pool, inline_pixels=32 * 24, lag=LateLoop()) as story:
        running = story.start(scene_jpeg(32, 24))
        await story.worker.answer(await story.worker.submitted.get())

        assert (await running)[0].prediction is not None
        assert pool.count == 0


async def test_slow_pictures_leave_the_threads_to_others() -> None:
    release = threading.Event()
    of_many_bytes = image(image_format="JPEG", progressive=True) + bytes(2**20)
    with ThreadPoolExecutor(2) as slow_pool, running_story(slow_pool=slow_pool) as story:
        for _ in range(2):
            slow_pool.submit(release.wait, 20)  # two slow pictures
        slow, usual = story.start(of_many_bytes), story.start(image())
        await story.worker.answer(await story.worker.submitted.get())

        assert (await usual)[0].prediction is not None
        assert not slow.done()

        release.set()
        await story.worker.answer(await story.worker.submitted.get())
        assert (await slow)[0].prediction is not None
