"""A running device loop that a test submits to. Promises: everything reported is kept, and nothing twice."""

from __future__ import annotations

import threading
import time
from typing import Generic, Protocol, TypeVar

from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.base import Backend
from saccade.service.ipc.tensor_slots import SlotArena, layout_of
from saccade.service.worker.device_loop import DeviceLoop
from saccade.service.worker.instances import Finished, LoadedInstance, Work
from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.latency_model import LatencyModel
from tests.unit.service.worker.scripted_backend import TIMEOUT_S


class Gated(Backend, Protocol):
    """A scripted backend."""

    gate: threading.Event
    started: threading.Semaphore


BackendT = TypeVar("BackendT", bound=Gated)

LAYOUT = layout_of(
    TensorSpec(name="images", dtype="uint8", shape=(4,)), (TensorSpec(name="answer", dtype="int32", shape=(1,)),)
)
FAR_S = 3600.0


class LoopingWorker(Generic[BackendT]):
    """A running device loop with one instance, number 1, and everything it reported."""

    def __init__(self, arena: SlotArena, backend: BackendT, latency: LatencyModel | None = None) -> None:
        self._arena = arena
        self._changed = threading.Condition()
        self._reports: list[Finished] = []
        self.observed: list[tuple[int, int]] = []
        self.backend = backend
        self.error: BaseException | None = None
        self.latency = latency or LatencyModel()
        self.loop = DeviceLoop(self._report, lambda answer: answer(), self._observe)
        self.loop.add(1, LoadedInstance(self.backend, LAYOUT, BatchLimits((1, 2, 4), 0.0), self.latency))
        self._thread = threading.Thread(target=self._run)
        self._ids = iter(range(100))

    def _run(self) -> None:
        try:
            self.loop.run()
        except BaseException as error:  # what the worker process would end with
            self.error = error

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Waits for the loop's end without asking for it."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        """Waits for the loop's end."""
        self.backend.gate.set()
        self.loop.stop()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def _report(self, batch: list[Finished]) -> None:
        with self._changed:
            self._reports.extend(batch)
            self._changed.notify_all()

    def _observe(self, instance_id: int, batch_size: int) -> None:
        self.observed.append((instance_id, batch_size))

    def submit(
        self,
        value: int,
        *,
        instance_id: int = 1,
        allowed_s: float = FAR_S,
        connection: object = "api",
        rank_offset_s: float = 0.0,
        asked: int = 0,
    ) -> int:
        """Submits an image of one value; returns the request id, which is also its slot."""
        request_id = next(self._ids)
        self._arena.tensor(request_id, LAYOUT.input)[...] = value
        now_s = time.monotonic()
        place = (self._arena, request_id, request_id, instance_id)
        self.loop.submit(Work(connection, *place, now_s + allowed_s, now_s, rank_offset_s=rank_offset_s, asked=asked))
        return request_id

    def hold_with(self, value: int) -> int:
        """Submits an image and returns once the device runs it and stays at it."""
        self.backend.gate.clear()
        request_id = self.submit(value)
        assert self.backend.started.acquire(timeout=TIMEOUT_S)
        return request_id

    def outcomes(self, count: int) -> dict[int, Finished]:
        """All reports, once there are `count`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._reports) >= count, TIMEOUT_S)
            found = list(self._reports)
        by_id = {finished.work.request_id: finished for finished in found}
        assert len(by_id) == len(found) == count, "a request was reported more than once"
        return by_id

    def statuses(self, count: int) -> dict[int, int]:
        return {request_id: finished.status for request_id, finished in self.outcomes(count).items()}
