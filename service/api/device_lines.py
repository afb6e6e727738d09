"""An API process's lines to all device workers. Promises: a request gets slots and an instance on one device, or 429.

Every device has slots of its own, so a device that stands still cannot take those of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from saccade.service.api.admission import Admission, Gauge, Permit
from saccade.service.api.dispatch import Candidate, SpeedEstimates, choose_instance
from saccade.service.api.priority import SLOTS_LEFT
from saccade.service.api.waits import Urgency, WaitBounds, excess_s
from saccade.service.api.worker_client import WorkerClient
from saccade.service.errors import NotReady, Overloaded
from saccade.service.ipc.messages import Catalog, Done, InstanceStatus

_RETRY_AFTER_S = 1.0  # a full set of slots drains within a second on every model shipped here

_ANY_TIME = Urgency()
_NO_BOUNDS = WaitBounds()


_SHOWN_EVERY_S = 0.05  # a gauge is written to a file that other processes read: too dear for every request


class SharedGauge:
    """One gauge for the slots of several devices: shows their sum."""

    def __init__(self, gauge: Gauge, later: Callable[[Callable[[], None]], object] = lambda show: show()) -> None:
        """`later` calls what it is given, once, soon; see `a_moment_later`."""
        self._gauge = gauge
        self._later = later
        self._values: dict[str, float] = {}
        self._is_due = False

    def part(self, device: str) -> Gauge:
        return _Part(self, device)

    def set_part(self, device: str, value: float) -> None:
        self._values[device] = value
        if not self._is_due:
            self._is_due = True
            self._later(self._show)

    def _show(self) -> None:
        self._is_due = False
        self._gauge.set(sum(self._values.values()))


def a_moment_later(show: Callable[[], None]) -> None:
    """In the running event loop."""
    asyncio.get_running_loop().call_later(_SHOWN_EVERY_S, show)


class _Part(msgspec.Struct, frozen=True):
    whole: SharedGauge
    device: str

    def set(self, value: float) -> None:
        self.whole.set_part(self.device, value)


class Submitter(Protocol):
    """What a request needs of a worker client."""

    def submit(
        self, permit: Permit, instance_id: int, deadline_s: float, encoded_bytes: int = 0, rank_offset_s: float = 0.0
    ) -> tuple[int, asyncio.Future[Done]]: ...

    def cancel(self, request_id: int) -> None: ...


class DeviceLine(msgspec.Struct, frozen=True):
    """One device: its slots and the connection to its worker."""

    admission: Admission
    client: WorkerClient


class Assignment(msgspec.Struct, frozen=True):
    """Where the images of one request go, and permits for the first of them."""

    instance: InstanceStatus
    worker: Submitter
    permits: list[Permit]
    admission: Admission
    speeds: SpeedEstimates

    def observe(self, done: Done) -> None:
        self.speeds.observe(self.instance.instance_id, done.decode_s + done.infer_s, done.batch_size)


class DeviceLines:
    """Lines by device name. Belongs to the event loop of its process."""

    def __init__(self, lines: Mapping[str, DeviceLine], bounds: WaitBounds = _NO_BOUNDS) -> None:
        """Requests that would be late, or wait beyond `bounds`, are refused."""
        self._lines = dict(lines)
        self._bounds = bounds
        self._speeds = SpeedEstimates()
        self._turns = itertools.count()

    @property
    def is_connected(self) -> bool:
        """To one worker at least."""
        return any(line.client.is_connected for line in self._lines.values())

    def follow(self, catalog: Catalog) -> None:
        """Where the workers listen now."""
        for device in catalog.devices:
            self._lines[device.device].client.follow(device.socket_path)
        known = {instance.instance_id for version in catalog.versions for instance in version.instances}
        self._speeds.keep_only(known)
        for line in self._lines.values():
            line.admission.waits.keep_only(known)

    async def run(self) -> None:
        """Keeps all connections; runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for line in self._lines.values():
                tasks.create_task(line.client.run())

    async def wait_connected(self, devices: Sequence[str], within_s: float) -> None:
        """Until each of these devices was connected once, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for device in devices:
                    await self._lines[device].client.connected.wait()

    def ensure_room(self, instances: Sequence[InstanceStatus], urgency: Urgency) -> None:
        """Before any work on a request. Raises NotReady, or Overloaded when none of these instances could take it."""
        refusals: list[Overloaded] = []
        for instance in self._connected(instances):
            refusal = self._refusal(instance, urgency)
            if refusal is None:
                return
            refusals.append(refusal)
        raise min(refusals, key=lambda refusal: refusal.retry_after_s)

    def assign(self, instances: Sequence[InstanceStatus], image_count: int, urgency: Urgency = _ANY_TIME) -> Assignment:
        """The instance that answers, with a permit for every image, or for as many as there are slots.

        All images of a request go to one device. Raises NotReady when no worker of the instances is there, Overloaded
        when none of those that are has a slot free, or could answer in time.
        """
        there = self._connected(instances)
        refusals = {item.instance_id: self._refusal(item, urgency) for item in there}
        open_ones = [item for item in there if refusals[item.instance_id] is None]
        if not open_ones:
            raise min(filter(None, refusals.values()), key=lambda refusal: refusal.retry_after_s)
        left_free = SLOTS_LEFT[urgency.priority]
        roomy = [item for item in open_ones if self._room(item, image_count, left_free) == image_count]
        if not roomy:
            roomy = [max(open_ones, key=lambda item: self._room(item, image_count, left_free))]
        instance = self._choose(roomy, image_count)
        line = self._lines[instance.device]
        permits = line.admission.admit(image_count, _RETRY_AFTER_S, instance.instance_id, left_free)
        return Assignment(instance, line.client, permits, line.admission, self._speeds)

    def _connected(self, instances: Sequence[InstanceStatus]) -> list[InstanceStatus]:
        there = [item for item in instances if self._lines[item.device].client.is_connected]
        if not there:
            raise NotReady("the device worker is restarting; retry shortly")
        return there

    def _room(self, instance: InstanceStatus, image_count: int, left_free: float) -> int:
        return self._lines[instance.device].admission.room_for(image_count, left_free)

    def _refusal(self, instance: InstanceStatus, urgency: Urgency) -> Overloaded | None:
        """Why this instance cannot take a request; None: it can."""
        admission = self._lines[instance.device].admission
        key = instance.instance_id
        wait = admission.waits.wait(key, admission.in_flight[key], time.monotonic())
        if admission.room_for(1, SLOTS_LEFT[urgency.priority]) == 0:
            return admission.refusal(1, max(_RETRY_AFTER_S, wait.wait_s))
        over_s = excess_s(urgency, wait, self._bounds)
        if over_s <= 0:
            return None
        wait_s = max(wait.wait_s, urgency.decode_wait_s)
        return Overloaded(
            f"a request would wait about {1000 * wait_s:.0f} ms for the device now, too long for its deadline or for "
            "SACCADE_MAX_ESTIMATED_WAIT_MS; retry later, or allow it more time with deadline_ms",
            over_s,
            "wait",
        )

    def expected_wait_s(self, instances: Sequence[InstanceStatus], image_count: int) -> float:
        """Seconds until one of these instances could have answered, by what this process knows.

        Infinite when each would refuse now; 0 where no worker is there, so that `assign` says so.
        """
        there = [item for item in instances if self._lines[item.device].client.is_connected]
        if not there:
            return 0.0
        return min(self._done_s(item, image_count) for item in there)

    def _done_s(self, instance: InstanceStatus, image_count: int) -> float:
        admission = self._lines[instance.device].admission
        key = instance.instance_id
        own_s = image_count * (self._speeds.image_s(key) or 0.0)
        wait = admission.waits.wait(key, admission.in_flight[key], time.monotonic())
        if admission.free == 0 or 0 < self._bounds.max_wait_s < wait.wait_s:
            return math.inf
        return max(wait.wait_s, self._speeds.outstanding_s(admission.in_flight)) + own_s

    def _choose(self, instances: Sequence[InstanceStatus], image_count: int) -> InstanceStatus:
        if len(instances) == 1:
            return instances[0]
        by_id = {item.instance_id: item for item in instances}
        candidates = [Candidate(item.device, key, self._speeds.image_s(key)) for key, item in by_id.items()]
        outstanding_s = {
            item.device: self._speeds.outstanding_s(self._lines[item.device].admission.in_flight) for item in instances
        }
        return by_id[choose_instance(candidates, outstanding_s, image_count, next(self._turns)).instance_id]
