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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import structlog

from models.preprocessing import Geometry, geometry_of, preprocess_into
from models.specs import Task
from service.catalog import Target
from service.core import StageTimes
from service.errors import (
    ClientLeft,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    SaccadeError,
    WorkerLost,
)
from service.parameters import Parameters
from service.rungs import LadderRule, RungChooser
from service.scheduling.admission import Permit
from service.vision.answers import prediction_of
from service.vision.gpu.header import encoded_image
from service.vision.image_decoder import ImageLimits, decode_image
from service.workers import messages
from service.workers.device_lines import Assignment, DeviceLines
from service.workers.tensor_slots import TensorPlace

log = structlog.get_logger()

_GRACE_S = 0.05  # the worker answers a missed deadline itself; this is for a worker that does not
# Masks up to this many source pixels are encoded in a third of a millisecond; larger ones leave the event loop.
_INLINE_MASK_PIXELS = 300_000
# Reading a header and copying so many bytes takes a tenth of a millisecond; larger ones leave the event loop.
_INLINE_JPEG_BYTES = 256 * 1024
# A slot's pages stay touched, so a larger JPEG goes in only where pixels and answers take that much anyway.
_SLOT_JPEG_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """One image's prediction or its error, the time it took, and the variant that was asked."""

    prediction: dict[str, Any] | None
    error: SaccadeError | None
    times: StageTimes
    variant: str
    rung: int | None = None  # of the ladder; None without one


@dataclass(frozen=True, slots=True)
class _Filled:
    """What a slot holds, and where the image lies in the model's input."""

    place: Geometry
    encoded_bytes: int  # of a JPEG; 0: pixels


NO_TIMES = StageTimes(0.0, 0.0, 0.0, 0.0)
Result = TypeVar("Result")
ClientWatch = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""Calls back when the client has left, until the context ends."""


class Predictor:
    """Turns encoded images into predictions, through the device workers."""

    def __init__(
        self, lines: DeviceLines, pool: ThreadPoolExecutor, limits: ImageLimits, rungs: RungChooser | None = None
    ) -> None:
        """Without `rungs` there is no ladder."""
        self._lines = lines
        self._rungs = rungs or RungChooser(LadderRule(False, None), lines, lambda model, rung: None)
        self._pool = pool
        self._limits = limits

    async def predict(
        self,
        images: Sequence[bytes | SaccadeError],
        target: Target,
        parameters: Parameters,
        deadline_s: float,
        client_leaves: ClientWatch,
    ) -> list[ImageAnswer]:
        """One answer per image, in order, all by one instance. Raises Overloaded or NotReady before any work."""
        given = self._lines.assign(self._rungs.instances_for(target, parameters, len(images)), len(images))
        if len(images) == 1:
            permit = given.permits[0]
            return [await self._answer(images[0], permit, given, target, parameters, deadline_s, client_leaves)]
        async with asyncio.TaskGroup() as tasks:
            answers = [
                tasks.create_task(self._answer(image, permit, given, target, parameters, deadline_s, client_leaves))
                for image, permit in zip(images, given.permits, strict=True)
            ]
        return [answer.result() for answer in answers]

    async def _answer(
        self,
        image: bytes | SaccadeError,
        permit: Permit,
        given: Assignment,
        target: Target,
        parameters: Parameters,
        deadline_s: float,
        client_leaves: ClientWatch,
    ) -> ImageAnswer:
        start_s = time.perf_counter()
        variant = given.instance.variant
        rung = given.instance.rung if self._rungs.is_on else None
        try:
            if isinstance(image, SaccadeError):
                raise image
            async with asyncio.timeout(deadline_s - time.monotonic() + _GRACE_S):
                filled = await self._prepare(image, permit, given, target)
                decoded_s = time.perf_counter()
                decoder = "device" if filled.encoded_bytes else "image_threads"
                done = await self._infer(permit, given, filled, deadline_s, client_leaves)
                if filled.encoded_bytes and done.status == messages.DONE_UNDECODED:
                    filled = await self._decode(image, permit, target)
                    decoded_s = time.perf_counter()
                    done = await self._infer(permit, given, filled, deadline_s, client_leaves)
                    decoder = "second_opinion"
                _ensure_ok(done.status)
                target.metrics.decoded[decoder].inc()
                inferred_s = time.perf_counter()
                prediction = await self._finish(permit, filled.place, target, parameters)
        except TimeoutError:
            late = DeadlineExceeded("the deadline passed before the answer was ready")
            return ImageAnswer(None, late, NO_TIMES, variant, rung)
        except SaccadeError as error:
            return ImageAnswer(None, error, NO_TIMES, variant, rung)
        except Exception as error:  # logged with its trace; the other images of the request go on
            log.exception("image_failed", model=target.key.model)
            return ImageAnswer(None, SaccadeError(type(error).__name__), NO_TIMES, variant, rung)
        finally:
            permit.let_go()
        decode_s = decoded_s - start_s + done.decode_s
        times = StageTimes(decode_s, done.queue_s, done.infer_s, time.perf_counter() - inferred_s)
        return ImageAnswer(prediction, None, times, variant, rung)

    async def _prepare(self, image: bytes, permit: Permit, given: Assignment, target: Target) -> _Filled:
        """Fills the slot: with a JPEG's bytes where the worker decodes them, else with pixels."""
        if given.instance.decodes_jpegs:

            def work() -> _Filled | None:
                return self._copied(image, permit, target)

            is_small = len(image) <= _INLINE_JPEG_BYTES
            copied = work() if is_small else await self._in_pool(permit, work)
            if copied is not None:
                return copied
        return await self._decode(image, permit, target)

    def _copied(self, image: bytes, permit: Permit, target: Target) -> _Filled | None:
        """The bytes in the slot; None for an image that is not for a device. Raises BadImage by the header alone."""
        encoded = encoded_image(image, self._limits)
        room = min(max(_SLOT_JPEG_BYTES, target.layout.size_bytes), permit.arena.slot_bytes)
        if encoded is None or len(image) > room:
            return None
        place = TensorPlace(0, (len(image),), np.dtype(np.uint8))
        permit.arena.tensor(permit.slot, place)[:] = np.frombuffer(image, np.uint8)
        return _Filled(geometry_of(*encoded.upright_size, target.manifest.preprocess), len(image))

    async def _decode(self, image: bytes, permit: Permit, target: Target) -> _Filled:
        """Decodes and resizes into the slot."""
        pixels_out = permit.arena.tensor(permit.slot, target.layout.input)
        spec = target.manifest.preprocess

        def work() -> _Filled:
            return _Filled(preprocess_into(decode_image(image, self._limits), spec, pixels_out), 0)

        return await self._in_pool(permit, work)

    async def _infer(
        self, permit: Permit, given: Assignment, filled: _Filled, deadline_s: float, client_leaves: ClientWatch
    ) -> messages.Done:
        worker = given.worker
        request_id, answer = worker.submit(permit, given.instance.instance_id, deadline_s, filled.encoded_bytes)

        def give_up() -> None:
            if not answer.done():
                answer.set_exception(ClientLeft("the client closed the connection"))
                worker.cancel(request_id)

        with client_leaves(give_up):
            try:
                done = await answer
            except asyncio.CancelledError:  # the deadline, or the end of the process
                worker.cancel(request_id)
                raise
        given.observe(done)
        return done

    async def _finish(self, permit: Permit, place: Geometry, target: Target, parameters: Parameters) -> dict[str, Any]:
        """Renders the answer; large masks leave the event loop."""

        def work() -> dict[str, Any]:
            outputs = [permit.arena.tensor(permit.slot, output) for output in target.layout.outputs]
            return prediction_of(outputs, place, target.manifest, parameters)

        pixels = place.source_width * place.source_height
        is_cheap_mask = parameters.mask_format in ("rle", "none") and pixels <= _INLINE_MASK_PIXELS
        if target.manifest.task.task is not Task.SEGMENT or is_cheap_mask:
            return work()
        return await self._in_pool(permit, work)

    async def _in_pool(self, permit: Permit, work: Callable[[], Result]) -> Result:
        """Runs `work` in a pixel thread, which holds the permit until it is done with the slot."""
        permit.hold()
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(lambda _: permit.let_go())
        # Shielded: a request that gives up must not make the thread look finished while it still uses the slot.
        return await asyncio.shield(future)


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
        case _:
            raise WorkerLost(f"the worker answered with an unknown status {status}")
