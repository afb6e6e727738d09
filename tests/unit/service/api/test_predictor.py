"""The request's story: one answer per image on every path, and no slot lost or handed on too early."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog
from PIL import Image
from prometheus_client import CollectorRegistry

from saccade.models.contract.specs import Task
from saccade.service.api import predictor as predictor_module
from saccade.service.api.admission import Admission, Permit
from saccade.service.api.catalog import Target
from saccade.service.api.device_lines import DeviceLine, DeviceLines
from saccade.service.api.event_loop_lag import EventLoopLag
from saccade.service.api.predictor import ImageAnswer, Predictor
from saccade.service.core import VersionKey
from saccade.service.errors import (
    BadImage,
    BadRequest,
    ClientLeft,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    SaccadeError,
    WorkerLost,
)
from saccade.service.ipc import messages
from saccade.service.ipc.tensor_slots import SlotArena, TensorPlace, layout_of
from saccade.service.metrics import Metrics, VersionMetrics
from saccade.service.vision.image_decoder import ImageLimits
from saccade.service.vision.parameters import DeadlineRule, GivenParameters, complete
from tests.support.clients import ScriptedClient
from tests.support.images import red_png, scene_jpeg
from tests.support.versions import manifest_for
from tests.unit.service.api.catalogs import instance

FAR_S = 3600.0


class NoGauge:
    def set(self, value: float) -> None:
        pass


class ScriptedWorker:
    """Stands where the worker client stands; the test decides when and how it answers."""

    def __init__(self) -> None:
        self.submitted: asyncio.Queue[int] = asyncio.Queue()
        self.cancelled: list[int] = []
        self.received: list[bytes] = []  # the JPEG of each submit; empty where the slot has pixels
        self.deadlines_s: list[float] = []
        self.refusal: SaccadeError | None = None
        self._open: dict[int, tuple[Permit, asyncio.Future[messages.Done]]] = {}

    is_connected = True

    def submit(
        self, permit: Permit, instance_id: int, deadline_s: float, encoded_bytes: int = 0, rank_offset_s: float = 0.0
    ) -> tuple[int, asyncio.Future[messages.Done]]:
        if self.refusal is not None:
            raise self.refusal
        place = TensorPlace(0, (encoded_bytes,), np.dtype(np.uint8))
        self.deadlines_s.append(deadline_s)
        self.received.append(permit.arena.tensor(permit.slot, place).tobytes())
        permit.hold()
        request_id = len(self._open)
        answer: asyncio.Future[messages.Done] = asyncio.get_running_loop().create_future()
        self._open[request_id] = (permit, answer)
        self.submitted.put_nowait(request_id)
        return request_id, answer

    def cancel(self, request_id: int) -> None:
        self.cancelled.append(request_id)

    async def answer(self, request_id: int, status: int = messages.DONE_OK, decode_s: float = 0.0) -> None:
        """Replies as the client would: the answer first, then the slot."""
        permit, answer = self._open[request_id]
        if not answer.done():
            answer.set_result(messages.Done(request_id, status, 0.25, 0.5, 1, decode_s))
        permit.let_go()
        await asyncio.sleep(0)


class Story:
    """A predictor with two slots."""

    def __init__(
        self,
        arena: SlotArena,
        pool: ThreadPoolExecutor,
        decodes_jpegs: bool = False,
        inline_pixels: int = 0,
        lag: EventLoopLag | None = None,
    ) -> None:
        self.admission = Admission(NoGauge())
        self.admission.adopt(arena)
        self.worker = ScriptedWorker()
        self.client = ScriptedClient()
        lines = DeviceLines({"cpu": DeviceLine(self.admission, self.worker)})  # type: ignore[arg-type]  # same methods
        self.pool = pool
        self._predictor = Predictor(lines, pool, ImageLimits(10_000), inline_pixels=inline_pixels, lag=lag)
        manifest = manifest_for("digits", 1, Task.CLASSIFY)
        counted = VersionMetrics(Metrics(CollectorRegistry()), "digits", "1")
        self._target = Target(
            VersionKey("digits", 1),
            (msgspec.structs.replace(instance("cpu", 7), decodes_jpegs=decodes_jpegs),),
            manifest,
            layout_of(manifest.input, manifest.outputs),
            counted,
        )
        self._parameters = complete(GivenParameters(), manifest, DeadlineRule(1000.0, 1000.0))

    def start(self, *images: bytes | SaccadeError, deadline_s: float | None = None) -> asyncio.Task[list[ImageAnswer]]:
        until_s = time.monotonic() + FAR_S if deadline_s is None else deadline_s
        return asyncio.create_task(
            self._predictor.predict(images, self._target, self._parameters, until_s, self.client)
        )


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    arena = SlotArena.create(2, 16_384)
    with ThreadPoolExecutor(2) as pool, structlog.testing.capture_logs():
        yield Story(arena, pool)
    arena.close()


@pytest.fixture
async def decoding_story() -> AsyncIterator[Story]:
    """The worker decodes JPEGs."""
    arena = SlotArena.create(2, 16_384)
    with ThreadPoolExecutor(2) as pool, structlog.testing.capture_logs():
        yield Story(arena, pool, decodes_jpegs=True)
    arena.close()


def image(width: int = 8, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 6), (9, 8, 7)).save(buffer, image_format)
    return buffer.getvalue()


async def test_answer_is_rendered_with_its_times_and_the_slot_comes_back(story: Story) -> None:
    answering = story.start(image())
    request_id = await story.worker.submitted.get()
    assert story.admission.in_use == 1
    await story.worker.answer(request_id)

    (answer,) = await answering

    assert answer.error is None
    assert answer.variant == "fp32"
    assert answer.prediction is not None
    assert (answer.prediction["width"], answer.prediction["height"]) == (8, 6)
    assert len(answer.prediction["classes"]) == 5
    assert (answer.times.queue_s, answer.times.infer_s) == (0.25, 0.5)
    assert answer.times.decode_s > 0
    assert story.admission.in_use == 0


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
    assert story.admission.in_use == 0


async def test_bad_image_never_reaches_the_worker_and_gives_its_slot_back(story: Story) -> None:
    (answer,) = await story.start(b"no image")

    assert isinstance(answer.error, BadImage)
    assert story.worker.submitted.empty()
    assert story.admission.in_use == 0


async def test_bad_image_among_several_fails_alone_and_order_is_kept(story: Story) -> None:
    answering = story.start(BadRequest("images[0] has no b64"), image(width=9))
    await story.worker.answer(await story.worker.submitted.get())

    bad, good = await answering

    assert str(bad.error) == "images[0] has no b64"
    assert good.prediction is not None
    assert good.prediction["width"] == 9
    assert story.admission.in_use == 0


async def test_more_images_than_slots_take_turns_and_are_rejoined_in_order(story: Story) -> None:
    # given two slots and five images, the answers of which come last first
    answering = story.start(*(image(width=8 + index) for index in range(5)))
    for _ in range(2):
        first, second = await story.worker.submitted.get(), await story.worker.submitted.get()
        assert story.admission.in_use == 2
        await story.worker.answer(second)
        await story.worker.answer(first)
    await story.worker.answer(await story.worker.submitted.get())

    answers = await answering

    assert [answer.prediction and answer.prediction["width"] for answer in answers] == [8, 9, 10, 11, 12]
    assert story.admission.in_use == 0


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
    assert story.admission.in_use == 0


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
    assert story.admission.in_use == 0


async def test_slot_that_comes_as_the_request_is_cancelled_is_not_lost(story: Story) -> None:
    # given one image in work, and one that waits for the slot of somebody else
    (held,) = story.admission.admit(1, 1.0)
    answering = story.start(image(), image())
    mine = await story.worker.submitted.get()

    held.let_go()  # its turn has come, and before it knows
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    await story.worker.answer(mine)

    await asyncio.to_thread(story.pool.shutdown)  # one of its threads may still decode into the slot
    assert story.admission.in_use == 0


async def test_client_that_leaves_takes_the_images_that_wait_for_a_slot_with_it(story: Story) -> None:
    answering = story.start(*[image()] * 4)
    held = [await story.worker.submitted.get() for _ in range(2)]

    await story.client.leave()
    answers = await answering

    assert {type(answer.error) for answer in answers} == {ClientLeft}
    for request_id in held:
        await story.worker.answer(request_id)
    assert story.admission.in_use == 0
    assert story.worker.submitted.empty()


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
    assert story.admission.in_use == 0


async def test_request_whose_wait_would_take_its_time_is_refused_before_any_work(story: Story) -> None:
    # given a worker that said it is busy for ten seconds, and one idle again
    told = story.admission.waits
    told.answered(7, wait_s=10.0, image_s=0.01, run_s=0.02, now_s=time.monotonic())

    with pytest.raises(Overloaded, match="would wait about") as caught:
        await story.start(image(), deadline_s=time.monotonic() + 2.0)
    assert caught.value.what == "wait"
    assert 8.0 < caught.value.retry_after_s < 9.0
    assert story.admission.in_use == 0
    told.answered(7, wait_s=0.0, image_s=0.01, run_s=0.02, now_s=time.monotonic())
    answering = story.start(image(), deadline_s=time.monotonic() + 2.0)
    await story.worker.answer(await story.worker.submitted.get())
    assert (await answering)[0].error is None


async def test_worker_that_cannot_take_it_is_an_answer_too(story: Story) -> None:
    story.worker.refusal = NotReady("restarting")

    (answer,) = await story.start(image())

    assert answer.error is story.worker.refusal
    assert story.admission.in_use == 0


async def test_deadline_ends_the_request_but_not_the_slot(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a worker that does not answer
    monkeypatch.setattr(predictor_module, "_GRACE_S", 0.0)
    answering = story.start(image(), deadline_s=time.monotonic() + 0.3)
    request_id = await story.worker.submitted.get()

    (answer,) = await answering

    assert isinstance(answer.error, DeadlineExceeded)
    assert story.worker.cancelled == [request_id]
    assert story.admission.in_use == 1  # the worker may still be reading it
    await story.worker.answer(request_id, messages.DONE_CANCELLED)
    assert story.admission.in_use == 0


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
    assert story.admission.in_use == 1
    await story.worker.answer(request_id)
    assert story.admission.in_use == 0


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
    assert story.admission.in_use == 1
    await story.worker.answer(request_id)
    assert story.admission.in_use == 0


async def test_unforeseen_failure_stays_with_its_image(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(data: bytes, limits: ImageLimits, header: object) -> object:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(predictor_module, "decode_image", decode)

    (answer,) = await story.start(image())

    assert type(answer.error) is SaccadeError
    assert "secret" not in str(answer.error)
    assert story.admission.in_use == 0


# A worker that decodes JPEGs


async def test_jpeg_goes_to_a_decoding_worker_as_it_is(decoding_story: Story) -> None:
    sent = image(width=16, image_format="JPEG")
    answering = decoding_story.start(sent)
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get(), decode_s=0.125)

    (answer,) = await answering

    assert decoding_story.worker.received == [sent]
    assert answer.prediction is not None
    assert (answer.prediction["width"], answer.prediction["height"]) == (16, 6)
    assert answer.times.decode_s > 0.125
    assert decoding_story.admission.in_use == 0


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
    assert decoding_story.admission.in_use == 0


async def test_what_neither_can_decode_is_a_bad_image(decoding_story: Story) -> None:
    sent = image(width=400, image_format="JPEG")
    answering = decoding_story.start(sent[:-30] + b"\xff\xd9")
    await decoding_story.worker.answer(await decoding_story.worker.submitted.get(), messages.DONE_UNDECODED)

    (answer,) = await answering

    assert isinstance(answer.error, BadImage)
    assert decoding_story.admission.in_use == 0


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
    arena = SlotArena.create(2, 16_384)
    with CountingPool(1) as pool:
        story = Story(arena, pool, inline_pixels=32 * 24)

        running = story.start(image)
        await story.worker.answer(await story.worker.submitted.get())
        (answer,) = await running

        assert answer.prediction is not None
        assert pool.count == count
    arena.close()


async def test_damaged_small_jpeg_is_refused_like_any_other() -> None:
    arena = SlotArena.create(2, 16_384)
    with CountingPool(1) as pool:
        story = Story(arena, pool, inline_pixels=100_000)

        (answer,) = await story.start(scene_jpeg(32, 24)[:-200])

        assert isinstance(answer.error, BadImage)
        assert story.admission.in_use == 0
    arena.close()


class LateLoop(EventLoopLag):
    """Of a loop that has not looked for news for a second."""

    def age_s(self) -> float:
        return 1.0


async def test_small_jpegs_go_to_threads_while_the_loop_is_behind() -> None:
    arena = SlotArena.create(2, 16_384)
    with CountingPool(1) as pool:
        story = Story(arena, pool, inline_pixels=32 * 24, lag=LateLoop())

        running = story.start(scene_jpeg(32, 24))
        await story.worker.answer(await story.worker.submitted.get())

        assert (await running)[0].prediction is not None
        assert pool.count == 1
    arena.close()


async def test_worker_gets_a_little_less_time_than_there_is(story: Story) -> None:
    until_s = time.monotonic() + FAR_S
    answering = story.start(image(), deadline_s=until_s)
    await story.worker.answer(await story.worker.submitted.get())
    await answering

    (told_s,) = story.worker.deadlines_s
    assert told_s == pytest.approx(until_s - 0.05, abs=0.01)  # a twentieth of the second that its parameters allow
