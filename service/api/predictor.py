"""Turns the images of a request into predictions: admit, preprocess, infer, postprocess.

Pixels and answers stay in the slot of a permit. Every thread and process that may use the slot holds the permit, so
neither a deadline nor a client that left frees it early. Every image has one outcome, by its deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import structlog
from numpy.typing import NDArray

from saccade.models.contract.extras import ExtraKind
from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.quality import Quality, quality_of
from saccade.models.contract.specs import Task
from saccade.service.api.admission import Admission, Admitted
from saccade.service.api.admission_rules import Urgency
from saccade.service.api.cancellation import Cancellation, ClientWatch
from saccade.service.api.catalog import ServingTarget
from saccade.service.api.decoding_share import device_decodes
from saccade.service.api.event_loop_lag import EventLoopLag
from saccade.service.api.fallback import Fallback
from saccade.service.api.image_threads import ImageThreads
from saccade.service.api.priority import RANK_OFFSET_S, Priority
from saccade.service.api.shadows import Asked, Shadows
from saccade.service.api.slot_filling import Filled, Image, SlotFilling
from saccade.service.api.slots import Permit
from saccade.service.api.worker_client import ensure_ok
from saccade.service.core import StageTimes
from saccade.service.errors import DeadlineExceeded, NotFinite, PoorPicture, SaccadeError, without_frames
from saccade.service.ipc import messages
from saccade.service.running_figures import RunningQuantile
from saccade.service.vision.answers import prediction_of
from saccade.service.vision.parameters import Parameters

log = structlog.get_logger()

_GRACE_S = 0.05  # the worker answers a missed deadline itself; after this time the request ends without it
# The worker is given a little less time than there is: half of all runs take longer than the median run that its
# estimates use, and the answer has still to be rendered and sent. An answer that is just too late wastes a whole run.
_RESERVE_SHARE = 0.05
_LONGEST_RESERVE_S = 0.05
_RESERVED_ITERATIONS = 4  # event-loop iterations, at their present length, that handle the answer here and further on
_IN_TIME_SHARE = 0.99  # of answers that are to come in time under overload; refusals make room for their delays
_DELAY_STEP_S = 0.002  # ten late answers in a row move the limit by 20 ms, a thousand in time move it back
# Masks up to this many source pixels are encoded in a third of a millisecond; larger ones are encoded in a thread.
_INLINE_MASK_PIXELS = 300_000
_NO_TIMES = StageTimes(0.0, 0.0, 0.0, 0.0)

QualityRule = Literal["asked", "flag", "refuse"]
# One image's answer of its outputs, of which it must copy what it keeps. Raises NotFinite or NoDirection.
Render = Callable[[Sequence[NDArray[Any]], Geometry, Manifest, Parameters], Any]


class Ran(msgspec.Struct, frozen=True):
    """When an image was decoded and answered (`time.perf_counter`), and what its worker said of it."""

    started_s: float
    filled_s: float  # its slot was filled, and the worker asked
    inferred_s: float
    ended_s: float
    instance_id: int
    done: messages.Done


class ImageAnswer(msgspec.Struct, frozen=True):
    """One image's prediction or its error, the seconds of each stage, and the variant that answered."""

    prediction: Any  # what `render` made; None with an error
    error: SaccadeError | None
    times: StageTimes
    variant: str
    ladder_level: int | None = None  # 0 is the best variant; None without a ladder
    warning: str = ""  # why parts of a damaged picture may be lost
    quality: Quality | None = None  # where it was asked for
    ran: Ran | None = None  # None with an error


class _Request(msgspec.Struct, frozen=True):
    """What all images of one admitted request have in common."""

    target: ServingTarget
    parameters: Parameters
    deadline_s: float
    priority: Priority
    client: ClientWatch
    render: Render
    admitted: Admitted
    ladder_level: int | None  # level of the instance that answers; None without a ladder
    asked: int  # mask of the extra outputs that are computed: what the answer has, and a score that is only counted
    shadow: Asked | None = None
    gate: asyncio.Semaphore | None = None  # which images without a permit pass first


def new_delay() -> RunningQuantile:
    """By how many seconds nearly all answers come later than expected, at most."""
    return RunningQuantile(_IN_TIME_SHARE, _DELAY_STEP_S)


class Predictor:
    """Turns encoded images into predictions, through the device workers."""

    def __init__(
        self,
        admission: Admission,
        fallback: Fallback,
        filling: SlotFilling,
        threads: ImageThreads,
        lag: EventLoopLag,
        shadows: Shadows,
        quality: QualityRule = "asked",
        *,
        shares_decoding: bool = False,
    ) -> None:
        """With `shares_decoding`, image threads take JPEGs off a device whose decoder is behind."""
        self._quality_rule = quality
        self._shares_decoding = shares_decoding
        self._shadows = shadows
        self._admission = admission
        self._fallback = fallback
        self._filling = filling
        self._threads = threads
        self._lag = lag
        self._delay_s = new_delay()
        self._gates: dict[str, asyncio.Semaphore] = {}  # by device: for requests that leave room for others

    def ensure_room(
        self,
        target: ServingTarget,
        variant: str | None,
        priority: Priority,
        allowed_s: float | None,
        names_deadline: bool = True,
    ) -> None:
        """Checks that a request could enter, before its body is read.

        `allowed_s` is None while its deadline is not known. Raises Overloaded or NotReady when no instance that may
        answer could take the request.
        """
        urgency = self._urgency(target, priority, allowed_s, names_deadline)
        self._admission.ensure_room(target.instances_of(variant), urgency)

    async def predict(
        self,
        images: Sequence[Image | SaccadeError],
        target: ServingTarget,
        parameters: Parameters,
        deadline_s: float,
        client: ClientWatch,
        priority: Priority = Priority.NORMAL,
        render: Render = prediction_of,
        shadow: Asked | None = None,
        leaves_room: bool = False,
    ) -> list[ImageAnswer]:
        """Returns one answer per image, in order, all by one instance. Raises Overloaded or NotReady before any work.

        Images that get no slot at once wait for one until the deadline. Those of all requests that leave room take
        half of the slots at most, and one more for each request. `shadow` is asked about them afterwards.
        """
        start_s = time.monotonic()
        urgency = self._urgency(target, priority, deadline_s - start_s, parameters.names_deadline)
        instances = self._fallback.instances_for(target, parameters, len(images))
        admitted = self._admission.admit(instances, 1 if leaves_room else len(images), urgency)
        level = admitted.instance.ladder_level if self._fallback.is_on else None
        counted = ExtraKind.TRUST.bit & admitted.instance.gives if parameters.counts_trust else 0
        asked = parameters.asked | counted
        gate = self._gate(admitted) if leaves_room else None
        request = _Request(
            target, parameters, deadline_s, priority, client, render, admitted, level, asked, shadow, gate
        )
        answers = await self._answers(images, admitted.permits, request)
        if admitted.expected_s and priority is Priority.NORMAL:  # others are overtaken, or overtake
            self._note_delay(answers, time.monotonic() - start_s - admitted.expected_s)
        target.usage.count([answer.error for answer in answers])
        return answers

    def _gate(self, admitted: Admitted) -> asyncio.Semaphore:
        slots = admitted.permits[0].arena.slot_count
        return self._gates.setdefault(admitted.instance.device, asyncio.Semaphore(max(1, slots // 2)))

    def _note_delay(self, answers: Sequence[ImageAnswer], delay_s: float) -> None:
        """Learns from images that were alone; one without an answer was late by so much at least."""
        error = answers[0].error
        if len(answers) == 1 and (error is None or isinstance(error, DeadlineExceeded)):
            self._delay_s.add(delay_s)

    async def _answers(
        self, images: Sequence[Image | SaccadeError], permits: Sequence[Permit], request: _Request
    ) -> list[ImageAnswer]:
        if len(images) == 1:
            return [await self._answer(images[0], permits[0], request)]
        waiting = [None] * (len(images) - len(permits))
        async with asyncio.TaskGroup() as tasks:
            answers = [
                tasks.create_task(self._answer_in_turn(image, permit, request))
                for image, permit in zip(images, [*permits, *waiting], strict=True)
            ]
        return [answer.result() for answer in answers]

    async def _answer_in_turn(
        self, image: Image | SaccadeError, permit: Permit | None, request: _Request
    ) -> ImageAnswer:
        if permit is not None or request.gate is None:
            return await self._answer(image, permit, request)
        async with request.gate:
            return await self._answer(image, permit, request)

    async def _answer(self, image: Image | SaccadeError, permit: Permit | None, request: _Request) -> ImageAnswer:
        """Returns the image's prediction or its error; without a permit the image first waits for one."""
        try:
            if isinstance(image, SaccadeError):
                raise image
            if permit is None:
                permit = await request.admitted.next_permit(request.client, request.deadline_s)
            with Cancellation(request.deadline_s + _GRACE_S, request.client) as cancellation:
                return await self._predict_image(image, permit, request, cancellation)
        except SaccadeError as error:
            if isinstance(error, NotFinite):
                request.target.metrics.not_finite.inc()
            return _failed(error, request)
        except Exception as error:  # logged with its trace; the other images of the request are still answered
            log.exception("image_failed", model=request.target.key.model)
            return _failed(SaccadeError(type(error).__name__), request)
        finally:
            if permit is not None:
                permit.release()

    async def _predict_image(
        self, image: Image, permit: Permit, request: _Request, cancellation: Cancellation
    ) -> ImageAnswer:
        start_s = time.perf_counter()
        target, instance = request.target, request.admitted.instance
        judges = self._judges(image, request)
        # A JPEG that the device decodes cannot be looked at here.
        decodes_jpegs = instance.decodes_jpegs and not judges and self._device_decodes(request.admitted)
        filled = await self._filling.fill(image, permit, target, decodes_jpegs, cancellation)
        quality = await self._quality(permit, filled, request, cancellation) if judges else None
        decoded_s = time.perf_counter()
        decoder = "device" if filled.encoded_bytes else "image_threads"
        done = await self._infer(permit, filled, request, cancellation)
        if filled.encoded_bytes and done.status == messages.DONE_UNDECODED:
            filled = await self._filling.decode(image, permit, target, cancellation)
            decoded_s = time.perf_counter()
            done = await self._infer(permit, filled, request, cancellation)
            decoder = "second_opinion"
        ensure_ok(done.status)
        target.metrics.decoded[decoder].inc()
        inferred_s = time.perf_counter()
        prediction = await self._postprocess(permit, filled.geometry, request, cancellation)
        if request.parameters.counts_trust and request.asked & ExtraKind.TRUST.bit:
            outputs = permit.arena.views(permit.slot, target.layout.for_asked(request.asked)).outputs
            target.metrics.count_trust(float(outputs[-1]))  # the last kind, so the last output
        if request.shadow is not None:
            self._shadows.offer(request.shadow, image, permit, filled)
        decode_s = decoded_s - start_s + done.decode_s
        ended_s = time.perf_counter()
        times = StageTimes(decode_s, done.queue_s, done.infer_s, ended_s - inferred_s)
        ran = Ran(start_s, decoded_s, inferred_s, ended_s, instance.instance_id, done)
        level = request.ladder_level
        return ImageAnswer(prediction, None, times, instance.variant, level, filled.damage, quality, ran)

    def _device_decodes(self, admitted: Admitted) -> bool:
        """Whether the device decodes the next JPEG that it can decode."""
        if not self._shares_decoding:
            return True
        return device_decodes(admitted.device.estimates.decoding.load, self._threads.wait_s + self._threads.job_s)

    def _judges(self, image: Image, request: _Request) -> bool:
        """Whether the picture's quality is measured; pixels that are the model's input already have no size."""
        is_wanted = request.parameters.quality or self._quality_rule != "asked"
        return is_wanted and isinstance(image, bytes) and request.target.manifest.quality is not None

    async def _quality(
        self, permit: Permit, filled: Filled, request: _Request, cancellation: Cancellation
    ) -> Quality | None:
        """Measures the decoded picture in a thread. Raises PoorPicture where the server refuses such."""
        target, ranges = request.target, request.target.manifest.quality
        assert ranges is not None  # `_judges` looked

        def work() -> Quality:
            pixels = permit.arena.views(permit.slot, target.layout).input
            return quality_of(pixels, filled.geometry, ranges)

        found = await self._threads.run(permit, work, cancellation)
        if found.reasons and self._quality_rule == "refuse":
            raise PoorPicture(f"the picture is {'; '.join(found.reasons)}: send a better one")
        return found

    async def _infer(
        self, permit: Permit, filled: Filled, request: _Request, cancellation: Cancellation
    ) -> messages.Done:
        cancellation.ensure_left()
        worker = request.admitted.device.client
        request_id, answer = worker.submit(
            permit,
            request.admitted.instance.instance_id,
            request.deadline_s - self._reserve_s(request.parameters.deadline_ms / 1000),
            filled.encoded_bytes,
            RANK_OFFSET_S[request.priority],
            request.asked,
        )

        def give_up(error: SaccadeError) -> None:
            if not answer.done():
                answer.set_exception(error)
                worker.cancel(request_id)

        cancellation.on_end(give_up)
        try:
            return await answer
        except asyncio.CancelledError:  # the process ends, or another image of the request failed in an unforeseen way
            worker.cancel(request_id)
            raise

    async def _postprocess(
        self, permit: Permit, geometry: Geometry, request: _Request, cancellation: Cancellation
    ) -> object:
        """Renders the answer; large masks are rendered in a thread."""
        target, parameters = request.target, request.parameters

        def work() -> object:
            outputs = permit.arena.views(permit.slot, target.layout.for_asked(parameters.asked)).outputs
            return request.render(outputs, geometry, target.manifest, parameters)

        if _is_cheap(target.manifest.task.task, parameters, geometry):
            return work()
        return await self._threads.run(permit, work, cancellation)

    def _urgency(
        self, target: ServingTarget, priority: Priority, allowed_s: float | None, names_deadline: bool
    ) -> Urgency:
        within_s = None if allowed_s is None else allowed_s - self._reserve_s(allowed_s)
        decode_wait_s, decode_s = self._threads.wait_s, self._threads.job_s
        waits = (decode_wait_s, decode_s, names_deadline, target.objective_s)
        return Urgency(priority, within_s, *waits, self._delay_s.value)

    def _reserve_s(self, allowed_s: float) -> float:
        """Returns the seconds of a request's time that are kept back from the worker."""
        return min(_RESERVE_SHARE * allowed_s, _LONGEST_RESERVE_S) + _RESERVED_ITERATIONS * self._lag.usual_s


def _is_cheap(task: Task, parameters: Parameters, geometry: Geometry) -> bool:
    """Whether an answer is rendered within a few milliseconds, so that it may be in the event loop."""
    if task in (Task.INSTANCES, Task.IMAGE):
        return False  # every object takes about a millisecond, and a picture is written
    pixels = geometry.source_width * geometry.source_height
    is_cheap_mask = parameters.mask_format in ("rle", "none") and pixels <= _INLINE_MASK_PIXELS
    return task is not Task.SEGMENT or is_cheap_mask


def _failed(error: SaccadeError, request: _Request) -> ImageAnswer:
    return ImageAnswer(None, without_frames(error), _NO_TIMES, request.admitted.instance.variant, request.ladder_level)
