"""The thread that runs batches on the device. Every submitted request is reported once, batches in their order.

Only this thread runs batches: one at a time, or as many in flight as a PipelinedBackend overlaps. A version that is
being loaded warms up through `exclusive`, between batches. A failing batch is halved, and a half that fails again is
run one image at a time, so that only the image that causes the failure fails. A JPEG that the device cannot decode is
reported as undecoded. A request that would be late behind those before it is refused when it arrives. `run` raises
DeviceLost after it has reported the requests in flight as lost.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from saccade.service.backends.base import Outputs
from saccade.service.errors import BackendError, DeviceLost
from saccade.service.ipc import messages
from saccade.service.ipc.run_marker import RunMarker
from saccade.service.worker.batch_filling import Filling
from saccade.service.worker.device_lock import DeviceLock
from saccade.service.worker.in_flight import InFlight, StartedRun
from saccade.service.worker.instances import Finished, LoadedInstance, Started, Work
from saccade.service.worker.scheduling.batching import Decision
from saccade.service.worker.scheduling.queue import Backlog, RequestQueue

_TRIAL_PAUSE_RUNS = 5  # pause between trials, in runs: trials take at most a fifth of an otherwise idle device


class DeviceLoop:
    """Owns the queue and the instances. The worker's event loop and loader call all methods except `run`."""

    def __init__(
        self,
        report: Callable[[list[Finished]], None],
        answer_probe: Callable[[Callable[[], None]], None],
        observe_batch: Callable[[int, int], None],
        marker: RunMarker | None = None,
    ) -> None:
        self._report = report
        self._answer_probe = answer_probe
        self._observe_batch = observe_batch
        self._batch_numbers = itertools.count(1)
        self._marker = marker or RunMarker.unread()
        self._condition = threading.Condition()
        self._device_lock = DeviceLock(self._notify_loop)
        self._in_flight: InFlight[Started] = InFlight()
        self._queue: RequestQueue[Work] = RequestQueue()
        self._instances: dict[int, LoadedInstance] = {}
        self._waiting: dict[tuple[object, int], Work] = {}  # the queued requests, by connection and request number
        self._busy_until_s = 0.0  # expected end of the present run; 0 while nothing runs
        self._probes: list[Callable[[], None]] = []
        self._is_stopping = False

    @contextmanager
    def exclusive(self, instance_id: int) -> Iterator[bool]:
        """Holds the device for a warm-up run of an instance."""
        with self._device_lock.exclusive(), self._marker.running(instance_id):
            yield True

    def add(self, instance_id: int, instance: LoadedInstance, model: str = "", weight: float = 1.0) -> None:
        """Adds an instance; all instances of a model share the device time that the model's weight gives."""
        with self._condition:
            self._instances[instance_id] = instance
            self._queue.add_lane(instance_id, instance.limits, instance.latency, model, weight)

    def remove(self, instance_id: int) -> None:
        """Removes an instance and frees its memory; requests that still wait for it are reported as without one."""
        with self._condition:
            orphans = self._queue.remove_lane(instance_id)
            self._forget(orphans)
            instance = self._instances.pop(instance_id, None)
        self._report([_unrun(work, messages.DONE_UNKNOWN_INSTANCE) for work in orphans])
        if instance is not None:
            with self._device_lock.exclusive():
                instance.close()

    def submit(self, work: Work) -> None:
        """Queues a request, or reports at once why it is refused."""
        with self._condition:
            refusal = self._refusal(work)
            if refusal is None:
                self._queue.push(work)
                self._waiting[work.connection, work.request_id] = work
                self._condition.notify()
        if refusal is not None:
            self._report([_unrun(work, refusal)])

    def _refusal(self, work: Work) -> int | None:
        instance = self._instances.get(work.instance_id)
        if instance is None:
            return messages.DONE_UNKNOWN_INSTANCE
        if work.asked & ~instance.gives:
            return messages.DONE_FAILED  # API processes ask only instances that give it
        # When the device is idle, the loop decides: it may try a request that the estimates would refuse.
        is_idle = self._busy_until_s == 0.0 and len(self._queue) == 0
        if not is_idle and self._queue.is_hopeless(work, max(time.monotonic(), self._busy_until_s)):
            return messages.DONE_EXPIRED
        return None

    def cancel(self, connection: object, request_id: int | None) -> None:
        """Drops a waiting request, or with None all requests of a connection that has ended."""
        with self._condition:
            if request_id is None:
                dropped = self._queue.remove_where(lambda work: work.connection is connection)
            else:
                work = self._waiting.get((connection, request_id))
                dropped = [work] if work is not None and self._queue.remove(work) else []
            self._forget(dropped)
        self._report([_unrun(work, messages.DONE_CANCELLED) for work in dropped])

    def _forget(self, gone: Iterable[Work]) -> None:
        for work in gone:
            self._waiting.pop((work.connection, work.request_id), None)

    def probe(self, answer: Callable[[], None]) -> None:
        """Has `answer` called by the loop in its next step."""
        with self._condition:
            self._probes.append(answer)
            self._condition.notify()

    def stop(self) -> None:
        """Makes `run` return once the queued requests are finished."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()

    def backlogs(self) -> dict[int, Backlog]:
        """Returns, by instance, the work that a new request would have before it."""
        with self._condition:
            return dict(self._queue.backlogs(max(0.0, self._busy_until_s - time.monotonic())))

    def run(self) -> None:
        """Runs batches until stopped and empty. Raises DeviceLost, after it has reported every request in flight."""
        try:
            while self._step():
                pass
        except DeviceLost:
            lost = [work for flight in self._in_flight.take_all() for work in flight.what.batch]
            self._report([_unrun(work, messages.DONE_DEVICE_LOST) for work in lost])
            raise

    def _step(self) -> bool:
        """Starts or finishes at most one batch, or waits for an event; False when the loop must end."""
        with self._condition:
            now_s = time.monotonic()
            probes, self._probes = self._probes, []
            outlook = self._in_flight.outlook(now_s)
            decision: Decision[Work] = Decision((), (), None)
            if self._has_room():
                decision = self._queue.take(now_s, outlook.ahead if outlook else None)
                self._forget((*decision.batch, *decision.expired))
            if not (decision.batch or decision.expired or probes):
                if outlook is None:
                    if self._is_stopping and len(self._queue) == 0:
                        return False
                    self._condition.wait(_timeout_s(decision.look_again_s))
                    return True
                if self._has_room() and not self._is_stopping and now_s < outlook.finish_from_s:
                    self._condition.wait(_timeout_s(outlook.finish_from_s))  # for requests that fill the next batch
                    return True
            instance = self._instances.get(decision.batch[0].instance_id) if decision.batch else None
        for answer in probes:
            self._answer_probe(answer)
        trial = None if decision.batch else self._trial(decision.expired)
        if decision.expired:
            self._report([_unrun(work, messages.DONE_EXPIRED) for work in decision.expired if work is not trial])
        if instance is not None:
            self._start_batch(instance, decision.batch, decision.rows)
        elif trial is not None and (tried := self._instances.get(trial.instance_id)) is not None:
            self._start_batch(tried, [trial], 1)
        elif not (probes or decision.expired) and len(self._in_flight) > 0:
            self._finish_oldest()
        return True

    def _notify_loop(self) -> None:
        with self._condition:
            self._condition.notify()

    def _has_room(self) -> bool:
        """Returns whether one more batch may be started, whatever its instance."""
        if len(self._in_flight) == 0:
            return True
        depths = [each.pipeline.batches_in_flight for each in self._instances.values() if each.pipeline]
        return not self._device_lock.is_wanted and len(self._in_flight) < min(depths, default=1)

    def _trial(self, refused: Sequence[Work]) -> Work | None:
        """Returns a refused request that runs all the same, because its instance was not measured for a while.

        Only runs renew the estimates: without trials, one slow period could refuse every later request for ever.
        """
        now_s = time.monotonic()
        for work in refused:
            instance = self._instances.get(work.instance_id)
            if instance is None or work.deadline_s <= now_s:
                continue
            if now_s - instance.last_run_s > _TRIAL_PAUSE_RUNS * instance.latency.batch_s(1):
                return work
        return None

    def _start_batch(self, instance: LoadedInstance, batch: Sequence[Work], rows: int) -> None:
        """Starts a batch, padded to `rows`; without a pipelined backend it is also run to its end."""
        if instance.pipeline is None:
            self._finish_all()
            self._device_lock.take()
            self._run_batch(instance, batch, rows)
            self._device_lock.give()
            return
        self._device_lock.take()
        start_s = time.monotonic()
        instance.last_run_s = start_s
        try:
            if instance.is_closed:  # it was removed after the batch was taken; its clients had given up
                self._report([_unrun(work, messages.DONE_UNKNOWN_INSTANCE) for work in batch])
            else:
                with self._marker.running(batch[0].instance_id):
                    number, filling = instance.start(instance.pipeline, batch, rows)
                started = Started(instance, instance.pipeline, batch, rows, filling)
                self._in_flight.add(StartedRun(started, number, start_s, instance.latency.batch_s(rows)))
                self._note_busy()
        except BackendError:
            self._finish_all()
            self._repeat(instance, batch)
        except DeviceLost:
            self._report([_unrun(work, messages.DONE_DEVICE_LOST) for work in batch])
            raise
        if len(self._in_flight) == 0:
            self._device_lock.give()

    def _finish_oldest(self) -> None:
        """Waits for the oldest batch in flight and reports it."""
        flight = self._in_flight.take_oldest()
        self._note_busy()
        instance, batch = flight.what.instance, flight.what.batch
        try:
            with self._marker.running(batch[0].instance_id):
                outputs, run_s = flight.what.pipeline.finish(flight.number)
            self._report(self._ran(instance, batch, flight.what.rows, outputs, run_s, flight.what.filling))
        except BackendError:
            self._finish_all()  # before the repetition, because batches are finished in the order of their start
            self._repeat(instance, batch)
        except DeviceLost:
            self._report([_unrun(work, messages.DONE_DEVICE_LOST) for work in batch])
            raise
        if len(self._in_flight) == 0:
            self._device_lock.give()

    def _finish_all(self) -> None:
        while len(self._in_flight) > 0:
            self._finish_oldest()

    def _run_batch(self, instance: LoadedInstance, batch: Sequence[Work], rows: int, is_half: bool = False) -> None:
        """Runs a batch to its end; the loop must hold the device."""
        instance.last_run_s = time.monotonic()
        self._busy_until_s = instance.last_run_s + instance.latency.batch_s(rows)
        try:
            if instance.is_closed:  # it was removed after the batch was taken; its clients had given up
                self._report([_unrun(work, messages.DONE_UNKNOWN_INSTANCE) for work in batch])
                return
            with self._marker.running(batch[0].instance_id):
                outputs, run_s, filling = instance.run(batch, rows)
        except BackendError:
            self._repeat(instance, batch, is_half)
        except DeviceLost:
            self._report([_unrun(work, messages.DONE_DEVICE_LOST) for work in batch])
            raise
        else:
            self._report(self._ran(instance, batch, rows, outputs, run_s, filling))
        finally:
            self._busy_until_s = 0.0

    def _repeat(self, instance: LoadedInstance, batch: Sequence[Work], is_half: bool = False) -> None:
        """Runs the parts of a failed batch: its halves, then single images, so that only the image at fault fails.

        A good image is run at most twice more. Parts are not padded.
        """
        instance.note_failure()
        if len(batch) == 1:
            self._report([_unrun(batch[0], messages.DONE_FAILED)])
            return
        self._device_lock.take()
        half = len(batch) // 2
        can_halve = not is_half and {half, len(batch) - half} <= set(instance.limits.allowed_sizes)
        parts = [batch[:half], batch[half:]] if can_halve else [[work] for work in batch]
        for index, part in enumerate(parts):
            try:
                self._run_batch(instance, part, len(part), is_half=True)
            except DeviceLost:
                rest = [work for other in parts[index + 1 :] for work in other]
                self._report([_unrun(work, messages.DONE_DEVICE_LOST) for work in rest])
                raise

    def _note_busy(self) -> None:
        outlook = self._in_flight.outlook(time.monotonic())
        self._busy_until_s = outlook.ahead.ends_s if outlook else 0.0

    def _ran(
        self,
        instance: LoadedInstance,
        batch: Sequence[Work],
        rows: int,
        outputs: Outputs,
        run_s: float,
        filling: Filling,
    ) -> list[Finished]:
        end_s = time.monotonic()
        # A pipelined backend decodes the next batch while one runs; otherwise decoding delays the run.
        instance.latency.observe(rows, run_s if instance.pipeline else run_s + filling.decode_s)
        self._observe_batch(batch[0].instance_id, len(batch))
        number = next(self._batch_numbers)
        # All time other than the run was waiting: in the queue, in the pipeline, or for other batches.
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
                instance.layout.for_asked(work.asked),
                filling.decode_s,
                number,
            )
            for index, (work, row) in enumerate(zip(batch, instance.rows(batch, outputs), strict=True))
        ]


def _unrun(work: Work, status: int) -> Finished:
    return Finished(work, status, time.monotonic() - work.submitted_s, 0.0, 0, None, None)


def _timeout_s(look_again_s: float | None) -> float | None:
    return None if look_again_s is None else max(0.0, look_again_s - time.monotonic())
