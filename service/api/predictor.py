"""The request's story: admit, prepare, infer, finish. Promises: one outcome per image, by its deadline.

Pixels are decoded and resized in a thread, straight into the slot; answers are read from the slot. Where the worker
decodes JPEGs on its device, the slot gets their bytes instead; what it cannot decode comes back, and the thread has
the last word. Whoever may touch the slot holds the permit, so nothing here frees it early: not a deadline, not a
client that left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np
import structlog

from saccade.models.contract.preprocessing import Geometry, geometry_of, preprocess_into
from saccade.models.contract.specs import Task
from saccade.service.api.admission import Permit
from saccade.service.api.cancellation import Cancellation, ClientWatch
from saccade.service.api.catalog import Target
from saccade.service.api.device_lines import Assignment, DeviceLines
from saccade.service.api.event_loop_lag import EventLoopLag
from saccade.service.api.load import PoolLoad
from saccade.service.api.priority import RANK_OFFSET_S, Priority
from saccade.service.api.rungs import LadderRule, RungChooser
from saccade.service.api.waits import Urgency
from saccade.service.core import StageTimes
from saccade.service.errors import (
    ClientLeft,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    SaccadeError,
    WorkerLost,
)
from saccade.service.ipc import messages
from saccade.service.ipc.tensor_slots import TensorPlace
from saccade.service.vision.answers import prediction_of
from saccade.service.vision.image_decoder import ImageLimits, decode_image, small_jpeg_header
from saccade.service.vision.jpeg_header import encoded_image
from saccade.service.vision.parameters import Parameters

log = structlog.get_logger()

_GRACE_S = 0.05  # the worker answers a missed deadline itself; this is for a worker that does not
# Then images go to threads even where that costs more: who comes meanwhile must be seen, or nobody is refused in time.
_LONGEST_INLINE_TURN_S = 0.003
# Of a request's time the worker gets a little less than there is: half of all runs take longer than the median run that
# it reckons with, and the answer has a way to go. Late by a hair is as useless as late, and has cost a run.
_RESERVE_SHARE = 0.05
_LONGEST_RESERVE_S = 0.05
_TURNS_RESERVED = 4  # of the event loop, as they are now: those that the answer needs here, and as many for its way
# Masks up to this many source pixels are encoded in a third of a millisecond; larger ones leave the event loop.
_INLINE_MASK_PIXELS = 300_000
# Reading a header and copying so many bytes takes a tenth of a millisecond; larger ones leave the event loop.
_INLINE_JPEG_BYTES = 256 * 1024
# A slot's pages stay touched, so a larger JPEG goes in only where pixels and answers take that much anyway.
_SLOT_JPEG_BYTES = 1024 * 1024


class ImageAnswer(msgspec.Struct, frozen=True):
    """One image's prediction or its error, the time it took, and the variant that was asked."""

    prediction: dict[str, Any] | None
    error: SaccadeError | None
    times: StageTimes
    variant: str
    rung: int | None = None  # of the ladder; None without one


class _Filled(msgspec.Struct, frozen=True):
    """What a slot holds, and where the image lies in the model's input."""

    place: Geometry
    encoded_bytes: int  # of a JPEG; 0: pixels


NO_TIMES = StageTimes(0.0, 0.0, 0.0, 0.0)
Result = TypeVar("Result")


class _Asked(msgspec.Struct, frozen=True):
    """One request, as each of its images needs to know it."""

    target: Target
    parameters: Parameters
    deadline_s: float
    priority: Priority
    client: ClientWatch


class Predictor:
    """Turns encoded images into predictions, through the device workers."""

    def __init__(
        self,
        lines: DeviceLines,
        pool: ThreadPoolExecutor,
        limits: ImageLimits,
        rungs: RungChooser | None = None,
        load: PoolLoad | None = None,
        inline_pixels: int = 0,
        lag: EventLoopLag | None = None,
    ) -> None:
        """Without `rungs` there is no ladder. `load` is the pool's; without it, one thread's is assumed.

        JPEGs of up to `inline_pixels` are decoded by the event loop itself.
        """
        self._lines = lines
        self._rungs = rungs or RungChooser(LadderRule(False, None), lines, lambda model, rung: None)
        self._pool = pool
        self._load = load or PoolLoad(1)
        self._limits = limits
        self._inline_pixels = inline_pixels
        self._lag = lag or EventLoopLag()

    def ensure_room(
        self,
        target: Target,
        variant: str | None,
        priority: Priority,
        allowed_s: float | None,
        names_deadline: bool = True,
    ) -> None:
        """Before a request's body is read; `allowed_s` is None while its deadline is not known.

        Raises Overloaded or NotReady when none of the instances that may answer could take it.
        """
        self._lines.ensure_room(target.instances_of(variant), self._urgency(priority, allowed_s, names_deadline))

    def _urgency(self, priority: Priority, allowed_s: float | None, names_deadline: bool) -> Urgency:
        within_s = None if allowed_s is None else allowed_s - self._reserve_s(allowed_s)
        return Urgency(priority, within_s, self._load.wait_s, self._load.job_s, names_deadline)

    async def predict(
        self,
        images: Sequence[bytes | SaccadeError],
        target: Target,
        parameters: Parameters,
        deadline_s: float,
        client: ClientWatch,
        priority: Priority = Priority.NORMAL,
    ) -> list[ImageAnswer]:
        """One answer per image, in order, all by one instance. Raises Overloaded or NotReady before any work.

        Images that get no slot at once wait for one, each until the deadline.
        """
        asked = _Asked(target, parameters, deadline_s, priority, client)
        given = self._lines.assign(
            self._rungs.instances_for(target, parameters, len(images)),
            len(images),
            self._urgency(priority, deadline_s - time.monotonic(), parameters.names_deadline),
        )
        if len(images) == 1:
            return [await self._answer(images[0], given.permits[0], given, asked)]
        async with asyncio.TaskGroup() as tasks:
            answers = [
                tasks.create_task(
                    self._answer(image, given.permits[index], given, asked)
                    if index < len(given.permits)
                    else self._answer_in_turn(image, given, asked)
                )
                for index, image in enumerate(images)
            ]
        return [answer.result() for answer in answers]

    async def _answer_in_turn(self, image: bytes | SaccadeError, given: Assignment, asked: _Asked) -> ImageAnswer:
        """The answer of an image that waits for a slot first."""
        try:
            if isinstance(image, SaccadeError):
                raise image
            async with asyncio.timeout(asked.deadline_s - time.monotonic()):
                permit = await self._next_permit(given, asked)
        except TimeoutError:
            late = DeadlineExceeded("the deadline passed before the image got its turn; send fewer images at once")
            return self._failed(late, given)
        except SaccadeError as error:
            return self._failed(error, given)
        return await self._answer(image, permit, given, asked)

    async def _next_permit(self, given: Assignment, asked: _Asked) -> Permit:
        turn = given.admission.next_permit(given.instance.instance_id)

        def give_up() -> None:
            if not turn.done():
                turn.set_exception(ClientLeft("the client closed the connection"))

        asked.client.begin(give_up)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # it came just now
                turn.result().let_go()
            raise
        finally:
            asked.client.end(give_up)

    def _failed(self, error: SaccadeError, given: Assignment) -> ImageAnswer:
        return ImageAnswer(None, error, NO_TIMES, given.instance.variant, self._rung(given))

    async def _answer(
        self, image: bytes | SaccadeError, permit: Permit, given: Assignment, asked: _Asked
    ) -> ImageAnswer:
        start_s = time.perf_counter()
        try:
            if isinstance(image, SaccadeError):
                raise image
            with Cancellation(asked.deadline_s + _GRACE_S, asked.client) as cancellation:
                return await self._answered(image, permit, given, asked, cancellation, start_s)
        except SaccadeError as error:
            return self._failed(error, given)
        except Exception as error:  # logged with its trace; the other images of the request go on
            log.exception("image_failed", model=asked.target.key.model)
            return self._failed(SaccadeError(type(error).__name__), given)
        finally:
            permit.let_go()

    async def _answered(
        self, image: bytes, permit: Permit, given: Assignment, asked: _Asked, cancellation: Cancellation, start_s: float
    ) -> ImageAnswer:
        target = asked.target
        filled = await self._prepare(image, permit, given, target, cancellation)
        decoded_s = time.perf_counter()
        decoder = "device" if filled.encoded_bytes else "image_threads"
        done = await self._infer(permit, given, filled, asked, cancellation)
        if filled.encoded_bytes and done.status == messages.DONE_UNDECODED:
            filled = await self._decode(image, permit, target, cancellation)
            decoded_s = time.perf_counter()
            done = await self._infer(permit, given, filled, asked, cancellation)
            decoder = "second_opinion"
        _ensure_ok(done.status)
        target.metrics.decoded[decoder].inc()
        inferred_s = time.perf_counter()
        prediction = await self._finish(permit, filled.place, target, asked.parameters, cancellation)
        decode_s = decoded_s - start_s + done.decode_s
        times = StageTimes(decode_s, done.queue_s, done.infer_s, time.perf_counter() - inferred_s)
        return ImageAnswer(prediction, None, times, given.instance.variant, self._rung(given))

    def _rung(self, given: Assignment) -> int | None:
        return given.instance.rung if self._rungs.is_on else None

    async def _prepare(
        self, image: bytes, permit: Permit, given: Assignment, target: Target, cancellation: Cancellation
    ) -> _Filled:
        """Fills the slot: with a JPEG's bytes where the worker decodes them, else with pixels."""
        if given.instance.decodes_jpegs:

            def work() -> _Filled | None:
                return self._copied(image, permit, target)

            is_small = len(image) <= _INLINE_JPEG_BYTES
            copied = work() if is_small else await self._in_pool(permit, work, cancellation)
            if copied is not None:
                return copied
        return await self._decode(image, permit, target, cancellation)

    def _copied(self, image: bytes, permit: Permit, target: Target) -> _Filled | None:
        """The bytes in the slot; None for an image that is not for a device. Raises BadImage by the header alone."""
        encoded = encoded_image(image, self._limits)
        room = min(max(_SLOT_JPEG_BYTES, target.layout.size_bytes), permit.arena.slot_bytes)
        if encoded is None or len(image) > room:
            return None
        place = TensorPlace(0, (len(image),), np.dtype(np.uint8))
        permit.arena.tensor(permit.slot, place)[:] = np.frombuffer(image, np.uint8)
        return _Filled(geometry_of(*encoded.upright_size, target.manifest.preprocess), len(image))

    async def _decode(self, image: bytes, permit: Permit, target: Target, cancellation: Cancellation) -> _Filled:
        """Decodes and resizes into the slot."""
        pixels_out = permit.arena.views(permit.slot, target.layout).input
        spec = target.manifest.preprocess
        header = small_jpeg_header(image, self._inline_pixels)

        def work() -> _Filled:
            return _Filled(preprocess_into(decode_image(image, self._limits, header), spec, pixels_out), 0)

        if header is not None and self._lag.age_s() < _LONGEST_INLINE_TURN_S:
            start_s = time.perf_counter()
            self._load.begin()
            try:
                return work()
            finally:
                self._load.end(time.perf_counter() - start_s)
        return await self._in_pool(permit, work, cancellation)

    async def _infer(
        self, permit: Permit, given: Assignment, filled: _Filled, asked: _Asked, cancellation: Cancellation
    ) -> messages.Done:
        cancellation.ensure_left()
        request_id, answer = given.worker.submit(
            permit,
            given.instance.instance_id,
            asked.deadline_s - self._reserve_s(asked.parameters.deadline_ms / 1000),
            filled.encoded_bytes,
            RANK_OFFSET_S[asked.priority],
        )

        def give_up(error: SaccadeError) -> None:
            if not answer.done():
                answer.set_exception(error)
                given.worker.cancel(request_id)

        cancellation.on_end(give_up)
        try:
            done = await answer
        except asyncio.CancelledError:  # the end of the process, or a neighbour that failed unforeseen
            given.worker.cancel(request_id)
            raise
        given.observe(done)
        return done

    def _reserve_s(self, allowed_s: float) -> float:
        """What the worker is not told of a request's time."""
        return min(_RESERVE_SHARE * allowed_s, _LONGEST_RESERVE_S) + _TURNS_RESERVED * self._lag.usual_s

    async def _finish(
        self, permit: Permit, place: Geometry, target: Target, parameters: Parameters, cancellation: Cancellation
    ) -> dict[str, Any]:
        """Renders the answer; large masks leave the event loop."""

        def work() -> dict[str, Any]:
            outputs = permit.arena.views(permit.slot, target.layout).outputs
            return prediction_of(outputs, place, target.manifest, parameters)

        pixels = place.source_width * place.source_height
        is_cheap_mask = parameters.mask_format in ("rle", "none") and pixels <= _INLINE_MASK_PIXELS
        if target.manifest.task.task is not Task.SEGMENT or is_cheap_mask:
            return work()
        return await self._in_pool(permit, work, cancellation)

    async def _in_pool(self, permit: Permit, work: Callable[[], Result], cancellation: Cancellation) -> Result:
        """Runs `work` in a pixel thread, which holds the permit until it is done with the slot.

        Work that has not begun when the request gives up never begins.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Result] = loop.create_future()

        def done(seconds: float | None, outcome: Callable[[], None] | None = None) -> None:
            self._load.end(seconds)
            permit.let_go()
            if outcome is not None and not waiting.done():
                outcome()

        def run() -> None:
            start_s = time.perf_counter()
            try:
                outcome = partial(waiting.set_result, work())
            except BaseException as error:  # whoever waits gets it
                outcome = partial(waiting.set_exception, error)
            loop.call_soon_threadsafe(done, time.perf_counter() - start_s, outcome)

        def give_up(error: SaccadeError) -> None:
            if not waiting.done():
                waiting.set_exception(error)
            withdraw()

        def withdraw() -> None:
            if not job.cancelled() and job.cancel():
                done(None)

        cancellation.ensure_left()
        permit.hold()
        self._load.begin()
        job = self._pool.submit(run)
        cancellation.on_end(give_up)
        try:
            return await waiting
        except asyncio.CancelledError:
            withdraw()
            raise


def _ensure_ok(status: int) -> None:
    match status:
        case messages.DONE_OK:
            return
        case messages.DONE_EXPIRED:
            raise DeadlineExceeded(
                "the deadline cannot be met with the requests ahead; ask for a longer deadline_ms or send less"
            )
        case messages.DONE_CANCELLED:
            raise ClientLeft("the request was cancelled")
        case messages.DONE_UNKNOWN_INSTANCE:
            raise NotReady("the version was unloaded while the request waited; retry")
        case messages.DONE_FAILED:
            raise InferenceFailed("the model failed on this image")
        case messages.DONE_DEVICE_LOST:
            raise WorkerLost("the device failed with this image; another worker takes over, retry shortly")
        case _:
            raise WorkerLost(f"the worker answered with an unknown status {status}")
