"""The devices as an API process knows them: its slots there, what it expects of them, and connections to their workers.

Every device has slots of its own, so a device that hangs cannot take those of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from saccade.service.api.instance_estimates import InstanceEstimates
from saccade.service.api.slots import Slots
from saccade.service.api.worker_client import WorkerClient
from saccade.service.ipc.messages import Catalog


class Device(msgspec.Struct, frozen=True):
    """What this process has of one device."""

    slots: Slots
    estimates: InstanceEstimates
    client: WorkerClient


class Devices:
    """All devices. They belong to the event loop of their process."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self.by_name = dict(devices)

    @property
    def is_connected(self) -> bool:
        """To one worker at least."""
        return any(device.client.is_connected for device in self.by_name.values())

    def follow(self, catalog: Catalog) -> None:
        """Connects to where the workers listen now, and forgets instances that are gone."""
        for status in catalog.devices:
            self.by_name[status.device].client.follow(status.socket_path)
        known = {instance.instance_id for version in catalog.versions for instance in version.instances}
        for device in self.by_name.values():
            device.estimates.keep_only(known)

    async def run(self) -> None:
        """Keeps all connections; runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for device in self.by_name.values():
                tasks.create_task(device.client.run())

    async def wait_connected(self, names: Sequence[str], within_s: float) -> None:
        """Until each of these devices was connected once, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for name in names:
                    await self.by_name[name].client.connected.wait()
