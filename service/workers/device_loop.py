"""The thread that keeps the device busy. Promises: one batch at a time; every submitted request is reported once.

It alone runs batches. Loading a version warms up through `exclusive`, so traffic waits for one run at most.
A failing batch is repeated one image at a time: only the guilty one fails.
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

from service.backends.base import Backend, Outputs
from service.errors import BackendError
from service.scheduling.batching import BatchLimits
from service.scheduling.latency_model import LatencyModel
from service.scheduling.queue import RequestQueue
from service.workers import messages
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


class Instance:
    """A loaded variant with its buffers and its measured speed."""

    def __init__(self, backend: Backend, layout: SlotLayout, limits: BatchLimits, latency: LatencyModel) -> None:
        self.backend = backend
        self.layout = layout
        self.limits = limits
        self.latency = latency
        self.is_closed = False
        self.last_run_s = time.monotonic()  # warm-up has just measured it
        self._batch = np.empty((limits.allowed_sizes[-1], *layout.input.shape), layout.input.dtype)

    def close(self) -> None:
        """Frees the backend; the device must be held."""
        self.is_closed = True
        self.backend.close()

    def gather(self, batch: Sequence[Work]) -> NDArray[Any]:
        """The pixels of a batch, in order; a single image is used where it lies."""
        if len(batch) == 1:
            return batch[0].arena.tensor(batch[0].slot, self.layout.input)[np.newaxis]
        gathered = self._batch[: len(batch)]
        for row, work in zip(gathered, batch, strict=True):
            row[...] = work.arena.tensor(work.slot, self.layout.input)
        return gathered


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
        self._device = threading.Lock()
        self._queue: RequestQueue[Work] = RequestQueue()
        self._instances: dict[int, Instance] = {}
        self._probes: list[Callable[[], None]] = []
        self._is_stopping = False

    def exclusive(self) -> AbstractContextManager[bool]:
        """The device, for a warm-up run."""
        return self._device

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
            with self._device:
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
        """Turns until stopped and empty."""
        while True:
            with self._wake:
                probes, self._probes = self._probes, []
                decision = self._queue.take(time.monotonic())
                is_idle = not (decision.batch or decision.expired or probes)
                if is_idle:
                    if self._is_stopping and len(self._queue) == 0:
                        return
                    self._wake.wait(_timeout_s(decision.look_again_s))
                    continue
                instance = self._instances.get(decision.batch[0].instance_id) if decision.batch else None
            for answer in probes:
                self._answer_probe(answer)
            trial = None if decision.batch else self._trial(decision.expired)
            if decision.expired:
                self._report([_unrun(work, messages.DONE_EXPIRED) for work in decision.expired if work is not trial])
            if instance is not None:
                self._report(self._run_batch(instance, decision.batch))
            elif trial is not None and (tried := self._instances.get(trial.instance_id)) is not None:
                self._report(self._run_batch(tried, [trial]))

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

    def _run_batch(self, instance: Instance, batch: Sequence[Work]) -> list[Finished]:
        start_s = time.monotonic()
        instance.last_run_s = start_s
        try:
            with self._device:
                if instance.is_closed:  # removed after the batch was taken; its clients had given up
                    return [_unrun(work, messages.DONE_UNKNOWN_INSTANCE) for work in batch]
                outputs = instance.backend.infer(instance.gather(batch))
        except BackendError:
            if len(batch) > 1:
                return [finished for work in batch for finished in self._run_batch(instance, [work])]
            return [_unrun(batch[0], messages.DONE_FAILED)]
        end_s = time.monotonic()
        instance.latency.observe(len(batch), end_s - start_s)
        self._observe_batch(batch[0].instance_id, len(batch))
        return _finished(instance, batch, outputs, start_s, end_s)


def _finished(
    instance: Instance, batch: Sequence[Work], outputs: Outputs, start_s: float, end_s: float
) -> list[Finished]:
    rows = zip(*outputs, strict=True)
    return [
        Finished(
            work,
            messages.DONE_OK,
            start_s - work.submitted_s,
            end_s - start_s,
            len(batch),
            row,
            instance.layout,
        )
        for work, row in zip(batch, rows, strict=True)
    ]


def _unrun(work: Work, status: int) -> Finished:
    return Finished(work, status, time.monotonic() - work.submitted_s, 0.0, 0, None, None)


def _timeout_s(look_again_s: float | None) -> float | None:
    return None if look_again_s is None else max(0.0, look_again_s - time.monotonic())
