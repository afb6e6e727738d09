"""Asks a candidate about a share of the images that stable has answered, and notes how far both agree.

It happens once the answer is written, at a priority below every request's, and only where most slots are free and the
device has time. What finds no room is dropped at once, so that few pixels are held, and none longer than a second.
Shadows of a process run for a quarter of the time at most: a request that comes meanwhile waits for the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import numpy as np
import structlog

from saccade.models.contract.preprocessing import Geometry, unmoved
from saccade.models.contract.specs import Task
from saccade.service.api.admission import Admission, Admitted
from saccade.service.api.admission_rules import Urgency
from saccade.service.api.cancellation import Cancellation
from saccade.service.api.catalog import ServingCatalog, ServingTarget
from saccade.service.api.disagreements import Disagreements, Seen
from saccade.service.api.image_threads import ImageThreads
from saccade.service.api.priority import RANK_OFFSET_S, Priority
from saccade.service.api.slot_filling import Filled, Image, SlotFilling
from saccade.service.api.slots import Permit
from saccade.service.api.worker_client import ensure_ok
from saccade.service.core import VersionKey
from saccade.service.errors import InferenceFailed, NotReady, SaccadeError
from saccade.service.ipc import messages
from saccade.service.metrics import Metrics, ShadowMetrics
from saccade.service.vision.answers import not_finite
from saccade.service.vision.comparison import Answer, Comparison, compared

log = structlog.get_logger()

_MOST_AT_ONCE = 4  # per process: more would count in the expected waits of requests
_WITHIN_S = 1.0
_TIME_SHARE = 0.25
_MOST_SAVED_S = 0.25  # of that time, so that shadows of several requests in a row may run
_KEPT_PAIRS = 64


class Asked(NamedTuple):
    """What a candidate is to be asked about: one answered image."""

    request_id: str
    stable: ServingTarget
    candidate: ServingTarget


class _NeverLeft:
    """The client of a shadow: there is none."""

    has_left = False

    def begin(self, on_leave: Callable[[], None]) -> None:
        pass

    def end(self, on_leave: Callable[[], None]) -> None:
        pass


_NOBODY = _NeverLeft()


class Shadows:
    """The shadows of one API process; only its event loop may call it."""

    def __init__(
        self,
        catalog: ServingCatalog,
        admission: Admission,
        filling: SlotFilling,
        threads: ImageThreads,
        metrics: Metrics,
        disagreements: Disagreements,
    ) -> None:
        self._catalog = catalog
        self._admission = admission
        self._filling = filling
        self._threads = threads
        self._metrics = metrics
        self._disagreements = disagreements
        self._counted: dict[tuple[VersionKey, int], ShadowMetrics] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._saved_s = _MOST_SAVED_S  # device time that shadows may still take
        self._saved_at_s = time.monotonic()

    def offer(self, asked: Asked, image: Image, permit: Permit, filled: Filled) -> None:
        """Has the candidate asked about the image in this slot, once the caller has let the event loop go on."""
        counted = self._metrics_of(asked)
        if len(self._running) >= _MOST_AT_ONCE or self._device_time_s() <= 0.0:
            counted.outcomes["dropped"].inc()
            return
        permit.hold()
        task = asyncio.create_task(self._run(asked, image, permit, filled, counted))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _device_time_s(self) -> float:
        now_s = time.monotonic()
        self._saved_s = min(_MOST_SAVED_S, self._saved_s + _TIME_SHARE * (now_s - self._saved_at_s))
        self._saved_at_s = now_s
        return self._saved_s

    def _metrics_of(self, asked: Asked) -> ShadowMetrics:
        key, candidate = asked.stable.key, asked.candidate.key.version
        if (key, candidate) not in self._counted:
            if len(self._counted) >= _KEPT_PAIRS:
                self._counted.clear()
            self._counted[key, candidate] = ShadowMetrics(self._metrics, key.model, key.version, candidate)
        return self._counted[key, candidate]

    async def _run(self, asked: Asked, image: Image, permit: Permit, filled: Filled, counted: ShadowMetrics) -> None:
        candidate = asked.candidate
        self._catalog.begin(candidate, None)
        try:
            found = await self._compare(asked, image, permit, filled)
        except InferenceFailed:  # it is the candidate's fault, and no agreement
            counted.outcomes["failed"].inc()
            counted.agreement.observe(0.0)
            candidate.tally.compared(0.0)
        except SaccadeError:
            counted.outcomes["dropped"].inc()
        except Exception:  # the last stop: no caller waits, and the next image may be another matter
            log.exception("shadow_failed", model=candidate.key.model, version=candidate.key.version)
            counted.outcomes["failed"].inc()
        else:
            counted.outcomes["compared"].inc()
            counted.agreement.observe(found.agreement)
            candidate.tally.compared(found.agreement)
            picture = image if isinstance(image, bytes) else None
            seen = Seen(asked.request_id, asked.stable.key, candidate.key.version)
            await self._disagreements.note(seen, found, picture)
        finally:
            self._catalog.end(candidate)

    async def _compare(self, asked: Asked, image: Image, answered: Permit, filled: Filled) -> Comparison:
        """Raises Overloaded, NotReady, DeadlineExceeded, WorkerLost or InferenceFailed."""
        stable, candidate = asked.stable, asked.candidate
        is_alike = stable.manifest.preprocess == candidate.manifest.preprocess
        with ExitStack() as held, Cancellation(time.monotonic() + _WITHIN_S, _NOBODY) as cancellation:
            with ExitStack() as until_copied:
                until_copied.callback(answered.release)
                urgency = Urgency(Priority.SHADOW, _WITHIN_S, self._threads.wait_s, self._threads.job_s)
                admitted = self._admission.admit(candidate.instances, 1, urgency)
                (permit,) = admitted.permits
                held.callback(permit.release)
                views = answered.arena.views(answered.slot, stable.layout)
                place = unmoved(stable.manifest.preprocess) if is_alike else filled.geometry
                expected = Answer([np.array(output) for output in views.outputs], place, stable.manifest)
                pixels = np.array(views.input) if is_alike and not filled.encoded_bytes else image
            again = await self._infer(pixels, admitted, candidate, cancellation)
            place = unmoved(candidate.manifest.preprocess) if is_alike else again
            found = Answer(permit.arena.views(permit.slot, candidate.layout).outputs, place, candidate.manifest)
            error = not_finite(found.outputs, found.manifest)
            if error is not None:
                raise error
            work = partial(compared, expected, found)
            if candidate.manifest.task.task in (Task.CLASSIFY, Task.DETECT, Task.EMBED):
                return work()
            return await self._threads.run(permit, work, cancellation)

    async def _infer(
        self, image: Image, admitted: Admitted, candidate: ServingTarget, cancellation: Cancellation
    ) -> Geometry:
        """Has the candidate answer into the slot; returns how the image was fitted into its input."""
        (permit,) = admitted.permits
        instance, worker = admitted.instance, admitted.device.client
        filled = await self._filling.fill(image, permit, candidate, instance.decodes_jpegs, cancellation)
        cancellation.ensure_left()
        until_s = time.monotonic() + _WITHIN_S
        offset_s = RANK_OFFSET_S[Priority.SHADOW]
        number, answer = worker.submit(permit, instance.instance_id, until_s, filled.encoded_bytes, offset_s)

        def give_up(error: SaccadeError) -> None:
            if not answer.done():
                answer.set_exception(error)
                worker.cancel(number)

        cancellation.on_end(give_up)
        try:
            done = await answer
        except asyncio.CancelledError:  # the process ends
            worker.cancel(number)
            raise
        self._saved_s -= done.infer_s
        if done.status == messages.DONE_UNDECODED:
            raise NotReady("its worker cannot decode this image")
        ensure_ok(done.status)
        return filled.geometry
