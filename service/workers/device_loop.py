"""The thread that keeps the device busy. Promises: every submitted request is reported once, batches in order.

It alone runs batches: one at a time, or as many in flight as a PipelinedBackend overlaps. Loading a version warms up
through `exclusive`, so traffic waits for one run at most. A failing batch is repeated one image at a time: only the
guilty one fails. A JPEG that the device cannot decode goes back, and what its row answers belongs to nobody.
DeviceLost comes out of `run` after the requests in flight were reported as failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.backends.base import Backend, Outputs, PipelinedBackend
from service.errors import BackendError, DeviceLost
from service.scheduling.batching import BatchLimits, Decision
from service.scheduling.latency_model import LatencyModel
from service.scheduling.queue import RequestQueue
from service.workers import messages
from service.workers.batch_filling import ALL_PIXELS, Filling, JpegRowDecoder, fill_rows
from service.workers.device_turns import DeviceTurns
from service.workers.in_flight import Flight, InFlight
from service.workers.tensor_slots import SlotArena, SlotLayout

_TRIAL_REST = 5  # trials take a fifth of an otherwise idle device at most


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One submitted request; `connection` identifies who gets the reply."""

    connection: Any
    arena: SlotArena
    request_id: int
    slot: int
    instance_id: int
    deadline_s: float
    submitted_s: float
    encoded_bytes: int = 0  # of a JPEG in the slot; 0: it has pixels


@dataclass(frozen=True, slots=True)
class Finished:
    """How a request ended; `outputs` are its rows of the batch, None unless `status` is DONE_OK."""

    work: Work
    status: int
    queue_s: float
    infer_s: float
    batch_size: int
    outputs: tuple[NDArray[Any], ...] | None
    layout: SlotLayout | None
    decode_s: float = 0.0


class Instance:
    """A loaded variant with its buffers and its measured speed."""

    def __init__(
        self,
        backend: Backend,
        layout: SlotLayout,
        limits: BatchLimits,
        latency: LatencyModel,
        jpegs: JpegRowDecoder | None = None,
    ) -> None:
        """`jpegs` decodes on the device; None: it gets pixels only."""
        self.backend = backend
        self.pipeline = backend if isinstance(backend, PipelinedBackend) else None
        self.layout = layout
        self.limits = limits
        self.latency = latency
        self.jpegs = jpegs
        self.is_closed = False
        self.last_run_s = time.monotonic()  # warm-up has just measured it
        # A pipelined backend has staging memory of its own.
        rows = 0 if self.pipeline else limits.allowed_sizes[-1]
        self._batch = np.empty((rows, *layout.input.shape), layout.input.dtype)

    def close(self) -> None:
        """Frees the backend; the device must be held."""
        self.is_closed = True
        self.backend.close()

    def gather(self, batch: Sequence[Work]) -> tuple[NDArray[Any], Filling]:
        """The pixels of a batch, in order; those of a single image are used where they lie."""
        if len(batch) == 1 and not batch[0].encoded_bytes:
            return batch[0].arena.tensor(batch[0].slot, self.layout.input)[np.newaxis], ALL_PIXELS
        rows = self._batch[: len(batch)]
        return rows, fill_rows(batch, rows, self.layout.input, self.jpegs)

    def run(self, batch: Sequence[Work]) -> tuple[Outputs, float, Filling]:
        """Outputs and the seconds of the run, waited for."""
        if self.pipeline is not None:
            number, filling = self.start(self.pipeline, batch)
            return *self.pipeline.finish(number), filling
        images, filling = self.gather(batch)
        start_s = time.monotonic()
        outputs = self.backend.infer(images)
        return outputs, time.monotonic() - start_s, filling

    def start(self, pipeline: PipelinedBackend, batch: Sequence[Work]) -> tuple[int, Filling]:
        """Gathers straight into the memory that the device copies from."""
        filling = fill_rows(batch, pipeline.staging(len(batch)), self.layout.input, self.jpegs)
        return pipeline.start(), filling


@dataclass(frozen=True, slots=True)
class Started:
    """A batch in flight."""

    instance: Instance
    pipeline: PipelinedBackend
    batch: Sequence[Work]
    filling: Filling


class DeviceLoop:
    """Owns the queue and the instances. All methods but `run` are for the worker's event loop and loader."""

    def __init__(
        self,
        report: Callable[[list[Finished]], None],
        answer_probe: Callable[[Callable[[], None]], None],
        observe_batch: Callable[[int, int], None],
    ) -> None:
        self._report = report
        self._answer_probe = answer_probe
        self._observe_batch = observe_batch
        self._wake = threading.Condition()
        self._turns = DeviceTurns(self._wake_up)
        self._in_flight: InFlight[Started] = InFlight()
        self._queue: RequestQueue[Work] = RequestQueue()
        self._instances: dict[int, Instance] = {}
        self._probes: list[Callable[[], None]] = []
        self._is_stopping = False

    def exclusive(self) -> AbstractContextManager[bool]:
        """The device, for a warm-up run."""
        return self._turns.exclusive()

    def add(self, instance_id: int, instance: Instance) -> None:
        with self._wake:
            self._instances[instance_id] = instance
            self._queue.add_lane(instance_id, instance.limits, instance.latency)

    def remove(self, instance_id: int) -> None:
        """Requests that still wait for it are reported as having no instance; its memory is freed."""
        with self._wake:
            orphans = self._queue.remove_lane(instance_id)
            instance = self._instances.pop(instance_id, None)
        self._report([_unrun(work, messages.DONE_UNKNOWN_INSTANCE) for work in orphans])
        if instance is not None:
            with self._turns.exclusive():
                instance.close()

    def submit(self, work: Work) -> None:
        with self._wake:
            is_known = self._queue.push(work)
            self._wake.notify()
        if not is_known:
            self._report([_unrun(work, messages.DONE_UNKNOWN_INSTANCE)])

    def cancel(self, connection: object, request_id: int | None) -> None:
        """Drops waiting requests: one, or with None all of a connection that is gone."""
        with self._wake:
            dropped = self._queue.remove_where(
                lambda work: work.connection is connection and request_id in (None, work.request_id)
            )
        self._report([_unrun(work, messages.DONE_CANCELLED) for work in dropped])

    def probe(self, answer: Callable[[], None]) -> None:
        """`answer` is called once the loop comes round."""
        with self._wake:
            self._probes.append(answer)
            self._wake.notify()

    def stop(self) -> None:
        """What is queued is finished first; then `run` returns."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()

    def depths(self) -> list[tuple[int, int, float]]:
        """(instance id, waiting requests, expected seconds to run them all) of every instance."""
        with self._wake:
            return [
                (
                    instance_id,
                    len(lane.waiting),
                    lane.latency.drain_s(len(lane.waiting), lane.limits.allowed_sizes),
                )
                for instance_id, lane in self._queue.lanes()
            ]

    def run(self) -> None:
        """Turns until stopped and empty. Raises DeviceLost, when no request in flight is left without a report."""
        try:
            while self._turn():
                pass
        except DeviceLost:
            lost = [work for flight in self._in_flight.take_all() for work in flight.what.batch]
            self._report([_unrun(work, messages.DONE_FAILED) for work in lost])
            raise

    def _turn(self) -> bool:
        """One look at what waits and what runs; False at the end."""
        with self._wake:
            now_s = time.monotonic()
            probes, self._probes = self._probes, []
            outlook = self._in_flight.outlook(now_s)
            decision: Decision[Work] = Decision((), (), None)
            if self._has_room():
                decision = self._queue.take(now_s, outlook.ahead if outlook else None)
            if not (decision.batch or decision.expired or probes):
                if outlook is None:
                    if self._is_stopping and len(self._queue) == 0:
                        return False
                    self._wake.wait(_timeout_s(decision.look_again_s))
                    return True
                if self._has_room() and not self._is_stopping and now_s < outlook.finish_from_s:
                    self._wake.wait(_timeout_s(outlook.finish_from_s))  # for requests that fill the next batch
                    return True
            instance = self._instances.get(decision.batch[0].instance_id) if decision.batch else None
        for answer in probes:
            self._answer_probe(answer)
        trial = None if decision.batch else self._trial(decision.expired)
        if decision.expired:
            self._report([_unrun(work, messages.DONE_EXPIRED) for work in decision.expired if work is not trial])
        if instance is not None:
            self._start_batch(instance, decision.batch)
        elif trial is not None and (tried := self._instances.get(trial.instance_id)) is not None:
            self._start_batch(tried, [trial])
        elif not (probes or decision.expired) and len(self._in_flight) > 0:
            self._land_oldest()
        return True

    def _wake_up(self) -> None:
        with self._wake:
            self._wake.notify()

    def _has_room(self) -> bool:
        """Whether one more batch may be started, of whichever instance."""
        if len(self._in_flight) == 0:
            return True
        depths = [each.pipeline.batches_in_flight for each in self._instances.values() if each.pipeline]
        return not self._turns.is_wanted and len(self._in_flight) < min(depths, default=1)

    def _trial(self, refused: Sequence[Work]) -> Work | None:
        """A refused request that runs all the same, because nothing measured its instance for a while.

        Estimates are renewed by runs only. Without a trial, one slow spell could refuse every later request for ever.
        """
        now_s = time.monotonic()
        for work in refused:
            instance = self._instances.get(work.instance_id)
            if instance is None or work.deadline_s <= now_s:
                continue
            if now_s - instance.last_run_s > _TRIAL_REST * instance.latency.batch_s(1):
                return work
        return None

    def _start_batch(self, instance: Instance, batch: Sequence[Work]) -> None:
        """Starts a batch where others may overlap with it, else runs it to its end."""
        if instance.pipeline is None:
            self._land_all()
            self._turns.take()
            self._run_batch(instance, batch)
            self._turns.give()
            return
        self._turns.take()
        start_s = time.monotonic()
        instance.last_run_s = start_s
        try:
            if instance.is_closed:  # removed after the batch was taken; its clients had given up
                self._report([_unrun(work, messages.DONE_UNKNOWN_INSTANCE) for work in batch])
            else:
                number, filling = instance.start(instance.pipeline, batch)
                started = Started(instance, instance.pipeline, batch, filling)
                self._in_flight.add(Flight(started, number, start_s, instance.latency.batch_s(len(batch))))
        except BackendError:
            self._land_all()
            self._repeat(instance, batch)
        except DeviceLost:
            self._report([_unrun(work, messages.DONE_FAILED) for work in batch])
            raise
        if len(self._in_flight) == 0:
            self._turns.give()

    def _land_oldest(self) -> None:
        """Waits for the oldest batch and reports it."""
        flight = self._in_flight.take_oldest()
        instance, batch = flight.what.instance, flight.what.batch
        try:
            outputs, run_s = flight.what.pipeline.finish(flight.number)
            self._report(self._ran(instance, batch, outputs, run_s, flight.what.filling))
        except BackendError:
            self._land_all()  # first: batches are finished in the order of their start
            self._repeat(instance, batch)
        except DeviceLost:
            self._report([_unrun(work, messages.DONE_FAILED) for work in batch])
            raise
        if len(self._in_flight) == 0:
            self._turns.give()

    def _land_all(self) -> None:
        while len(self._in_flight) > 0:
            self._land_oldest()

    def _run_batch(self, instance: Instance, batch: Sequence[Work]) -> None:
        """Runs a batch to its end; the device must be held."""
        instance.last_run_s = time.monotonic()
        try:
            if instance.is_closed:  # removed after the batch was taken; its clients had given up
                self._report([_unrun(work, messages.DONE_UNKNOWN_INSTANCE) for work in batch])
                return
            outputs, run_s, filling = instance.run(batch)
        except BackendError:
            self._repeat(instance, batch)
        except DeviceLost:
            self._report([_unrun(work, messages.DONE_FAILED) for work in batch])
            raise
        else:
            self._report(self._ran(instance, batch, outputs, run_s, filling))

    def _repeat(self, instance: Instance, batch: Sequence[Work]) -> None:
        """One image at a time after a failure, so that only the guilty one fails."""
        if len(batch) == 1:
            self._report([_unrun(batch[0], messages.DONE_FAILED)])
            return
        self._turns.take()
        for index, work in enumerate(batch):
            try:
                self._run_batch(instance, [work])
            except DeviceLost:
                self._report([_unrun(other, messages.DONE_FAILED) for other in batch[index + 1 :]])
                raise

    def _ran(
        self, instance: Instance, batch: Sequence[Work], outputs: Outputs, run_s: float, filling: Filling
    ) -> list[Finished]:
        end_s = time.monotonic()
        # While a pipelined backend runs one batch, the next is decoded; otherwise the device waits for that.
        instance.latency.observe(len(batch), run_s if instance.pipeline else run_s + filling.decode_s)
        self._observe_batch(batch[0].instance_id, len(batch))
        rows = zip(*outputs, strict=True)
        # What is not the run was waiting: in the queue, in the pipeline, or for other batches.
        return [
            _unrun(work, messages.DONE_UNDECODED)
            if index in filling.undecoded
            else Finished(
                work,
                messages.DONE_OK,
                max(0.0, end_s - run_s - filling.decode_s - work.submitted_s),
                run_s,
                len(batch),
                row,
                instance.layout,
                filling.decode_s,
            )
            for index, (work, row) in enumerate(zip(batch, rows, strict=True))
        ]


def _unrun(work: Work, status: int) -> Finished:
    return Finished(work, status, time.monotonic() - work.submitted_s, 0.0, 0, None, None)


def _timeout_s(look_again_s: float | None) -> float | None:
    return None if look_again_s is None else max(0.0, look_again_s - time.monotonic())
