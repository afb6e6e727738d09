"""A predictor with two slots and a worker that answers when the test says so."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog
from PIL import Image
from prometheus_client import CollectorRegistry

from saccade.models.contract.specs import Task, input_tensor
from saccade.service.api.admission import Admission
from saccade.service.api.catalog import ServingCatalog, ServingTarget
from saccade.service.api.decoding_apart import DecodingApart
from saccade.service.api.devices import Device, Devices
from saccade.service.api.disagreements import Disagreements
from saccade.service.api.event_loop_lag import EventLoopLag
from saccade.service.api.fallback import Fallback, FallbackRule
from saccade.service.api.image_threads import ImageThreads
from saccade.service.api.instance_estimates import InstanceEstimates
from saccade.service.api.predictor import ImageAnswer, Predictor
from saccade.service.api.shadows import Asked, Shadows
from saccade.service.api.slot_filling import SlotFilling
from saccade.service.api.slots import Permit, Slots
from saccade.service.core import VersionKey
from saccade.service.errors import SaccadeError
from saccade.service.ipc import messages
from saccade.service.ipc.tensor_slots import SlotArena, TensorPlace, layout_of
from saccade.service.metrics import Metrics, VersionMetrics
from saccade.service.vision.image_decoder import ImageLimits
from saccade.service.vision.parameters import NOTHING_GIVEN, DeadlineRule, GivenParameters, complete
from tests.support.clients import ScriptedClient
from tests.support.versions import manifest_for
from tests.unit.service.api.catalogs import instance

FAR_S = 3600.0


class ScriptedWorker:
    """Stands where the worker client stands; the test decides when and how it answers."""

    def __init__(self) -> None:
        self.submitted: asyncio.Queue[int] = asyncio.Queue()
        self.cancelled: list[int] = []
        self.received: list[bytes] = []  # the JPEG of each submit; empty where the slot has pixels
        self.deadlines_s: list[float] = []
        self.asked: list[tuple[int, float]] = []  # the instance and the rank's offset of each submit
        self.permits: list[Permit] = []
        self.refusal: Exception | None = None
        self._open: dict[int, tuple[Permit, asyncio.Future[messages.Done]]] = {}

    is_connected = True

    def submit(
        self,
        permit: Permit,
        instance_id: int,
        deadline_s: float,
        encoded_bytes: int = 0,
        rank_offset_s: float = 0.0,
        asked: int = 0,
    ) -> tuple[int, asyncio.Future[messages.Done]]:
        if self.refusal is not None:
            raise self.refusal
        place = TensorPlace(0, (encoded_bytes,), np.dtype(np.uint8))
        self.deadlines_s.append(deadline_s)
        self.asked.append((instance_id, rank_offset_s))
        self.permits.append(permit)
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
        permit.release()
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
        has_ladder: bool = False,
        repository: Path = Path("/nowhere"),
        given: GivenParameters = NOTHING_GIVEN,
        slow_pool: ThreadPoolExecutor | None = None,
        shares_decoding: bool = False,
    ) -> None:
        self._shares_decoding = shares_decoding
        self.repository = repository
        self._slow_pool = slow_pool
        self.apart = DecodingApart(2)
        self.slots = Slots()
        self.slots.adopt(arena)
        self.estimates = InstanceEstimates()
        self.worker = ScriptedWorker()
        self.client = ScriptedClient()
        self.pool = pool
        self._predictor = self._built(lag or EventLoopLag(), inline_pixels, has_ladder)
        manifest = manifest_for("digits", 1, Task.CLASSIFY)
        counted = VersionMetrics(Metrics(CollectorRegistry()), "digits", "1")
        self._target = ServingTarget(
            VersionKey("digits", 1),
            (msgspec.structs.replace(instance("cpu", 7), decodes_jpegs=decodes_jpegs),),
            manifest,
            layout_of(manifest.input, manifest.outputs),
            counted,
        )
        self._parameters = complete(given, manifest, DeadlineRule(1000.0, 1000.0))

    def _built(self, lag: EventLoopLag, inline_pixels: int, has_ladder: bool) -> Predictor:
        devices = Devices({"cpu": Device(self.slots, self.estimates, self.worker)})  # type: ignore[arg-type]  # same methods
        admission = Admission(devices)
        fallback = Fallback(FallbackRule(has_ladder, 1.0), admission.expected_wait_s)
        threads = ImageThreads(self.pool, 2, lag=lag, slow_pool=self._slow_pool)
        filling = SlotFilling(threads, self.apart, ImageLimits(10_000), inline_pixels)
        self.metrics = Metrics(CollectorRegistry())
        catalog = ServingCatalog(self.metrics, lambda generation: None)
        kept = Disagreements(self.repository, keeps_pictures=True)
        shadows = Shadows(catalog, admission, filling, threads, self.metrics, kept)
        shares = self._shares_decoding
        return Predictor(admission, fallback, filling, threads, lag, shadows, shares_decoding=shares)

    def start(
        self,
        *images: bytes | SaccadeError,
        deadline_s: float | None = None,
        shadow: ServingTarget | None = None,
        leaves_room: bool = False,
    ) -> asyncio.Task[list[ImageAnswer]]:
        until_s = time.monotonic() + FAR_S if deadline_s is None else deadline_s
        asked = None if shadow is None else Asked("request 1", self._target, shadow)
        return asyncio.create_task(
            self._predictor.predict(
                images, self._target, self._parameters, until_s, self.client, shadow=asked, leaves_room=leaves_room
            )
        )

    def candidate(self, side: int | None = None) -> ServingTarget:
        """Version 2 on the same device, for inputs of another side where one is given."""
        manifest = manifest_for("digits", 2, Task.CLASSIFY)
        if side is not None:
            preprocess = manifest.preprocess.model_copy(update={"width": side, "height": side})
            manifest = manifest.model_copy(update={"preprocess": preprocess, "input": input_tensor(preprocess)})
        counted = VersionMetrics(self.metrics, "digits", "2")
        layout = layout_of(manifest.input, manifest.outputs)
        return ServingTarget(VersionKey("digits", 2), (instance("cpu", 8),), manifest, layout, counted)


@contextmanager
def running_story(pool: ThreadPoolExecutor | None = None, slots: int = 2, **named: Any) -> Iterator[Story]:
    """With two threads, unless the test brings its own."""
    arena = SlotArena.create(slots, 16_384)
    with pool or ThreadPoolExecutor(2) as threads, structlog.testing.capture_logs():
        story = Story(arena, threads, **named)
        yield story
    story.apart.close()
    arena.close()


def image(width: int = 8, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 6), (9, 8, 7)).save(buffer, image_format, **options)
    return buffer.getvalue()
