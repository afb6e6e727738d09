"""What an API process expects of the instances on one device: how long a newcomer waits there, and how fast they are.

A worker says with every answer how long a newcomer would wait. Between answers that figure shrinks as time passes, and
grows by what this process has sent since or still decodes. So a wrong estimate cannot refuse requests for ever: without
answers it is gone after as long as it said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set

import msgspec

from saccade.service.ipc.messages import Done
from saccade.service.running_mean import RunningMean

_LATEST_SHARE = 0.2  # weight of the newest answer: follows a change within some ten batches
UNMEASURED_IMAGE_S = 0.01  # before the first answer of any instance; a usual batch of one on any device


class Wait(msgspec.Struct, frozen=True):
    """What a request would find at an instance."""

    wait_s: float  # before its run
    run_s: float


_UNKNOWN = Wait(0.0, 0.0)


class _Estimate(msgspec.Struct):
    run_s: RunningMean
    image_s: RunningMean  # a run's seconds by its images
    said_wait_s: float = 0.0
    said_image_s: float = 0.0  # what each further image adds to the wait
    said_at_s: float = 0.0
    sent_since: int = 0


class InstanceEstimates:
    """The instances of one device, by number. They belong to the event loop of their process."""

    def __init__(self, senders: int = 1) -> None:
        """`senders` processes send to the device, this one included, each taken to send what this one does."""
        self._senders = senders
        self._estimates: dict[int, _Estimate] = {}
        self._unanswered: Counter[int] = Counter()

    def sent(self, instance_id: int) -> None:
        """A request went to the worker."""
        self._unanswered[instance_id] += 1
        if instance_id in self._estimates:
            self._estimates[instance_id].sent_since += 1

    def answered(self, instance_id: int, done: Done, now_s: float) -> None:
        """The worker answered a request, whether or not it ran."""
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
        """For a newcomer; `in_flight` are this process's requests that hold a slot for this instance."""
        estimate = self._estimates.get(instance_id)
        if estimate is None:
            return _UNKNOWN
        before_worker = max(0, in_flight - self._unanswered[instance_id])
        left_s = max(0.0, estimate.said_wait_s - (now_s - estimate.said_at_s))
        unsaid = (before_worker + estimate.sent_since) * self._senders
        return Wait(left_s + unsaid * estimate.said_image_s, estimate.run_s.value or 0.0)

    def image_s(self, instance_id: int) -> float | None:
        """Expected seconds per image; None before an image of this instance ran."""
        estimate = self._estimates.get(instance_id)
        return None if estimate is None else estimate.image_s.value

    def outstanding_s(self, in_flight: Mapping[int, int]) -> float:
        """Expected seconds for images in flight, counted by instance; the unmeasured count like the fastest."""
        image_s = {instance_id: self.image_s(instance_id) for instance_id in in_flight}
        fastest_s = min((value for value in image_s.values() if value is not None), default=UNMEASURED_IMAGE_S)
        return sum(
            count * (fastest_s if (known_s := image_s[instance_id]) is None else known_s)
            for instance_id, count in in_flight.items()
        )

    def keep_only(self, instance_ids: Set[int]) -> None:
        """Forgets instances that are gone; their numbers never come back."""
        self._estimates = {key: value for key, value in self._estimates.items() if key in instance_ids}

    def clear(self) -> None:
        """Forgets all: a new worker listens."""
        self._estimates.clear()
        self._unanswered.clear()
