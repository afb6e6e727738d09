"""Admission: gives a request the instance that answers it and permits for its images, or refuses it.

`Admission.admit` decides when a request's images are known. While its body is still to come, `Admission.ensure_room`
refuses by the same rules (`admission_rules.py`) what could enter nowhere, so that it is not uploaded.

Every API process knows only its own requests. That is enough: what others send shows in how long answers take, and in
how long workers say that a newcomer would wait.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Sequence

import msgspec

from saccade.service.api.admission_rules import Offer, Urgency, WaitBounds, best_offer, open_offers, roomy_offers
from saccade.service.api.cancellation import ClientWatch
from saccade.service.api.devices import Device, Devices
from saccade.service.api.slots import Permit
from saccade.service.errors import ClientLeft, DeadlineExceeded
from saccade.service.ipc.messages import InstanceStatus


class Admitted(msgspec.Struct, frozen=True):
    """The instance that answers the images of one request, its device, and permits for the first of the images."""

    instance: InstanceStatus
    device: Device
    permits: list[Permit]
    expected_s: float = 0.0  # from now to the answer

    async def next_permit(self, client: ClientWatch, deadline_s: float) -> Permit:
        """Waits for a slot for an image without a permit. Raises DeadlineExceeded, ClientLeft or WorkerLost."""
        waiting = self.device.slots.next_permit(self.instance.instance_id)

        def give_up() -> None:
            if not waiting.done():
                waiting.set_exception(ClientLeft("the client closed the connection"))

        client.begin(give_up)
        try:
            async with asyncio.timeout(deadline_s - time.monotonic()):
                return await waiting
        except (TimeoutError, asyncio.CancelledError) as error:
            # The permit may have arrived at the same moment.
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                waiting.result().release()
            if not isinstance(error, TimeoutError):
                raise
            text = "the deadline passed before the image got its turn; send fewer images at once"
            raise DeadlineExceeded(text) from None
        finally:
            client.end(give_up)


_ANY_TIME = Urgency()
_NO_BOUNDS = WaitBounds()


class Admission:
    """Admits the requests of one API process; only the event loop of that process may call it."""

    def __init__(self, devices: Devices, bounds: WaitBounds = _NO_BOUNDS) -> None:
        """Requests that would be late, or wait beyond `bounds`, are refused."""
        self._devices = devices.by_name
        self._bounds = bounds
        self._request_numbers = itertools.count()

    def ensure_room(self, instances: Sequence[InstanceStatus], urgency: Urgency) -> None:
        """Checks, before any work on a request, that an instance could take it. Raises NotReady or Overloaded."""
        open_offers(self._offers(instances), urgency, self._bounds)

    def admit(self, instances: Sequence[InstanceStatus], image_count: int, urgency: Urgency = _ANY_TIME) -> Admitted:
        """Returns the instance that answers, with a permit for every image, or for as many as there are slots.

        Raises NotReady when no worker is there, Overloaded when all instances are full or the request would be late
        on each.
        """
        offers = open_offers(self._offers(instances), urgency, self._bounds)
        if len(offers) > 1:
            offers = roomy_offers(offers, image_count, urgency.priority)
        offer = offers[0]
        if len(offers) > 1:
            outstanding_s = {name: self._outstanding_s(name) for name in {item.instance.device for item in offers}}
            offer = best_offer(offers, outstanding_s, image_count, next(self._request_numbers))
        device = self._devices[offer.instance.device]
        count = min(image_count, offer.slots_for(urgency.priority))
        expected_s = max(urgency.decode_wait_s, offer.wait.wait_s) + urgency.decode_s + offer.wait.run_s
        return Admitted(offer.instance, device, device.slots.take(count, offer.instance.instance_id), expected_s)

    def expected_wait_s(self, instances: Sequence[InstanceStatus], image_count: int) -> float:
        """Estimates the seconds until one of these instances could have answered, from what this process knows.

        The estimate is infinite when each instance would refuse now, and 0 without any worker, because `admit` then
        refuses.
        """
        return min((self._done_s(offer, image_count) for offer in self._offers(instances)), default=0.0)

    def _done_s(self, offer: Offer, image_count: int) -> float:
        wait_s = offer.wait.wait_s
        if offer.free_slots == 0 or 0 < self._bounds.max_wait_s < wait_s:
            return math.inf
        return max(wait_s, self._outstanding_s(offer.instance.device)) + image_count * (offer.image_s or 0.0)

    def _outstanding_s(self, name: str) -> float:
        device = self._devices[name]
        return device.estimates.outstanding_s(device.slots.in_flight)

    def _offers(self, instances: Sequence[InstanceStatus]) -> list[Offer]:
        """Describes what each instance has for a request now; instances without a connected worker are left out."""
        return [self._offer(item) for item in instances if self._devices[item.device].client.is_connected]

    def _offer(self, instance: InstanceStatus) -> Offer:
        device, key = self._devices[instance.device], instance.instance_id
        slots, estimates = device.slots, device.estimates
        wait = estimates.wait(key, slots.in_flight[key], time.monotonic())
        return Offer(instance, slots.free, slots.count, wait, estimates.image_s(key))
