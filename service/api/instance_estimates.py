"""Estimates, for one device, how long a new request waits at each instance and how fast each instance is.

A worker reports with every answer how long a new request would wait. Between answers that figure shrinks as time
passes, and grows by what this process has sent since or still decodes. A wrong estimate therefore cannot refuse
requests for ever: without answers it falls to zero within the time that it names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set

import msgspec

from saccade.service.api.decoding_share import DeviceDecoding
from saccade.service.ipc.messages import Done
from saccade.service.running_figures import RunningMean

_LATEST_SHARE = 0.2  # weight of the newest answer: follows a change within some ten batches
UNMEASURED_IMAGE_S = 0.01  # before the first answer of any instance; a usual batch of one on any device


class Wait(msgspec.Struct, frozen=True):
    """The expected wait before a new request's run at an instance, and the expected length of the run, in seconds."""

    wait_s: float
    run_s: float


_UNKNOWN = Wait(0.0, 0.0)


class _Estimate(msgspec.Struct):
    run_s: RunningMean
    image_s: RunningMean  # seconds of a run divided by its number of images
    said_wait_s: float = 0.0  # the worker's latest report
    said_image_s: float = 0.0  # what each further image adds to that wait
    said_at_s: float = 0.0
    sent_since: int = 0


class InstanceEstimates:
    """The estimates of one device's instances, by instance number; only the event loop of the process may call it."""

    def __init__(self, senders: int = 1) -> None:
        """`senders` is the number of API processes; each is assumed to send as many requests as this one does."""
        self._senders = senders
        self._estimates: dict[int, _Estimate] = {}
        self._unanswered: Counter[int] = Counter()
        self.decoding = DeviceDecoding(senders)

    def sent(self, instance_id: int, *, is_jpeg: bool = False) -> None:
        """Records that an image was sent to the worker, as a JPEG or as pixels."""
        self.decoding.sent(is_jpeg=is_jpeg)
        self._unanswered[instance_id] += 1
        if instance_id in self._estimates:
            self._estimates[instance_id].sent_since += 1

    def answered(self, instance_id: int, done: Done, now_s: float, *, was_jpeg: bool = False) -> None:
        """Records that the worker answered a request, whether or not the request ran."""
        if was_jpeg:
            self.decoding.answered(done)
        self._unanswered[instance_id] -= 1
        if self._unanswered[instance_id] == 0:
            del self._unanswered[instance_id]
        estimate = self._estimates.get(instance_id)
        if estimate is None:
            estimate = _Estimate(RunningMean(_LATEST_SHARE), RunningMean(_LATEST_SHARE))
            self._estimates[instance_id] = estimate
        estimate.said_wait_s, estimate.said_image_s = done.wait_s, done.image_s
        estimate.said_at_s, estimate.sent_since = now_s, 0
        run_s = done.decode_s + done.infer_s
        if run_s:
            estimate.run_s.add(run_s)
        if done.batch_size >= 1:
            estimate.image_s.add(run_s / done.batch_size)

    def wait(self, instance_id: int, in_flight: int, now_s: float) -> Wait:
        """Estimates a new request's wait; `in_flight` counts this process's requests with a slot for this instance."""
        estimate = self._estimates.get(instance_id)
        if estimate is None:
            return _UNKNOWN
        before_worker = max(0, in_flight - self._unanswered[instance_id])
        left_s = max(0.0, estimate.said_wait_s - (now_s - estimate.said_at_s))
        unsaid = (before_worker + estimate.sent_since) * self._senders
        return Wait(left_s + unsaid * estimate.said_image_s, estimate.run_s.value or 0.0)

    def image_s(self, instance_id: int) -> float | None:
        """Returns the expected seconds per image; None before the first image of this instance ran."""
        estimate = self._estimates.get(instance_id)
        return None if estimate is None else estimate.image_s.value

    def outstanding_s(self, in_flight: Mapping[int, int]) -> float:
        """Returns the expected seconds for the images in flight, which are counted by instance.

        An instance without a measurement counts like the fastest measured one.
        """
        image_s = {instance_id: self.image_s(instance_id) for instance_id in in_flight}
        fastest_s = min((value for value in image_s.values() if value is not None), default=UNMEASURED_IMAGE_S)
        return sum(
            count * (fastest_s if (known_s := image_s[instance_id]) is None else known_s)
            for instance_id, count in in_flight.items()
        )

    def keep_only(self, instance_ids: Set[int]) -> None:
        """Forgets instances that no longer exist; instance numbers are never used again."""
        self._estimates = {key: value for key, value in self._estimates.items() if key in instance_ids}

    def clear(self) -> None:
        """Forgets everything, because a new worker has replaced the old one."""
        self._estimates.clear()
        self._unanswered.clear()
        self.decoding.clear()
