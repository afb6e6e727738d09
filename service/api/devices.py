"""The devices as an API process knows them: for each its slots, the estimates, and the connection to the worker.

Every device has slots of its own, so a device that hangs cannot use up the slots of the others.
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
    """One device: the slots, estimates and worker connection that this process has for it."""

    slots: Slots
    estimates: InstanceEstimates
    client: WorkerClient


class Devices:
    """All devices of one API process; only the event loop of that process may call it."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self.by_name = dict(devices)

    @property
    def is_connected(self) -> bool:
        """Whether at least one worker is connected."""
        return any(device.client.is_connected for device in self.by_name.values())

    def follow(self, catalog: Catalog) -> None:
        """Connects to the sockets that the catalog names, and forgets instances that it no longer lists."""
        for status in catalog.devices:
            self.by_name[status.device].client.follow(status.socket_path)
        known = {instance.instance_id for version in catalog.versions for instance in version.instances}
        for device in self.by_name.values():
            device.estimates.keep_only(known)

    async def run(self) -> None:
        """Keeps all connections open until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for device in self.by_name.values():
                tasks.create_task(device.client.run())

    async def wait_connected(self, names: Sequence[str], within_s: float) -> None:
        """Waits until each of these devices was connected once, or `within_s` seconds have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for name in names:
                    await self.by_name[name].client.connected.wait()
