"""An API process's lines to all device workers. Promises: a request gets slots and an instance on one device, or 429.

Every device has slots of its own, so a device that stands still cannot take those of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.errors import NotReady
from service.scheduling.admission import Admission, Gauge, Permit
from service.scheduling.dispatch import Candidate, SpeedEstimates, choose_instance
from service.workers.messages import Catalog, Done, InstanceStatus
from service.workers.worker_client import WorkerClient

_RETRY_AFTER_S = 1.0  # a full set of slots drains within a second on every model shipped here


class SharedGauge:
    """One gauge for the slots of several devices: shows their sum."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._values: dict[str, float] = {}

    def part(self, device: str) -> Gauge:
        return _Part(self, device)

    def set_part(self, device: str, value: float) -> None:
        self._values[device] = value
        self._gauge.set(sum(self._values.values()))


@dataclass(frozen=True, slots=True)
class _Part:
    whole: SharedGauge
    device: str

    def set(self, value: float) -> None:
        self.whole.set_part(self.device, value)


class Submitter(Protocol):
    """What a request needs of a worker client."""

    def submit(
        self, permit: Permit, instance_id: int, deadline_s: float, encoded_bytes: int = 0
    ) -> tuple[int, asyncio.Future[Done]]: ...

    def cancel(self, request_id: int) -> None: ...


@dataclass(frozen=True, slots=True)
class DeviceLine:
    """One device: its slots and the connection to its worker."""

    admission: Admission
    client: WorkerClient


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where the images of one request go, and a permit for each."""

    instance: InstanceStatus
    worker: Submitter
    permits: list[Permit]
    speeds: SpeedEstimates

    def observe(self, done: Done) -> None:
        self.speeds.observe(self.instance.instance_id, done.decode_s + done.infer_s, done.batch_size)


class DeviceLines:
    """Lines by device name. Belongs to the event loop of its process."""

    def __init__(self, lines: Mapping[str, DeviceLine]) -> None:
        self._lines = dict(lines)
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
        self._speeds.keep_only(instance.instance_id for version in catalog.versions for instance in version.instances)

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

    def assign(self, instances: Sequence[InstanceStatus], image_count: int) -> Assignment:
        """The instance that answers, with a permit for every image.

        All images of a request go to one device. Raises NotReady when no worker of the instances is there, Overloaded
        when none of those that are has so many slots free.
        """
        there = [item for item in instances if self._lines[item.device].client.is_connected]
        if not there:
            raise NotReady("the device worker is restarting; retry shortly")
        free = [item for item in there if self._lines[item.device].admission.free >= image_count]
        instance = self._choose(free or there, image_count)
        line = self._lines[instance.device]
        permits = line.admission.admit(image_count, _RETRY_AFTER_S, instance.instance_id)
        return Assignment(instance, line.client, permits, self._speeds)

    def expected_wait_s(self, instances: Sequence[InstanceStatus], image_count: int) -> float:
        """Seconds until one of these instances could have answered, by what this process knows.

        Infinite when none has so many slots free; 0 where no worker is there, so that `assign` says so.
        """
        there = [item for item in instances if self._lines[item.device].client.is_connected]
        if not there:
            return 0.0
        return min(self._done_s(item, image_count) for item in there)

    def _done_s(self, instance: InstanceStatus, image_count: int) -> float:
        admission = self._lines[instance.device].admission
        if admission.free < image_count:
            return math.inf
        image_s = self._speeds.image_s(instance.instance_id) or 0.0
        return self._speeds.outstanding_s(admission.in_flight) + image_count * image_s

    def _choose(self, instances: Sequence[InstanceStatus], image_count: int) -> InstanceStatus:
        if len(instances) == 1:
            return instances[0]
        by_id = {item.instance_id: item for item in instances}
        candidates = [Candidate(item.device, key, self._speeds.image_s(key)) for key, item in by_id.items()]
        outstanding_s = {
            item.device: self._speeds.outstanding_s(self._lines[item.device].admission.in_flight) for item in instances
        }
        return by_id[choose_instance(candidates, outstanding_s, image_count, next(self._turns)).instance_id]
